"""Images with their parts in another place: tiles shuffled, pixels rolled or shifted, patches hidden.

What is drawn by chance is a function of (seed, sample, what for), so every model sees an image changed in the same way,
in any batch. Images are float tensors as a model takes them, normalised: 0 is the colour that their
preprocessing takes for the mean.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from vitreous.checking import check_count
from vitreous.data.order import keyed_seed, uniform
from vitreous.errors import ConfigError, ShapeError

_TILES, _ROLLS, _DIRECTIONS, _HIDDEN = range(4)
"""What numbers are drawn for; each has its own, also where seed and sample are the same."""

_STEPS = ((0, 1), (0, -1), (1, 0), (-1, 0))


def usable_grids(wanted: Sequence[int], image_size: tuple[int, int]) -> tuple[tuple[int, ...], tuple[str, ...]]:
    """Numbers of tiles a side that cut such an image without a remainder, and what was replaced.

    Of each number wanted the nearest that divides both sides, of two equally near the smaller. 1, the image unchanged,
    is always among them.

    Args:
        wanted: k for k x k tiles; each at least 1.
        image_size: (image_height, image_width) in pixels.

    Returns:
        The numbers, ascending, each once; and a sentence for each that was replaced.

    Raises:
        ConfigError: if a number is below 1, or if nothing but 1 is left.
    """
    for k in wanted:
        check_count("a grid", k, least=1)
    height, width = image_size
    common = math.gcd(height, width)
    divisors = [k for k in range(1, common + 1) if common % k == 0]
    nearest = {k: min(divisors, key=lambda divisor: abs(divisor - k)) for k in wanted}  # the first of the equally near
    grids = tuple(sorted({1, *nearest.values()}))
    if grids == (1,):
        raise ConfigError(_only_one(tuple(wanted), image_size, divisors[1:]))
    notes = (
        f"Images of {height} x {width} pixels do not divide into {k} x {k} tiles; "
        + (f"{used} x {used} is the nearest that does." if used > 1 else "this grid was left out.")
        for k, used in nearest.items()
        if used != k
    )
    return grids, tuple(notes)


def tile_orders(seed: int, samples: Tensor, k: int) -> Tensor:
    """For each image a random order of its k x k tiles, each of them equally likely.

    Args:
        seed: of the run.
        samples: (batch,) int64; indices into the data set.
        k: tiles a side; the orders of one image for two of these have nothing to do with each other.

    Returns:
        (batch, k * k) int64: a permutation of 0 to k * k - 1 for each image.
    """
    return _numbers(seed, samples, k * k, _TILES, k).argsort(dim=1, stable=True)


def shuffle_grid(images: Tensor, orders: Tensor, k: int) -> Tensor:
    """Images cut into k x k tiles and put together in another order.

    Args:
        images: (batch, channels, image_height, image_width); k divides both sides.
        orders: (batch, k * k) int64; place i, counted row by row, shows tile `orders[i]`.
        k: tiles a side.

    Returns:
        The images' shape; every pixel is there, once.

    Raises:
        ShapeError: if tiles do not fit, or there is no order for each image.
    """
    batch, _, height, width = _sizes(images)
    if height % k or width % k:
        raise ShapeError(f"images of {height} x {width} pixels do not divide into {k} x {k} tiles")
    if orders.shape != (batch, k * k):
        raise ShapeError(f"orders are {tuple(orders.shape)}; for {batch} images they are ({batch}, {k * k})")
    cut = images.unflatten(3, (k, width // k)).unflatten(2, (k, height // k))
    tiles = cut.permute(0, 2, 4, 1, 3, 5).flatten(1, 2)  # (batch, tiles, channels, height, width)
    moved = tiles[_each(images), orders.to(images.device)].unflatten(1, (k, k))
    return moved.permute(0, 3, 1, 4, 2, 5).reshape(images.shape)  # (batch, channels, k, height, k, width) before


def roll_offsets(seed: int, samples: Tensor, image_size: tuple[int, int]) -> Tensor:
    """By how many pixels to roll each image down and right, every offset equally likely.

    Args:
        seed: of the run.
        samples: (batch,) int64; indices into the data set.
        image_size: (image_height, image_width) in pixels.

    Returns:
        (batch, 2) int64: from 0 to image_height - 1, and from 0 to image_width - 1.
    """
    return (_numbers(seed, samples, 2, _ROLLS) * torch.tensor(image_size, dtype=torch.float64)).long()


def roll_each(images: Tensor, offsets: Tensor) -> Tensor:
    """Images moved down and right, what leaves on one side coming in on the other.

    Args:
        images: (batch, channels, image_height, image_width).
        offsets: (batch, 2) int64; pixels down, then right; negative ones up and left.

    Returns:
        The images' shape.

    Raises:
        ShapeError: if there is no offset for each image.
    """
    rows, columns = _origins(images, offsets)
    return _picked(images, rows % images.shape[2], columns % images.shape[3])


def shift_directions(seed: int, samples: Tensor) -> Tensor:
    """Which way to shift each image: right, left, down or up, each equally likely.

    Args:
        seed: of the run.
        samples: (batch,) int64; indices into the data set.

    Returns:
        (batch, 2) int64: one of (0, 1), (0, -1), (1, 0), (-1, 0), to be multiplied with pixels.
    """
    chosen = (_numbers(seed, samples, 1, _DIRECTIONS) * len(_STEPS)).long()[:, 0]
    return torch.tensor(_STEPS)[chosen]


def shift(images: Tensor, offsets: Tensor) -> Tensor:
    """Images moved down and right, the edge repeated where nothing is known of what comes in.

    Args:
        images: (batch, channels, image_height, image_width).
        offsets: (batch, 2) int64; pixels down, then right; negative ones up and left.

    Returns:
        The images' shape.

    Raises:
        ShapeError: if there is no offset for each image.
    """
    rows, columns = _origins(images, offsets)
    return _picked(images, rows.clamp(0, images.shape[2] - 1), columns.clamp(0, images.shape[3] - 1))


def random_order(seed: int, samples: Tensor, patches: int) -> Tensor:
    """For each image a random order of its patches, each of them equally likely.

    Args:
        seed: of the run.
        samples: (batch,) int64; indices into the data set.
        patches: of an image.

    Returns:
        (batch, patches) int64: a permutation of 0 to patches - 1 for each image.
    """
    return _numbers(seed, samples, patches, _HIDDEN, patches).argsort(dim=1, stable=True)


def centre_order(rows: int, columns: int) -> Tensor:
    """The patches of a grid, the one nearest to its centre first.

    Distances are counted in patches; of equally near ones the upper left comes first, row by row.

    Returns:
        (rows * columns,) int64.
    """
    down, across = 2 * torch.arange(rows) - (rows - 1), 2 * torch.arange(columns) - (columns - 1)  # in half patches
    return (down[:, None] ** 2 + across**2).flatten().argsort(stable=True)


def hide_patches(images: Tensor, order: Tensor, count: int, grid: tuple[int, int]) -> Tensor:
    """Images whose first patches in an order are 0.

    That is the colour that the preprocessing takes off: the mean of the training images, or middle grey where images
    are taken to [-1, 1]. Where the grid does not divide an image, its patches differ by a pixel.

    Args:
        images: (batch, channels, image_height, image_width).
        order: (batch, rows * columns) int64; patches counted row by row.
        count: patches to hide, from 0 to all.
        grid: (rows, columns) of patches.

    Returns:
        The images' shape.

    Raises:
        ShapeError: if there is no order for each image, or there are more rows or columns than pixels.
        ConfigError: if the count is not between 0 and the number of patches.
    """
    (batch, _, height, width), (rows, columns) = _sizes(images), grid
    if order.shape != (batch, rows * columns):
        raise ShapeError(f"order is {tuple(order.shape)}; for {batch} images it is ({batch}, {rows * columns})")
    if rows > height or columns > width:
        raise ShapeError(f"images of {height} x {width} pixels do not divide into {rows} x {columns} patches")
    if not 0 <= count <= rows * columns:
        raise ConfigError(f"count is {count}; of {rows} x {columns} patches 0 to {rows * columns} can be hidden")
    hidden = torch.zeros(order.shape, dtype=torch.bool, device=images.device)
    hidden.scatter_(1, order[:, :count].to(images.device), True)
    row = torch.arange(height, device=images.device) * rows // height  # in which each pixel lies
    column = torch.arange(width, device=images.device) * columns // width
    pixels = hidden.view(batch, 1, rows, columns)[:, :, row[:, None], column]  # (batch, 1, image_height, image_width)
    return images.masked_fill(pixels, 0)


def _numbers(seed: int, samples: Tensor, draws: int, *purpose: int) -> Tensor:
    """(batch, draws) float64, in [0, 1): two draws of 24 bits each, so that equal ones are out of reach."""
    halves = uniform(samples.cpu(), 2 * draws, seed=keyed_seed(seed, *purpose), epoch=0).double()
    return halves[:, ::2] + halves[:, 1::2] * 2**-24


def _origins(images: Tensor, offsets: Tensor) -> tuple[Tensor, Tensor]:
    """Where each row and column of the moved images comes from: (batch, image_height), (batch, image_width)."""
    batch, _, height, width = _sizes(images)
    if offsets.shape != (batch, 2):
        raise ShapeError(f"offsets are {tuple(offsets.shape)}; for {batch} images they are ({batch}, 2)")
    down, across = offsets.to(images.device)[:, :, None].unbind(1)  # each (batch, 1)
    return torch.arange(height, device=images.device) - down, torch.arange(width, device=images.device) - across


def _picked(images: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Of each image its own rows and columns."""
    down = rows[:, None, :, None].expand(-1, images.shape[1], -1, images.shape[3])
    across = columns[:, None, None, :].expand(-1, images.shape[1], images.shape[2], -1)
    return images.gather(2, down).gather(3, across)


def _each(images: Tensor) -> Tensor:
    """The index of every image, for picking in each: (batch, 1)."""
    return torch.arange(len(images), device=images.device)[:, None]


def _sizes(images: Tensor) -> tuple[int, int, int, int]:
    if images.ndim != 4:
        raise ShapeError(f"images are {tuple(images.shape)}; they are (batch, channels, image_height, image_width)")
    batch, channels, height, width = images.shape
    return batch, channels, height, width


def _only_one(wanted: tuple[int, ...], image_size: tuple[int, int], others: list[int]) -> str:
    """What to say where no grid is left, and what would do."""
    height, width = image_size
    step = min((k for k in wanted if 1 < k <= min(image_size)), default=2)
    rounded = " x ".join(str(step * max(1, round(side / step))) for side in image_size)
    remedy = f"ask for {', '.join(map(str, others[:8]))}" if others else f"take images of {rounded} pixels"
    return (
        f"grids cut images into k x k tiles; of {', '.join(map(str, wanted)) or 'none'} only 1 x 1 is left for images "
        f"of {height} x {width} pixels\n{remedy}"
    )
