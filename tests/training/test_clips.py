"""Clips: what is found, what a window is, and that damage is skipped by name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from maskring.plugins.errors import SourceError
from maskring.training import clips as clips_module
from maskring.training.clips import ClipLibrary, Window, find_clips, read_frames

from .conftest import HEIGHT, drawn_frame

Make = Callable[..., Path]


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def windows(library: ClipLibrary, count: int = 20, frames: int = 3, max_gap: int = 3) -> list[Window]:
    return [library.window(rng(seed), frames, max_gap) for seed in range(count)]


def test_videos_and_folders_are_found_at_any_depth(footage: Path, make_folder: Make) -> None:
    make_folder(footage / "deep" / "er")
    (footage / "notes.txt").write_text("no clip")
    assert find_clips(footage) == [footage / "deep" / "er", footage / "one.avi", footage / "two"]
    assert find_clips(footage / "one.avi") == [footage / "one.avi"]


def test_no_clips_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="neither videos nor folders of images"):
        find_clips(tmp_path)
    with pytest.raises(SourceError, match="does not exist"):
        find_clips(tmp_path / "absent")


def test_windows_hold_the_frames_they_name(footage: Path) -> None:
    library = ClipLibrary([footage], short_side=HEIGHT)
    seen = set()
    for window in windows(library):
        gaps = np.diff(window.indices)
        assert gaps.min() >= 1 and gaps.max() <= 3 and len(window.frames) == 3
        for frame, index in zip(window.frames, window.indices, strict=True):
            drawn = drawn_frame(index, seed=0 if window.clip.suffix else 1)[..., ::-1]
            assert np.abs(frame.astype(int) - drawn).mean() < 6  # JPEG, twice for the video
        seen.add(window.clip)
    assert seen == set(library.clips)


def test_windows_depend_on_the_generator_alone(footage: Path) -> None:
    library = ClipLibrary([footage], short_side=HEIGHT)
    first = windows(library)
    again = list(reversed([library.window(rng(seed), 3, 3) for seed in reversed(range(20))]))
    assert [(w.clip, w.indices) for w in first] == [(w.clip, w.indices) for w in again]


def test_frames_come_at_the_short_side_asked_for(footage: Path) -> None:
    assert ClipLibrary([footage], short_side=24).window(rng(), 2, 1).frames[0].shape == (24, 32, 3)


def test_short_clip_takes_the_smallest_gaps(tmp_path: Path, make_folder: Make) -> None:
    make_folder(tmp_path / "short", frames=3)
    for window in windows(ClipLibrary([tmp_path], HEIGHT), max_gap=9):
        assert window.indices == (0, 1, 2)


def test_corrupt_and_short_clips_are_skipped_and_named(footage: Path, make_folder: Make) -> None:
    (footage / "broken.mp4").write_bytes(b"\x00\x00\x00 ftypisom, and then nothing")
    make_folder(footage / "still", frames=1)
    make_folder(footage / "torn")
    (footage / "torn" / "00003.png").write_bytes(b"not an image")
    library = ClipLibrary([footage], HEIGHT)
    assert {window.clip.name for window in windows(library, 60)} == {"one.avi", "two"}
    assert {path.name for path in library.skipped} == {"broken.mp4", "still", "torn"}
    assert "broken.mp4 is not a video that can be decoded" in library.skipped[footage / "broken.mp4"]
    assert "00003.png is not an image" in library.skipped[footage / "torn"]
    assert "too few frames" in library.skipped[footage / "still"]


def test_truncated_video_gives_the_frames_that_decode(tmp_path: Path, make_video: Make) -> None:
    whole = make_video(tmp_path / "whole.avi", frames=40)
    (tmp_path / "cut").mkdir()
    content = whole.read_bytes()
    (tmp_path / "cut" / "cut.avi").write_bytes(content[: len(content) // 2])
    decodable = len(read_frames(tmp_path / "cut" / "cut.avi", 0, 100))
    assert 2 < decodable < 40
    found = windows(ClipLibrary([tmp_path / "cut"], HEIGHT), 40)
    assert max(window.indices[-1] for window in found) < decodable


def test_only_unusable_clips_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "broken.mp4").write_bytes(b"nothing")
    with pytest.raises(SourceError, match=r"1 of 1 clips are unusable \(.*broken\.mp4"):
        ClipLibrary([tmp_path], HEIGHT).window(rng(), 2, 1)


def test_long_clip_is_decoded_in_segments_within_the_cache(
    tmp_path: Path, make_video: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(clips_module, "SEGMENT", 8)
    decoded: list[tuple[int, int]] = []

    def counting(clip: Path, start: int, count: int) -> list[np.ndarray]:
        frames = read_frames(clip, start, count)
        decoded.append((start, len(frames)))
        return frames

    monkeypatch.setattr(clips_module, "read_frames", counting)
    make_video(tmp_path / "long.avi", frames=30)
    one_segment = sum(len(cv2.imencode(".jpg", drawn_frame(i), clips_module.JPEG)[1]) for i in range(14))
    library = ClipLibrary([tmp_path], HEIGHT, cache_bytes=one_segment)
    found = windows(library, 30)
    assert {start for start, _ in decoded} == {0, 8, 16}
    assert max(count for _, count in decoded) == 14  # the last segment takes the remainder
    assert len(decoded) > 3  # segments made room for each other
    for window in found:
        drawn = drawn_frame(window.indices[0])[..., ::-1]
        assert np.abs(window.frames[0].astype(int) - drawn).mean() < 6


def test_real_footage_gives_windows(shared_data: Path) -> None:
    folder = shared_data / "davis_dev" / "JPEGImages" / "480p" / "dog-agility"
    if not folder.is_dir():
        pytest.skip(f"{folder} is not there")
    window = ClipLibrary([folder], short_side=120).window(rng(), 3, 4)
    assert {frame.shape[0] for frame in window.frames} == {120}
    assert window.clip == folder
