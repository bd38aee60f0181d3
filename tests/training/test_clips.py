"""Clips: what is found, what a window is, and that damage is skipped by name."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
from user_errors import raises_user_error

from maskring.common.errors import SourceError
from maskring.runtime.video.folders import find_clips
from maskring.training import clips as clips_module
from maskring.training.clips import ClipLibrary, ClipWindow, read_frames

from .conftest import HEIGHT, drawn_frame

Make = Callable[..., Path]


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def windows(library: ClipLibrary, count: int = 20, frames: int = 3, max_gap: int = 3) -> list[ClipWindow]:
    return [library.window(rng(seed), frames, max_gap) for seed in range(count)]


def test_videos_and_folders_are_found_at_any_depth(footage: Path, make_folder: Make) -> None:
    make_folder(footage / "deep" / "er")
    (footage / "notes.txt").write_text("no clip")
    assert find_clips(footage) == [footage / "deep" / "er", footage / "one.avi", footage / "two"]
    assert find_clips(footage / "one.avi") == [footage / "one.avi"]


def test_no_clips_is_one_sentence(tmp_path: Path) -> None:
    with raises_user_error(SourceError, mentions=(tmp_path,)):
        find_clips(tmp_path)
    with raises_user_error(SourceError, mentions=(tmp_path / "absent",)):
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


def test_frames_of_a_folder_in_natural_order(tmp_path: Path, make_folder: Make) -> None:
    folder = make_folder(tmp_path / "frames", frames=12)
    for path in list(folder.iterdir()):
        path.rename(folder / f"{int(path.stem)}{path.suffix}")
    for index, frame in enumerate(read_frames(folder, 0, 12)):
        assert np.abs(frame[..., ::-1].astype(int) - drawn_frame(index)).mean() < 6


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
    assert "broken.mp4 cannot be opened as a video" in library.skipped[footage / "broken.mp4"]
    assert "00003.png cannot be decoded" in library.skipped[footage / "torn"]
    assert "too few frames" in library.skipped[footage / "still"]


def test_truncated_video_gives_the_frames_that_decode(tmp_path: Path, make_video: Make) -> None:
    whole = make_video(tmp_path / "whole.avi", frames=40)
    (tmp_path / "cut").mkdir()
    content = whole.read_bytes()
    (tmp_path / "cut" / "cut.avi").write_bytes(content[: len(content) // 2])
    decodable = len(list(read_frames(tmp_path / "cut" / "cut.avi", 0, 100)))
    assert 2 < decodable < 40
    found = windows(ClipLibrary([tmp_path / "cut"], HEIGHT), 40)
    assert max(window.indices[-1] for window in found) < decodable


def test_only_unusable_clips_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "broken.mp4").write_bytes(b"nothing")
    with raises_user_error(SourceError, mentions=("1 of 1", "broken.mp4")):
        ClipLibrary([tmp_path], HEIGHT).window(rng(), 2, 1)


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int, int]]:
    """(clip's name, first position, frames that came) of every decoding."""
    found: list[tuple[str, int, int]] = []

    def counting(clip: Path, start: int, count: int) -> Iterator[np.ndarray]:
        frames = list(read_frames(clip, start, count))
        found.append((clip.name, start, len(frames)))
        yield from frames

    monkeypatch.setattr(clips_module, "read_frames", counting)
    return found


def same(first: list[ClipWindow], second: list[ClipWindow]) -> bool:
    return all(
        (a.clip, a.indices) == (b.clip, b.indices) and all(map(np.array_equal, a.frames, b.frames))
        for a, b in zip(first, second, strict=True)
    )


@pytest.fixture
def short_segments(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clips_module, "SEGMENT", 8)


@pytest.mark.usefixtures("short_segments")
def test_long_clip_is_decoded_in_segments_within_memory(
    tmp_path: Path, make_video: Make, decoded: list[tuple[str, int, int]]
) -> None:
    make_video(tmp_path / "long.avi", frames=30)
    one_segment = 14 * len(cv2.imencode(".jpg", drawn_frame(0))[1])
    library = ClipLibrary([tmp_path], HEIGHT, cache_bytes=0, memory_bytes=one_segment)
    found = windows(library, 30)
    assert {start for _, start, _ in decoded} == {0, 8, 16}
    assert max(count for *_, count in decoded) == 14  # the last segment takes the remainder
    assert len(decoded) > 3  # segments made room for each other
    for window in found:
        drawn = drawn_frame(window.indices[0])[..., ::-1]
        assert np.abs(window.frames[0].astype(int) - drawn).mean() < 6
    assert same(found, windows(ClipLibrary([tmp_path], HEIGHT, cache_bytes=0), 30))


def test_next_run_does_not_decode_again(
    footage: Path, own_cache: Path, decoded: list[tuple[str, int, int]]
) -> None:
    found = windows(ClipLibrary([footage], HEIGHT))
    assert len(decoded) == 2 and len(list(own_cache.iterdir())) == 2
    assert same(found, windows(ClipLibrary([footage], HEIGHT)))
    assert len(decoded) == 2
    assert same(found, windows(ClipLibrary([footage], HEIGHT, cache_bytes=0)))
    assert len(decoded) == 4


@pytest.mark.parametrize("change", ["file", "frame", "size"])
def test_what_has_changed_is_decoded_again(
    footage: Path, decoded: list[tuple[str, int, int]], change: str
) -> None:
    windows(ClipLibrary([footage], HEIGHT))
    decoded.clear()
    if change == "file":
        os.utime(footage / "one.avi", (1, 1))
    if change == "frame":
        (footage / "two" / "00003.png").write_bytes((footage / "two" / "00004.png").read_bytes())
    windows(ClipLibrary([footage], 2 * HEIGHT if change == "size" else HEIGHT))
    expected = {"file": {"one.avi"}, "frame": {"two"}, "size": {"one.avi", "two"}}
    assert {name for name, *_ in decoded} == expected[change]


def test_damaged_cache_is_decoded_again(
    footage: Path, own_cache: Path, decoded: list[tuple[str, int, int]]
) -> None:
    found = windows(ClipLibrary([footage], HEIGHT))
    torn, flipped = sorted(own_cache.iterdir())
    torn.write_bytes(torn.read_bytes()[:-1])
    content = bytearray(flipped.read_bytes())
    content[len(content) // 2] ^= 1
    flipped.write_bytes(content)
    assert same(found, windows(ClipLibrary([footage], HEIGHT)))
    assert len(decoded) == 4
    windows(ClipLibrary([footage], HEIGHT))
    assert len(decoded) == 4  # the damaged files were replaced


def test_windows_depend_on_no_other_window(tmp_path: Path, make_folder: Make, make_video: Make) -> None:
    """Not even where parts of a clip are unusable: a resumed run has not met them."""
    make_video(tmp_path / "clips.avi", frames=40)
    torn = make_folder(tmp_path / "torn", frames=24, seed=2)
    (torn / "00010.png").write_bytes(b"not an image")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(clips_module, "SEGMENT", 8)
        library = ClipLibrary([tmp_path], HEIGHT)
        found = windows(library, 40)
        fresh = [ClipLibrary([tmp_path], HEIGHT).window(rng(seed), 3, 3) for seed in range(40)]
    assert same(found, fresh)
    assert any(window.clip == torn for window in found) and torn in library.skipped


def test_windows_stay_within_a_scene(tmp_path: Path) -> None:
    """Three scenes stitched together, and one more whose frames have another size."""
    folder = tmp_path / "stitched"
    folder.mkdir()
    scenes = [0] * 7 + [5] * 6 + [8] * 5 + [9] * 4
    for index, seed in enumerate(scenes):
        frame = drawn_frame(index, seed)
        cv2.imwrite(str(folder / f"{index:03d}.png"), frame if seed != 9 else frame[:, :40])
    seen = set()
    for window in windows(ClipLibrary([tmp_path], HEIGHT), 60, max_gap=2):
        (scene,) = {scenes[index] for index in window.indices}
        seen.add(scene)
    assert seen == set(scenes)


def test_clip_of_shreds_is_skipped(tmp_path: Path, make_folder: Make) -> None:
    make_folder(tmp_path / "whole")
    shreds = tmp_path / "shreds"
    shreds.mkdir()
    for index in range(12):
        cv2.imwrite(str(shreds / f"{index:03d}.png"), drawn_frame(index)[:, : 40 + index % 2])
    library = ClipLibrary([tmp_path], HEIGHT)
    assert {window.clip.name for window in windows(library)} == {"whole"}
    assert "too few frames in a row" in library.skipped[shreds]


def test_datasets_give_frames_and_no_labels(tmp_path: Path, make_folder: Make) -> None:
    davis, vos = tmp_path / "DAVIS", tmp_path / "YouTube-VOS"
    for folder in ("JPEGImages/480p", "JPEGImages/Full-Resolution", "Annotations/480p", "Annotations_all"):
        make_folder(davis / folder / "swan", frames=1)
    for split in ("train", "valid"):
        for folder in ("JPEGImages", "Annotations"):
            make_folder(vos / split / folder / f"{split}1", frames=1)
    make_folder(davis / ".thumbnails", frames=1)
    make_folder(tmp_path / "Annotations", frames=1)  # somebody's clip, for all we know
    assert find_clips(davis) == [davis / "JPEGImages" / "480p" / "swan"]
    assert find_clips(davis / "JPEGImages") == [davis / "JPEGImages" / "480p" / "swan"]
    expected = [vos / "train" / "JPEGImages" / "train1", vos / "valid" / "JPEGImages" / "valid1"]
    assert find_clips(vos) == expected
    library = ClipLibrary([tmp_path, davis, vos / "train"], HEIGHT)
    assert library.clips == [tmp_path / "Annotations", *find_clips(davis), *expected]


def test_unusable_clip_is_tried_once(
    footage: Path, make_folder: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    torn = make_folder(footage / "torn")
    (torn / "00003.png").write_bytes(b"not an image")
    tried: list[str] = []

    def naming(clip: Path, start: int, count: int) -> Iterator[np.ndarray]:
        tried.append(clip.name)
        return read_frames(clip, start, count)

    monkeypatch.setattr(clips_module, "read_frames", naming)
    windows(ClipLibrary([footage], HEIGHT), 40)
    assert sorted(tried) == ["one.avi", "torn", "two"]


def test_vanished_clip_is_skipped(footage: Path) -> None:
    library = ClipLibrary([footage], HEIGHT)
    (footage / "one.avi").unlink()
    assert {window.clip.name for window in windows(library)} == {"two"}
    assert set(library.skipped) == {footage / "one.avi"}


def test_real_footage_gives_windows(shared_data: Path) -> None:
    folder = shared_data / "davis_dev" / "JPEGImages" / "480p" / "dog-agility"
    if not folder.is_dir():
        pytest.skip(f"{folder} is not there")
    window = ClipLibrary([folder], short_side=120).window(rng(), 3, 4)
    assert {frame.shape[0] for frame in window.frames} == {120}
    assert window.clip == folder
