"""Upsampling of label probabilities along the edges of colours."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from .encoder import STRIDE
from .upsampling import upsample

GUIDED_FILTER_EPS = 3e-4
"""Variance of normalised Lab that the filter takes for noise. Part of the format of exported files."""


def guided_upsample(probabilities: Tensor, lab: Tensor, radius: int) -> Tensor:
    """Probabilities of pixels: near each feature a linear function of the colour, fitted to its neighbours.

    Bilinear interpolation knows nothing of the frame, so its edges are as coarse as the grid of features. Here,
    each feature has a linear function from colour to probability, the least-squares fit to the features in a
    window around it. These functions are interpolated bilinearly and applied to the colours of pixels.

    The background is one minus the sum of all objects, so it wins where memory holds nothing.

    Args:
        probabilities: [B, O, h, w], background first.
        lab: [B, 3, H, W] normalised Lab, float32, with h = ceil(H / 4) and w = ceil(W / 4).
        radius: of the window, in features.

    Returns:
        [B, O, H, W] float32; values may lie slightly outside 0 to 1.

    Source: Fast guided filter (arXiv 1505.00996), with a colour image as guide (Guided image filtering, PAMI 2013,
    section 3.4), but without its second mean over windows.
    """
    height, width = lab.shape[-2:]
    objects = probabilities[:, 1:].to(torch.float32)
    guide = lab[..., ::STRIDE, ::STRIDE]
    slopes, intercepts = _fit(guide, objects, radius)
    fitted = upsample(intercepts, height, width, STRIDE)
    for channel, slope in enumerate(slopes):
        fitted = fitted + upsample(slope, height, width, STRIDE) * lab[:, channel : channel + 1]
    background = 1 - fitted.sum(1, keepdim=True)
    return torch.cat([background, fitted], dim=1)


def _fit(guide: Tensor, objects: Tensor, radius: int) -> tuple[list[Tensor], Tensor]:
    """The linear function at each feature: three slopes [B, O - 1, h, w] and the intercept [B, O - 1, h, w]."""

    def mean(maps: Tensor) -> Tensor:
        return functional.avg_pool2d(maps, 2 * radius + 1, 1, radius, count_include_pad=False)

    colours = [guide[:, channel : channel + 1] for channel in range(3)]
    means = [mean(colour) for colour in colours]
    object_means = mean(objects)
    shared = [mean(colour * objects) - m * object_means for colour, m in zip(colours, means, strict=True)]
    (ll, la, lb), (aa, ab), (bb,) = (
        [mean(colours[i] * colours[j]) - means[i] * means[j] for j in range(i, 3)] for i in range(3)
    )
    ll, aa, bb = (variance + GUIDED_FILTER_EPS for variance in (ll, aa, bb))
    # The inverse of the symmetric covariance matrix by its cofactors.
    inverse = [
        [aa * bb - ab * ab, lb * ab - la * bb, la * ab - lb * aa],
        [lb * ab - la * bb, ll * bb - lb * lb, la * lb - ll * ab],
        [la * ab - lb * aa, la * lb - ll * ab, ll * aa - la * la],
    ]
    determinant = ll * inverse[0][0] + la * inverse[0][1] + lb * inverse[0][2]
    slopes = [(row[0] * shared[0] + row[1] * shared[1] + row[2] * shared[2]) / determinant for row in inverse]
    intercepts = object_means
    for slope, m in zip(slopes, means, strict=True):
        intercepts = intercepts - slope * m
    return slopes, intercepts
