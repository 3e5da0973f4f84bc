"""timm's state dicts: a folder with its config.json, or the weights alone.

With config.json everything is told. Without it names and shapes tell all but heads, LayerNorm's epsilon, activation and
preprocessing; an architecture's name in the file or on it tells the first three.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from vitreous.checkpoints.dialects.settled import ITS_OWN_CONFIG, about_images
from vitreous.checkpoints.dialects.timm_families import Family, family_of, strange_word
from vitreous.checkpoints.dialects.timm_names import (
    Named,
    grid_of,
    has_timm_names,
    heads_of,
    pooling_of,
    positions_with_prefix,
    reading_of,
    told_by,
)
from vitreous.checkpoints.loaded import Decision
from vitreous.checkpoints.reading import Found, Reading, asked_or
from vitreous.checkpoints.timm_preprocess import preprocess_from_timm
from vitreous.data.images import shown
from vitreous.data.pipelines import timm_default
from vitreous.errors import CheckpointError
from vitreous.model.config import Activation

TITLE = "timm folder"

POOLING = {"token": "class", "avg": "mean", "map": "map"}
"""timm's words for what the head reads, and ours."""

ACTIVATIONS: dict[str, Activation] = {"gelu": "gelu", "gelu_tanh": "gelu-tanh", "quick_gelu": "quick-gelu"}
"""timm's words for the MLP's activation, and ours."""

_REMEDY = "open it with timm itself: timm:local-dir:FOLDER"
_TOLD_BY_TENSORS = {
    "embed_dim": "width", "depth": "depth", "in_chans": "channels", "reg_tokens": "registers",
    "class_token": "class_token", "qkv_bias": "qkv_bias", "qk_norm": "qk_norm", "pre_norm": "norm_before_blocks",
}  # fmt: skip
_SIZES = {
    "img_size", "patch_size", "num_heads", "mlp_ratio", "global_pool", "init_values", *_TOLD_BY_TENSORS,
}  # fmt: skip
_TRANSLATED = _SIZES | {
    "fc_norm", "pos_embed", "no_embed_class", "act_layer", "norm_layer", "final_norm", "proj_bias",
    "pool_include_prefix",
}  # fmt: skip
_WITHOUT_EFFECT = {
    "num_classes", "dynamic_img_size", "strict_img_size", "weight_init", "fix_init", "drop_rate", "pos_drop_rate",
    "patch_drop_rate", "proj_drop_rate", "attn_drop_rate", "drop_path_rate",
}  # fmt: skip
_UNUSED = {"pre_logits.fc.": "the hidden layer of a pre-training head, which timm leaves out too"}
_CLIP_EPS = "CLIP's, because of norm_pre; say norm_eps=N to settle it"
_STEM = "timm's ResNet, whose small constants are not Google's"


def recognises(found: Found) -> bool:
    """Whether there is timm's config.json, or its names: to be asked after formats that share them."""
    return "architecture" in found.described or ("model_type" not in found.described and has_timm_names(found.shapes))


def read(found: Found) -> Reading:
    """The model that timm makes of it.

    Raises:
        CheckpointError: if it is another architecture, or one that cannot be told with certainty.
    """
    return _described(found) if "architecture" in found.described else _bare(found)


def class_names_from_timm(described: Mapping[str, Any], classes: int) -> tuple[str, ...]:
    """The label names, at the root or under pretrained_cfg, a list or {"0": name}; empty where none are.

    Raises:
        CheckpointError: if there are more or fewer than classes.
    """
    names = described.get("label_names") or part_of(described, "pretrained_cfg").get("label_names") or []
    if isinstance(names, dict):
        names = [names.get(str(index), "") for index in range(min(len(names), classes))]
    if not isinstance(names, list):
        raise CheckpointError(f"config.json has label_names {repr(names)[:60]}; expected a list of names")
    if names and len(names) != classes:
        raise CheckpointError(
            f"config.json has {len(names)} label_names, the head {classes} classes; give one name for each"
        )
    return tuple(str(name) for name in names)


def _described(found: Found) -> Reading:
    described = found.described
    arguments = part_of(described, "model_args")
    family = _family(described)
    named = Named.of(found.shapes)
    told = told_by(named)
    _check_arguments(arguments, told)
    architecture = f"timm's architecture {described['architecture']}"
    pooling = pooling_in(found, named)
    _check_pooled_tokens(described, arguments, pooling.value, told)
    named, image_size, notes = _placed(found, named)
    activation, gated = _activation(arguments, family)
    if gated != told["gated_mlp"]:
        raise CheckpointError(f"the MLP's shapes are not those of {architecture}; {_REMEDY}")
    has_plain_norm = arguments.get("norm_layer") is not None  # by its name timm's layer has its own default
    heads, told_in = family.heads, architecture
    if "num_heads" in arguments:
        heads, told_in = arguments["num_heads"], "num_heads in model_args"
    decisions = (
        asked_or("heads", found.asked, heads, told_in),
        pooling,
        image_size,
        asked_or("norm_eps", found.asked, 1e-6 if has_plain_norm else family.norm_eps, architecture),
        asked_or("activation", found.asked, activation, architecture),
        *_layer_scale(arguments, told),
        *notes,
        *_stem_constants(told),
    )
    preprocess, more = preprocess_from_timm(dict(part_of(described, "pretrained_cfg")))
    names = class_names_from_timm(described, told["classes"])
    return reading_of(found, named, (*decisions, *more), preprocess, reasons=_UNUSED, class_names=names)


def _bare(found: Found) -> Reading:
    """Weights without config.json: what a name tells, then what is usual."""
    named = Named.of(found.shapes)
    told = told_by(named)
    where, family = _family_by_name(found)
    width = told["attention_width"] or told["width"]
    if family is not None:
        heads = asked_or("heads", found.asked, family.heads, where)
        eps = asked_or("norm_eps", found.asked, family.norm_eps, where)
        activation = asked_or("activation", found.asked, family.activation, where)
    else:
        heads = heads_of(found, width)
        eps, activation = _usual(found, named)
    pooling = pooling_of(found, named)
    named, image_size, notes = _placed(found, named)
    size = (image_size.value[0], image_size.value[1])
    preprocess = timm_default(size)
    reason = "timm's default, because there is no config.json; other weights may have others"
    about = about_images(preprocess, reason, guessed=True)
    decisions = (heads, eps, activation, pooling, image_size, *notes, *_stem_constants(told), *about)
    return reading_of(found, named, decisions, preprocess, reasons=_UNUSED)


def _family(described: Mapping[str, Any]) -> Family:
    name = described.get("architecture")
    family = family_of(name)
    if family is None:
        word = strange_word(name)
        why = f"its {word!r} may change the computation" if word else "plain ViTs are vit_SIZE_patchN_..."
        raise CheckpointError(
            f"config.json's architecture {repr(name)[:80]} is not one that vitreous rebuilds: {why}; {_REMEDY}"
        )
    return family


def _family_by_name(found: Found) -> tuple[str, Family | None]:
    """A known architecture's name among the file's plain values, or as the file's own."""
    for key in ("arch", "args.model", "args.arch"):
        if family := family_of(found.extras.get(key)):
            return f"timm's architecture {found.extras[key]}, which the file names", family
    name = found.name.rpartition("/")[2].partition(".")[0]
    return f"timm's architecture {name[:60]}, by the file's name", family_of(name)


def _usual(found: Found, named: Named) -> tuple[Decision, Decision]:
    """Epsilon and activation where no name tells: CLIP's towers have a LayerNorm before the blocks, and others."""
    if "norm_pre.weight" in named.shapes:
        eps = asked_or("norm_eps", found.asked, 1e-5, _CLIP_EPS, guessed=True)
        reason = "open_clip's default; say activation='quick-gelu' for weights of OpenAI, MetaCLIP or DFN"
        return eps, asked_or("activation", found.asked, "gelu", reason, guessed=True)
    eps = asked_or("norm_eps", found.asked, 1e-6, "timm's default for all but CLIP's towers")
    if "attn_pool.latent" in named.shapes:
        reason = "timm's default; say activation='gelu-tanh' for SigLIP 2"
        return eps, asked_or("activation", found.asked, "gelu", reason, guessed=True)
    return eps, asked_or("activation", found.asked, "gelu", "timm's default, the exact GELU")


def _check_arguments(arguments: Mapping[str, Any], told: Mapping[str, Any]) -> None:
    """Refuses arguments that vitreous has no word for, and those that the tensors contradict."""
    for name, value in arguments.items():
        if name not in _TRANSLATED | _WITHOUT_EFFECT and value not in (None, False, 0, ""):
            raise _no_word(name, value)
    for name in ("final_norm", "proj_bias"):
        if arguments.get(name) is False:
            raise _no_word(name, False)
    if arguments.get("norm_layer") not in (None, "", "layernorm"):
        raise _no_word("norm_layer", arguments["norm_layer"])
    _check_told(arguments, told)


def check_sizes(arguments: Mapping[str, Any], told: Mapping[str, Any]) -> None:
    """Refuses arguments that change more than sizes, for families whose other arguments are not translated.

    Args:
        arguments: config.json's model_args.
        told: what the tensors tell.

    Raises:
        CheckpointError: if there is such an argument, or the tensors contradict one.
    """
    for name, value in arguments.items():
        if name not in _SIZES | _WITHOUT_EFFECT and value is not None:
            raise _no_word(name, value)
    _check_told(arguments, told)


def _check_told(arguments: Mapping[str, Any], told: Mapping[str, Any]) -> None:
    for name, setting in _TOLD_BY_TENSORS.items():
        if arguments.get(name) is not None and arguments[name] != told[setting]:
            raise CheckpointError(
                f"config.json's model_args has {name}={repr(arguments[name])[:40]}, the weights {told[setting]!r}; "
                + ITS_OWN_CONFIG
            )


def _no_word(name: str, value: object) -> CheckpointError:
    return CheckpointError(
        f"config.json's model_args has {shown(name[:40])}={repr(value)[:40]}, which vitreous has no word for; {_REMEDY}"
    )


def pooling_in(found: Found, named: Named, source: str = "") -> Decision:
    """What the head reads, by config.json's global_pool.

    Args:
        found: what the user asked for wins.
        named: its tensors.
        source: who vouches for the class token where config.json is silent; see `pooling_of`.

    Raises:
        CheckpointError: if it is another kind of pooling.
    """
    arguments = part_of(found.described, "model_args")
    if "pooling" in found.asked:
        return Decision("pooling", found.asked["pooling"], "as asked")
    value = arguments.get("global_pool", found.described.get("global_pool"))
    if value is None:
        usual = pooling_of(found, named, source)
        reason = "timm's default, because config.json has no global_pool"
        return replace(usual, reason=reason) if usual.guessed else usual
    if value == "":
        plain = "class" if "cls_token" in named.shapes else "mean"
        reason = "global_pool is '': timm returns every token, leaves the choice"
        return Decision("pooling", plain, reason, guessed=True)
    if not isinstance(value, str) or value not in POOLING:
        raise CheckpointError(
            f"config.json's global_pool is {repr(value)[:40]}; vitreous has token, avg and map; {_REMEDY}"
        )
    return Decision("pooling", POOLING[value], "global_pool in config.json")


def _check_pooled_tokens(
    described: Mapping[str, Any], arguments: Mapping[str, Any], pooling: str, told: Mapping[str, Any]
) -> None:
    """Refuses to pool other tokens than timm: with its `pool_include_prefix` those before the patches count, too."""
    prefix = told["class_token"] + told["distillation"] + told["registers"]
    includes = arguments.get("pool_include_prefix", described["architecture"] == "test_vit3")
    if prefix and includes and pooling in ("mean", "map"):
        raise _no_word("pool_include_prefix", includes)


def _activation(arguments: Mapping[str, Any], family: Family) -> tuple[Activation, bool]:
    """The MLP's activation, and whether it is gated: then silu is the gate's."""
    value = arguments.get("act_layer")
    if value is None or (family.gated_mlp and value in ("silu", "swish")):
        return family.activation, family.gated_mlp
    if family.gated_mlp or not isinstance(value, str) or value not in ACTIVATIONS:
        raise _no_word("act_layer", value)
    return ACTIVATIONS[value], False


def _placed(found: Found, named: Named) -> tuple[Named, Decision, tuple[Decision, ...]]:
    """The image size, and the position table with a row for every token."""
    told = told_by(named)
    prefix = told["class_token"] + told["distillation"] + told["registers"]
    size = image_size_in(found)
    if "pos_embed" not in named.shapes:
        guess = Decision("image_size", [224, 224], "timm's default, because nothing says", guessed=True)
        return named, size or guess, ()
    settled = Found(named.shapes, asked={"image_size": size.value} if size else {})
    decision, before = grid_of(settled, named, (prefix, 0, 1))
    named, notes = positions_with_prefix(named, before, prefix)
    rule = asked_or("resampling", found.asked, "timm", "timm's rule for images of another size")
    return named, size or decision, (*notes, rule)


def image_size_in(found: Found) -> Decision | None:
    """The image size that was asked for, or else config.json's; None where neither says.

    Raises:
        CheckpointError: if it is no size.
    """
    arguments = part_of(found.described, "model_args")
    if "image_size" in found.asked:
        return Decision("image_size", list(found.asked["image_size"]), "as asked")
    size = arguments.get("img_size")
    given = part_of(found.described, "pretrained_cfg").get("input_size")
    reason = "img_size in model_args"
    if size is None and isinstance(given, list) and len(given) == 3:
        size, reason = given[1:], "input_size in pretrained_cfg"
    if size is None:
        return None
    pair = [size, size] if isinstance(size, int) else size
    if not isinstance(pair, list) or len(pair) != 2 or not all(isinstance(side, int) and side > 0 for side in pair):
        raise CheckpointError(f"config.json's image size is {repr(size)[:40]}; it is one number of pixels, or two")
    return Decision("image_size", pair, reason)


def _layer_scale(arguments: Mapping[str, Any], told: Mapping[str, Any]) -> tuple[Decision, ...]:
    value = arguments.get("init_values")
    if told["layer_scale"] is None or value is None:
        return ()
    return (Decision("layer_scale", value, "init_values in model_args"),)


def _stem_constants(told: Mapping[str, Any]) -> tuple[Decision, ...]:
    return () if told["stem"] is None else (Decision("stem_constants", "timm", _STEM),)


def part_of(described: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """Settings inside settings; empty where there are none.

    Raises:
        CheckpointError: if there is something else.
    """
    value = described.get(name) or {}
    if not isinstance(value, dict):
        raise CheckpointError(f"config.json's {name} is {repr(value)[:60]}; it is an object of settings")
    return value
