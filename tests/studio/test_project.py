"""Projects survive what happens to files."""

from __future__ import annotations

import errno
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support import moving_square
from user_errors import raises_user_error

from maskring.common.errors import MaskError, OutputError, SourceError, UserError
from maskring.common.types import Image, Labels
from maskring.runtime.interaction.scribble import FrameFeatures
from maskring.runtime.pipeline.directions import Drawn
from maskring.studio.history import History
from maskring.studio.items import Items
from maskring.studio.project import RECORD, VIEW, FolderLock, Project
from maskring.studio.strokes import stroke_on

IMAGE, MASK = moving_square(0)
SIZE = MASK.shape


@pytest.fixture
def project(tmp_path: Path) -> Project:
    made = Project(tmp_path / "clip.maskring", (SIZE[0], SIZE[1]))
    made.items.add("Car")
    made.swap(made.drawn_files(3, Drawn.of(MASK)))
    return made


def reopened(project: Project) -> Project:
    return Project(project.folder, project.size)


def test_everything_comes_back(project: Project) -> None:
    project.accepted = {3}
    project.items.change(1, colour="#123456")
    project.swap(project.tracked_files(4, MASK, {1: [256, 0.5, None]}) | project.record_file())
    again = reopened(project)
    assert [vars(item) for item in again.items.values()] == [{"id": 1, "name": "Car", "colour": "#123456"}]
    assert again.masked == [3, 4] and again.accepted == {3} and again.measured == {4: {1: [256, 0.5, None]}}
    for frame in (3, 4):
        np.testing.assert_array_equal(again.labels(frame), MASK)


def test_what_was_drawn_lies_over_what_was_tracked(project: Project) -> None:
    tracked = np.zeros_like(MASK)
    tracked[0:4] = 1
    tracked[40:] = 2
    project.items.add()
    project.swap(project.tracked_files(3, tracked, {}))
    expected = MASK.copy()
    expected[40:] = 2
    np.testing.assert_array_equal(project.labels(3), expected)


def test_a_deleted_object_is_gone_everywhere_and_its_number_is_not_used_again(project: Project) -> None:
    del project.items[1]
    project.swap(project.record_file())
    labels = project.labels(3)
    assert labels is None or not labels.any()
    assert reopened(project).items.add().id == 2


def test_a_drawing_without_a_record_counts(project: Project) -> None:
    """Killed after the mask was written and before the record."""
    record = (project.folder / RECORD).read_bytes()
    project.items.add()
    project.swap(project.drawn_files(5, Drawn.of(MASK * 2)))
    (project.folder / RECORD).write_bytes(record)
    again = reopened(project)
    assert again.drawn_ids[5] == {2} and 2 in again.items
    np.testing.assert_array_equal(again.labels(5), MASK * 2)


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b'{"format": 9}', b'{"objects": [{"id": "x"}]}', b'{"drawn": {"a": 1}}']
)
def test_a_damaged_record_is_named(project: Project, content: bytes) -> None:
    (project.folder / RECORD).write_bytes(content)
    with raises_user_error(SourceError, (project.folder / RECORD,)):
        reopened(project)


def test_a_project_of_another_clip_is_refused(project: Project) -> None:
    with raises_user_error(SourceError, (project.folder,)):
        Project(project.folder, (10, 10))


def test_undo_and_redo_restore_files(project: Project) -> None:
    history = History(project)
    before = (project.folder / RECORD).read_bytes()
    history.change("draw", project.drawn_files(7, Drawn.of(MASK)))
    after = (project.folder / RECORD).read_bytes()
    assert history.names == ("draw", None)
    history.undo()
    assert (project.folder / RECORD).read_bytes() == before and project.masked == [3]
    assert not (project.folder / "drawn" / "000007.png").exists()
    history.redo()
    assert (project.folder / RECORD).read_bytes() == after and project.masked == [3, 7]
    with raises_user_error(UserError):
        history.redo()


def test_a_change_that_cannot_be_written_changes_nothing(project: Project) -> None:
    (project.folder / "tracked").write_bytes(b"in the way")
    with raises_user_error(OutputError, ("tracked",)):
        project.swap(project.tracked_files(4, MASK, {}))
    assert reopened(project).masked == [3]


def test_one_server_works_on_a_project(tmp_path: Path) -> None:
    pytest.importorskip("fcntl", reason="no file locks on this system")
    folder = tmp_path / "clip.maskring"
    with closing(FolderLock(folder)), raises_user_error(UserError, (folder,)):
        FolderLock(folder)
    assert not folder.exists()  # nothing was saved in it
    with closing(FolderLock(folder)):
        (folder / RECORD).write_bytes(b"{}")
    assert (folder / RECORD).is_file()


def test_the_frame_that_was_looked_at_last(project: Project, tmp_path: Path) -> None:
    assert project.seen is None
    project.see(7)
    assert reopened(project).seen == 7
    (project.folder / VIEW).write_text("[]")
    assert reopened(project).seen is None
    empty = Project(tmp_path / "other.maskring", project.size)
    empty.see(3)  # looking at a clip leaves nothing behind
    assert not empty.folder.exists()


def test_names_keep_what_other_scripts_need() -> None:
    items = Items()
    for name in ("می\u200cخواهم", "👩\u200d🚀"):
        assert items.add(name).name == name
    assert items.add("\u202eb\na\x00d").name == "bad"


def test_a_change_is_written_as_a_whole_or_not_at_all(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The disk is full when the second of two files is written."""
    before = {path: path.read_bytes() for path in project.folder.rglob("*") if path.is_file()}
    write = Path.write_bytes

    def full(path: Path, data: bytes) -> int:
        if "000005" in path.name:
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(path, data)

    monkeypatch.setattr(Path, "write_bytes", full)
    with raises_user_error(OutputError, (project.folder,)):
        project.swap({"drawn/000003.png": b"new", "tracked/000005.png": b"new", "drawn/000004.png": None})
    assert before == {path: path.read_bytes() for path in project.folder.rglob("*") if path.is_file()}


def draw(image: Image, shown: Labels, drawn: Drawn | None, stroke: dict[str, Any]) -> Drawn:
    """A stroke of a tool that needs no features."""

    def features() -> FrameFeatures:
        raise AssertionError("features were asked for")

    return stroke_on(image, shown, drawn, stroke, features)


def test_strokes() -> None:
    nothing = np.zeros_like(MASK)
    square = draw(
        IMAGE,
        nothing,
        None,
        {"tool": "polygon", "object": 1, "points": [[12, 16], [27, 16], [27, 31], [12, 31]]},
    )
    np.testing.assert_array_equal(square.mask, MASK)
    smaller = draw(IMAGE, MASK, square, {"tool": "eraser", "object": 1, "points": [[12, 16]], "radius": 0})
    assert smaller.mask.sum() == MASK.sum() - 1 and smaller.mask[16, 12] == 0
    line = draw(IMAGE, nothing, None, {"tool": "brush", "object": 2, "points": [[5, 5], [9, 5]], "radius": 0})
    assert np.argwhere(line.mask == 2).tolist() == [[5, x] for x in range(5, 10)]
    gone = draw(IMAGE, MASK, square, {"tool": "eraser", "object": 1, "points": [[20, 24]], "radius": 40})
    assert gone.ids == {1} and not gone.mask.any()
    over = draw(IMAGE, MASK, square, {"tool": "brush", "object": 2, "points": [[20, 24]], "radius": 3})
    assert over.ids == {1, 2} and over.mask[24, 20] == 2
    with raises_user_error(MaskError):
        draw(IMAGE, nothing, None, {"tool": "polygon", "object": 1, "points": [[1, 1], [2, 2]]})
