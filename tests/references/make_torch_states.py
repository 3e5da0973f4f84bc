"""What the code of DINO, iBOT, MSN, DINOv2, DINOv3, DeiT III and CLIP computes, stored in torch_states.npz.

Needs checkouts side by side in one folder, named as in COMMITS, of facebookresearch/{dino,msn,dinov2,dinov3,deit},
bytedance/ibot and openai/CLIP, and vitreous' test packages.
Made with torch 2.13 and timm 1.0.31 on a CPU:

    python tests/references/make_torch_states.py FOLDER

Each case is a small model of the project's own class with weights from `weights_of`, run in float32 at the size its
positions were made for and at a wider one, unless the project's code takes one size alone. The file holds one entry
"index", JSON as bytes:

    {CASE: {"shapes": {name in the state dict: shape}, "drawn": [names of parameters], "sizes": [[height, width], ...]}}

and for each case and size CASE/HxW, (2, width): the class token's features, or logits where there is a head.
"""

from __future__ import annotations

import importlib.util
import json
import math
import sys
import types
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from drawn import Shape, draw, draw_images
from torch import nn

COMMITS = {
    "dino": "4b96393c4c877d127cff9f077468e4a1cc2b5e2d",
    "ibot": "da316d82636a7a7356835ef224b13d5f3ace0489",
    "msn": "4388dc1eadbe3042b85d3296d41b9b207656e043",
    "dinov2": "b8931f7bf91576930313be2c6d6af376033b35f0",
    "dinov3": "6876159a11b4df116f30f667f8c9888617df0751",
    "deit": "7e160fe43f0252d17191b71cbb5826254114ea5b",
    "CLIP": "d05afc436d78f1c48dc0dbf8e5980a9d471f35f6",
}
SMALL: dict[str, Any] = {"patch_size": 8, "embed_dim": 64, "depth": 2, "num_heads": 1, "qkv_bias": True}
SQUARE, WIDE = (32, 32), (24, 40)


def main() -> None:
    folder = Path(sys.argv[1])
    index: dict[str, Any] = {}
    outputs: dict[str, np.ndarray] = {}
    for case, (make, sizes) in cases(folder).items():
        model = make().eval()
        shapes = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
        for name in shapes:
            if name.endswith("bias_mask"):  # as DINOv3's init_weights fills it
                queries, keys, values = model.get_buffer(name).chunk(3)
                queries.fill_(1), keys.fill_(0), values.fill_(1)
        drawn = {name for name, _ in model.named_parameters()}
        weights = weights_of({name: shape for name, shape in shapes.items() if name in drawn})
        model.load_state_dict({name: torch.from_numpy(array) for name, array in weights.items()}, strict=False)
        for height, width in sizes:
            images = torch.from_numpy(draw_images(height, width)).permute(0, 3, 1, 2)
            with torch.no_grad():
                outputs[f"{case}/{height}x{width}"] = model(images).numpy()
        index[case] = {"shapes": shapes, "drawn": sorted(drawn), "sizes": sizes}
    place = Path(__file__).with_name("torch_states.npz")
    text = json.dumps(index, separators=(",", ":"))
    np.savez_compressed(place, index=np.frombuffer(text.encode(), np.uint8), **outputs)
    print(f"{place}: {place.stat().st_size:,} bytes, {len(index)} cases")


def weights_of(shapes: dict[str, Shape]) -> dict[str, np.ndarray]:
    """Every parameter by its name, none trivial: kernels keep a network's numbers near 1, scales lie around 1."""
    return {name: _weight(name, tuple(shape)) for name, shape in shapes.items()}


def cases(folder: Path) -> dict[str, tuple[Callable[[], nn.Module], tuple[tuple[int, int], ...]]]:
    """How each model is made, and the image sizes that it is run at."""
    norm = partial(nn.LayerNorm, eps=1e-6)
    trunc = {"trunc_normal_": nn.init.trunc_normal_}
    dino = _module(folder / "dino/vision_transformer.py", {"utils": trunc})
    ibot = _module(folder / "ibot/models/vision_transformer.py", {"utils": trunc})
    msn = _module(folder / "msn/src/deit.py", {"src": {}, "src.utils": trunc})
    deit = _module(folder / "deit/models_v2.py", {})
    clip = _module(folder / "CLIP/clip/model.py", {})
    sys.path[:0] = [str(folder / "dinov2"), str(folder / "dinov3")]
    dinov2 = importlib.import_module("dinov2.models.vision_transformer").DinoVisionTransformer
    attention = importlib.import_module("dinov2.layers.block").NestedTensorBlock
    dinov3 = importlib.import_module("dinov3.models.vision_transformer").DinoVisionTransformer
    both = (SQUARE, WIDE)
    v2 = SMALL | {"img_size": 32, "init_values": 1.0, "block_fn": attention}
    v3 = SMALL | {"img_size": 32, "layerscale_init": 1.0, "norm_layer": "layernormbf16", "n_storage_tokens": 4}
    v3 |= {"mask_k_bias": True, "pos_embed_rope_dtype": "fp32"}
    return {
        "dino": (lambda: dino.VisionTransformer(img_size=[32], norm_layer=norm, **SMALL), both),
        "ibot": (lambda: ibot.VisionTransformer(img_size=[32], init_values=0.1, **SMALL), both),
        "msn": (lambda: msn.VisionTransformer(img_size=[32], norm_layer=norm, **SMALL), (SQUARE, (48, 48))),
        "dinov2": (lambda: dinov2(block_chunks=2, **v2), both),
        "dinov2_registers": (
            lambda: dinov2(
                block_chunks=0, num_register_tokens=4, interpolate_antialias=True, interpolate_offset=0.0, **v2
            ),
            both,
        ),
        "dinov2_swiglu": (lambda: dinov2(block_chunks=0, ffn_layer="swiglufused", **v2), (SQUARE,)),
        "dinov3": (lambda: dinov3(**v3), both),
        "dinov3_swiglu": (lambda: dinov3(ffn_layer="swiglu", ffn_ratio=3.0, **v3), both),
        "deit3": (
            lambda: deit.vit_models(
                img_size=32, num_classes=5, norm_layer=norm, block_layers=deit.Layer_scale_init_Block, **SMALL
            ),
            (SQUARE,),
        ),
        "clip": (lambda: Tower(clip.VisionTransformer(32, 8, 64, 2, 1, 12)), (SQUARE,)),
    }


class Tower(nn.Module):
    """CLIP's image tower under the name that it has in the whole model."""

    def __init__(self, visual: nn.Module) -> None:
        super().__init__()
        self.visual = visual

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.visual(images)


def _weight(name: str, shape: Shape) -> np.ndarray:
    numbers = draw(name, shape)  # deviation 0.5
    if (name.endswith(".weight") and len(shape) > 1) or name == "visual.proj":
        axes = shape[:-1] if name == "visual.proj" else shape[1:]
        return numbers * np.float32(2 / math.sqrt(math.prod(axes)))
    ones = name.endswith((".weight", ".gamma", "gamma_1", "gamma_2"))
    return numbers * np.float32(0.4) + np.float32(ones)


def _module(path: Path, stands_in: dict[str, dict[str, Any]]) -> types.ModuleType:
    """A file as a module; the project's own modules that it imports are replaced by these functions."""
    for name, functions in stands_in.items():
        module = types.ModuleType(name)
        module.__dict__.update(functions)
        sys.modules[name] = module
    spec = importlib.util.spec_from_file_location(f"reference_{path.parts[-2]}", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # timm's registry looks there
    spec.loader.exec_module(module)
    for name in stands_in:
        del sys.modules[name]
    return module


if __name__ == "__main__":
    from vitreous.checkpoints.optional import let_torchvision_import

    let_torchvision_import()
    main()
