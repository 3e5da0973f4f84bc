"""Masked patch prediction: a Vision Transformer learns from images without labels, appendix B.1.2 of the paper.

Half of an image's embedded patches are corrupted: of these 80 % become a learned [mask] token, 10 % another patch's
embedding, 10 % stay as they are. From the last layer's token of each corrupted patch a linear head predicts what was
there:

    mean-colour   the patch's mean colour in 3 bits a channel: one of 512 classes, by cross-entropy
    small-patch   the 4 x 4 means of the patch in 3 bits a channel: 16 times one of 512 classes
    pixels        every pixel as the model sees it, by the squared error

What happens to an image depends on (seed, epoch, sample) alone, not on how a batch is split among processes. For the
same reason "another patch", of which the paper says no more, is another one of the same image.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vitreous.data.order import keyed_seed, uniform
from vitreous.data.preprocess import Preprocess
from vitreous.data.training_batches import TrainingBatch
from vitreous.errors import ConfigError
from vitreous.model.config import ViTConfig
from vitreous.model.vit import VisionTransformer
from vitreous.training.config import MaskedPatches

COLOURS = 512
"""Colours of 3 bits a channel."""

_FIRST_WEIGHTS, _CORRUPTION = 3, 4  # keep these draws apart from the model's first weights and from augmentation
_TOKEN_STD = 0.02  # of the [mask] token's first values, as of positions
_MASKED, _OTHER = 0.8, 0.9  # shares of corrupted patches, added up
_SIDE = 4  # of a small patch
_LEVELS, _LEVEL = 8, 32  # of a channel; bytes that a level has
_ROUNDING = 1e-3  # bytes: a mean that is a level's first byte must not fall below it by rounding


@dataclass(frozen=True)
class Corruption:
    """What happens to the patches of a batch.

    Attributes:
        chosen: (batch, corrupted) int64; the patches whose content is predicted.
        source: (batch, patches) int64; whose embedding each patch gets, mostly its own.
        masked: (batch, patches) bool; which become the [mask] token.
    """

    chosen: Tensor
    source: Tensor
    masked: Tensor

    def to(self, device: torch.device) -> Corruption:
        """The same on another device."""
        return Corruption(self.chosen.to(device), self.source.to(device), self.masked.to(device))


class LearnMaskedPatches:
    """The objective `masked-patches`; see the head of this file and `vitreous.training.objective.Objective`.

    Args:
        settings: what is hidden and predicted.
        patch_size: the model's, (patch_height, patch_width) in pixels.
        preprocess: what the images went through.
        seed: of the run.
    """

    def __init__(self, settings: MaskedPatches, patch_size: tuple[int, int], preprocess: Preprocess, seed: int) -> None:
        self._settings, self._patch_size, self._preprocess, self._seed = settings, patch_size, preprocess, seed

    def learner(self, model: VisionTransformer) -> nn.Module:
        """The model in a module with the [mask] token and the prediction head.

        Raises:
            ConfigError: if the model cannot learn so.
        """
        generator = torch.Generator().manual_seed(keyed_seed(self._seed, _FIRST_WEIGHTS))
        return MaskedPatchLearner(model, self._settings, generator=generator)

    def loss(self, learner: nn.Module, batch: TrainingBatch) -> tuple[Tensor, dict[str, Tensor]]:
        """See `Objective`; beside the loss `colour_top1`, the share of the patches' colours that were right."""
        images, settings, (height, width) = batch.images, self._settings, self._patch_size
        patches = (images.shape[-2] // height) * (images.shape[-1] // width)
        drawn = corrupt_patches(batch.samples.cpu(), patches, settings, seed=self._seed, epoch=batch.epoch)
        corruption = drawn.to(images.device)
        predicted = learner(images, corruption)
        if not len(batch.samples):
            return predicted.float().sum() * 0, self._counted(torch.zeros((), device=images.device))
        targets = masked_targets(images, self._patch_size, settings, self._preprocess)
        rows = torch.arange(len(images), device=images.device)[:, None]
        loss, right = masked_loss(predicted, targets[rows, corruption.chosen])
        return loss, self._counted(right * len(images))

    def _counted(self, right: Tensor) -> dict[str, Tensor]:
        return {} if self._settings.target == "pixels" else {"colour_top1": right}


class MaskedPatchLearner(nn.Module):
    """A Vision Transformer with what masked patch prediction adds to it: the [mask] token and the prediction head.

    Args:
        model: what is trained; weights of its own head, and of pooling, predict nothing and are frozen.
        settings: what is predicted.
        generator: where the [mask] token is drawn from, on the CPU; torch's global one if None. The prediction head
            starts at 0: every colour is as likely, and the first loss is ln 512.

    Raises:
        ConfigError: if the model has no blocks, or its patches do not divide into 4 x 4 parts where these are asked
            for.
    """

    def __init__(
        self, model: VisionTransformer, settings: MaskedPatches, *, generator: torch.Generator | None = None
    ) -> None:
        super().__init__()
        config = model.config
        _check(config, settings)
        self.model = model
        for part in (model.attn_pool, model.fc_norm, model.pre_logits, model.head, model.head_dist):
            for weight in part.parameters() if part is not None else ():
                weight.requires_grad_(False)
        after = config.has_norm_after_pooling
        device = model.patch_embed.proj.weight.device
        token = torch.empty(1, 1, config.width, device="cpu").normal_(std=_TOKEN_STD, generator=generator)
        self.mask_token = nn.Parameter(token.to(device))
        self.norm = nn.LayerNorm(config.width, eps=config.norm_eps, device=device) if after else nn.Identity()
        self.head = nn.utils.skip_init(nn.Linear, config.width, _outputs(config, settings), device=device)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def forward(self, images: Tensor, corruption: Corruption) -> Tensor:
        """What is predicted of the corrupted patches: (batch, corrupted, outputs).

        Outputs are 512 logits, 16 times 512, or the patch's numbers; see `masked_targets`.
        """

        def corrupt(patches: Tensor) -> Tensor:
            moved = patches.gather(1, corruption.source[..., None].expand_as(patches))
            return torch.where(corruption.masked[..., None], self.mask_token.to(moved.dtype), moved)

        sequence = self.model.forward_features(images, corrupt)
        patches = sequence[:, self.model.config.prefix :]
        chosen = patches.gather(1, corruption.chosen[..., None].expand(-1, -1, patches.shape[-1]))
        return self.head(self.norm(chosen))


def corrupt_patches(samples: Tensor, patches: int, settings: MaskedPatches, *, seed: int, epoch: int) -> Corruption:
    """What happens to the patches of some images.

    Exactly `share` of an image's patches, rounded, is corrupted, at least one; what becomes of each is drawn for it.

    Args:
        samples: (batch,) int64; indices into the data set.
        patches: of an image.
        settings: the share.
        seed: of the run.
        epoch: from 0.
    """
    draws = uniform(samples, 3 * patches, seed=keyed_seed(seed, _CORRUPTION), epoch=epoch)
    order, kind, other = draws.unflatten(1, (3, patches)).unbind(1)  # each (batch, patches)
    count = max(1, round(settings.share * patches))
    chosen = order.argsort(dim=1, stable=True)[:, :count].sort(dim=1).values  # (batch, corrupted)
    corrupted = torch.zeros(len(samples), patches, dtype=torch.bool).scatter_(1, chosen, value=True)
    own = torch.arange(patches).expand(len(samples), -1)
    steps = 1 + (other * max(patches - 1, 1)).long()  # from 1 to patches - 1: never the patch itself
    is_other = corrupted & (kind >= _MASKED) & (kind < _OTHER)
    source = torch.where(is_other, (own + steps) % patches, own)
    return Corruption(chosen, source, corrupted & (kind < _MASKED))


def masked_targets(
    images: Tensor, patch_size: tuple[int, int], settings: MaskedPatches, preprocess: Preprocess
) -> Tensor:
    """What is to be predicted of every patch.

    Args:
        images: (batch, 3, image_height, image_width), as the model sees them.
        patch_size: (patch_height, patch_width) in pixels.
        settings: the target.
        preprocess: undone, to have colours again.

    Returns:
        Of `mean-colour` (batch, patches) int64, red * 64 + green * 8 + blue, each the upper 3 bits of the mean byte; of
        `small-patch` (batch, patches, 16) int64, row by row; of `pixels` (batch, patches, 3 * patch_height *
        patch_width) float32, channel by channel, row by row.
    """
    if settings.target == "pixels":
        return F.unfold(images.float(), patch_size, stride=patch_size).transpose(1, 2)
    if settings.target == "mean-colour":
        means = F.avg_pool2d(images.float(), patch_size)  # (batch, 3, rows, columns)
        return _colours(means, preprocess).flatten(1)
    height, width = patch_size
    means = F.avg_pool2d(images.float(), (height // _SIDE, width // _SIDE))
    colours = _colours(means, preprocess)  # (batch, 4 * rows, 4 * columns)
    cut = colours.unflatten(2, (-1, _SIDE)).unflatten(1, (-1, _SIDE))  # (batch, rows, 4, columns, 4)
    return cut.transpose(2, 3).flatten(3).flatten(1, 2)


def masked_loss(predicted: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """How wrong the predictions of corrupted patches are, and the share of colours that are right.

    Args:
        predicted: (batch, corrupted, outputs).
        targets: of the same patches, as `masked_targets` makes them.

    Returns:
        Mean cross-entropy in nats of a colour, or mean squared error of a number; and the share, in [0, 1], of the
        colours that were the most likely ones. Of numbers the share is 0.
    """
    if targets.is_floating_point():
        return F.mse_loss(predicted.float(), targets), predicted.new_zeros(())
    logits = predicted.float().unflatten(-1, (-1, COLOURS)).flatten(0, 2)  # (colours, 512)
    right = (logits.argmax(-1) == targets.flatten()).float().mean()
    return F.cross_entropy(logits, targets.flatten()), right


def _check(config: ViTConfig, settings: MaskedPatches) -> None:
    if not config.depth:
        raise ConfigError("model.depth is 0; without blocks no patch can be told from others: use task 'classes'")
    if settings.target == "small-patch" and any(side % _SIDE for side in config.patch_size):
        raise ConfigError(
            f"masked.target is 'small-patch', 4 x 4 means of a patch, but model.patch_size is {config.patch_size}; "
            "take multiples of 4, or masked.target 'mean-colour'"
        )


def _colours(images: Tensor, preprocess: Preprocess) -> Tensor:
    """Colours in 3 bits a channel: (batch, 3, rows, columns) as the model sees them -> (batch, rows, columns) int64."""
    mean, std = (images.new_tensor(values)[:, None, None] for values in (preprocess.mean, preprocess.std))
    levels = ((images * std + mean) * 255 + _ROUNDING).div(_LEVEL).floor().clamp(0, _LEVELS - 1).long()
    red, green, blue = levels.unbind(1)
    return (red * _LEVELS + green) * _LEVELS + blue


def _outputs(config: ViTConfig, settings: MaskedPatches) -> int:
    if settings.target == "pixels":
        return 3 * math.prod(config.patch_size)
    return COLOURS * (_SIDE**2 if settings.target == "small-patch" else 1)
