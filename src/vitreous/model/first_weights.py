"""The weights that training starts from: one rule for each parameter, found by its name."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

_POSITION_STD = 0.02
_MLP_BIAS_STD = 1e-6
TOKENS_AND_POSITIONS = {
    "pos_embed", "pos_embed_rows", "pos_embed_columns", "relative_keys", "relative_position_bias_table",
    "cls_token", "reg_token", "dist_token", "mask_token", "latent",
}  # fmt: skip
"""Last part of the names of tables that are added to tokens, or are tokens: they multiply nothing."""


@torch.no_grad()
def draw_first_weights(
    model: nn.Module, layer_scale: float | None = None, generator: torch.Generator | None = None
) -> None:
    """Draws all weights of a `VisionTransformer` anew, in place, as the paper's code does.

    Head and class token are 0, so that a new model gives every class the same probability and its loss is
    ln(classes). Registers and the distillation token, which the paper has not, start as positions do: they differ
    from each other even in a model without positions. A stem's convolutions start as the patch embedding does.

    Args:
        model: a `VisionTransformer`, or a part of one with its parameters' full names.
        layer_scale: what the factors of layer scale start from.
        generator: where the draws come from, on the weights' device; torch's global one if None.

    Source: google-research/vision_transformer, `vit_jax/models_vit.py`, and Flax's own defaults.
    """
    for name, parameter in model.named_parameters():
        owner, _, kind = name.rpartition(".")
        layer = owner.rpartition(".")[2]
        if kind in TOKENS_AND_POSITIONS - {"cls_token"}:
            nn.init.normal_(parameter, std=_POSITION_STD, generator=generator)
        elif kind == "gamma":
            nn.init.constant_(parameter, 1.0 if layer_scale is None else layer_scale)
        elif kind == "bias" and ".mlp." in name:
            nn.init.normal_(parameter, std=_MLP_BIAS_STD, generator=generator)
        elif kind in ("cls_token", "bias") or layer in ("head", "head_dist"):
            nn.init.zeros_(parameter)
        elif layer == "norm3" and ".stages." in name:
            nn.init.zeros_(parameter)  # a new unit of the stem passes its input on
        elif "norm" in layer:
            nn.init.ones_(parameter)
        elif owner in ("patch_embed.proj", "pre_logits") or "conv" in layer:
            _variance_of_one_input(parameter, generator)
        elif layer == "qkv":
            for part in parameter.chunk(3):  # queries, keys and values are layers of their own in the paper's code
                nn.init.xavier_uniform_(part, generator=generator)
        else:
            nn.init.xavier_uniform_(parameter, generator=generator)


def _variance_of_one_input(weight: Tensor, generator: torch.Generator | None) -> None:
    """Normal with variance 1 / inputs after it is cut at two deviations; Flax's `lecun_normal`."""
    kept = 0.87962566103423978  # deviation of a standard normal that is cut at -2 and 2
    std = 1 / math.sqrt(weight[0].numel()) / kept
    nn.init.trunc_normal_(weight, std=std, a=-2 * std, b=2 * std, generator=generator)
