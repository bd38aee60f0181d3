"""Augmentation changes all frames of a window alike."""

from __future__ import annotations

import numpy as np

from maskring.training.augmentation import augment


def test_shape_and_type() -> None:
    frames = [np.random.default_rng(i).integers(0, 256, (48, 64, 3), dtype=np.uint8) for i in range(3)]
    views = augment(frames, np.random.default_rng(0), crop=40, zoom=0.5, distortion=0.3)
    assert (views.shape, views.dtype) == ((3, 3, 40, 40), np.uint8)


def test_equal_frames_stay_equal_and_seeds_differ() -> None:
    frame = np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8)
    views = [
        augment([frame, frame], np.random.default_rng(seed), crop=32, zoom=0.6, distortion=0.3)
        for seed in range(4)
    ]
    for view in views:
        assert np.array_equal(view[0], view[1])
    assert not any(np.array_equal(views[0], view) for view in views[1:])


def test_whole_square_without_distortion_is_the_frame_or_its_mirror() -> None:
    frame = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    found = [
        augment([frame], np.random.default_rng(seed), crop=32, zoom=1.0, distortion=0.0)[0].transpose(1, 2, 0)
        for seed in range(8)
    ]
    plain = [np.array_equal(view, frame) for view in found]
    mirrored = [np.array_equal(view, frame[:, ::-1]) for view in found]
    assert any(plain) and any(mirrored)
    assert all(one != other for one, other in zip(plain, mirrored, strict=True))


def test_distortion_moves_colours_by_its_strength() -> None:
    grey = np.full((16, 16, 3), 128, np.uint8)
    levels = [
        augment([grey], np.random.default_rng(seed), crop=16, zoom=1.0, distortion=0.2).mean()
        for seed in range(50)
    ]
    assert 10 < np.std(levels) < 60
    assert abs(np.mean(levels) - 128) < 15


def test_the_crop_zooms_into_the_frame() -> None:
    """On a ramp, the range of a view tells the side of the square that it shows."""
    ramp = np.repeat(3 * np.arange(64, dtype=np.uint8)[None, :, None], 64, axis=0).repeat(3, axis=2)
    sides = []
    for seed in range(20):
        view = augment([ramp], np.random.default_rng(seed), crop=32, zoom=0.5, distortion=0.0)[0, 0]
        assert np.array_equal(view, np.broadcast_to(view[0], view.shape)), "columns stay columns"
        sides.append(abs(int(view[0, -1]) - int(view[0, 0])) / 3 * 32 / 31)
    assert 31 < min(sides) < 40 and 56 < max(sides) < 65
