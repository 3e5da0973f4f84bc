"""Attention seen in every family of models, against the family's own word for it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from vitreous.capture.watch import watch_attention
from vitreous.errors import CaptureError, NumericError
from vitreous.model.config import ViTConfig
from vitreous.model.vit import VisionTransformer
from vitreous.tokens import TokenLayout

SMALL = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}


@dataclass
class Family:
    """A model, an image for it, what is known of its tokens, and its own attention by another way."""

    model: nn.Module
    images: Tensor
    layout: TokenLayout
    own_attention: Callable[[nn.Module, Tensor], list[Tensor]]
    positions: tuple[int, int] | None = None  # grid of the position table


def run(model: nn.Module, images: Tensor) -> Tensor:
    output = model(images)
    return output if isinstance(output, Tensor) else output[0]


# --- each family's own word -------------------------------------------------------------------------------------------


def timm_softmax(model: nn.Module, images: Tensor) -> list[Tensor]:
    """timm's unfused path, read at the dropout after its softmax."""
    found: list[Tensor] = []
    blocks = [module for module in model.modules() if hasattr(module, "fused_attn") and hasattr(module, "attn_drop")]
    hooks = [block.attn_drop.register_forward_hook(lambda _m, _i, out: found.append(out)) for block in blocks]
    before = [block.fused_attn for block in blocks]
    try:
        for block in blocks:
            block.fused_attn = False
        model(images)
    finally:
        for block, fused, hook in zip(blocks, before, hooks, strict=True):
            block.fused_attn = fused
            hook.remove()
    return [one for one in found if one.shape[-1] == one.shape[-2]]


def hf_eager(model: Any, images: Tensor) -> list[Tensor]:
    """transformers' own eager maps."""
    before = model.config._attn_implementation
    model.set_attn_implementation("eager")
    try:
        return list(model(images, output_attentions=True).attentions)
    finally:
        model.set_attn_implementation(before)


def torch_weights(model: nn.Module, images: Tensor) -> list[Tensor]:
    """What nn.MultiheadAttention returns when asked for weights."""
    found: list[Tensor] = []

    def ask(module: nn.MultiheadAttention, args: Any, kwargs: Any) -> None:
        found.append(module(*args, **{**kwargs, "need_weights": True, "average_attn_weights": False})[1])

    attentions = [module for module in model.modules() if isinstance(module, nn.MultiheadAttention)]

    def only_once(module: nn.MultiheadAttention, args: Any, kwargs: Any) -> None:
        if not kwargs.get("average_attn_weights", True):
            return
        ask(module, args, kwargs)

    hooks = [module.register_forward_pre_hook(only_once, with_kwargs=True) for module in attentions]
    try:
        model(images)
    finally:
        for hook in hooks:
            hook.remove()
    return found


def lucidrains_softmax(model: nn.Module, images: Tensor) -> list[Tensor]:
    """The output of the softmax modules that vit-pytorch calls `attend`."""
    found: list[Tensor] = []
    hooks = [
        module.register_forward_hook(lambda _m, _i, out: found.append(out))
        for name, module in model.named_modules()
        if name.endswith("attend")
    ]
    try:
        model(images)
    finally:
        for hook in hooks:
            hook.remove()
    return found


def our_equations(model: nn.Module, images: Tensor) -> list[Tensor]:
    """Equations 5 to 7 of the paper's appendix A, from our own model's weights."""
    found: list[Tensor] = []
    assert isinstance(model, VisionTransformer)
    hooks = []
    for block in model.blocks:

        def attend(module: Any, args: Any, _: Any) -> None:
            sequence, _place = args
            heads = model.config.heads
            q, k, _v = module.qkv(sequence).unflatten(-1, (3, heads, -1)).permute(2, 0, 3, 1, 4)
            found.append((q @ k.mT / q.shape[-1] ** 0.5).softmax(-1))

        hooks.append(block.attn.register_forward_hook(attend))
    try:
        model(images)
    finally:
        for hook in hooks:
            hook.remove()
    return found


# --- the families -----------------------------------------------------------------------------------------------------


def timm_family(name: str, size: tuple[int, int], layout: TokenLayout, positions: Any = None, **options: Any) -> Family:
    timm = pytest.importorskip("timm")
    model = timm.create_model(name, depth=2, embed_dim=48, num_heads=4, img_size=size, **options)
    return Family(model, torch.randn(2, 3, *size), layout, timm_softmax, positions)


def hf_family(kind: str, size: int, layout: TokenLayout, positions: Any = None, **options: Any) -> Family:
    transformers = pytest.importorskip("transformers")
    config = getattr(transformers, f"{kind}Config")(image_size=size, **SMALL, **options)
    model = getattr(transformers, f"{kind}Model")(config)
    return Family(model, torch.randn(2, 3, size, size), layout, hf_eager, positions)


class PlainEncoder(nn.Module):
    """What people write themselves on top of nn.TransformerEncoder."""

    def __init__(self, norm_first: bool, batch_first: bool = True) -> None:
        super().__init__()
        self.patch = nn.Conv2d(3, 32, 16, 16)
        self.cls_token = nn.Parameter(torch.randn(1, 1, 32))
        self.pos_embedding = nn.Parameter(torch.randn(1, 17, 32))
        layer = nn.TransformerEncoderLayer(32, 4, 64, batch_first=batch_first, norm_first=norm_first)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.batch_first = batch_first

    def forward(self, images: Tensor) -> Tensor:
        patches = self.patch(images).flatten(2).transpose(1, 2)
        sequence = torch.cat([self.cls_token.expand(len(images), -1, -1), patches], 1) + self.pos_embedding
        if self.batch_first:
            return self.encoder(sequence)
        return self.encoder(sequence.transpose(0, 1)).transpose(0, 1)


def ours() -> Family:
    config = ViTConfig(image_size=(32, 64), patch_size=(8, 16), width=32, depth=2, heads=4, classes=3, registers=2)
    model = VisionTransformer(config, generator=torch.Generator().manual_seed(0))
    return Family(model, torch.randn(2, 3, 32, 64), TokenLayout(3, 4, 4, 8, 16, 0), our_equations, (4, 4))


def torchvision_family() -> Family:
    torchvision = pytest.importorskip("torchvision")
    model = torchvision.models.VisionTransformer(64, 16, 2, 4, 32, 64)
    nn.init.normal_(model.heads.head.weight)  # zero from the factory, which would hide any difference
    return Family(model, torch.randn(2, 3, 64, 64), TokenLayout(1, 4, 4, 16, 16, 0), torch_weights, (4, 4))


def vit_pytorch_family(kind: str, layout: TokenLayout) -> Family:
    vit_pytorch = pytest.importorskip("vit_pytorch")
    model = getattr(vit_pytorch, kind)(
        image_size=64, patch_size=16, num_classes=5, dim=32, depth=2, heads=4, mlp_dim=64
    )
    return Family(model, torch.randn(2, 3, 64, 64), layout, lucidrains_softmax, (4, 4))


FAMILIES: dict[str, Callable[[], Family]] = {
    "vitreous, registers, neither image nor patch square": ours,
    "timm, class token": lambda: timm_family("vit_tiny_patch16_224", (64, 64), TokenLayout(1, 4, 4, 16, 16, 0), (4, 4)),
    "timm, class token and registers": lambda: timm_family(
        "vit_small_patch14_reg4_dinov2", (56, 56), TokenLayout(5, 4, 4, 14, 14, 0), (4, 4)
    ),
    "timm, no class token": lambda: timm_family(
        "vit_tiny_patch16_224", (64, 64), TokenLayout(0, 4, 4, 16, 16), (4, 4), class_token=False, global_pool="avg"
    ),
    "timm, registers and no class token": lambda: timm_family(
        "vit_medium_patch16_reg4_gap_256", (64, 64), TokenLayout(4, 4, 4, 16, 16), (4, 4)
    ),
    "timm, image not square": lambda: timm_family(
        "vit_tiny_patch16_224", (32, 96), TokenLayout(1, 2, 6, 16, 16, 0), (2, 6)
    ),
    "timm, distilled": lambda: timm_family(
        "deit_tiny_distilled_patch16_224", (64, 64), TokenLayout(2, 4, 4, 16, 16, 0), (4, 4)
    ),
    "timm, EVA with rope": lambda: timm_family(
        "eva02_tiny_patch14_224", (56, 56), TokenLayout(1, 4, 4, 14, 14, 0), (4, 4)
    ),
    "timm, DINOv3 with rope and registers": lambda: timm_family(
        "vit_small_patch16_dinov3", (64, 64), TokenLayout(5, 4, 4, 16, 16, 0)
    ),
    "timm, SigLIP with attention pooling": lambda: timm_family(
        "vit_base_patch16_siglip_224", (64, 64), TokenLayout(0, 4, 4, 16, 16), (4, 4)
    ),
    "timm, BEiT with relative position bias": lambda: timm_family(
        "beit_base_patch16_224", (64, 64), TokenLayout(1, 4, 4, 16, 16, 0)
    ),
    "transformers, ViT": lambda: hf_family("ViT", 64, TokenLayout(1, 4, 4, 16, 16, 0), (4, 4)),
    "transformers, DeiT": lambda: hf_family("DeiT", 64, TokenLayout(2, 4, 4, 16, 16, 0), (4, 4)),
    "transformers, DINOv2": lambda: hf_family(
        "Dinov2", 56, TokenLayout(1, 4, 4, 14, 14, 0), (4, 4), patch_size=14, mlp_ratio=2
    ),
    "transformers, DINOv2 with registers": lambda: hf_family(
        "Dinov2WithRegisters", 56, TokenLayout(5, 4, 4, 14, 14, 0), (4, 4), patch_size=14, mlp_ratio=2
    ),
    "transformers, CLIP vision": lambda: hf_family(
        "CLIPVision", 64, TokenLayout(1, 4, 4, 16, 16, 0), (4, 4), patch_size=16
    ),
    "transformers, SigLIP": lambda: hf_family("SiglipVision", 64, TokenLayout(0, 4, 4, 16, 16), (4, 4), patch_size=16),
    "torchvision": torchvision_family,
    "nn.TransformerEncoder, norm first": lambda: Family(
        PlainEncoder(True), torch.randn(2, 3, 64, 64), TokenLayout(1, 4, 4, 16, 16, 0), torch_weights, (4, 4)
    ),
    "nn.TransformerEncoder, norm last": lambda: Family(
        PlainEncoder(False), torch.randn(2, 3, 64, 64), TokenLayout(1, 4, 4, 16, 16, 0), torch_weights, (4, 4)
    ),
    "nn.TransformerEncoder, tokens first": lambda: Family(
        PlainEncoder(True, False), torch.randn(2, 3, 64, 64), TokenLayout(1, 4, 4, 16, 16, 0), torch_weights, (4, 4)
    ),
    "vit-pytorch, ViT": lambda: vit_pytorch_family("ViT", TokenLayout(1, 4, 4, 16, 16, 0)),
    "vit-pytorch, SimpleViT": lambda: vit_pytorch_family("SimpleViT", TokenLayout(0, 4, 4, 16, 16)),
}


@pytest.fixture(params=FAMILIES, scope="module")
def family(request: pytest.FixtureRequest) -> Family:
    torch.manual_seed(0)
    made = FAMILIES[request.param]()
    made.model.eval()
    return made


@pytest.mark.filterwarnings("ignore:enable_nested_tensor is True:UserWarning")
@pytest.mark.parametrize("gradients", [False, True], ids=["without gradients", "with gradients"])
def test_the_models_own_attention_is_seen_and_its_output_keeps_every_bit(family: Family, gradients: bool) -> None:
    with torch.set_grad_enabled(gradients):
        plain = run(family.model, family.images)
        with watch_attention(family.model) as watched:
            output = run(family.model, family.images)
        again = run(family.model, family.images)
    assert torch.equal(plain, output) and torch.equal(plain, again)
    assert watched.layout == family.layout
    with torch.no_grad():
        own = family.own_attention(family.model, family.images)
    assert len(watched.layers) == len(own) == 2
    for operator, attention in zip(watched.layers, own, strict=True):
        assert operator.queries is not None, "held as queries and keys, not as a matrix"
        torch.testing.assert_close(operator.dense(), attention, rtol=1e-4, atol=1e-6)
    assert max(watched.errors) < 1e-5
    assert watched.kernel is not None
    assert tuple(watched.kernel.shape[1:]) == (3, family.layout.patch_height, family.layout.patch_width)
    positions = watched.positions()
    assert (None if positions is None else tuple(positions.table.shape[:2])) == family.positions


def test_the_sines_of_rotary_positions_are_no_table_though_as_wide_as_a_token() -> None:
    eva = pytest.importorskip("timm.models.eva")
    model = eva.Eva(
        img_size=16, patch_size=4, embed_dim=32, depth=1, num_heads=2, use_rot_pos_emb=True, use_abs_pos_emb=False
    )
    assert model.rope.pos_embed.shape == (16, 32)
    with watch_attention(model) as watched:
        model(torch.rand(2, 3, 16, 16))
    assert watched.positions() is None


def test_nothing_is_left_behind_when_the_pass_fails(family: Family) -> None:
    def snapshot() -> dict[str, Any]:
        return {
            name: {key: dict(value) if isinstance(value, dict) else value for key, value in vars(module).items()}
            for name, module in family.model.named_modules()
        }

    before, last = snapshot(), [module for module in family.model.modules() if isinstance(module, nn.LayerNorm)][-1]
    for gradients in (False, True):
        broken = last.register_forward_hook(lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError), torch.set_grad_enabled(gradients), watch_attention(family.model):
            run(family.model, family.images)
        broken.remove()
    assert snapshot() == before
    assert torch.overrides._get_current_function_mode_stack() == []


@pytest.mark.parametrize("name", ["timm, class token", "transformers, ViT", "torchvision", "vit-pytorch, ViT"])
def test_under_bf16_autocast_the_kernels_own_precision_is_held(name: str) -> None:
    torch.manual_seed(0)
    family = FAMILIES[name]()
    model = family.model.eval()
    for parameter, weight in model.named_parameters():
        if any(word in parameter for word in ("qkv", "query", "key", "q_proj", "k_proj", "in_proj_weight")):
            weight.data.mul_(4)  # first weights attend to all alike, which would hide any mistake
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        plain = run(model, family.images)
        with watch_attention(model) as watched:
            output = run(model, family.images)
    assert torch.equal(plain, output)
    with torch.no_grad():
        exact = family.own_attention(model, family.images)
    for operator, attention in zip(watched.layers, exact, strict=True):
        assert operator.queries is not None
        assert operator.queries.dtype == torch.bfloat16
        structure = (attention - 1 / attention.shape[-1]).abs().mean()  # what a map of equal shares would miss
        assert float((operator.dense() - attention).abs().mean()) < 0.05 * float(structure)  # 8 bits, two layers deep


def test_the_layers_can_be_taken_as_they_happen() -> None:
    family = ours()
    taken: list[tuple[int, TokenLayout]] = []
    model = family.model.eval()
    with watch_attention(model, on_attention=lambda layer, _, layout: taken.append((layer, layout))) as watched:
        model(family.images)
    assert taken == [(0, family.layout), (1, family.layout)] and watched.layers == []


def test_another_thread_is_not_watched() -> None:
    family = ours()
    model = family.model.eval()
    with watch_attention(model) as watched:
        other = threading.Thread(target=lambda: model(family.images))
        other.start()
        other.join()
        model(family.images)
    assert len(watched.layers) == 2


def test_a_table_that_was_resampled_keeps_its_own_grid() -> None:
    timm = pytest.importorskip("timm")
    model = timm.create_model("vit_tiny_patch16_224", depth=1, embed_dim=48, num_heads=4, dynamic_img_size=True).eval()
    with torch.no_grad(), watch_attention(model) as watched:
        model(torch.randn(1, 3, 112, 448))  # 7 x 28 patches: as many as the table's 14 x 14
    positions = watched.positions()
    assert (watched.layout.rows, watched.layout.columns) == (7, 28)
    assert positions is not None
    torch.testing.assert_close(positions.table.flatten(0, 1), model.pos_embed.detach()[0, 1:])
    assert tuple(positions.table.shape[:2]) == (14, 14)


def test_a_hybrid_counts_its_whole_stride_as_the_patch() -> None:
    timm = pytest.importorskip("timm")
    model = timm.create_model("vit_tiny_r_s16_p8_224", depth=1, embed_dim=48, num_heads=4).eval()
    with torch.no_grad(), watch_attention(model) as watched:
        model(torch.randn(1, 3, 224, 224))
    assert watched.layout == TokenLayout(1, 7, 7, 32, 32, 0)
    assert watched.kernel is not None and tuple(watched.kernel.shape[1:]) == (3, 7, 7)  # the root convolution's filters


@pytest.mark.parametrize("kind", ["ViT", "SimpleViT"])
def test_filters_of_a_linear_patch_embedding_are_put_back_into_image_order(kind: str) -> None:
    family = vit_pytorch_family(kind, TokenLayout(1, 4, 4, 16, 16, 0))
    model = family.model.eval()
    with torch.no_grad(), watch_attention(model) as watched:
        model(family.images)
    linear = next(m for m in model.to_patch_embedding if isinstance(m, nn.Linear))
    expected = linear.weight.detach().reshape(32, 16, 16, 3).permute(0, 3, 1, 2)  # its patches are (height, width, c)
    assert watched.kernel is not None and torch.equal(watched.kernel, expected)


# --- what is not shown, and says so -----------------------------------------------------------------------------------


class Spoilt(PlainEncoder):
    """The same with one change to what happens between patches and attention."""

    def __init__(self, spoil: Callable[[Tensor], Tensor]) -> None:
        super().__init__(True)
        self.spoil = spoil

    def forward(self, images: Tensor) -> Tensor:
        sequence = self.patch(images).flatten(2).transpose(1, 2)
        return self.encoder(self.spoil(sequence))


def shuffled(sequence: Tensor) -> Tensor:
    order = torch.randperm(16)[None, :, None].expand_as(sequence)
    return torch.gather(sequence, 1, order)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: nn.Sequential(nn.Conv2d(3, 8, 3), nn.Flatten()), "no attention among tokens was seen in Sequential"),
        (lambda: Spoilt(lambda s: s[:, :9]), "has only 9 tokens"),
        (lambda: Spoilt(shuffled), "picked or shuffled by index"),
        (lambda: Spoilt(lambda s: torch.cat([s[:, :3], s], 1)), r"3 token\(s\) stand before the patches"),
    ],
)
def test_a_model_that_cannot_be_told_apart_is_refused(make: Callable[[], nn.Module], message: str) -> None:
    model = make().eval()
    for parameter in list(model._parameters):
        if parameter == "cls_token":
            del model._parameters[parameter]
    with pytest.raises(CaptureError, match=message), torch.no_grad(), watch_attention(model):
        model(torch.randn(2, 3, 64, 64))


def test_a_layout_that_is_given_is_believed() -> None:
    model = Spoilt(lambda s: torch.cat([s[:, :3], s], 1)).eval()
    layout = TokenLayout(3, 4, 4, 16, 16)
    with torch.no_grad(), watch_attention(model, layout=layout) as watched:
        model(torch.randn(2, 3, 64, 64))
    assert watched.layout == layout and len(watched.layers) == 2


@pytest.mark.parametrize(
    ("module", "kind", "message"),
    [("deepvit", "DeepViT", "heads mixed or weights edited"), ("cait", "CaiT", "heads mixed or weights edited")],
)
def test_heads_that_are_mixed_after_the_softmax_are_refused(module: str, kind: str, message: str) -> None:
    library = pytest.importorskip(f"vit_pytorch.{module}")
    more = {"cls_depth": 1} if kind == "CaiT" else {}
    model = getattr(library, kind)(
        image_size=64, patch_size=16, num_classes=5, dim=32, depth=2, heads=4, mlp_dim=64, **more
    ).eval()
    with pytest.raises(CaptureError, match=message), torch.no_grad(), watch_attention(model):
        model(torch.randn(1, 3, 64, 64))


def test_attention_in_windows_is_refused() -> None:
    timm = pytest.importorskip("timm")
    model = timm.create_model("swin_tiny_patch4_window7_224", depths=(1, 1, 1, 1), embed_dim=24).eval()
    with pytest.raises(CaptureError, match="windows"), torch.no_grad(), watch_attention(model):
        model(torch.randn(1, 3, 224, 224))


def test_a_kernel_that_does_more_than_attention_fails_its_proof() -> None:
    class Sink(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.patch = nn.Conv2d(3, 8, 16, 16)

        def forward(self, images: Tensor) -> Tensor:
            tokens = self.patch(images).flatten(2).transpose(1, 2)[:, None]
            weights = (tokens @ tokens.mT).softmax(-1)
            weights[..., 0] = 0  # edited in place, behind the softmax
            return weights @ tokens

    model = Sink()
    with pytest.raises(CaptureError, match="differs from the model's own"), torch.no_grad(), watch_attention(model):
        model(torch.randn(1, 3, 64, 64))


def test_training_mode_with_dropout_is_refused() -> None:
    timm = pytest.importorskip("timm")
    model = timm.create_model("vit_tiny_patch16_224", depth=1, img_size=64, attn_drop_rate=0.5).train()
    with pytest.raises(CaptureError, match=r"call model.eval\(\)"), watch_attention(model):
        model(torch.randn(1, 3, 64, 64))


def test_nan_is_named_with_its_layer() -> None:
    family = ours()
    model: Any = family.model.eval()
    with torch.no_grad():
        model.blocks[1].attn.qkv.weight.fill_(float("nan"))
    with (
        pytest.raises(NumericError, match="layer 1, image 0 of the batch: attention is NaN"),
        torch.no_grad(),
        watch_attention(model),
    ):
        model(family.images)


def test_a_second_pass_in_one_watch_is_refused() -> None:
    family = ours()
    model = family.model.eval()
    with pytest.raises(CaptureError, match="a second image was read"), torch.no_grad(), watch_attention(model):
        model(family.images)
        model(family.images)


def test_what_is_no_module_is_refused() -> None:
    with pytest.raises(CaptureError, match=r"not a torch.nn.Module"), watch_attention("B/16"):  # type: ignore[arg-type]
        pass


def test_the_layout_is_not_known_before_the_first_attention() -> None:
    model = ours().model.eval()
    with pytest.raises(CaptureError, match="no attention was seen yet"), watch_attention(model) as watched:
        _ = watched.layout


def test_the_text_tower_of_clip_is_left_out_and_named() -> None:
    transformers = pytest.importorskip("transformers")
    config = transformers.CLIPConfig(text_config=SMALL, vision_config={**SMALL, "image_size": 64, "patch_size": 16})
    model = transformers.CLIPModel(config).eval()
    with torch.no_grad(), watch_attention(model) as watched:
        model(input_ids=torch.randint(0, 100, (2, 9)), pixel_values=torch.randn(2, 3, 64, 64))
    assert len(watched.layers) == 2 and all("causal" in note for note in watched.notes) and len(watched.notes) == 2


# --- what would be silently wrong, and is refused ---------------------------------------------------------------------


class Tokens(PlainEncoder):
    """The plain encoder with its sequence put together in another way."""

    def __init__(self, assemble: Callable[[Tensor, Tensor], Tensor], **tables: int) -> None:
        super().__init__(True)
        self.assemble = assemble
        for name, count in tables.items():
            setattr(self, name, nn.Parameter(torch.randn(1, count, 32)))

    def forward(self, images: Tensor) -> Tensor:
        patches = self.patch(images).flatten(2).transpose(1, 2)
        return self.encoder(self.assemble(self.cls_token.expand(len(images), -1, -1), patches))


@pytest.mark.parametrize(
    ("assemble", "message"),
    [
        (lambda cls, patches: torch.cat([patches, cls], 1), "are not the last part"),
        (lambda cls, patches: torch.cat([cls, patches, patches[:, :3]], 1), "are not the last part"),
        (lambda cls, patches: torch.cat([cls, cls, patches], 1), r"2 token\(s\) stand before .* account for 1"),
        (lambda cls, patches: torch.cat([cls, patches[:, torch.randperm(16)]], 1), "picked or shuffled"),
        (lambda cls, patches: torch.cat([cls, patches.index_select(1, torch.randperm(16))], 1), "picked or shuffled"),
        (lambda cls, patches: torch.cat([cls, patches.flip(1)], 1), "picked or shuffled"),
    ],
)
def test_tokens_whose_places_are_not_certain_are_refused(assemble: Any, message: str) -> None:
    with pytest.raises(CaptureError, match=message):
        model = Tokens(assemble).eval()
        with torch.no_grad(), watch_attention(model):
            model(torch.randn(2, 3, 64, 64))


def test_registers_behind_the_patches_are_refused() -> None:
    library = pytest.importorskip("vit_pytorch.simple_vit_with_register_tokens")
    model = library.SimpleViT(image_size=64, patch_size=16, num_classes=5, dim=32, depth=2, heads=4, mlp_dim=64).eval()
    with pytest.raises(CaptureError, match="not the last part"), torch.no_grad(), watch_attention(model):
        model(torch.randn(1, 3, 64, 64))


def test_detection_tokens_are_not_taken_for_a_prefix() -> None:
    transformers = pytest.importorskip("transformers")
    config = transformers.YolosConfig(image_size=[64, 64], num_detection_tokens=10, **SMALL)
    model = transformers.YolosModel(config).eval()
    with pytest.raises(CaptureError), torch.no_grad(), watch_attention(model):
        model(torch.randn(1, 3, 64, 64))


def test_a_convolution_that_is_given_its_stride_by_name_is_understood() -> None:
    class Named(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.kernel = nn.Parameter(torch.randn(32, 3, 8, 4, generator=torch.Generator().manual_seed(0)))

        def forward(self, images: Tensor) -> Tensor:
            tokens = nn.functional.conv2d(stride=(8, 4), weight=self.kernel, input=images).flatten(2).transpose(1, 2)
            heads = tokens.unflatten(-1, (4, 8)).transpose(1, 2)
            return nn.functional.scaled_dot_product_attention(heads, heads, heads)

    model = Named()
    with torch.no_grad(), watch_attention(model) as watched:
        model(torch.randn(2, 3, 16, 24, generator=torch.Generator().manual_seed(1)))
    assert watched.layout == TokenLayout(0, 2, 6, 8, 4)


def test_a_patch_is_as_large_as_its_stride_where_the_image_is_no_multiple_of_it() -> None:
    model = PlainEncoder(True).eval()
    with torch.no_grad(), watch_attention(model) as watched:
        model(torch.randn(1, 3, 79, 64))  # 4 rows of 16, and 15 pixels that no patch sees
    assert watched.layout == TokenLayout(1, 4, 4, 16, 16, 0)


def test_another_thread_is_not_watched_in_torchs_own_modules_either() -> None:
    model = PlainEncoder(True).eval()
    images = torch.randn(1, 3, 64, 64)

    def elsewhere() -> None:
        with torch.no_grad():
            model(images)

    with torch.no_grad(), watch_attention(model) as watched:
        other = threading.Thread(target=elsewhere)
        other.start()
        other.join()
        model(images)
    assert len(watched.layers) == 2
    with torch.no_grad(), watch_attention(model):
        with pytest.raises(CaptureError, match="watched already"), watch_attention(model):
            pass
        model(images)
    assert "forward" not in vars(model.encoder.layers[0])


class Explicit(nn.Module):
    """One layer of attention that is spelled out in a user's own way."""

    def __init__(self, attend: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.patch, self.attend = nn.Conv2d(3, 8, 16, 16), attend

    def forward(self, images: Tensor) -> Tensor:
        return self.attend(self.patch(images).flatten(2).transpose(1, 2)[:, None])  # (batch, 1, 16, 8)


HIDDEN = torch.zeros(1, 1, 1, 16)
HIDDEN[..., 3] = float("-inf")


@pytest.mark.parametrize(
    ("attend", "bias"),
    [
        (lambda t: (torch.matmul(t, other=t.mT).mul(other=0.5)).softmax(-1) @ t, None),
        (lambda t: (t @ t.mT / 2).softmax(dim=-1) @ t, None),
        (lambda t: torch.einsum("bhid,bhjd->bhij", t, t).mul_(0.5).softmax(-1).matmul(t), None),
        (lambda t: torch.einsum("bhij,bhjd->bhid", (t @ t.mT * 0.5).softmax(-1), t), None),
        (lambda t: (t @ t.mT * 0.5 + HIDDEN).softmax(-1) @ t, HIDDEN),
        (lambda t: (t @ t.mT * 0.5).masked_fill_(HIDDEN < 0, float("-inf")).softmax(-1) @ t, HIDDEN),
        (lambda t: torch.nn.functional.scaled_dot_product_attention(query=t, key=t, value=t, scale=0.5), None),
        (
            lambda t: torch.nn.functional.scaled_dot_product_attention(t, t, t, attn_mask=HIDDEN == 0, scale=0.5),
            HIDDEN,
        ),
        (
            lambda t: torch.nn.functional.scaled_dot_product_attention(
                t.expand(-1, 4, -1, -1), t.expand(-1, 2, -1, -1), t.expand(-1, 2, -1, -1), scale=0.5, enable_gqa=True
            ),
            None,
        ),
    ],
)
def test_attention_is_understood_however_it_is_written(attend: Any, bias: Tensor | None) -> None:
    torch.manual_seed(0)
    model, images = Explicit(attend).eval(), 3 * torch.randn(2, 3, 64, 64)
    with torch.no_grad(), watch_attention(model) as watched:
        model(images)
    tokens = model.patch(images).flatten(2).transpose(1, 2)[:, None].detach()
    scores = tokens @ tokens.mT * 0.5 + (0 if bias is None else bias)
    expected = scores.softmax(-1).expand_as(watched.layers[0].dense())
    torch.testing.assert_close(watched.layers[0].dense(), expected, rtol=1e-4, atol=1e-6)


def test_a_mask_on_one_image_alone_is_not_overlooked() -> None:
    def attend(tokens: Tensor) -> Tensor:
        scores = tokens @ tokens.mT
        scores[0, :, :, :8] = float("-inf")  # in place: what was followed so far is no longer what it was
        return scores.softmax(-1) @ tokens

    model = Explicit(attend).eval()
    with torch.no_grad(), watch_attention(model) as watched:
        model(torch.randn(3, 3, 64, 64))
    assert float(watched.layers[0].dense()[0, ..., :8].abs().max()) == 0


@pytest.mark.parametrize("gradients", [False, True])
@pytest.mark.parametrize("kind", ["bool", "float", "padding", "both"])
def test_masks_of_multi_head_attention_are_its_own(kind: str, gradients: bool) -> None:
    class Masked(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.patch, self.attention = nn.Conv2d(3, 8, 16, 16), nn.MultiheadAttention(8, 2, batch_first=True)

        def forward(self, images: Tensor) -> Tensor:
            tokens = self.patch(images).flatten(2).transpose(1, 2)
            return self.attention(tokens, tokens, tokens, need_weights=False, **masks)[0]

    torch.manual_seed(0)
    hidden, padding = torch.rand(16, 16) < 0.3, torch.rand(2, 16) < 0.3
    masks: dict[str, Tensor] = {}
    if kind in ("bool", "both"):
        masks["attn_mask"] = hidden
    if kind == "float":
        masks["attn_mask"] = torch.randn(16, 16)
    if kind in ("padding", "both"):
        masks["key_padding_mask"] = padding
    model, images = Masked().eval(), torch.randn(2, 3, 64, 64)
    with torch.set_grad_enabled(gradients):
        plain = model(images)
        with watch_attention(model) as watched:
            output = model(images)
        tokens = model.patch(images).flatten(2).transpose(1, 2)
        own = model.attention(tokens, tokens, tokens, average_attn_weights=False, **masks)[1]
    assert torch.equal(plain, output)
    torch.testing.assert_close(watched.layers[0].dense(), own.detach(), rtol=1e-4, atol=1e-6)
