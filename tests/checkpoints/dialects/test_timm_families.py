from __future__ import annotations

import functools
import importlib
from typing import Any

import pytest
from torch import nn

from vitreous.checkpoints.dialects.timm_families import Family, family_of, strange_word

timm = pytest.importorskip("timm")

MAKERS = {
    "vision_transformer": "_create_vision_transformer",
    "vision_transformer_hybrid": "_create_vision_transformer_hybrid",
    "deit": "_create_deit",
}
ACTIVATIONS = {"gelu": "gelu", "gelu_tanh": "gelu-tanh", "quick_gelu": "quick-gelu", nn.SiLU: "gelu"}
OTHERS = {
    "block_fn": "blocks of another kind",
    "attn_layer": "attention of another kind",
    "scale_attn_norm": "a LayerNorm inside attention",
    "embed_norm_layer": "a norm of patches",
    "proj_bias": "dense layers without bias",
    "final_norm": "no last norm",
}
"""Arguments by which an architecture is none that `ViTConfig` describes."""


def arguments_of(module: str, monkeypatch: pytest.MonkeyPatch) -> dict[str, dict[str, Any]]:
    """What timm's registry makes each of a module's models with; nothing is made."""
    models = importlib.import_module(f"timm.models.{module}")
    monkeypatch.setattr(models, MAKERS[module], lambda variant, **arguments: arguments)
    if module == "vision_transformer_hybrid":
        monkeypatch.setattr(models, "_resnetv2", lambda layers, **arguments: "ResNet")
        for name in ("resnet26d", "resnet50d", "ConvStem"):
            monkeypatch.setattr(models, name, lambda *arguments, **named: "another")
    return {name: timm.models.model_entrypoint(name)() for name in timm.list_models(module=module)}


def epsilon(arguments: dict[str, Any]) -> float | None:
    """Of the LayerNorm; None for another norm."""
    layer = arguments.get("norm_layer")
    if layer is None:
        return 1e-6
    is_layer_norm = isinstance(layer, functools.partial) and layer.func.__name__ == "LayerNorm"
    return float(layer.keywords["eps"]) if is_layer_norm else None


@pytest.mark.parametrize("module", MAKERS)
def test_every_architecture_of_timms_is_known_or_refused(module: str, monkeypatch: pytest.MonkeyPatch) -> None:
    known = 0
    for name, arguments in arguments_of(module, monkeypatch).items():
        family = family_of(name)
        other = any(OTHERS.keys() & arguments.keys()) or epsilon(arguments) is None
        if other or arguments.get("backbone") == "another":
            assert family is None, name
        elif family is not None:
            known += 1
            activation = ACTIVATIONS[arguments.get("act_layer") or "gelu"]
            gated = "mlp_layer" in arguments
            assert family == Family(arguments["num_heads"], epsilon(arguments), activation, gated), name
    assert known >= {"vision_transformer": 129, "vision_transformer_hybrid": 8, "deit": 16}[module]


def test_a_plain_vit_is_never_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = {"patch_size", "embed_dim", "depth", "num_heads", "mlp_ratio", "pretrained"}
    for name, arguments in arguments_of("vision_transformer", monkeypatch).items():
        if arguments.keys() <= plain:
            assert family_of(name) is not None, name


@pytest.mark.parametrize("name", ["", "vit", "vit_base", "resnet50", "beit_base_patch16_224", None, 7, ["vit"]])
def test_what_is_no_vit_of_timms_is_not_known(name: Any) -> None:
    assert family_of(name) is None
    assert strange_word(name) == ""


def test_the_word_that_is_not_known_is_told() -> None:
    assert strange_word("vit_small_patch16_rope_224") == "rope"
    assert strange_word("vit_base_patch16_224") == ""
