"""Pairs of views: matches show the same, and hidden anchors are marked."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from maskring.training.network.encoder import STRIDE
from maskring.training.pairs import Pair, make_pair

CROP = 96


def colourful(seed: int, height: int = 120, width: int = 160) -> np.ndarray:
    """A frame whose colours give the position: red grows to the right, green downwards; blue depends on the seed."""
    y, x = np.mgrid[:height, :width]
    blue = np.full_like(x, 60 * seed)
    return np.stack([40 + 200 * x / width, 40 + 200 * y / height, blue], axis=-1).astype(np.uint8)


def pair(seed: int, *, distortion: float = 0.0, count: int = 64) -> Pair:
    rng = np.random.default_rng(seed)
    others = [colourful(1), colourful(2)]
    return make_pair([colourful(0)], others, rng, crop=CROP, zoom=0.5, distortion=distortion, count=count)


@pytest.fixture(autouse=True)
def _plain_views(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tests compare colours, so views are neither blurred nor grey."""
    monkeypatch.setattr("maskring.training.pairs.BLUR_PROBABILITY", 0.0)
    monkeypatch.setattr("maskring.training.pairs.GREY_PROBABILITY", 0.0)


def test_shapes_and_types() -> None:
    made, side = pair(0, distortion=0.3), CROP // STRIDE
    assert (made.views.shape, made.views.dtype) == ((2, 3, CROP, CROP), np.uint8)
    assert (made.anchors.shape, made.anchors.dtype) == ((64,), np.int64)
    assert (made.matches.shape, made.matches.dtype) == ((64, 2), np.float32)
    assert made.anchor_layers.shape == (64,) and made.layers.shape == (side, side)
    assert made.anchors.min() >= 0 and made.anchors.max() < side**2


def test_matches_show_the_same_colour() -> None:
    errors = []
    for seed in range(20):
        made = pair(seed)
        for anchor, match in zip(made.anchors, made.matches, strict=True):
            if np.isnan(match).any():
                continue
            row, column = divmod(int(anchor), CROP // STRIDE)
            there = np.rint(STRIDE * match).astype(int)
            ours = made.views[0, :, STRIDE * row, STRIDE * column].astype(float)
            errors.append(np.abs(ours - made.views[1, :, there[0], there[1]]).max())
    # Rounding to pixels changes colours by some levels, and soft edges of pieces mix two layers.
    assert np.mean(np.array(errors) < 8) > 0.95


def test_other_positions_show_other_colours() -> None:
    """Colours distinguish positions, so the test above can fail."""
    made = pair(3)
    first = made.views[0][:, :: 2 * STRIDE, :: 2 * STRIDE].reshape(3, -1).astype(float)
    second = made.views[1][:, :: 2 * STRIDE, :: 2 * STRIDE].reshape(3, -1).astype(float)
    assert np.mean(np.abs(first - second).max(0) < 8) < 0.5


def test_hidden_anchors_have_a_layer_that_the_second_view_shows() -> None:
    hidden = 0
    for seed in range(20):
        made = pair(seed)
        invisible = np.isnan(made.matches).any(1)
        hidden += int(invisible.sum())
        assert np.isin(made.anchor_layers[invisible], made.layers).all()
    assert hidden > 0


def test_visible_matches_lie_inside_the_second_view() -> None:
    matches = np.concatenate([pair(seed).matches for seed in range(10)])
    visible = matches[~np.isnan(matches).any(1)]
    assert visible.min() >= 0 and visible.max() <= CROP // STRIDE - 1


def test_pieces_cover_a_part_of_the_second_view() -> None:
    layers = [pair(seed).layers for seed in range(10)]
    assert np.mean([(layer > 0).mean() for layer in layers]) > 0.05


def test_a_pair_depends_on_the_seed_only() -> None:
    assert np.array_equal(pair(5).views, pair(5).views)
    assert not np.array_equal(pair(5).views, pair(6).views)


def test_matches_follow_a_frame_that_moves() -> None:
    """The frame shifts by 8 pixels. Its grain is texture for the flow; its colours still give positions."""
    grain = np.random.default_rng(9).integers(-12, 13, (120, 192, 1))
    grain = cv2.resize(grain[::4, ::4].astype(np.float32), (192, 120))[..., None]
    wide = np.clip(colourful(0, 120, 192) + grain, 0, 255).astype(np.uint8)
    frames = [np.ascontiguousarray(wide[:, 16 - x : 176 - x]) for x in (0, 4, 8)]
    errors = []
    for seed in range(10):
        rng = np.random.default_rng(seed)
        made = make_pair(frames, [colourful(1)], rng, crop=CROP, zoom=0.5, distortion=0.0, count=64)
        rows, columns = np.divmod(made.anchors, CROP // STRIDE)
        in_frame = ~np.isnan(made.matches).any(1) & (made.anchor_layers == 0)
        there = np.rint(STRIDE * made.matches[in_frame]).astype(int)
        ours = made.views[0][:, STRIDE * rows[in_frame], STRIDE * columns[in_frame]].astype(float)
        errors.append(np.abs(ours - made.views[1][:, there[:, 0], there[:, 1]])[0])
    assert np.median(np.concatenate(errors)) < 6  # 8 pixels are worth 8 levels of red, and more when enlarged
