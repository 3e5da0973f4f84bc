"""The layers of any PyTorch model that keep the image's shape, and their features position by position."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from vitreous.arrangement.finding import Place, find_convolutions, find_places
from vitreous.arrangement.result import Kind
from vitreous.arrangement.seen_calls import SeenCalls, seeing_calls
from vitreous.capture.compiled import compiled_parts_run_eagerly
from vitreous.capture.watch import watch_attention
from vitreous.errors import CaptureError, ShapeError
from vitreous.model.forward import run_model
from vitreous.model.vit import VisionTransformer
from vitreous.tokens import TokenLayout

MOST = 16
"""Layers that are read at most."""


class SpatialLayers:
    """Where a model's features can be read position by position, found in a pass over two images.

    Of a Vision Transformer these are what its first block sees and what each block returns, without the tokens that
    stand before the patches; of a CNN the maps of its residual units, of a hybrid both. `finding` tells which modules
    these are.

    Attributes:
        model: that they are read from.
        names: "embedding" and "layer 0" on for tokens, "unit 0" on for maps, in the order in which they run; of more
            than 16 as many, evenly spaced.
        grids: (rows, columns) of each.
        strides: of each, pixels of the image from one position to the next, (down, right).
        kind: "ViT", "hybrid" or "CNN".
        patch_size: (height, width) in whole pixels that one position of the last layer stands for.

    Args:
        model: any module, run in the mode that it is in.
        images: (batch, channels, image_height, image_width), preprocessed; at most two of them are looked at.

    Raises:
        CaptureError: if no layer has a map of more than one position.
        ShapeError: if the model refuses the images.
    """

    def __init__(self, model: nn.Module, images: Tensor) -> None:
        self.model = model
        self._image_shape = images.shape[1:]
        with torch.inference_mode(False):  # there changes in place leave no trace
            looked = _look(model, images[:2].clone())
        places = find_places(model, looked.seen, looked.layout)
        if not places and not looked.attends:
            places = find_convolutions(looked.seen)
        if not places:
            raise CaptureError(
                f"{type(model).__name__} has no layer whose map can be placed in the image: none returns its patches "
                f"as (batch, tokens, width) or a map as (batch, channels, rows, columns){looked.reason}\n"
                "take a CNN, or a Vision Transformer whose layers attend among all patches"
            )
        self.kind: Kind = _kind_of(model, places, looked.attends)
        self.patch_size = (max(1, round(places[-1].stride[0])), max(1, round(places[-1].stride[1])))
        self._places = _evenly_spaced(places)
        self.names = tuple(place.name for place in self._places)
        self.grids = tuple(place.grid for place in self._places)
        self.strides = tuple(place.stride for place in self._places)

    def read(self, images: Tensor) -> tuple[Any, dict[str, Tensor]]:
        """One pass; no hook is left on the model, also when it fails.

        Args:
            images: (batch, channels, image_height, image_width), preprocessed, of the size that layers were found with.

        Returns:
            What the model returned, and by name of the layer (batch, rows, columns, width) float32, on the model's
            device.

        Raises:
            ShapeError: if images are of another size, or the model refuses them.
            CaptureError: if a layer did not run.
        """
        if images.shape[1:] != self._image_shape:
            raise ShapeError(
                f"images are {tuple(images.shape)}, but layers were found with images of {tuple(self._image_shape)} "
                "(channels, image_height, image_width); resize them, or find the layers anew"
            )
        features: dict[str, Tensor] = {}
        with compiled_parts_run_eagerly(), _reading(self._places, features):
            output = run_model(self.model, images)
        missing = [name for name in self.names if name not in features]
        if missing:
            raise CaptureError(f"{missing[0]} of {type(self.model).__name__} did not run; put the model in eval mode")
        return output, {name: features[name] for name in self.names}


class _Looked(NamedTuple):
    """What a first pass told."""

    seen: SeenCalls
    layout: TokenLayout | None
    attends: bool
    reason: str
    """Why attention that was seen gives no layout, in brackets; empty otherwise."""


def _look(model: nn.Module, images: Tensor) -> _Looked:
    if isinstance(model, VisionTransformer):
        with seeing_calls(model, images) as seen:
            run_model(model, images)
        layout = model.layout(images.shape[-2], images.shape[-1]) if model.config.depth else None
        return _Looked(seen, layout, layout is not None, "")
    attending: list[int] = []
    try:
        with (
            seeing_calls(model, images) as seen,
            watch_attention(model, on_attention=lambda layer, operator, layout: attending.append(layer)) as watched,
        ):
            run_model(model, images)
        return _Looked(seen, watched.layout, True, "")
    except CaptureError as cause:
        reason = f" ({str(cause).splitlines()[0]})" if attending else ""
    with seeing_calls(model, images) as seen:  # the watch may have stopped the pass half way
        run_model(model, images)
    return _Looked(seen, None, bool(attending), reason)


def _kind_of(model: nn.Module, places: Sequence[Place], attends: bool) -> Kind:
    if isinstance(model, VisionTransformer):
        if not model.config.depth:
            return "CNN"
        return "ViT" if model.config.stem is None else "hybrid"
    if not attends:
        return "CNN"
    return "ViT" if places[0].layout is not None else "hybrid"


def _evenly_spaced(places: Sequence[Place]) -> tuple[Place, ...]:
    """At most `MOST`, the first and the last among them."""
    if len(places) <= MOST:
        return tuple(places)
    return tuple(places[round(number * (len(places) - 1) / (MOST - 1))] for number in range(MOST))


@contextmanager
def _reading(places: Sequence[Place], features: dict[str, Tensor]) -> Iterator[None]:
    """Inside, each layer leaves its features by its name; afterwards no hook is left on the model."""
    hooks = []
    try:
        for module in {place.module: None for place in places}:
            before, after = _hooks([place for place in places if place.module is module], features)
            hooks.append(module.register_forward_pre_hook(before, with_kwargs=True))
            hooks.append(module.register_forward_hook(after))
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _hooks(places: Sequence[Place], features: dict[str, Tensor]) -> tuple[Callable[..., None], Callable[..., None]]:
    """Before and after a module runs; its calls are counted from 0."""
    inputs = {place.turn: place for place in places if place.reads_input}
    outputs = {place.turn: place for place in places if not place.reads_input}
    turns = [0]

    def before(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if turns[0] in inputs:
            place = inputs[turns[0]]
            features[place.name] = place.features((args, kwargs))

    def after(module: nn.Module, args: tuple[Any, ...], returned: Any) -> None:
        if turns[0] in outputs:
            place = outputs[turns[0]]
            features[place.name] = place.features(returned)
        turns[0] += 1

    return before, after
