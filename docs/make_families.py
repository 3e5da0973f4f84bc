"""Makes docs/families.md: the models that were tried, with what was seen in each.

.venv/bin/python docs/make_families.py

Full-sized models with random weights, two images each; nothing is fetched.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import torch
from torch import Tensor, nn

from vitreous import VisionTransformer, inspect_model, watch_attention
from vitreous.checkpoints.optional import let_torchvision_import
from vitreous.figures import draw_attention_distance, draw_filters, draw_position_similarity
from vitreous.inspection import Inspection
from vitreous.model.presets import named_config

OUT = Path(__file__).parent / "families.md"


def timm(name: str, **options: object) -> Callable[[], nn.Module]:
    def make() -> nn.Module:
        import timm as library

        return library.create_model(name, **options)

    return make


def transformers(kind: str, suffix: str = "Model", **options: object) -> Callable[[], nn.Module]:
    def make() -> nn.Module:
        import transformers as library

        return getattr(library, kind + suffix)(getattr(library, kind + "Config")(**options))

    return make


def torchvision() -> nn.Module:
    import torchvision as library

    model = library.models.vit_b_16()
    nn.init.normal_(model.heads.head.weight)  # zero from the factory, which would hide any difference
    return model


def vit_pytorch(kind: str) -> Callable[[], nn.Module]:
    def make() -> nn.Module:
        import vit_pytorch as library

        size = {"dim": 768, "depth": 12, "heads": 12, "mlp_dim": 3072}
        return getattr(library, kind)(image_size=224, patch_size=16, num_classes=1000, **size)

    return make


class TorchEncoder(nn.Module):
    """nn.TransformerEncoder between a convolution and a class token."""

    def __init__(self) -> None:
        super().__init__()
        self.patch = nn.Conv2d(3, 768, 16, 16)
        self.cls_token, self.pos_embed = nn.Parameter(torch.randn(1, 1, 768)), nn.Parameter(torch.randn(1, 197, 768))
        layer = nn.TransformerEncoderLayer(768, 12, 3072, batch_first=True, norm_first=True)
        self.encoder = nn.TransformerEncoder(layer, 12, enable_nested_tensor=False)

    def forward(self, images: Tensor) -> Tensor:
        patches = self.patch(images).flatten(2).transpose(1, 2)
        return self.encoder(torch.cat([self.cls_token.expand(len(images), -1, -1), patches], 1) + self.pos_embed)


FAMILIES: list[tuple[str, str, Callable[[], nn.Module], tuple[int, int]]] = [
    ("vitreous", "B/16", lambda: VisionTransformer(named_config("B/16")), (224, 224)),
    ("timm", "ViT-B/16", timm("vit_base_patch16_224"), (224, 224)),
    ("timm", "ViT-B/16, 160 x 320 pixels", timm("vit_base_patch16_224", img_size=(160, 320)), (160, 320)),
    (
        "timm",
        "ViT-B/16, no class token",
        timm("vit_base_patch16_224", class_token=False, global_pool="avg"),
        (224, 224),
    ),
    ("timm", "DINOv2-S/14 with registers", timm("vit_small_patch14_reg4_dinov2", img_size=224), (224, 224)),
    ("timm", "DINOv3-S/16, rope", timm("vit_small_patch16_dinov3", img_size=224), (224, 224)),
    ("timm", "EVA-02-S/14, rope", timm("eva02_small_patch14_224"), (224, 224)),
    ("timm", "DeiT-S/16 distilled", timm("deit_small_distilled_patch16_224"), (224, 224)),
    ("timm", "SigLIP-B/16", timm("vit_base_patch16_siglip_224"), (224, 224)),
    ("timm", "BEiT-B/16, relative bias", timm("beit_base_patch16_224"), (224, 224)),
    ("timm", "hybrid R26+S/32", timm("vit_small_r26_s32_224"), (224, 224)),
    ("transformers", "ViT-B/16", transformers("ViT", "ForImageClassification"), (224, 224)),
    ("transformers", "ViT-B/16, eager", transformers("ViT", attn_implementation="eager"), (224, 224)),
    ("transformers", "DeiT-B/16", transformers("DeiT"), (224, 224)),
    ("transformers", "DINOv2-B/14", transformers("Dinov2", patch_size=14), (224, 224)),
    ("transformers", "DINOv2-B/14 with registers", transformers("Dinov2WithRegisters", patch_size=14), (224, 224)),
    ("transformers", "CLIP vision B/32", transformers("CLIPVision"), (224, 224)),
    ("transformers", "SigLIP vision B/16", transformers("SiglipVision"), (224, 224)),
    ("torchvision", "ViT-B/16", torchvision, (224, 224)),
    ("torch", "nn.TransformerEncoder", TorchEncoder, (224, 224)),
    ("vit-pytorch", "ViT", vit_pytorch("ViT"), (224, 224)),
    ("vit-pytorch", "SimpleViT", vit_pytorch("SimpleViT"), (224, 224)),
]

HEAD = """# Models that were looked into

Full-sized, random weights, two images, float32, without gradients. Made by `docs/make_families.py` with {versions}.

- *layers*: attentions seen in the forward pass.
- *proof*: on a few rows of each layer, how far softmax(q k^T) v is from what the model's own kernel returned, as a
  share of its largest value; the largest over the layers.
- *bits*: whether the model's output is the same, bit for bit, watched and not.
- *figure 7*: which panels could be drawn: filters (left), position similarity (centre), attention distance (right).
  Rotary models, and models with relative positions, have no table of positions.

| library | model | prefix + grid | layers | proof | bits | figure 7 |
| --- | --- | --- | --- | --- | --- | --- |
"""


def main() -> None:
    """Looks into every model and writes the table."""
    let_torchvision_import()
    rows = []
    for library, name, make, size in FAMILIES:
        torch.manual_seed(0)
        model, images = make().eval(), torch.randn(2, 3, *size)
        inspection = inspect_model(model, images)
        same = "same" if _keeps_every_bit(model, images) else "DIFFERENT"
        layout, error = inspection.layout, inspection.provenance["largest_proof_error"]
        row = f"| {library} | {name} | {layout.prefix} + {layout.rows} x {layout.columns} | "
        row += f"{len(inspection.attention_distance)} | {error:.0e} | {same} | {_panels(inspection)} |"
        rows.append(row)
        print(row, flush=True)
    libraries = ("torch", "timm", "transformers", "torchvision", "vit-pytorch")
    versions = ", ".join(f"{library} {version(library).split('+')[0]}" for library in libraries)
    OUT.write_text(HEAD.format(versions=versions) + "\n".join(rows) + "\n")


@torch.no_grad()
def _keeps_every_bit(model: nn.Module, images: Tensor) -> bool:
    def run() -> Tensor:
        output = model(images)
        return output if isinstance(output, Tensor) else output[0]

    plain = run()
    with watch_attention(model):
        watched = run()
    return torch.equal(plain, watched)


def _panels(inspection: Inspection) -> str:
    drawn = []
    if inspection.filters is not None:
        draw_filters(inspection.filters, inspection.filters_variance)
        drawn.append("left")
    if inspection.position_similarity is not None:
        draw_position_similarity(inspection.position_similarity, inspection.position_structure)
        drawn.append("centre")
    draw_attention_distance({"": inspection.attention_distance})
    return ", ".join([*drawn, "right"])


if __name__ == "__main__":
    main()
