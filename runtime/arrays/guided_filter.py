"""Labels of pixels along the edges of colours, as :func:`maskring.training.network.guided_filter.guided_upsample`."""

from __future__ import annotations

from functools import lru_cache

import cv2
import numpy as np
from numpy.typing import NDArray

from ...common.types import FloatMaps, Floats, Labels
from .upsampling import cell_corners, interpolate_cells

EPS = 3e-4
"""``GUIDED_FILTER_EPS`` of the step graph; this module imports no torch."""

FLAT = 4e-3
"""Range of an object's probability within a window below which the object is not fitted there. The slope of a fit is
at most range / (4 * sqrt(EPS)), and colours differ by at most 2 * sqrt(3), so a fit would move it by at most 0.2."""

CLEAR_LEAD = 0.5
"""Lead of the best label below which all objects are fitted, flat or not: two labels move by at most 0.4 apart."""


def guided_labels(
    probabilities: FloatMaps, best: Labels, lab: Floats, radius: int, stride: int, out: Labels
) -> None:
    """Fill ``out`` with the best label of each pixel, as the step graph's guided filter and argmax do.

    Only cells near the objects' edges are computed, cell (i, j) being the pixels from feature (i, j) to the next ones.

    Args:
        probabilities: [O, h, w], background first, at least one object.
        best: [h, w], from :func:`.upsampling.argmax_planes`.
        lab: [3, H, W] normalised Lab.
        radius: of the filter's window, in features.
        stride: pixels per feature.
        out: [H, W], with h = ceil(H / stride) and w = ceil(W / stride).
    """
    objects = np.asarray(probabilities[1:], np.float32)
    active, anywhere = _active_cells(objects, radius)
    rows, columns = best.shape
    pixels = best.repeat(stride, axis=1).repeat(stride, axis=0)
    y, x = np.nonzero(anywhere)
    if y.size:
        corners = cell_corners(y, x, best.shape)
        fit = _Fit(np.ascontiguousarray(lab[:, ::stride, ::stride]), radius)
        colours = _colours_of_cells(lab, y, x, stride)
        shape = (stride, stride, y.size)
        total, highest = np.zeros(shape, np.float32), np.zeros(shape, np.float32)
        winners = np.zeros(shape, np.uint8)
        for label, (plane, cells) in enumerate(zip(objects, active, strict=True), 1):
            value, own = np.broadcast_to(plane[y, x], shape).copy(), cells[y, x]
            value[..., own] = fit.apply(plane, corners[:, own], colours[..., own], stride)
            total += value
            np.copyto(winners, np.uint8(label), where=value > highest)
            np.maximum(highest, value, out=highest)
        winners[highest <= 1 - total] = 0
        pixels.reshape(rows, stride, columns, stride)[y, :, x] = winners.transpose(2, 0, 1)
    out[:] = pixels[: out.shape[0], : out.shape[1]]


def _active_cells(objects: Floats, radius: int) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Where each object must be computed, [O - 1, h, w]; and where any must, [h, w]."""
    # From each of the four features around a cell, a window reaches so far.
    window = np.ones((2 * radius + 2, 2 * radius + 2), np.uint8)
    anchor = (radius, radius)
    ranges = [
        cv2.dilate(plane, window, anchor=anchor) - cv2.erode(plane, window, anchor=anchor)
        for plane in objects
    ]
    active = np.stack(ranges) > FLAT
    background, highest = 1 - objects.sum(0), np.zeros(objects.shape[1:], np.float32)
    second = highest.copy()
    for plane in (background, *objects):
        np.maximum(second, np.minimum(highest, plane), out=second)
        np.maximum(highest, plane, out=highest)
    unsure = highest - second < CLEAR_LEAD
    active |= unsure
    return active, np.asarray(active.any(0), np.bool_)


def _colours_of_cells(lab: Floats, y: NDArray[np.intp], x: NDArray[np.intp], stride: int) -> Floats:
    """[3, stride, stride, n]; pixels beyond the frame repeat its border."""
    missing = (-np.array(lab.shape[1:])) % stride
    if missing.any():
        lab = np.pad(lab, ((0, 0), (0, int(missing[0])), (0, int(missing[1]))), mode="edge")
    channels, height, width = lab.shape
    cells = lab.reshape(channels, height // stride, stride, width // stride, stride)
    return np.ascontiguousarray(cells[:, y, :, x].transpose(1, 2, 3, 0))


class _Fit:
    """Least-squares fits of probabilities to colours.

    Args:
        guide: [3, h, w], the colour at each feature.
        radius: of the window, in features.
    """

    def __init__(self, guide: Floats, radius: int) -> None:
        self._guide, self._radius = guide, radius
        self._sizes = _window_sizes(guide.shape[1:], radius)
        self._means = [self._mean(colour) for colour in guide]
        self._inverse = self._inverse_covariance()

    def apply(self, plane: Floats, corners: NDArray[np.intp], colours: Floats, stride: int) -> Floats:
        """An object's probability at the pixels of n cells, [stride, stride, n].

        Args:
            plane: [h, w], the object's probability at the features.
            corners: [4, n] flat indices of the features around each cell.
            colours: [3, stride, stride, n].
            stride: pixels per feature.
        """
        mean = self._mean(plane)
        shared = [
            self._mean(colour * plane) - own * mean
            for colour, own in zip(self._guide, self._means, strict=True)
        ]
        intercept, fitted = mean, np.zeros_like(colours[0])
        for row, own, colour in zip(self._inverse, self._means, colours, strict=True):
            slope = row[0] * shared[0] + row[1] * shared[1] + row[2] * shared[2]
            intercept = intercept - slope * own
            fitted += interpolate_cells(slope.ravel()[corners], stride) * colour
        fitted += interpolate_cells(intercept.ravel()[corners], stride)
        return np.asarray(fitted, np.float32)

    def _mean(self, maps: Floats) -> Floats:
        size = (2 * self._radius + 1, 2 * self._radius + 1)
        sums = cv2.boxFilter(maps, cv2.CV_32F, size, normalize=False, borderType=cv2.BORDER_CONSTANT)
        return np.asarray(sums / self._sizes, np.float32)

    def _inverse_covariance(self) -> list[list[Floats]]:
        """The inverse of the colours' covariance in each window, by its cofactors."""
        guide, means = self._guide, self._means
        (ll, la, lb), (aa, ab), (bb,) = (
            [self._mean(guide[i] * guide[j]) - means[i] * means[j] for j in range(i, 3)] for i in range(3)
        )
        ll, aa, bb = (variance + np.float32(EPS) for variance in (ll, aa, bb))
        first = [aa * bb - ab * ab, lb * ab - la * bb, la * ab - lb * aa]
        scale = 1 / (ll * first[0] + la * first[1] + lb * first[2])
        rows = [
            first,
            [first[1], ll * bb - lb * lb, la * lb - ll * ab],
            [first[2], la * lb - ll * ab, ll * aa - la * la],
        ]
        return [[cofactor * scale for cofactor in row] for row in rows]


@lru_cache(maxsize=8)
def _window_sizes(shape: tuple[int, int], radius: int) -> Floats:
    """Number of places of the map in the window around each place."""
    size = (2 * radius + 1, 2 * radius + 1)
    ones = np.ones(shape, np.float32)
    return np.asarray(
        cv2.boxFilter(ones, cv2.CV_32F, size, normalize=False, borderType=cv2.BORDER_CONSTANT), np.float32
    )
