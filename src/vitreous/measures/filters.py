"""Embedding filters: principal components of the first layer's weights (figure 7 left)."""

from __future__ import annotations

import torch
from torch import Tensor

from vitreous.errors import ShapeError

COMPONENTS = 28
"""As many as the paper shows."""


def embedding_filters(kernel: Tensor, components: int = COMPONENTS) -> tuple[Tensor, Tensor]:
    """Principal components of the patch embedding, and how much of its variance each explains.

    The filters are the samples: their mean is taken out, and components are sorted by explained variance. The
    paper does not say whether it centres, nor how it sets signs: here each component has length 1 and its entry of
    largest magnitude is positive. Fewer come back where the weights have fewer directions.

    Args:
        kernel: (width, channels, height, width of a patch); a hybrid's first convolution counts likewise.
        components: how many at most.

    Returns:
        (components, channels, height, width) float32, and (components,) float32, shares of the variance, in [0, 1].

    Raises:
        ShapeError: if the kernel does not have four axes.

    Source: Dosovitskiy et al. 2021, figure 7 left ("first 28 principal components" of ViT-L/32).
    """
    if kernel.ndim != 4:
        raise ShapeError(f"a patch embedding is (width, channels, height, width), not {tuple(kernel.shape)}")
    samples = kernel.detach().double().cpu().flatten(1)  # (filters, entries)
    samples = samples - samples.mean(0)
    if samples.shape[0] < samples.shape[1]:  # the smaller of the two Gram matrices has the same spectrum
        variance, left = torch.linalg.eigh(samples @ samples.T)
        vectors = (left.T @ samples) / variance.clamp_min(torch.finfo(torch.float64).tiny).sqrt()[:, None]
    else:
        variance, right = torch.linalg.eigh(samples.T @ samples)
        vectors = right.T
    variance, vectors = variance.flip(0), vectors.flip(0)
    rank = int((variance > variance[0] * 1e-10).sum()) if variance[0] > 0 else 0
    kept = min(components, rank)
    strongest = vectors[:kept].abs().argmax(1, keepdim=True)
    signed = vectors[:kept] * vectors[:kept].gather(1, strongest).sign()
    share = variance[:kept] / variance.clamp_min(0).sum()
    return signed.unflatten(1, kernel.shape[1:]).float(), share.float()
