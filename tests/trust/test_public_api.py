"""The Python API with arguments drawn at random: a call keeps its word, or raises what its docstring says.

Which exceptions a call may raise is read from the ``Raises`` sections of its documentation, and which calls
there are from the page of the API.
"""

from __future__ import annotations

import ast
import json
import math
import re
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support import moving_square, write_tiny_checkpoint
from trust.api_attacks import ATTACKS
from trust.api_uses import VALID
from trust.api_values import EXCEPTIONS, tracker, words
from user_errors import raises_user_error

import maskring
from maskring.common.errors import MaskError, ModelError, OutputError, UserError

ROOT = Path(__file__).resolve().parents[2]


def documented() -> list[str]:
    """Full names on the page of the API."""
    page = (ROOT / "docs" / "api.md").read_text()
    return [name for name in re.findall(r"^::: (\S+)$", page, flags=re.MULTILINE) if name[-6:] != "errors"]


@pytest.mark.parametrize("name", ATTACKS)
def test_valid_values_are_accepted(name: str, tmp_path: Path) -> None:
    """Nothing is swallowed here: the attacks would also pass where everything is refused."""
    VALID[name](tmp_path)


ATTACKED_ELSEWHERE = {
    "maskring.Source": "open_source",
    "maskring.OverlayVideoSink": "MaskFolderSink",
    "maskring.JsonLinesSink": "MaskFolderSink",
    "maskring.Edits": "track",
}
ONLY_HOLD = {
    "maskring.ObjectState",
    "maskring.Timings",
    "maskring.Frame",
    "maskring.Key",
    "maskring.Pointer",
    "maskring.Steering",
    "maskring.Decision",
    "maskring.Screen",
}
"""Records without behaviour, and protocols."""


def test_every_documented_name_is_attacked() -> None:
    assert sorted(documented()) == sorted([*ATTACKS, *ATTACKED_ELSEWHERE, *ONLY_HOLD])
    exported = {f"maskring.{name}" for name in maskring.__all__ if not name.startswith("__")}
    assert exported - {f"maskring.{name}" for name in EXCEPTIONS} == set(documented())


def test_type_checkers_see_the_names_that_there_are() -> None:
    tree = ast.parse(Path(maskring.__file__).read_text())
    (block,) = (node for node in tree.body if isinstance(node, ast.If))
    seen: dict[str, tuple[str, ...]] = {}
    for node in block.body:
        assert isinstance(node, ast.ImportFrom) and node.module is not None and node.level == 1
        (alias,) = node.names
        assert alias.asname == alias.name
        seen[node.module] = (*seen.get(node.module, ()), alias.name)
    assert seen == maskring._MODULES
    for name in maskring.__all__:
        assert getattr(maskring, name) is not None


def test_old_names_still_work() -> None:
    assert maskring.with_boxes is maskring.masks_from_boxes
    with pytest.raises(AttributeError, match="nothing"):
        maskring.nothing  # noqa: B018


FEW = settings(max_examples=25, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
MANY = settings(FEW, max_examples=3000, derandomize=False, database=None)


@pytest.mark.parametrize("name", ATTACKS)
@FEW
@given(data=st.data())
def test_few(name: str, data: st.DataObject, tmp_path_factory: pytest.TempPathFactory) -> None:
    ATTACKS[name](data, folder_of(name, tmp_path_factory))


@pytest.mark.slow
@pytest.mark.parametrize("name", ATTACKS)
@MANY
@given(data=st.data())
def test_many(name: str, data: st.DataObject, tmp_path_factory: pytest.TempPathFactory) -> None:
    ATTACKS[name](data, folder_of(name, tmp_path_factory))


FOLDERS: dict[str, Path] = {}


def folder_of(name: str, factory: pytest.TempPathFactory) -> Path:
    """One for all cases of an attack."""
    if name not in FOLDERS:
        FOLDERS[name] = factory.mktemp("api")
    return FOLDERS[name]


@FEW
@given(problem=words, remedy=words)
def test_errors_are_one_line(problem: str, remedy: str) -> None:
    for kind in (UserError, MaskError):
        error = kind(problem, remedy)
        assert str(error).isprintable() and str(error) == f"{error.problem}; {error.remedy}."
        json.dumps(str(error)).encode("ascii")


def test_rates_that_no_video_has(tmp_path: Path) -> None:
    """OpenCV's encoder never came back from an infinite one."""
    from maskring import OverlayVideoSink

    for rate in (math.inf, math.nan, 0.0, -1.0):
        with raises_user_error(OutputError, mentions=(rate, "frames per second")):
            OverlayVideoSink(tmp_path / "overlay.mp4", rate)


def test_masks_of_different_sizes_for_one_frame() -> None:
    from maskring import Edits, Frame
    from maskring.runtime.pipeline.edits import Schedule

    frame, mask = moving_square(0)
    schedule = Schedule(Edits({0: mask, 1: mask[:5]}))
    with raises_user_error(MaskError, ["[5, 64]", "[48, 64]"]):
        schedule.decide(Frame(frame, 2, 0.0, "a"))


def test_frames_named_like_folders(tmp_path: Path) -> None:
    from maskring import Frame, MaskFolderSink

    with tracker(tmp_path) as opened:
        result = opened.step(*moving_square(0))
    sink = MaskFolderSink(tmp_path / "masks")
    for name in ("../stolen", "a/b", str(tmp_path / "stolen")):
        with raises_user_error(OutputError, mentions=(name, "folder")):
            sink.write(Frame(moving_square(0)[0], 0, 0.0, name), result)
    assert not list(tmp_path.rglob("*stolen*"))


def test_boxes_beside_the_frame() -> None:
    from maskring import cut_from_box

    image = moving_square(0)[0]
    for box in ((-900, 0, -800, 40), (70, 0, 90, 40), (0, 0, 64, 48)):
        assert cut_from_box(image, box) is None


@pytest.mark.parametrize(
    "setting", ["num_slots", "radius", "top_k", "roi_step", "smoothing_radius", "num_labels"]
)
def test_no_export_that_could_not_be_opened(tmp_path: Path, setting: str) -> None:
    from maskring import export_onnx

    checkpoint = write_tiny_checkpoint(tmp_path / "tiny.safetensors")
    with raises_user_error(ModelError, mentions=["65536"]):
        export_onnx(checkpoint, tmp_path / "out.onnx", **{setting: 1 << 17})
    assert not (tmp_path / "out.onnx").exists()
