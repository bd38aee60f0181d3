"""Random photographs for training."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from user_errors import raises_user_error

from maskring.common.errors import SourceError
from maskring.training.stills import StillLibrary


def write(path: Path, level: int, height: int = 60, width: int = 80) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), np.full((height, width, 3), (level, 0, 0), np.uint8))  # blue, in OpenCV's order


def test_photographs_have_the_short_side_and_are_rgb(tmp_path: Path) -> None:
    write(tmp_path / "a.png", 200)
    photograph = StillLibrary([tmp_path], 30).draw(np.random.default_rng(0))
    assert photograph.shape == (30, 40, 3)
    assert abs(int(photograph[15, 20, 2]) - 200) < 6 and photograph[15, 20, 0] < 6


def test_every_photograph_is_drawn_and_the_seed_decides(tmp_path: Path) -> None:
    for index, name in enumerate(("a.png", "deep/b.png", "deep/er/c.jpg", ".hidden/d.png")):
        write(tmp_path / name, 60 * (index + 1))
    library = StillLibrary([tmp_path], 60)
    assert [path.name for path in library.paths] == ["a.png", "b.png", "c.jpg"]
    levels = [int(library.draw(np.random.default_rng(seed))[0, 0, 2]) for seed in range(40)]
    assert len({round(level / 60) for level in levels}) == 3
    again = StillLibrary([tmp_path], 60, memory_bytes=1)
    assert levels == [int(again.draw(np.random.default_rng(seed))[0, 0, 2]) for seed in range(40)]


def test_damaged_photographs_are_skipped_and_named(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"nothing")
    write(tmp_path / "b.png", 100)
    library = StillLibrary([tmp_path], 60)
    for seed in range(10):
        library.draw(np.random.default_rng(seed))
    assert list(library.skipped) == [tmp_path / "a.png"]


def test_folders_without_usable_photographs_are_refused(tmp_path: Path) -> None:
    with raises_user_error(SourceError, mentions=(tmp_path, "--stills")):
        StillLibrary([tmp_path], 60)
    (tmp_path / "a.png").write_bytes(b"nothing")
    with raises_user_error(SourceError, mentions=("1 of 1", "a.png")):
        StillLibrary([tmp_path], 60).draw(np.random.default_rng(0))
