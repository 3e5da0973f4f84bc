"""One file of every format, opened as a user would, beside what its own library computes.

`python docs/make_checkpoints.py` runs these tests and makes docs/checkpoints.md of what they measure.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
import transformers
import vit_pytorch
from safetensors.torch import save_file
from timm.models.deit import VisionTransformerDistilled
from torch import Tensor, nn
from torchvision.models.vision_transformer import VisionTransformer as TorchvisionTransformer
from vit_pytorch.simple_vit import SimpleViT

from vitreous.checkpoints.sources import open_model

Opened = tuple[Path, Tensor, Tensor]  # a file or folder, images, what its library computes


@dataclass(frozen=True)
class Case:
    """A file as its library writes it.

    Attributes:
        form: which file, for people.
        library: whose code computes what is compared.
        make: from the fixtures and an empty folder.
        asked: what the user settles.
    """

    form: str
    library: str
    make: Callable[[Fixtures, Path], Opened]
    asked: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Fixtures:
    """What stored and drawn models are made with; see conftest.py."""

    google_cases: Any
    torch_state: Any
    randomised: Any


def google(name: str, kind: str = "logits") -> Callable[[Fixtures, Path], Opened]:
    def make(fixtures: Fixtures, folder: Path) -> Opened:
        case = fixtures.google_cases[name]
        np.savez(folder / "file.npz", **case.arrays)
        return folder / "file.npz", case.images, case.outputs[kind]

    return make


def stored(name: str, wrapper: str = "", container: str = "file.pth") -> Callable[[Fixtures, Path], Opened]:
    """A state dict as the project's own training script wraps it."""

    def make(fixtures: Fixtures, folder: Path) -> Opened:
        state = fixtures.torch_state(name)
        weights = {key: torch.from_numpy(array) for key, array in state.arrays.items()}
        for key, shape in state.shapes.items():
            if key.endswith("bias_mask"):  # as DINOv3 fills it
                weights[key] = torch.tensor([1.0, 0.0, 1.0]).repeat_interleave(shape[0] // 3)
        first, _, rest = wrapper.partition(".")
        content = {f"{rest}.{key}" if rest else key: weight for key, weight in weights.items()}
        torch.save({first: content, "epoch": 3} if first else content, folder / container)
        return folder / container, *state.outputs[-1]

    return make


def torchscript(name: str, container: str) -> Callable[[Fixtures, Path], Opened]:
    """The same as a TorchScript archive, as OpenAI publishes CLIP."""

    def make(fixtures: Fixtures, folder: Path) -> Opened:
        state = fixtures.torch_state(name)
        tower = Holder()
        for key, array in state.arrays.items():
            *path, leaf = key.split(".")
            place: nn.Module = tower
            for part in path:
                if not hasattr(place, part):
                    place.add_module(part, Holder())
                place = getattr(place, part)
            place.register_parameter(leaf, nn.Parameter(torch.from_numpy(array)))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # torch no longer recommends what OpenAI used
            torch.jit.script(tower).save(str(folder / container))
        return folder / container, *state.outputs[-1]

    return make


class Holder(nn.Module):
    """Parameters under names."""

    def forward(self, images: Tensor) -> Tensor:
        """Nothing that is run."""
        return images


def pretrained(build: Callable[[], nn.Module], name: str, **beside: Any) -> Callable[[Fixtures, Path], Opened]:
    """An encoder's weights under `model`, with what else its training script keeps."""

    def make(fixtures: Fixtures, folder: Path) -> Opened:
        encoder = build().eval()
        fixtures.randomised(encoder)
        weights = encoder.state_dict() | {key: torch.ones(shape) for key, shape in beside.items()}
        torch.save({"model": weights, "epoch": 3}, folder / name)
        return run_beside(encoder, folder / name, (32, 32))

    return make


def hugging_face(name: str, output: Callable[[Any], Tensor], **settings: Any) -> Callable[[Fixtures, Path], Opened]:
    """A small model of transformers', saved by its own `save_pretrained`."""

    def make(fixtures: Fixtures, folder: Path) -> Opened:
        model_class = getattr(transformers, name)
        sizes = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2, "image_size": 32, "patch_size": 8}
        config = model_class.config_class(**(sizes | settings))
        model = model_class(config).eval()
        fixtures.randomised(model)
        model.save_pretrained(folder / "folder")
        images = some_images()
        with torch.no_grad():
            return folder / "folder", images, output(model(images))

    return make


def timm_folder(name: str, **settings: Any) -> Callable[[Fixtures, Path], Opened]:
    """A folder that timm saved for the hub."""

    def make(fixtures: Fixtures, folder: Path) -> Opened:
        model = timm.create_model(name, **settings).eval()
        fixtures.randomised(model)
        timm.models.save_for_hf(model, str(folder / "folder"), safe_serialization=True)
        return run_beside(model, folder / "folder", model.patch_embed.img_size)

    return make


def state_dict(build: Callable[[], nn.Module], name: str, size: tuple[int, int] = (32, 32)) -> Any:
    """Bare weights of a model, under a name."""

    def make(fixtures: Fixtures, folder: Path) -> Opened:
        model = build().eval()
        fixtures.randomised(model)
        weights = {key: value.contiguous() for key, value in model.state_dict().items()}
        if name.endswith(".safetensors"):
            save_file(weights, folder / name)
        else:
            torch.save(weights, folder / name)
        return run_beside(model, folder / name, size)

    return make


def run_beside(model: nn.Module, path: Path, size: tuple[int, int]) -> Opened:
    images = some_images(*size)
    with torch.no_grad():
        return path, images, model(images)


def some_images(height: int = 32, width: int = 32) -> Tensor:
    return torch.randn(2, 3, height, width, generator=torch.Generator().manual_seed(1))


def torchvisions() -> nn.Module:
    return TorchvisionTransformer(32, 8, 2, 2, 128, 256, num_classes=5)


SMALL: dict[str, Any] = {"img_size": 32, "patch_size": 8, "embed_dim": 64, "depth": 2, "num_classes": 5}
VIT: dict[str, Any] = {"image_size": 32, "patch_size": 8, "num_classes": 5, "dim": 64, "depth": 2, "mlp_dim": 96}
JAX = "vision_transformer (JAX)"
BIG = "big_vision (JAX)"
CLIP_SIZES: dict[str, Any] = {"intermediate_size": 96}

CASES = [
    Case("Google .npz, class token", JAX, google("vit")),
    Case("Google .npz, pre_logits", JAX, google("vit_hidden_head")),
    Case("Google .npz, average pooling", JAX, google("vit_gap")),
    Case("Google .npz, not square", JAX, google("vit_wide_image"), {"image_size": (64, 96)}),
    Case("Google .npz, R+Ti/16", JAX, google("r_ti_16"), {"image_size": (64, 96)}),
    Case("Google .npz, R26+S/32", JAX, google("r26_s_32")),
    Case("Google .npz, R50+B/16", JAX, google("r50_b_16"), {"image_size": (64, 96)}),
    Case("Google .npz, R50+L/32", JAX, google("r50_l_32"), {"image_size": (96, 64)}),
    Case("Google .npz, R50+L/16", JAX, google("r50_l_16"), {"image_size": (48, 80)}),
    Case("big_vision .npz, class token", BIG, google("bv_tok")),
    Case("big_vision .npz, average pooling", BIG, google("bv_gap")),
    Case("big_vision .npz, MAP head", BIG, google("bv_map")),
    Case("big_vision .npz, scanned layers", BIG, google("bv_scan")),
    Case("big_vision .npz, sin-cos", BIG, google("bv_sincos2d"), {"image_size": (32, 48)}),
    Case("big_vision .npz, SigLIP tower", BIG, google("bv_siglip", "features")),
    Case("big_vision .npz, bfloat16", BIG, google("bv_bfloat16")),
    Case("timm folder, ViT", "timm", timm_folder("vit_tiny_patch16_224", **SMALL, num_heads=2)),
    Case("timm folder, average pooling", "timm",
         timm_folder("vit_base_patch16_224", **SMALL, num_heads=2, global_pool="avg", class_token=False)),
    Case("timm folder, DINOv2 with registers", "timm",
         timm_folder("vit_small_patch14_reg4_dinov2", **(SMALL | {"img_size": 56, "patch_size": 14}), num_heads=2)),
    Case("timm folder, CLIP tower", "timm", timm_folder("vit_base_patch16_clip_224", **SMALL, num_heads=2)),
    Case("timm folder, SigLIP tower", "timm",
         timm_folder("vit_base_patch16_siglip_224", **(SMALL | {"num_classes": 0}), num_heads=2)),
    Case("timm folder, hybrid R26+S/32", "timm",
         timm_folder("vit_small_r26_s32_224", img_size=64, embed_dim=64, depth=2, num_heads=2, num_classes=5)),
    Case("timm state dict, .safetensors", "timm",
         state_dict(lambda: timm.create_model("vit_tiny_patch16_224", **SMALL, num_heads=1), "file.safetensors")),
    Case("DeiT, distilled", "timm",
         state_dict(lambda: VisionTransformerDistilled(**SMALL, num_heads=1), "deit_distilled.pth")),
    Case("transformers ViT", "transformers",
         hugging_face("ViTForImageClassification", lambda out: out.logits, intermediate_size=128, num_labels=5)),
    Case("transformers DeiT", "transformers",
         hugging_face("DeiTForImageClassificationWithTeacher", lambda out: out.logits, num_labels=5)),
    Case("transformers MSN", "transformers",
         hugging_face("ViTMSNModel", lambda out: out.last_hidden_state[:, 0])),
    Case("transformers DINOv2", "transformers", hugging_face("Dinov2Model", lambda out: out.pooler_output)),
    Case("transformers DINOv2, classifier", "transformers",
         hugging_face("Dinov2ForImageClassification", lambda out: out.logits, num_labels=5)),
    Case("transformers DINOv2 with registers", "transformers",
         hugging_face("Dinov2WithRegistersModel", lambda out: out.pooler_output)),
    Case("transformers DINOv3", "transformers",
         hugging_face("DINOv3ViTModel", lambda out: out.pooler_output, intermediate_size=128, num_register_tokens=4)),
    Case("transformers CLIP tower", "transformers",
         hugging_face("CLIPVisionModelWithProjection", lambda out: out.image_embeds, **CLIP_SIZES)),
    Case("transformers SigLIP tower", "transformers",
         hugging_face("SiglipVisionModel", lambda out: out.pooler_output, **CLIP_SIZES)),
    Case("transformers BEiT", "transformers",
         hugging_face("BeitForImageClassification", lambda out: out.logits, num_labels=5,
                      use_relative_position_bias=True)),
    Case("torchvision", "torchvision", state_dict(torchvisions, "vit_b_8.pth")),
    Case("OpenAI CLIP, state dict", "openai/CLIP", stored("clip"), {"activation": "quick-gelu"}),
    Case("OpenAI CLIP, TorchScript", "openai/CLIP", torchscript("clip", "ViT-B-32.pt")),
    Case("MAE, with its decoder", "timm",
         pretrained(lambda: timm.create_model("vit_base_patch16_224", **(SMALL | {"num_classes": 0}), num_heads=1),
                    "mae_pretrain_vit.pth", mask_token=(1, 1, 32), **{"decoder_embed.weight": (32, 64)})),
    Case("BEiT", "timm",
         pretrained(lambda: timm.create_model("beit_base_patch16_224", **SMALL, num_heads=1), "beit_base.pth")),
    Case("DINO", "facebookresearch/dino", stored("dino", container="dino_deitsmall16_pretrain.pth")),
    Case("iBOT", "bytedance/ibot", stored("ibot", "state_dict", "ibot_vits_16.pth")),
    Case("MSN", "facebookresearch/msn", stored("msn", "target_encoder.module", "vits16_msn.pth")),
    Case("DINOv2", "facebookresearch/dinov2", stored("dinov2")),
    Case("DINOv2 with registers", "facebookresearch/dinov2", stored("dinov2_registers")),
    Case("DINOv2, SwiGLU", "facebookresearch/dinov2", stored("dinov2_swiglu")),
    Case("DINOv3", "facebookresearch/dinov3", stored("dinov3")),
    Case("DINOv3, SwiGLU", "facebookresearch/dinov3", stored("dinov3_swiglu")),
    Case("DeiT III", "facebookresearch/deit", stored("deit3", "model")),
    Case("vit-pytorch ViT", "vit-pytorch",
         state_dict(lambda: vit_pytorch.ViT(heads=2, **VIT), "file.pt")),
    Case("vit-pytorch SimpleViT", "vit-pytorch", state_dict(lambda: SimpleViT(heads=2, **VIT), "file.pt")),
]  # fmt: skip


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.form)
@torch.no_grad()
def test_it_opens_with_its_librarys_numbers(
    case: Case,
    tmp_path: Path,
    google_cases: Any,
    torch_state: Any,
    randomised: Any,
    record_property: Callable[[str, object], None],
) -> None:
    with torch.random.fork_rng():
        path, images, expected = case.make(Fixtures(google_cases, torch_state, randomised), tmp_path)
    opened = open_model(path, **case.asked)
    difference = (opened.model(images) - expected).abs().max().item()
    decisions = opened.model.__dict__["provenance"]["decisions"]
    record_property("form", case.form)
    record_property("library", case.library)
    record_property("kind", opened.kind)
    record_property("difference", difference)
    for mark in (False, True):
        settled = [f"{d['setting']} {d['value']}" for d in decisions if d["guessed"] is mark and is_short(d["value"])]
        record_property("guessed" if mark else "decided", "; ".join(settled))
    assert difference <= 1e-4


def is_short(value: object) -> bool:
    return len(str(value)) < 40
