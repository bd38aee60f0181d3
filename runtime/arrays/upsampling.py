"""From probabilities on the grid of features to labels and probabilities of pixels.

Feature (i, j) is centred on pixel (stride * i, stride * j). Beyond the last feature its value is repeated.
"""

from __future__ import annotations

from collections.abc import Iterable

import cv2
import numpy as np
from numpy.typing import NDArray

from ...common.types import FloatMaps, Floats, Labels
from .label_maps import Box


def to_pixels(features: FloatMaps, box: Box, stride: int) -> Floats:
    """Interpolate a map of features bilinearly, as the step graph does.

    Args:
        features: [h, w], of the whole frame.
        box: the pixels to compute.
        stride: pixels per feature.

    Returns:
        [y1 - y0, x1 - x0].
    """
    x0, y0, x1, y1 = box
    placement = np.array([[1 / stride, 0, x0 / stride], [0, 1 / stride, y0 / stride]])
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    source = np.ascontiguousarray(features, np.float32)
    pixels = cv2.warpAffine(
        source, placement, (x1 - x0, y1 - y0), flags=flags, borderMode=cv2.BORDER_REPLICATE
    )
    return np.asarray(pixels, np.float32)


def argmax_planes(planes: Iterable[FloatMaps]) -> NDArray[np.uint8]:
    """Index of the largest plane at each place, the first of equals; ``planes`` have one shape.

    Far faster than ``argmax`` over a leading axis.
    """
    planes = iter(planes)
    highest = next(planes).copy()
    winners = np.zeros(highest.shape, np.uint8)
    for index, plane in enumerate(planes, 1):
        np.copyto(winners, np.uint8(index), where=plane > highest)
        np.maximum(highest, plane, out=highest)
    return winners


def best_labels_of_pixels(probabilities: FloatMaps, best: Labels, stride: int, out: Labels) -> None:
    """Fill ``out`` with the best label of each pixel, as the step graph's upsampling and argmax do.

    Interpolation is linear: a label that wins at all four features around a pixel wins at the pixel. So only
    the cells along the objects' edges, where neighbours differ, are interpolated.

    Args:
        probabilities: [O, h, w].
        best: [h, w], from :func:`argmax_planes`.
        stride: pixels per feature.
        out: [H, W], with h = ceil(H / stride) and w = ceil(W / stride).
    """
    (rows, columns), (height, width) = best.shape, out.shape
    padded = np.pad(best, (0, 1), mode="edge")
    differ = np.zeros(best.shape, np.bool_)
    for below, right in ((0, 1), (1, 0), (1, 1)):
        differ |= padded[below : below + rows, right : right + columns] != best
    pixels = best.repeat(stride, axis=1).repeat(stride, axis=0)
    y, x = np.nonzero(differ)
    if y.size:
        corners = cell_corners(y, x, best.shape)
        cells = argmax_planes(interpolate_cells(plane.ravel()[corners], stride) for plane in probabilities)
        pixels.reshape(rows, stride, columns, stride)[y, :, x] = cells.transpose(2, 0, 1)
    out[:] = pixels[:height, :width]


def cell_corners(y: NDArray[np.intp], x: NDArray[np.intp], shape: tuple[int, ...]) -> NDArray[np.intp]:
    """Flat indices [4, n] of the features around n cells: top left, top right, bottom left, bottom right.

    Args:
        y, x: [n], the feature at the top left of each cell.
        shape: (h, w) of the features; cells of the last row and column repeat it.
    """
    rows, columns = shape
    below, right = np.minimum(y + 1, rows - 1), np.minimum(x + 1, columns - 1)
    return np.stack([y * columns + x, y * columns + right, below * columns + x, below * columns + right])


def interpolate_cells(corners: FloatMaps, stride: int) -> Floats:
    """Bilinear interpolation [stride, stride, n] of n cells.

    Args:
        corners: [4, n]: top left, top right, bottom left, bottom right.
        stride: pixels per cell.
    """
    steps = (np.arange(stride, dtype=np.float32) / np.float32(stride)).reshape(-1, 1)
    top_left, top_right, bottom_left, bottom_right = corners.astype(np.float32, copy=False)
    top = top_left + steps * (top_right - top_left)
    bottom = bottom_left + steps * (bottom_right - bottom_left)
    return np.asarray(top + steps[:, None] * (bottom - top), np.float32)
