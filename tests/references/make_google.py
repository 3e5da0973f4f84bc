"""What Google's own code computes, stored in google.npz beside this file.

Needs jax, flax, scipy, ml_collections and einops (none of them is a dependency of vitreous), and checkouts of
github.com/google-research/vision_transformer at c6de1e5378c9831a8477feb30994971bdc409e46 and
github.com/google-research/big_vision at 0127fb6b337ee2a27bf4e54dea79cff176527356. Made with jax 0.10.2 and
flax 0.12.8 on a CPU:

    python tests/references/make_google.py VISION_TRANSFORMER BIG_VISION

For each case a file is written with weights from `drawn.py`, named as in the published files, read with Google's own
loader, and run with Google's own model in float32. google.npz holds one entry "index", JSON as bytes:

    {"cases": {CASE: {"library", "image_size", "settings", "bfloat16", "factors", "shapes": {name in the file: shape}}},
     "parameters": {MODEL: count}}

and for each case its outputs: CASE/logits (2, classes) where it has a head, CASE/features (2, width), which the head
reads, CASE/tokens (2, tokens, width) of a model that is not pooled, CASE/map (2, rows, columns, width) of a stem alone;
and positions/OLD-NEW (1, tokens, width), the table "positions/OLD" on another grid.
"""

from __future__ import annotations

import importlib
import json
import math
import sys
import tempfile
import types
from pathlib import Path
from typing import Any

import flax.training.checkpoints  # noqa: F401 -- must look for tensorflow before its stand-in is there
import jax
import jax.numpy as jnp
import numpy as np
from drawn import as_bfloat16, draw, draw_all, draw_images

WIDTH = 24
CLASSES = 5
ENCODER = {"mlp_dim": 40, "num_heads": 3, "num_layers": 2, "dropout_rate": 0.0, "attention_dropout_rate": 0.0}
TOWER = {"width": WIDTH, "depth": 2, "mlp_dim": 40, "num_heads": 3, "patch_size": (8, 8), "num_classes": CLASSES}

PLAIN_CASES: dict[str, tuple[tuple[int, int], dict[str, Any]]] = {
    "vit": ((32, 32), {}),
    "vit_hidden_head": ((32, 32), {"representation_size": WIDTH}),
    "vit_gap": ((32, 32), {"classifier": "gap"}),
    "vit_tokens": ((32, 32), {"classifier": "token_unpooled", "num_classes": None}),
    "vit_wide_image": ((64, 96), {"patches": (16, 16)}),
    "vit_linen_names": ((32, 32), {}),
    "vit_faint": ((32, 32), {}),
}
HYBRID_CASES: dict[str, tuple[tuple[int, int], dict[str, Any]]] = {
    "r_ti_16": ((64, 96), {"patches": (8, 8), "resnet": ()}),
    "r26_s_32": ((64, 64), {"patches": (1, 1), "resnet": (2, 2, 2, 2)}),
    "r50_b_16": ((64, 96), {"patches": (1, 1), "resnet": (3, 4, 9)}),
    "r50_l_32": ((96, 64), {"patches": (1, 1), "resnet": (3, 4, 6, 3)}),
    "r50_l_16": ((48, 80), {"patches": (1, 1), "resnet": (3, 4, 9), "representation_size": WIDTH}),
    "stem_odd": ((45, 63), {"patches": (1, 1), "resnet": (1, 2), "transformer": None}),
    "stem_even": ((46, 64), {"patches": (1, 1), "resnet": (1, 2), "transformer": None}),
    "stem_faint": ((32, 32), {"patches": (2, 2), "resnet": (), "transformer": None}),
}
BIG_VISION_CASES: dict[str, tuple[tuple[int, int], dict[str, Any]]] = {
    "bv_tok": ((32, 32), {"pool_type": "tok"}),
    "bv_gap": ((32, 32), {"pool_type": "gap"}),
    "bv_map": ((32, 32), {"pool_type": "map"}),
    "bv_hidden_head": ((32, 32), {"pool_type": "tok", "rep_size": True}),
    "bv_wide_image": ((32, 48), {"pool_type": "tok"}),
    "bv_sincos2d": ((32, 48), {"pool_type": "gap", "posemb": "sincos2d"}),
    "bv_scan": ((32, 32), {"pool_type": "tok", "scan": True}),
    "bv_optimizer": ((32, 32), {"pool_type": "gap"}),
    "bv_very_old_positions": ((32, 32), {"pool_type": "tok"}),
    "bv_old_positions": ((32, 32), {"pool_type": "tok"}),
    "bv_old_gap": ((32, 32), {"pool_type": "gap"}),
    "bv_inlined_probe": ((32, 32), {"pool_type": "map"}),
    "bv_siglip": ((32, 32), {"pool_type": "map", "num_classes": None}),
    "bv_siglip_scan": ((32, 32), {"pool_type": "map", "num_classes": None, "scan": True}),
    "bv_lit": ((32, 32), {"pool_type": "tok"}),
    "bv_bfloat16": ((32, 32), {"pool_type": "map"}),
}
FACTORS: dict[str, dict[str, float]] = {  # so faint that the epsilons of the norms show in the outputs
    "vit_faint": {"embedding/kernel": 0.003, "embedding/bias": 0.003, "cls": 0.003,
                  "Transformer/posembed_input/pos_embedding": 0.003},
    "stem_faint": {"images": 0.001, "conv_root/kernel": 0.001},
}  # fmt: skip
GRIDS = (("3x3+1", 3, 5, True), ("4x4+1", 4, 2, True), ("7x7", 7, 12, False), ("4x4", 4, 4, False))


def main() -> None:
    vision_transformer, big_vision = sys.argv[1:]
    sys.path[:0] = [vision_transformer, big_vision]
    _stand_in_for_what_is_not_used()
    jax.config.update("jax_default_matmul_precision", "highest")
    cases: dict[str, Any] = {}
    outputs: dict[str, np.ndarray] = {}
    with tempfile.TemporaryDirectory() as folder:
        for case, (image_size, changes) in {**PLAIN_CASES, **HYBRID_CASES}.items():
            cases[case], found = run_vision_transformer(case, image_size, changes, Path(folder))
            outputs |= {f"{case}/{name}": value for name, value in found.items()}
        for case, (image_size, changes) in BIG_VISION_CASES.items():
            cases[case], found = run_big_vision(case, image_size, changes, Path(folder))
            outputs |= {f"{case}/{name}": value for name, value in found.items()}
    outputs |= resized_positions()
    index = json.dumps({"cases": cases, "parameters": count_parameters()}, separators=(",", ":"))
    place = Path(__file__).with_name("google.npz")
    np.savez_compressed(place, index=np.frombuffer(index.encode(), np.uint8), **outputs)
    print(f"{place}: {place.stat().st_size:,} bytes, {len(cases)} cases")


def run_vision_transformer(
    case: str, image_size: tuple[int, int], changes: dict[str, Any], folder: Path
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """One case of vision_transformer: its record and its outputs."""
    models = importlib.import_module("vit_jax.models_vit")
    checkpoint = importlib.import_module("vit_jax.checkpoint")
    settings = {"num_classes": CLASSES, "patches": (8, 8), "classifier": "token", "transformer": ENCODER} | changes
    if settings["transformer"] is None:
        settings |= {"num_classes": None, "classifier": "unpooled"}
    model = vision_transformer_model(models, settings)
    factors = FACTORS.get(case, {})
    images = draw_images(*image_size) * np.float32(factors.get("images", 1))
    wanted = shapes_of(jax.eval_shape(lambda: model.init(jax.random.PRNGKey(0), images, train=False)["params"]))
    file_name = str if case == "vit_linen_names" else published_name
    shapes = {file_name(name): groupnorm_of_file(case, name, shape) for name, shape in wanted.items()}
    path = folder / f"{case}.npz"
    np.savez(path, **draw_all(shapes, factors))
    params = checkpoint.load(str(path))
    path.unlink()
    assert shapes_of(params) == wanted, case
    result = np.asarray(model.apply({"params": params}, images, train=False))
    kind = {2: "logits", 3: "tokens", 4: "map"}[result.ndim]
    outputs = {kind: result}
    if kind == "logits":
        headless = vision_transformer_model(models, settings | {"num_classes": None})
        outputs["features"] = np.asarray(headless.apply({"params": params}, images, train=False))
    return record("vision_transformer", image_size, settings, shapes) | {"factors": factors}, outputs


def run_big_vision(
    case: str, image_size: tuple[int, int], changes: dict[str, Any], folder: Path
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """One case of big_vision: its record and its outputs."""
    vit = importlib.import_module("big_vision.models.vit")
    settings = TOWER | changes
    model = vit.Model(**settings)
    images = draw_images(*image_size)
    first = jax.eval_shape(lambda: model.init(jax.random.PRNGKey(0), images)["params"])
    wanted = shapes_of(first)
    shapes = big_vision_file(case, wanted)
    path = folder / f"{case}.npz"
    np.savez(path, **{n: as_bfloat16(v) if case == "bv_bfloat16" else v for n, v in draw_all(shapes).items()})
    tower = ":img" if "params/img/" in "".join(shapes) else ""
    loaded = vit.load(first, f"{path}{tower}", settings)
    path.unlink()
    assert shapes_of(loaded) == wanted, case
    params = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float32), loaded)  # else the probe computes in bfloat16
    result, between = model.apply({"params": params}, images)
    outputs = {"features": np.asarray(between["pre_logits"], np.float32)}
    if settings["num_classes"]:
        outputs["logits"] = np.asarray(result, np.float32)
    return record("big_vision", image_size, settings, shapes) | {"bfloat16": case == "bv_bfloat16"}, outputs


def vision_transformer_model(models: types.ModuleType, settings: dict[str, Any]) -> Any:
    """Their module for our short settings; a stem is given as its stages' numbers of units."""
    chosen = dict(settings)
    stages = chosen.pop("resnet", None)
    patches = types.SimpleNamespace(size=tuple(chosen.pop("patches")))
    resnet = None if stages is None else types.SimpleNamespace(num_layers=stages, width_factor=1)
    return models.VisionTransformer(hidden_size=WIDTH, patches=patches, resnet=resnet, **chosen)


def published_name(name: str) -> str:
    """The name in the published files, which count the submodules of a block together, not each kind for itself."""
    in_block = {"LayerNorm_1/": "LayerNorm_2/", "HeadDotProductAttention_0/": "HeadDotProductAttention_1/"}
    for ours, theirs in (in_block | {"MlpBlock_0/": "MlpBlock_3/"}).items():
        name = name.replace(ours, theirs)
    return name


def groupnorm_of_file(case: str, name: str, shape: tuple[int, ...]) -> tuple[int, ...]:
    """GroupNorm's vectors had four axes when the published hybrids were made; two of the cases have them so."""
    module = name.split("/")[-2] if "/" in name else ""
    return (1, 1, 1, *shape) if module.startswith("gn") and case in ("r26_s_32", "r50_l_16") else shape


def big_vision_file(case: str, wanted: dict[str, tuple[int, ...]]) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the file of a case, which the loader turns into the model's."""
    shapes = dict(wanted)
    if case in ("bv_very_old_positions", "bv_old_positions", "bv_old_gap"):
        _, tokens, width = shapes.pop("pos_embedding")
        module = "Transformer/posembed_input" if case == "bv_very_old_positions" else "Transformer"
        shapes[f"{module}/pos_embedding"] = (1, tokens + ("cls" in shapes), width)
    if case == "bv_very_old_positions":
        shapes = {published_name(name): shape for name, shape in shapes.items()}
    if case == "bv_inlined_probe":
        shapes = {name.removeprefix("MAPHead_0/"): shape for name, shape in shapes.items()}
    prefixes = {"bv_optimizer": "opt/target/", "bv_inlined_probe": "", "bv_very_old_positions": "", "bv_gap": ""}
    prefix = prefixes.get(case, "params/img/" if case in ("bv_siglip", "bv_siglip_scan", "bv_lit") else "params/")
    shapes = {prefix + name: shape for name, shape in shapes.items()}
    if prefix == "params/img/":
        shapes |= {"params/txt/head/kernel": (4, 4), "params/t": (1,), "params/b": (1,)}
    if prefix == "opt/target/":
        shapes |= {"opt/state/step": (), "opt/state/param_states/cls/grad_ema": (3,)}
    return shapes


def resized_positions() -> dict[str, np.ndarray]:
    """What `checkpoint.interpolate_posembed` makes of drawn tables; it knows square grids only."""
    checkpoint = importlib.import_module("vit_jax.checkpoint")
    found = {}
    for old, side, new_side, has_class_token in GRIDS:
        table = draw(f"positions/{old}", (1, side * side + has_class_token, 4))
        tokens = new_side * new_side + has_class_token
        name = f"positions/{old}-{new_side}x{new_side}{'+1' * has_class_token}"
        found[name] = np.asarray(checkpoint.interpolate_posembed(table, tokens, has_class_token), np.float32)
    return found


def count_parameters() -> dict[str, int]:
    """Parameters of full-size models by Google's own initialisation, without making one."""
    configs = importlib.import_module("vit_jax.configs.models").MODEL_CONFIGS
    models = importlib.import_module("vit_jax.models_vit")

    def count(name: str, image: int, classes: int | None, representation: int | None, changes: dict[str, Any]) -> int:
        config = {key: value for key, value in configs[name].items() if key != "representation_size"} | changes
        model = models.VisionTransformer(num_classes=classes, representation_size=representation, **config)
        images = jnp.zeros((1, image, image, 3))
        tree = jax.eval_shape(lambda: model.init(jax.random.PRNGKey(0), images, train=False)["params"])
        return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(tree))

    found = {}
    for name in sorted(configs):
        if "ViT-" in name:
            found[f"{name} 224 1000"] = count(name, 224, 1000, None, {})
    stem = {"resnet": configs["R50+ViT-B_16"].resnet, "patches": configs["R50+ViT-B_16"].patches}
    found["R50+ViT-L_16 224 1000"] = count("ViT-L_16", 224, 1000, None, stem)
    for name, image in (("ViT-B_16", 384), ("ViT-L_16", 384), ("ViT-L_16", 512), ("ViT-H_14", 518), ("ViT-B_32", 384)):
        found[f"{name} {image} 1000"] = count(name, image, 1000, None, {})
    for name in ("ViT-Ti_16", "ViT-S_16", "ViT-B_16", "ViT-B_32", "ViT-L_16", "ViT-L_32", "ViT-H_14"):
        found[f"{name} 224 21843"] = count(name, 224, 21843, None, {})
        found[f"{name} 224 21843 hidden"] = count(name, 224, 21843, configs[name].hidden_size, {})
    for name in ("ViT-B_16", "ViT-L_16", "ViT-H_14"):
        found[f"{name} 224 0"] = count(name, 224, None, None, {})
    return found


def record(
    library: str, image_size: tuple[int, int], settings: dict[str, Any], shapes: dict[str, tuple[int, ...]]
) -> dict[str, Any]:
    plain: dict[str, Any] = {"bfloat16": False, "factors": {}}
    return {"library": library, "image_size": image_size, "settings": settings} | plain | {"shapes": shapes}


def shapes_of(tree: Any) -> dict[str, tuple[int, ...]]:
    """Name and shape of every array in a nested dictionary, as the files name them."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {"/".join(step.key for step in path): tuple(leaf.shape) for path, leaf in leaves}


def _stand_in_for_what_is_not_used() -> None:
    """Empty modules for libraries that Google's files import and that nothing here calls."""
    gfile = types.ModuleType("tensorflow.io.gfile")
    gfile.GFile = open  # type: ignore[attr-defined]
    io = types.ModuleType("tensorflow.io")
    io.gfile = gfile  # type: ignore[attr-defined]
    tensorflow = types.ModuleType("tensorflow")
    tensorflow.io = io  # type: ignore[attr-defined]
    for module in (tensorflow, io, gfile, types.ModuleType("pandas"), types.ModuleType("tqdm")):
        sys.modules.setdefault(module.__name__, module)


if __name__ == "__main__":
    main()
