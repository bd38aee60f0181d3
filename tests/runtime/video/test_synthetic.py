"""The rendered clip tells the story it promises, and its labels are exact."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from maskring.runtime.video.synthetic import render_clip, render_lookalike_clip

HEIGHT, WIDTH, FRAMES = 120, 214, 24


@pytest.fixture(scope="module")
def clip() -> list[tuple[np.ndarray, np.ndarray]]:
    return list(render_clip(HEIGHT, WIDTH, FRAMES))


def areas(clip: list[tuple[np.ndarray, np.ndarray]], object_id: int) -> np.ndarray:
    return np.array([np.count_nonzero(labels == object_id) for _, labels in clip])


def test_shapes_and_types(clip: list[tuple[np.ndarray, np.ndarray]]) -> None:
    assert len(clip) == FRAMES
    for image, labels in clip:
        assert image.shape == (HEIGHT, WIDTH, 3) and image.dtype == np.uint8
        assert labels.shape == (HEIGHT, WIDTH) and labels.dtype == np.uint8
        assert labels.max() <= 3


def test_same_seed_same_clip(clip: list[tuple[np.ndarray, np.ndarray]]) -> None:
    for first, second in zip(clip, render_clip(HEIGHT, WIDTH, FRAMES), strict=True):
        assert np.array_equal(first[0], second[0]) and np.array_equal(first[1], second[1])


def test_another_seed_looks_different(clip: list[tuple[np.ndarray, np.ndarray]]) -> None:
    image, labels = next(render_clip(HEIGHT, WIDTH, FRAMES, seed=1))
    assert np.abs(image.astype(int) - clip[0][0]).mean() > 5
    assert not np.array_equal(labels, clip[0][1])


def assert_whole_and_apart(labels: np.ndarray) -> None:
    """Every object in one piece, inside the frame, surrounded by background."""
    assert set(np.unique(labels)) == {0, 1, 2, 3}
    framed = np.pad(labels, 1, constant_values=255)
    for object_id in (1, 2, 3):
        mask = (framed == object_id).astype(np.uint8)
        assert cv2.connectedComponents(mask)[0] == 2
        ring = cv2.dilate(mask, np.ones((3, 3), np.uint8)) - mask
        assert set(framed[ring > 0]) == {0}


def test_all_objects_are_whole_and_apart_at_first(clip: list[tuple[np.ndarray, np.ndarray]]) -> None:
    assert_whole_and_apart(clip[0][1])


def test_the_post_hides_much_of_object_one_for_a_while(clip: list[tuple[np.ndarray, np.ndarray]]) -> None:
    area = areas(clip, 1)
    assert 0 < area.min() < 0.6 * area[0]
    assert area[-1] > 0.95 * area[0]


def test_object_two_leaves_and_returns_to_its_place(clip: list[tuple[np.ndarray, np.ndarray]]) -> None:
    area = areas(clip, 2)
    gone = np.flatnonzero(area == 0)
    assert 3 <= len(gone) < FRAMES / 3 and np.array_equal(gone, np.arange(gone[0], gone[-1] + 1))
    assert area[-1] > 0.95 * area[0]
    first, last = (np.argwhere(labels == 2).mean(0) for labels in (clip[0][1], clip[-1][1]))
    assert np.abs(first - last).max() < 2


def test_object_three_grows(clip: list[tuple[np.ndarray, np.ndarray]]) -> None:
    area = areas(clip, 3)
    assert area[-1] > 1.5 * area[0]


def test_labels_are_exact_at_pixel_centres() -> None:
    """Threefold resolution has a pixel at every centre of the coarse one: both must say the same there."""
    coarse = [labels for _, labels in render_clip(40, 72, 7)]
    fine = [labels for _, labels in render_clip(120, 216, 7)]
    for small, large in zip(coarse, fine, strict=True):
        assert np.array_equal(small, large[1::3, 1::3])


def test_labels_lie_on_the_picture(clip: list[tuple[np.ndarray, np.ndarray]]) -> None:
    """Object 2 is the only blue thing in view."""
    for image, labels in clip:
        blue = cv2.GaussianBlur(image, (3, 3), 0).astype(int)
        blue = blue[..., 2] - blue[..., 0]
        inside = cv2.erode((labels == 2).astype(np.uint8), np.ones((3, 3), np.uint8), borderValue=1) > 0
        outside = cv2.dilate((labels == 2).astype(np.uint8), np.ones((5, 5), np.uint8)) == 0
        assert np.all(blue[inside] > -20)
        assert np.all(blue[outside] < 30)


@pytest.mark.parametrize(("height", "width"), [(64, 64), (33, 200), (90, 50)])
def test_any_aspect_ratio_starts_with_all_objects(height: int, width: int) -> None:
    image, labels = next(render_clip(height, width))
    assert image.shape == (height, width, 3)
    assert_whole_and_apart(labels)


def test_a_single_frame() -> None:
    assert len(list(render_clip(32, 48, 1))) == 1


def orange(image: np.ndarray, labels: np.ndarray) -> int:
    """Pixels of the background that are as orange as the object's darker stripes."""
    return int(np.count_nonzero((cv2.inRange(image, (150, 50, 10), (235, 135, 75)) > 0) & (labels == 0)))


def test_a_lookalike_comes_hides_a_little_of_the_object_and_goes() -> None:
    clip = list(render_lookalike_clip(HEIGHT, WIDTH, FRAMES))
    assert all(set(np.unique(labels)) == {0, 1} for _, labels in clip)
    others, area = [orange(image, labels) for image, labels in clip], areas(clip, 1)
    assert others[0] < 0.02 * area[0] and others[-1] < 0.02 * area[0]
    assert max(others) > 0.2 * area[0]
    assert area.min() < 0.98 * min(area[0], area[-1])
