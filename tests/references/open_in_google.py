"""Opens what vitreous writes in Google's own code: the proof that runs outside of the tests.

    python tests/references/open_in_google.py write FOLDER                                        # where vitreous is
    python tests/references/open_in_google.py open FOLDER VISION_TRANSFORMER BIG_VISION           # where jax is

`write` saves small models as `vitreous.save(..., to="google")` does, with images and logits beside them. `open` needs
what make_google.py needs. Each file goes through `checkpoint.load` and `inspect_params`, which refuse a parameter more
or less than the model's, and `load_pretrained`; the plain ones also through big_vision's loader. The largest difference
of the logits is printed: with jax 0.10.2 and torch 2.13 4e-6 at most, of logits up to 5.
"""

from __future__ import annotations

import sys
import types
from pathlib import Path
from typing import Any

import numpy as np

SIDE, PATCH, WIDTH, DEPTH, HEADS, HIDDEN, CLASSES = 64, 16, 48, 3, 4, 120, 7
CASES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {  # by name: settings of ours, settings of Google's module
    "token": ({}, {}),
    "gap": ({"pooling": "mean", "class_token": False, "norm_after_pooling": False}, {"classifier": "gap"}),
    "hidden_head": ({"hidden_head": True}, {"representation_size": WIDTH}),
    "r26_s_32": ({"stem": (2, 2, 2, 2), "patch_size": (32, 32)}, {"resnet": (2, 2, 2, 2), "patches": (1, 1)}),
    "r50_b_16": ({"stem": (3, 4, 9)}, {"resnet": (3, 4, 9), "patches": (1, 1)}),
}


def write(folder: Path) -> None:
    import torch

    import vitreous

    generator = torch.Generator().manual_seed(0)
    images = torch.randn(2, 3, SIDE, SIDE, generator=generator)
    for name, (settings, _) in CASES.items():
        sizes: dict[str, Any] = {"image_size": (SIDE, SIDE), "patch_size": (PATCH, PATCH), "width": WIDTH}
        sizes |= {"depth": DEPTH, "heads": HEADS, "mlp_ratio": HIDDEN / WIDTH, "classes": CLASSES}
        model = vitreous.VisionTransformer(vitreous.ViTConfig(activation="gelu-tanh", **(sizes | settings))).eval()
        with torch.no_grad():
            for key, weight in model.named_parameters():
                if weight.ndim < 2 or key.startswith("head") or "token" in key:  # new ones are zeros and ones
                    weight.add_(torch.randn(weight.shape, generator=generator) * 0.3)
            logits = model(images)
        vitreous.save(model, folder / f"{name}.npz", to="google", class_names=[str(n) for n in range(CLASSES)])
        np.savez(folder / f"{name}_run.npz", images=images.permute(0, 2, 3, 1).numpy(), logits=logits.numpy())


def open_all(folder: Path, vision_transformer: str, big_vision: str) -> None:
    sys.path[:0] = [vision_transformer, big_vision]
    import jax
    import make_google

    make_google._stand_in_for_what_is_not_used()
    jax.config.update("jax_default_matmul_precision", "highest")
    from big_vision.models import vit
    from vit_jax import checkpoint, models_vit

    make_google.WIDTH = WIDTH
    rates = {"dropout_rate": 0.0, "attention_dropout_rate": 0.0}
    encoder = {"mlp_dim": HIDDEN, "num_heads": HEADS, "num_layers": DEPTH} | rates
    for name, (_, settings) in CASES.items():
        path, run = str(folder / f"{name}.npz"), np.load(folder / f"{name}_run.npz")
        usual = {"num_classes": CLASSES, "patches": (PATCH, PATCH), "classifier": "token", "transformer": encoder}
        model = make_google.vision_transformer_model(models_vit, usual | settings)
        first = model.init(jax.random.PRNGKey(0), run["images"], train=False)["params"]
        params = checkpoint.inspect_params(params=checkpoint.load(path), expected=first)
        found = {"vision_transformer": model.apply({"params": params}, run["images"], train=False)}
        all_settings = types.SimpleNamespace(get=(usual | settings).get, classifier=(usual | settings)["classifier"])
        checkpoint.load_pretrained(pretrained_path=path, init_params=first, model_config=all_settings)
        if name in ("token", "gap"):
            tower = {"num_classes": CLASSES, "patch_size": (PATCH, PATCH), "width": WIDTH, "depth": DEPTH}
            tower |= {"mlp_dim": HIDDEN, "num_heads": HEADS, "pool_type": "tok" if name == "token" else "gap"}
            other = vit.Model(**tower)
            first = other.init(jax.random.PRNGKey(0), run["images"])["params"]
            found["big_vision"], _ = other.apply({"params": vit.load(first, path, tower)}, run["images"])
        for library, logits in found.items():
            print(f"{name:12} {library:20} {np.abs(np.asarray(logits) - run['logits']).max():.1e}")


if __name__ == "__main__":
    if sys.argv[1] == "write":
        write(Path(sys.argv[2]))
    else:
        open_all(Path(sys.argv[2]), *sys.argv[3:])
