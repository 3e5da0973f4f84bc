"""MAE: the encoder of a pre-trained masked autoencoder, or what was fine-tuned from it. timm's names."""

from __future__ import annotations

from vitreous.checkpoints.dialects.settled import STAND_IN, about_images
from vitreous.checkpoints.dialects.timm_names import (
    Named,
    grid_of,
    has_timm_names,
    heads_of,
    pooling_of,
    reading_of,
    told_by,
)
from vitreous.checkpoints.loaded import Decision
from vitreous.checkpoints.reading import Found, Reading, asked_or
from vitreous.data.pipelines import mae

TITLE = "MAE"

_UNUSED = {
    "decoder_": "the decoder, which paints masked patches in pre-training",
    "mask_token": STAND_IN,
}


def recognises(found: Found) -> bool:
    """Whether there is a decoder beside timm's names, or a file's name that begins so."""
    marked = "decoder_embed.weight" in found.shapes or found.name.lower().rpartition("/")[2].startswith("mae_")
    return marked and has_timm_names(found.shapes) and "architecture" not in found.described


def read(found: Found) -> Reading:
    """The encoder: of a pre-trained file features of the class token, of a fine-tuned one logits.

    Raises:
        CheckpointError: if it is another architecture.
    """
    named = Named.of(found.shapes)
    told = told_by(named)
    image_size, _ = grid_of(found, named, (1,))
    preprocess = mae((image_size.value[0], image_size.value[1]))
    decisions = (
        heads_of(found, told["width"], "MAE's models"),
        asked_or("norm_eps", found.asked, 1e-6, "MAE's code"),
        asked_or("activation", found.asked, "gelu", "MAE's code, the exact GELU"),
        pooling_of(found, named, "MAE's models_vit.py without global_pool"),
        image_size,
        asked_or("resampling", found.asked, "mae", "MAE's util/pos_embed.py"),
        Decision("positions", "learned", "the file's own table, which in MAE is sines and cosines that do not learn"),
        *about_images(preprocess, "MAE's util/datasets.py"),
    )
    return reading_of(found, named, decisions, preprocess, reasons=_UNUSED)
