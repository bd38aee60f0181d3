"""The overlay shows which pixel belongs to what, and leaves the rest of the frame alone."""

from __future__ import annotations

import numpy as np
import pytest

from maskring.runtime.video import overlay
from maskring.runtime.video.overlay import LINES_PER_PIXEL, draw_overlay
from maskring.runtime.video.palette import PALETTE


def scene() -> tuple[np.ndarray, np.ndarray]:
    image = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)
    labels = np.zeros((40, 60), np.uint8)
    labels[10:30, 10:30] = 1
    labels[10:30, 30:50] = 2  # touches 1
    return image, labels


def test_background_is_untouched_and_objects_are_tinted() -> None:
    image, labels = scene()
    before = image.copy()
    painted = draw_overlay(image, labels, contours=False)
    assert np.array_equal(image, before)
    assert np.array_equal(painted[labels == 0], image[labels == 0])
    expected = (image.astype(float) + PALETTE[labels]) / 2
    assert np.abs(painted - expected)[labels > 0].max() <= 1


@pytest.mark.parametrize("alpha", [0.0, 0.25, 1.0])
def test_alpha_runs_from_the_frame_to_the_palette(alpha: float) -> None:
    image, labels = scene()
    painted = draw_overlay(image, labels, alpha=alpha, contours=False)
    expected = (1 - alpha) * image + alpha * PALETTE[labels]
    assert np.abs(painted - expected)[labels > 0].max() <= 1


def test_boundaries_run_along_every_change_and_nowhere_else(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(overlay, "FEW_LINES", 0)
    image, labels = scene()
    plain, lined = draw_overlay(image, labels, contours=False), draw_overlay(image, labels)
    padded = np.pad(labels, 1, mode="edge")
    around = np.stack([padded[y : y + 40, x : x + 60] for y in range(3) for x in range(3)])
    change = around.min(axis=0) != around.max(axis=0)
    assert np.array_equal(lined[~change], plain[~change])
    bright = lined[change]
    assert (bright.max(axis=1) == 255).all() and (bright.min(axis=1) == 127).all()
    reddish, greenish = lined[20, 9], lined[20, 30]
    assert reddish.argmax() == 0 and greenish.argmax() == 1


@pytest.mark.parametrize(("lines", "width"), [(200, 1), (480, 2), (2 * LINES_PER_PIXEL, 6)])
def test_boundaries_grow_with_the_frame(lines: int, width: int) -> None:
    labels = np.zeros((lines, 40), np.uint8)
    labels[:, 20:] = 1
    painted = draw_overlay(np.zeros((*labels.shape, 3), np.uint8), labels, alpha=0)
    assert np.count_nonzero(painted[100].any(axis=1)) == width


def test_views_are_taken() -> None:
    image, labels = scene()
    views = image[::-1, ::-1], labels[::-1, ::-1]
    assert np.array_equal(draw_overlay(*views), draw_overlay(*(view.copy() for view in views)))


def test_labels_must_lie_on_the_image() -> None:
    image, labels = scene()
    with pytest.raises(ValueError, match="do not lie on"):
        draw_overlay(image, labels[1:])
