"""Label maps between pixels and features, and what can be read off them; no loop runs over pixels."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

Box = tuple[int, int, int, int]
"""(x0, y0, x1, y1) in pixels; x1 and y1 lie just outside."""


def rename(labels: NDArray[np.uint8], names: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """A new map in which each label l is ``names[l]``; ``names`` has 256 entries."""
    return np.asarray(cv2.LUT(np.ascontiguousarray(labels), names), np.uint8)


def overwrite(labels: NDArray[np.uint8], drawn: NDArray[np.uint8], redrawn: list[int]) -> NDArray[np.uint8]:
    """Lay a drawn label map over a propagated one.

    Args:
        labels: [H, W] propagated labels.
        drawn: [H, W] labels given by the user, 0 where none is.
        redrawn: the labels in ``drawn``; what ``labels`` says of them is dropped.
    """
    keep = np.arange(256, dtype=np.uint8)
    keep[redrawn] = 0
    return np.where(drawn > 0, drawn, rename(labels, keep))


def sample_hard(labels: NDArray[np.uint8], count: int, stride: int) -> NDArray[np.float32]:
    """One-hot label maps [O, h, w] of the pixels (stride * i, stride * j), on which features are centred."""
    is_label = labels[::stride, ::stride] == np.arange(count).reshape(-1, 1, 1)
    return np.asarray(is_label, np.float32)


def sample_soft(labels: NDArray[np.uint8], count: int, stride: int) -> NDArray[np.float32]:
    """Shares [O, h, w] of the labels around each feature; they sum to 1 over O.

    Pixels are weighted by a triangle that is centred on pixel (stride * i, stride * j) and reaches 0 at the
    neighbouring features, the adjoint of the bilinear interpolation that brings probabilities back to pixels.
    """
    triangle = 1 - np.abs(np.arange(1 - stride, stride)) / stride
    triangle = (triangle / triangle.sum()).astype(np.float32)
    return np.stack(
        [
            cv2.sepFilter2D(
                (labels == label).view(np.uint8),
                cv2.CV_32F,
                triangle,
                triangle,
                borderType=cv2.BORDER_REFLECT_101,
            )[::stride, ::stride]
            for label in range(count)
        ]
    )


def to_pixels(maps: NDArray[np.floating[Any]], box: Box, stride: int) -> NDArray[np.float32]:
    """Bilinear interpolation [y1 - y0, x1 - x0] of a map of features [h, w], as the step graph does it.

    Feature i is centred on pixel stride * i; beyond the last one it is replicated.

    Args:
        maps: of the whole frame.
        box: the pixels wanted, (x0, y0, x1, y1), x1 and y1 just outside.
        stride: pixels per feature.
    """
    x0, y0, x1, y1 = box
    placement = np.array([[1 / stride, 0, x0 / stride], [0, 1 / stride, y0 / stride]])
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    source = np.ascontiguousarray(maps, np.float32)
    pixels = cv2.warpAffine(
        source, placement, (x1 - x0, y1 - y0), flags=flags, borderMode=cv2.BORDER_REPLICATE
    )
    return np.asarray(pixels, np.float32)


def best_labels(probabilities: NDArray[np.floating[Any]]) -> NDArray[np.uint8]:
    """The label [h, w] that leads at each feature, the smallest one of equals.

    Args:
        probabilities: [O, h, w].
    """
    return leaders(iter(probabilities))


def best_labels_of_pixels(
    probabilities: NDArray[np.floating[Any]],
    best: NDArray[np.uint8],
    stride: int,
    out: NDArray[np.uint8],
) -> None:
    """Fill ``out`` with the label that leads at each pixel, as the step graph's upsampling and argmax do.

    A label that leads at all four features around a pixel leads there too, since interpolation is linear. So
    only where neighbours differ, along the objects' edges, are probabilities interpolated at all.

    Args:
        probabilities: [O, h, w].
        best: what :func:`best_labels` makes of them.
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
        y1, x1 = np.minimum(y + 1, rows - 1), np.minimum(x + 1, columns - 1)
        corners = np.stack([y * columns + x, y * columns + x1, y1 * columns + x, y1 * columns + x1])
        cells = leaders(_between(plane.ravel()[corners], stride) for plane in probabilities)
        pixels.reshape(rows, stride, columns, stride)[y, :, x] = cells.transpose(2, 0, 1)
    out[:] = pixels[:height, :width]


def _between(corners: NDArray[np.floating[Any]], stride: int) -> NDArray[np.float32]:
    """Bilinear interpolation [stride, stride, n] of n cells' corners [4, n], row by row from the top left."""
    steps = (np.arange(stride, dtype=np.float32) / np.float32(stride)).reshape(-1, 1)
    top_left, top_right, left, right = corners.astype(np.float32, copy=False)
    top = top_left + steps * (top_right - top_left)
    bottom = left + steps * (right - left)
    return np.asarray(top + steps[:, None] * (bottom - top), np.float32)


def leaders(planes: Iterator[NDArray[np.floating[Any]]]) -> NDArray[np.uint8]:
    """Which of the planes is largest, the first of equals; far faster than argmax over a leading axis."""
    highest = next(planes).copy()
    leaders = np.zeros(highest.shape, np.uint8)
    for label, plane in enumerate(planes, 1):
        np.copyto(leaders, np.uint8(label), where=plane > highest)
        np.maximum(highest, plane, out=highest)
    return leaders


def boxes(labels: NDArray[np.uint8], count: int) -> dict[int, Box]:
    """Smallest box around each label from 1 to ``count`` - 1 that is anywhere in [H, W] ``labels``.

    Eight labels are found per pass: each becomes one bit, and rows and columns are or-ed together.
    """
    found = {}
    for first in range(1, count, 8):
        group = np.arange(first, min(first + 8, count))
        bits = np.zeros(256, np.uint8)
        bits[group] = 1 << (group if count <= 8 else group - first)
        # Where all labels have a bit of their own, background too, a shift does what the table says.
        marked = np.left_shift(np.uint8(1), labels) if count <= 8 else rename(labels, bits)
        rows = np.bitwise_or.reduce(marked, axis=1)
        columns = np.bitwise_or.reduce(marked, axis=0)
        for label in group:
            y, x = np.flatnonzero(rows & bits[label]), np.flatnonzero(columns & bits[label])
            if y.size:
                found[int(label)] = (int(x[0]), int(y[0]), int(x[-1]) + 1, int(y[-1]) + 1)
    return found


def areas(labels: NDArray[np.uint8], boxes: dict[int, Box]) -> dict[int, int]:
    """Pixels of each label in ``boxes``, counted inside its box."""
    return {
        label: int(np.count_nonzero(labels[y0:y1, x0:x1] == label))
        for label, (x0, y0, x1, y1) in boxes.items()
    }


def mean_confidences(
    labels: NDArray[np.uint8], probabilities: NDArray[np.floating[Any]], stride: int
) -> dict[int, float]:
    """Mean probability of each label from 1 on over the features it covers, of those that cover any.

    Args:
        labels: [H, W].
        probabilities: [O, h, w].
        stride: pixels per feature.
    """
    winners = labels[::stride, ::stride].ravel()
    places = np.flatnonzero(winners)  # most of a frame is background, whose mean nobody asks for
    winners = winners[places]
    certainty = probabilities.reshape(len(probabilities), -1)[winners, places]
    covered = np.bincount(winners)
    total = np.bincount(winners, weights=certainty)
    return {int(label): float(total[label] / covered[label]) for label in np.flatnonzero(covered)}
