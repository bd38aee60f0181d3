"""Writing by rename: when a temporary file is removed, and what is flushed to the disk."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from user_errors import raises_user_error

from maskring.common.errors import OutputError
from maskring.common.files import (
    PARTIAL_NAME,
    STALE_S,
    atomic_path,
    cache_directory,
    caching,
    directory,
    remove_abandoned,
)

WRITE = """
import os, signal, sys
from pathlib import Path
from maskring.common.files import atomic_path
with atomic_path(Path(sys.argv[1])) as partial:
    partial.write_text("half")
    print(partial.name, flush=True)
    sys.stdin.read()
"""


@pytest.fixture(autouse=True)
def every_folder_is_new() -> Iterator[None]:
    """To this process, which looks into each once."""
    remove_abandoned.cache_clear()
    yield
    remove_abandoned.cache_clear()


def writer(path: Path) -> tuple[subprocess.Popen[str], Path]:
    """A process that is writing ``path``, and its temporary file."""
    process = subprocess.Popen(
        [sys.executable, "-c", WRITE, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    return process, path.with_name(process.stdout.readline().strip())


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


@pytest.mark.parametrize(("age", "stays"), [(STALE_S - 600, True), (STALE_S + 600, False)])
def test_what_a_killed_writer_left_is_removed_after_a_day(tmp_path: Path, age: int, stays: bool) -> None:
    process, partial = writer(tmp_path / "model.onnx")
    process.kill()
    process.communicate()
    assert partial.read_text() == "half" and PARTIAL_NAME.fullmatch(partial.name)
    os.utime(partial, (time.time() - age,) * 2)
    with atomic_path(tmp_path / "other.txt") as written:
        written.write_text("whole")
    assert names(tmp_path) == {"other.txt"} | ({partial.name} if stays else set())


def test_what_another_process_is_writing_is_left_alone(tmp_path: Path) -> None:
    process, partial = writer(tmp_path / "model.onnx")
    with atomic_path(tmp_path / "model.onnx") as mine:
        assert mine != partial
        mine.write_text("mine")
    assert names(tmp_path) == {"model.onnx", partial.name}
    process.communicate("")
    assert names(tmp_path) == {"model.onnx"}
    assert (tmp_path / "model.onnx").read_text() == "half"


@pytest.mark.parametrize("name", [".a.partial", ".a.1.partial.png", "a.1-00000000.partial.png", ".x.png"])
def test_files_of_others_are_left_alone(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("")
    os.utime(tmp_path / name, (0, 0))
    remove_abandoned(tmp_path)
    assert (tmp_path / name).exists()


def test_two_writers_of_one_process_do_not_meet(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    with atomic_path(path) as first:
        first.write_text("first")
        with atomic_path(path) as second:
            second.write_text("second")
        assert path.read_text() == "second"
    assert path.read_text() == "first"


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="reads the names of open files from /proc")
def test_a_flushed_file_reaches_the_disk_before_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The data before the rename, then the folder that holds the new name; nothing without ``flush``."""
    flushed: list[tuple[Path, bool]] = []
    path, fsync = tmp_path / "state.pt", os.fsync

    def recorded(descriptor: int) -> None:
        flushed.append((Path(f"/proc/self/fd/{descriptor}").readlink(), path.exists()))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", recorded)
    with atomic_path(path, flush=True) as partial:
        partial.write_text("state")
    assert flushed == [(partial, False), (tmp_path, True)]
    with atomic_path(tmp_path / "mask.png") as partial:
        partial.write_text("mask")
    assert len(flushed) == 2


def test_folders_made_for_nothing_are_removed(tmp_path: Path) -> None:
    (tmp_path / "old").mkdir()
    with directory(tmp_path / "old" / "new" / "newer") as made:
        assert made.is_dir()
    assert not list((tmp_path / "old").iterdir())
    with directory(tmp_path / "old"):
        pass
    assert (tmp_path / "old").is_dir()
    with directory(tmp_path / "new" / "newer"):
        (tmp_path / "new" / "file").touch()
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["file"]


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with (
        raises_user_error(OutputError, mentions=("not there",)),
        atomic_path(tmp_path / "not there" / "a.txt") as partial,
    ):
        partial.write_text("a")


def test_a_user_without_a_home_is_told_of_the_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a container that runs as a user number that the image does not know."""

    def no_home() -> Path:
        raise RuntimeError("Could not determine home directory.")

    for name in ("MASKRING_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(Path, "home", no_home)
    with raises_user_error(OutputError, mentions=("home", "MASKRING_CACHE")):
        cache_directory()


def test_a_cache_that_cannot_be_written_names_the_variable(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with (
        raises_user_error(OutputError, mentions=(str(tmp_path / "file"), "MASKRING_CACHE")),
        caching(tmp_path / "file" / "maskring" / "a.onnx"),
    ):
        pytest.fail("went on")


@pytest.mark.parametrize(("folder", "file"), [(0o755, 0o644), (0o750, 0o640), (0o700, 0o600)])
def test_whoever_may_read_the_cache_may_read_its_files(tmp_path: Path, folder: int, file: int) -> None:
    """A user with the umask 077 fills a cache that others share."""
    tmp_path.chmod(folder)
    path = tmp_path / "a.onnx"
    umask = os.umask(0o077)
    try:
        with caching(path), atomic_path(path) as partial:
            partial.write_text("model")
    finally:
        os.umask(umask)
    assert path.stat().st_mode & 0o777 == file
