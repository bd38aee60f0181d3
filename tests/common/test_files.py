"""Writing by rename: who may remove a temporary file, and who may not."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from maskring.common import files
from maskring.common.errors import OutputError
from maskring.common.files import FORSAKEN, PARTIAL_NAME, atomic_path, directory, remove_abandoned

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


def test_what_a_killed_writer_left_is_removed_by_the_next_write(tmp_path: Path) -> None:
    process, partial = writer(tmp_path / "model.onnx")
    process.kill()
    process.communicate()
    assert partial.read_text() == "half"
    with atomic_path(tmp_path / "other.txt") as written:
        written.write_text("whole")
    assert names(tmp_path) == {"other.txt"}


def test_what_another_process_is_writing_is_left_alone(tmp_path: Path) -> None:
    process, partial = writer(tmp_path / "model.onnx")
    os.utime(partial, (0, 0))  # a clock that was set right meanwhile
    with atomic_path(tmp_path / "model.onnx") as mine:
        assert mine != partial
        mine.write_text("mine")
    assert names(tmp_path) == {"model.onnx", partial.name}
    process.communicate("")
    assert names(tmp_path) == {"model.onnx"}
    assert (tmp_path / "model.onnx").read_text() == "half"


def test_a_number_that_came_again_is_another_process(tmp_path: Path) -> None:
    """A process of this number lives, and was started at another time than the writer."""
    with atomic_path(tmp_path / "a.txt") as partial:
        partial.write_text("a")
        named = PARTIAL_NAME.fullmatch(partial.name)
    assert named is not None
    machine, process, started = named.group(1, 2, 3)
    assert int(process) == os.getpid()
    left = tmp_path / f".b.{machine}-{process}-{int(started) - 1}-0.partial.txt"
    mine = tmp_path / f".c.{machine}-{process}-{started}-0.partial.txt"
    for path in (left, mine):
        path.write_text("half")
    remove_abandoned.cache_clear()
    remove_abandoned(tmp_path)
    assert names(tmp_path) == {"a.txt", mine.name}


@pytest.mark.parametrize(("age", "kept"), [(FORSAKEN - 600, True), (FORSAKEN + 600, False)])
def test_files_of_other_machines_are_left_alone_for_a_day(tmp_path: Path, age: int, kept: bool) -> None:
    """Their processes cannot be seen from here; neither can those of other containers."""
    left = tmp_path / ".model.00000000-1-1-0.partial.onnx"
    left.write_text("half")
    os.utime(left, (time.time() - age,) * 2)
    remove_abandoned(tmp_path)
    assert left.exists() == kept


@pytest.mark.parametrize("name", [".a.partial", ".a.1.partial.png", "a.00000000-1-1-0.partial.png", ".x.png"])
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


def test_where_processes_have_no_start_age_decides(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On systems without /proc nobody's temporary file is taken for abandoned before a day has passed."""
    monkeypatch.setattr(files, "PROCESSES", tmp_path / "proc")
    files._owner.cache_clear()
    with atomic_path(tmp_path / "a.txt") as partial:
        partial.write_text("a")
        assert "-0-" in partial.name
        remove_abandoned.cache_clear()
        remove_abandoned(tmp_path)
        assert partial.exists()
    files._owner.cache_clear()


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
        pytest.raises(OutputError, match="not there"),
        atomic_path(tmp_path / "not there" / "a.txt") as partial,
    ):
        partial.write_text("a")
