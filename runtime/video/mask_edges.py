"""Soft edges in drawn masks: which values of a picture are areas, and which only blend two of them."""

from __future__ import annotations

from functools import cached_property
from itertools import combinations, product
from typing import Any, TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray

from ...common.types import Labels

Entries: TypeAlias = NDArray[np.integer[Any]]
"""[H, W], for each pixel the position of its value in a table of the picture's values."""

MAX_VALUES = 32
"""More grey values or colours than this are a photograph or soft edges, not objects."""

FEW_BLENDS = 2
"""Up to so many values without a block of 3x3 pixels may be small objects; more of them are soft edges."""

BLEND_TOLERANCE = 12
"""How far a blend may lie from the line between its two colours, in steps of 1/255."""

BLEND_SHARE = 0.15
"""Share of an area's rim that is blended where its edge is soft; small objects beside an area cover less."""

REACH = 4
"""Pixels that a soft edge is wide at most."""

FAINT, LOSSY_FAINT = 8, 64
"""Strengths below these, and so close to 255, are noise, also where the shape is not connected to them."""

BLOCKS = 17
"""Width in pixels within which an edge disturbs flat areas beside it, where a picture was compressed with loss."""

PLATEAU = 24
"""Strength by which a flat area away from edges differs from the shape and from the background."""

OUTLINE_SHARE = 0.6
"""Share of an object's rim that an outline covers, and share of the outline that lies on rims."""

MIN_SCATTERED, MIN_MIXED = 8, 128
"""Fewer pixels than these may be a small object, however they lie: each alone, or among thin parts of others."""

_SQUARE = np.ones((3, 3), np.uint8)
_MIXED = np.ones((5, 5), np.uint8)
_WIDE = np.ones((2 * REACH + 1, 2 * REACH + 1), np.uint8)


def flat_entries(entries: Entries, count: int) -> NDArray[np.bool_]:
    """[count]: whether each value fills a block of 3x3 pixels somewhere, as those along a soft edge do not."""
    return np.bincount(entries[1:-1, 1:-1][_block_centres(entries)], minlength=count) > 0


def _block_centres(entries: Entries) -> NDArray[np.bool_]:
    """Pixels [H - 2, W - 2], borders left out, that have the value of all their neighbours."""
    across = (entries[:, 2:] == entries[:, 1:-1]) & (entries[:, :-2] == entries[:, 1:-1])
    rows = entries[:, 1:-1]
    block = across[2:] & across[1:-1] & across[:-2] & (rows[2:] == rows[1:-1]) & (rows[:-2] == rows[1:-1])
    return np.asarray(block, np.bool_)


def blended_entries(
    entries: Entries, colours: NDArray[np.integer[Any]], flat: NDArray[np.bool_]
) -> list[int]:
    """Values that two areas blend into where they meet.

    Such a value lies between those of two areas, and where it is too thin for a block of 3x3 pixels, it lines
    a good part of the rim of one and is close to the other. Elsewhere it may be an area itself: between the
    greys 0 and 200 there is 100, whether or not an object has it.

    Args:
        entries: [H, W] positions in ``colours``.
        colours: [N, 3], or [N, 1] for greys.
        flat: [N], from :func:`flat_entries`.
    """
    areas, points = np.flatnonzero(flat), colours.astype(np.float64)
    around = _Surroundings(entries)
    blends: set[int] = set()
    for one, other in combinations(areas.tolist(), 2):
        candidates = np.flatnonzero(_lie_between(points, points[one], points[other]))
        if not len(candidates):
            continue
        for area, next_to in ((one, other), (other, one)):
            rim = around.rim(area)
            found = entries[rim & around.thin & around.near(next_to)]
            found = found[np.isin(found, candidates)]
            if len(found) and len(found) >= BLEND_SHARE * np.count_nonzero(rim):
                blends |= set(found.tolist())
    return sorted(blends)


class _Surroundings:
    """Where areas end, computed once for each.

    Args:
        entries: [H, W].
    """

    def __init__(self, entries: Entries) -> None:
        self._entries = entries
        self._rims: dict[int, NDArray[np.bool_]] = {}
        self._near: dict[int, NDArray[np.bool_]] = {}

    @cached_property
    def thin(self) -> NDArray[np.bool_]:
        """Pixels [H, W] in no block of 3x3 equal pixels."""
        centres = np.pad(_block_centres(self._entries), 1).astype(np.uint8)
        return np.asarray(cv2.dilate(centres, _SQUARE) == 0, np.bool_)

    def rim(self, area: int) -> NDArray[np.bool_]:
        """Pixels [H, W] outside an area that touch it."""
        if area not in self._rims:
            inside = (self._entries == area).astype(np.uint8)
            self._rims[area] = np.asarray(cv2.dilate(inside, _SQUARE) > inside, np.bool_)
        return self._rims[area]

    def near(self, area: int) -> NDArray[np.bool_]:
        """Pixels [H, W] at most :data:`REACH` away from an area."""
        if area not in self._near:
            inside = (self._entries == area).astype(np.uint8)
            self._near[area] = np.asarray(cv2.dilate(inside, _WIDE) > 0, np.bool_)
        return self._near[area]


def edge_entries(entries: Entries, colours: NDArray[np.integer[Any]], flat: NDArray[np.bool_]) -> list[int]:
    """Thin values that lie between those of two areas, and mostly close to both; see :func:`blended_entries`."""
    points, thin = colours.astype(np.float64), np.flatnonzero(~flat)
    around = _Surroundings(entries)
    edges: set[int] = set()
    for one, other in combinations(np.flatnonzero(flat).tolist(), 2) if len(thin) else ():
        for entry in thin[_lie_between(points[thin], points[one], points[other])].tolist():
            if (around.near(one) & around.near(other))[entries == entry].mean() > 0.5:
                edges.add(entry)
    return sorted(edges)


def outline_entries(labels: Labels, counts: NDArray[np.intp], flat: NDArray[np.bool_]) -> list[int]:
    """Thin objects that line others and are nowhere else, as outlines are.

    Args:
        labels: [H, W]; 0 is the background.
        counts: pixels of each.
        flat: whether each fills a block somewhere, from :func:`flat_entries`.
    """
    around, outlines = _Surroundings(labels), []
    areas = [area for area in np.flatnonzero(flat).tolist() if area]
    for entry in [number for number in np.flatnonzero(counts).tolist() if number and not flat[number]]:
        pixels = labels == entry
        rims = [around.rim(area) for area in areas]
        lined = [rim for rim in rims if pixels[rim].sum() >= OUTLINE_SHARE * rim.sum()]
        if lined and np.any(lined, axis=0)[pixels].mean() >= OUTLINE_SHARE:
            outlines.append(entry)
    return outlines


def scattered_entries(entries: Entries, count: int) -> list[int]:
    """Values whose pixels mostly stand alone, as those of dithering and noise do.

    Args:
        entries: [H, W].
        count: of different values.
    """
    thin = _Surroundings(entries).thin
    rows, columns = np.nonzero(thin)
    padded = np.pad(entries.astype(np.int32), 1, constant_values=-1)
    own, alone = entries[rows, columns], np.ones(len(rows), np.bool_)
    for down, right in product((0, 1, 2), repeat=2):
        if (down, right) != (1, 1):
            alone &= padded[rows + down, columns + right] != own
    # Dots side by side may be any pattern, but leave no block of one value in a large area.
    mixed = cv2.morphologyEx(
        thin.astype(np.uint8), cv2.MORPH_OPEN, _MIXED, borderType=cv2.BORDER_CONSTANT, borderValue=0
    )
    total = np.bincount(entries.ravel(), minlength=count)
    found = np.zeros(count, np.bool_)
    for pixels, fewest in ((alone, MIN_SCATTERED), (mixed[rows, columns] > 0, MIN_MIXED)):
        found |= (total >= fewest) & (np.bincount(own[pixels], minlength=count) > total / 2)
    return [int(value) for value in np.flatnonzero(found)]


def _lie_between(
    points: NDArray[np.float64], one: NDArray[np.float64], other: NDArray[np.float64]
) -> NDArray[np.bool_]:
    """Which points [N, C] lie close to the line between two others and inside its ends."""
    line = other - one
    share = (points - one) @ line / (line @ line)
    distance = np.linalg.norm(points - one - share[:, None] * line, axis=1)
    return np.asarray((share > 0.02) & (share < 0.98) & (distance <= BLEND_TOLERANCE), np.bool_)


def soft_shape(strength: Labels, *, lossy: bool = False) -> NDArray[np.bool_] | None:
    """The pixels of a single shape with soft edges: those of at least half its strength.

    Args:
        strength: [H, W]; 0 is the background, 255 the shape, values between are edges.
        lossy: the picture was compressed with loss, so that flat areas are noisy.

    Returns:
        None where some values cannot be the edge of the shape.
    """
    counts = np.bincount(strength.ravel(), minlength=256)
    if lossy or np.count_nonzero(counts[1:]) > MAX_VALUES:
        if lossy and _has_plateau(strength):
            return None
        return _graded_shape(strength, LOSSY_FAINT if lossy else FAINT)
    return _edged_shape(strength, counts)


def _edged_shape(strength: Labels, counts: NDArray[np.intp]) -> NDArray[np.bool_] | None:
    """A flat shape with few values between it and the background."""
    flat = flat_entries(strength, 256)
    blends = np.flatnonzero((counts > 0) & ~flat)
    blends = blends[(blends > 0) & (blends < 255)]
    middle_areas = flat[1:255].any()
    if not flat[255] or middle_areas or counts[blends].sum() > counts[255]:
        return None
    shape = (strength == 255).astype(np.uint8)
    faint = FAINT if blends.max(initial=0) > 255 - FAINT else 1
    if len(blends) <= FEW_BLENDS:  # a thin object beside the shape has few values too, but does not line it
        touching = cv2.dilate(shape, _SQUARE) > 0
        if not touching[(strength >= faint) & (strength <= 255 - faint)].all():
            return None
    if not _all_connected(strength >= faint, shape > 0):
        return None
    return strength > 127


def _graded_shape(strength: Labels, faint: int) -> NDArray[np.bool_] | None:
    """A shape with noise, or with many values between it and the background."""
    inside = strength > 127
    solid = cv2.erode((strength > 255 - LOSSY_FAINT).astype(np.uint8), _SQUARE)
    if not solid.any():
        return None
    mask = inside.astype(np.uint8)
    outline = cv2.dilate(mask, _SQUARE) > cv2.erode(mask, _SQUARE)
    near = cv2.dilate(outline.astype(np.uint8), _WIDE) > 0
    middle = (strength >= LOSSY_FAINT) & (strength <= 255 - LOSSY_FAINT)
    if (middle & ~near).any() or not _all_connected(strength >= faint, strength > 255 - LOSSY_FAINT):
        return None
    if cv2.erode(middle.astype(np.uint8), np.ones((7, 7), np.uint8)).any():  # an area of its own
        return None
    return inside


def _has_plateau(strength: Labels) -> bool:
    """Whether a flat area away from edges is neither the shape nor the background: another object."""
    inside = (strength > 127).astype(np.uint8)
    wide = np.ones((BLOCKS, BLOCKS), np.uint8)
    weak = (cv2.erode(inside, wide) > 0) & (strength < 255 - PLATEAU)
    strong = (cv2.dilate(inside, wide) == 0) & (strength > PLATEAU)
    return any(bool(cv2.erode(area.astype(np.uint8), _SQUARE).any()) for area in (weak, strong))


def _all_connected(mask: NDArray[np.bool_], seeds: NDArray[np.bool_]) -> bool:
    """Whether each connected part of a mask holds one of the seeds."""
    count, parts = cv2.connectedComponents(mask.astype(np.uint8))
    return len(np.unique(parts[seeds & mask])) == count - 1
