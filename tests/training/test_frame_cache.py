"""The cache of decoded frames: within its budget, shared, and out of the way when the disk is full."""

from __future__ import annotations

import errno
import multiprocessing
import os
from pathlib import Path

import pytest

from maskring.common import files
from maskring.training.frame_cache import SUFFIX, FrameCache, Segment

LONG_AGO = 1_000_000_000
LARGE = 1 << 20


def segment(content: int = 0, size: int = 1000) -> Segment:
    return Segment((bytes([content]) * size, b"x" * 7, b""), (0, 2))


def names(folder: Path) -> set[str]:
    return {path.stem for path in folder.iterdir()}


def test_segments_come_back(tmp_path: Path) -> None:
    FrameCache(tmp_path / "frames", LARGE).store("a", segment(1))
    cache = FrameCache(tmp_path / "frames", LARGE)
    assert cache.load("a") == segment(1) and cache.load("b") is None


@pytest.mark.parametrize("position", range(0, 40, 3))
def test_any_flipped_bit_is_seen(tmp_path: Path, position: int) -> None:
    cache = FrameCache(tmp_path, LARGE)
    cache.store("a", segment())
    path = tmp_path / f"a{SUFFIX}"
    content = bytearray(path.read_bytes())
    content[position] ^= 16
    path.write_bytes(content)
    assert cache.load("a") is None and not path.exists()


@pytest.mark.parametrize("kept", [0, 5, 20, 1000])
def test_truncated_file_is_seen(tmp_path: Path, kept: int) -> None:
    cache = FrameCache(tmp_path, LARGE)
    cache.store("a", segment())
    path = tmp_path / f"a{SUFFIX}"
    path.write_bytes(path.read_bytes()[:kept])
    assert cache.load("a") is None


def test_files_unused_for_longest_make_room(tmp_path: Path) -> None:
    size = len(segment().to_bytes())
    before = FrameCache(tmp_path, 10 * size)
    for age, name in enumerate("abc"):
        before.store(name, segment())
        os.utime(tmp_path / f"{name}{SUFFIX}", (LONG_AGO - age, LONG_AGO - age))
    cache = FrameCache(tmp_path, 3 * size)
    assert cache.load("c") == segment()  # now the latest used
    cache.store("d", segment())
    assert names(tmp_path) == {"a", "c", "d"}
    cache.store("e", segment())
    assert names(tmp_path) == {"c", "d", "e"}
    cache.store("f", segment())  # c, d and e are in use
    assert names(tmp_path) == {"c", "d", "e"}


def test_files_that_are_being_written_are_not_removed(tmp_path: Path) -> None:
    size = len(segment().to_bytes())
    writing = tmp_path / f".b.2.partial{SUFFIX}"
    writing.write_bytes(bytes(size))
    os.utime(writing, (LONG_AGO, LONG_AGO))
    cache = FrameCache(tmp_path, 2 * size)
    cache.store("c", segment())
    cache.store("d", segment())  # for which there would be room
    assert names(tmp_path) == {".b.2.partial", "c"}


def test_what_a_killed_process_left_makes_room(tmp_path: Path) -> None:
    size = len(segment().to_bytes())
    left = tmp_path / f".a.99-01234567.partial{SUFFIX}"
    left.write_bytes(bytes(2 * size))
    os.utime(left, (LONG_AGO, LONG_AGO))
    FrameCache(tmp_path, 2 * size).store("c", segment())
    assert names(tmp_path) == {"c"}


def test_no_budget_writes_nothing(tmp_path: Path) -> None:
    cache = FrameCache(tmp_path / "frames", 0)
    cache.store("a", segment())
    assert cache.load("a") is None and not (tmp_path / "frames").exists()


def test_full_disk_is_said_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(self: Path, data: bytes) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    cache = FrameCache(tmp_path, LARGE)
    cache.store("a", segment(1))
    monkeypatch.setattr(Path, "write_bytes", full)
    cache.store("b", segment())
    cache.store("c", segment())
    assert cache.load("a") == segment(1) and names(tmp_path) == {"a"}
    (message,) = [record.getMessage() for record in caplog.records]
    assert message.startswith("decoded frames are not cached: no space is left on the disk")


def test_folder_that_cannot_be_made_is_no_error(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").write_text("in the way")
    FrameCache(tmp_path / "file" / "frames", LARGE).store("a", segment())
    assert "in the way" in caplog.text


def _write_and_read(folder: Path, budget: int) -> None:
    for round_ in range(20):
        cache = FrameCache(folder, budget)
        for number in range(8):
            found = cache.load(str(number))
            assert found in (None, segment(number)), f"round {round_}"
            cache.store(str(number), segment(number))


def test_processes_share_a_folder(tmp_path: Path) -> None:
    """They store and evict at once; what is read is what was stored."""
    budget = 5 * len(segment().to_bytes())
    context = multiprocessing.get_context("fork")
    workers = [context.Process(target=_write_and_read, args=(tmp_path, budget)) for _ in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(1800)
        assert worker.exitcode == 0
    assert all(path.name.endswith(SUFFIX) for path in tmp_path.iterdir())


def test_cache_folder_is_the_one_of_maskring(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MASKRING_CACHE", str(tmp_path / "own"))
    assert files.cache_directory() == tmp_path / "own"
    monkeypatch.delenv("MASKRING_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert files.cache_directory() == tmp_path / "xdg" / "maskring"
