from __future__ import annotations

import pytest

from vitreous.checkpoints.containers.contract import Shapes
from vitreous.checkpoints.wrappers import Stripped, strip
from vitreous.errors import CheckpointError

BACKBONE: Shapes = {"cls_token": (1, 1, 8), "patch_embed.proj.weight": (8, 3, 4, 4), "blocks.0.norm1.weight": (8,)}
HEAD: Shapes = {"mlp.0.weight": (16, 8), "fc.weight": (9, 16)}


def under(prefix: str, shapes: Shapes) -> Shapes:
    return {prefix + name: shape for name, shape in shapes.items()}


@pytest.mark.parametrize(
    "prefix",
    [
        "",
        "model.",
        "state_dict.",
        "state_dict.model.",
        "model_state_dict.module.",
        "teacher.module.backbone.",
        "target_encoder.module.",
        "module._orig_mod.",
        "base_model.model.",
        "state_dict.net.encoder.",
        "a_users.own_name.",
    ],
)
def test_a_prefix_of_any_depth_is_taken_off(prefix: str) -> None:
    stripped = strip(under(prefix, BACKBONE))
    assert stripped == Stripped(prefix, BACKBONE, {name: prefix + name for name in BACKBONE})


@pytest.mark.parametrize(
    "name",
    [
        "conv_proj.weight",
        "visual.conv1.weight",
        "visual.trunk.patch_embed.proj.weight",
        "to_patch_embedding.1.weight",
        "class_embedding",
        "embeddings.patch_embeddings.projection.weight",
        "vit.embeddings.patch_embeddings.projection.weight",
        "vision_model.embeddings.patch_embedding.weight",
        "vision_model.embeddings.class_embedding",
        "embeddings.patch_embeddings.weight",
    ],
)
def test_first_layers_of_every_format_are_known_and_a_models_own_name_stays(name: str) -> None:
    shapes: Shapes = {name: (8, 3, 4, 4), "head.weight": (2, 8)}
    assert strip(under("state_dict.module.", shapes)).shapes == shapes
    assert strip(shapes) == Stripped.whole(shapes)


@pytest.mark.parametrize(
    ("taken", "left", "guessed"),
    [
        ("teacher.backbone.", "student.module.backbone.", False),
        ("target_encoder.module.", "encoder.module.", False),
        ("state_dict_ema.", "state_dict.", False),
        ("model.", "model_ema.", False),
        ("module.base_encoder.", "module.momentum_encoder.", False),
        ("first.", "second.", True),
    ],
)
def test_of_several_models_the_one_that_its_project_evaluates_is_taken(taken: str, left: str, guessed: bool) -> None:
    shapes = under(taken, BACKBONE), under(left, BACKBONE)
    for both in (shapes[0] | shapes[1], shapes[1] | shapes[0]):
        if guessed and next(iter(both)).startswith(left):
            continue  # among equals the first in the file is taken
        stripped = strip(both)
        assert (stripped.prefix, stripped.alternatives) == (taken, (left,))
        assert stripped.shapes == BACKBONE
        (decision,) = stripped.decisions
        assert (decision.value, decision.guessed) == (taken, guessed)
        assert set(stripped.ignored) == set(shapes[1])
        word = decision.reason.partition("weights='")[2].partition("'")[0]
        assert strip(both, word).prefix == left


def test_what_lies_beside_the_model_is_left_out_with_a_reason() -> None:
    shapes = under("teacher.backbone.", BACKBONE) | under("teacher.head.", HEAD)
    shapes |= {"optimizer.state.0.exp_avg": (8,), "dino_loss.center": (1, 9)}
    stripped = strip(shapes)
    assert stripped.shapes == BACKBONE
    assert stripped.ignored == {
        "teacher.head.mlp.0.weight": "beside the model: a head or another network, not under teacher.backbone.",
        "teacher.head.fc.weight": "beside the model: a head or another network, not under teacher.backbone.",
        "optimizer.state.0.exp_avg": "state of the optimizer or of the training loop",
        "dino_loss.center": "state of the optimizer or of the training loop",
    }


def test_the_optimizer_beside_names_without_a_prefix_is_left_out() -> None:
    assert strip(BACKBONE | {"optimizer.state.0.exp_avg": (8,)}).shapes == BACKBONE


def test_what_is_asked_for_is_taken() -> None:
    shapes = under("teacher.backbone.", BACKBONE) | under("student.module.backbone.", BACKBONE)
    for word in ("student", "student.module", "student.module.backbone."):
        stripped = strip(shapes, word)
        assert stripped.prefix == "student.module.backbone."
        assert [(d.value, d.reason) for d in stripped.decisions] == [("student.module.backbone.", "as asked")]
    with pytest.raises(
        CheckpointError, match=r"weights='ema' was asked for; there are models under 'teacher.backbone.'"
    ):
        strip(shapes, "ema")
    with pytest.raises(CheckpointError, match="no Vision Transformer's first layer was found"):
        strip({"fc.weight": (3, 3)}, "student")


@pytest.mark.parametrize(
    "shapes",
    [
        {"opt/target/embedding/kernel": (4, 4, 3, 8), "opt/target/cls": (1, 1, 8)},
        {"params/img/embedding/kernel": (4, 4, 3, 8)},
        {"layer.weight": (3, 3)},
        {},
    ],
)
def test_googles_names_and_strange_ones_stay_as_they_are(shapes: Shapes) -> None:
    assert strip(shapes) == Stripped.whole(shapes)


def test_names_of_a_hostile_file_are_shown_cut_and_escaped() -> None:
    evil = "x" * 500 + "\x1b[31m."
    stripped = strip(under(evil, BACKBONE) | under("y.", BACKBONE))
    (decision,) = stripped.decisions
    assert len(decision.value) < 120
    assert "\x1b" not in decision.value + decision.reason


def test_the_projection_head_of_dino_stays_because_it_tells_whose_the_backbone_is() -> None:
    head: Shapes = {"head.mlp.0.weight": (16, 8), "head.last_layer.weight_v": (9, 4)}
    other = under("student.module.", head) | under("student.module.backbone.", BACKBONE)
    stripped = strip(under("teacher.", head) | under("teacher.backbone.", BACKBONE) | other)
    assert stripped.shapes == head | BACKBONE
    assert stripped.names["head.last_layer.weight_v"] == "teacher.head.last_layer.weight_v"
    assert set(stripped.ignored) == set(other)
    assert strip(under("backbone.", BACKBONE | {"head.mlp.0.weight": (2, 2)}) | head).shapes["head.mlp.0.weight"] == (
        2,
        2,
    )


def test_a_file_of_nothing_but_models_is_refused() -> None:
    with pytest.raises(CheckpointError, match="holds 65 models; 64 are the most"):
        strip({f"m{number}.patch_embed.proj.weight": (8, 3, 4, 4) for number in range(65)})
