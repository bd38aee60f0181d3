"""Every option of every command changes what the command does: a table with a row for each.

Each command runs twice in this process, with and without the option, and a row says which part of the outcome
must differ. Where the work itself would take long, a recorder stands in its place and the arguments it gets
are compared; what the work makes of them is tested with the work.
"""

from __future__ import annotations

import shlex
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import cv2
import numpy as np
import pytest
import typer
from option_rows import BASES, OFFLINE, REASONS, ROWS, Outcome, calls
from pixel_model import write_pixel_model
from recorders import record_trackers, replace_exports, replace_server, replace_training_and_profiling
from support import HEIGHT, WIDTH, write_davis
from typer.testing import CliRunner

from maskring.cli import app
from maskring.commands.options import DeviceChoice, KernelChoice, PrecisionChoice
from maskring.common import types
from maskring.runtime.video.masks import write_mask

if TYPE_CHECKING:
    from conftest import Workspace

GROUP = typer.main.get_command(app)
COMMANDS: dict[str, Any] = GROUP.commands  # type: ignore[attr-defined]


def options_of(command: str) -> list[Any]:
    """The options that the command line itself knows."""
    return [
        each for each in COMMANDS[command].params if each.param_type_name == "option" and each.name != "help"
    ]


ALL = [(command, option.opts[0]) for command in COMMANDS for option in options_of(command)]
TESTED = [(command, option) for command, rows in ROWS.items() for option in rows]


def test_every_option_has_a_row() -> None:
    assert sorted(ALL) == sorted([*TESTED, *REASONS])


@pytest.fixture(scope="session")
def places(workspace: Workspace, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """What the names in braces stand for."""
    root = tmp_path_factory.mktemp("options")
    second = np.zeros((HEIGHT, WIDTH), np.uint8)
    second[4:12, 40:60] = 7
    write_mask(root / "second.png", second)
    for folder, mask in (("masks", workspace.mask), ("other_masks", root / "second.png")):
        (root / folder).mkdir()
        shutil.copy(mask, root / folder / "frames.png")
    for seed, folder in enumerate(("others", "noise")):
        (root / folder).mkdir()
        for index in range(3):
            frame = np.random.default_rng([seed, index]).integers(0, 255, (360, 640, 3), dtype=np.uint8)
            cv2.imwrite(str(root / folder / f"{index}.png"), frame)
    for name, length in (("davis", 4), ("other_davis", 3)):
        write_davis(root / name, {"a": length, "b": length})
        (root / name / "ImageSets" / "2017" / "none.txt").write_text("a\n")
    write_pixel_model(root / "pixels.onnx")
    saved = root / "refiner.safetensors"
    given = {"frames": workspace.frames, "mask": workspace.mask, "model": workspace.model}
    named = {
        **given,
        "checkpoint": workspace.checkpoint,
        "second": root / "second.png",
        "masks": root / "masks",
        "other_masks": root / "other_masks",
        "others": root / "others",
        "noise": root / "noise",
        "davis": root / "davis",
        "other_davis": root / "other_davis",
        "pixels": root / "pixels.onnx",
        "refiner": saved,
    }
    line = OFFLINE.replace("{run}/r.safetensors", str(saved)).format(**named, run=root)
    assert CliRunner().invoke(app, shlex.split(line)).exit_code == 0
    return named


@pytest.fixture
def recorded(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Calls of the parts that are recorded, and the parts that work long replaced."""
    told: list[Any] = []
    record_trackers(told, monkeypatch)
    replace_exports(told, monkeypatch)
    replace_training_and_profiling(told, monkeypatch)
    replace_server(told, monkeypatch)
    return told


def invoke(line: str, places: dict[str, Path], folder: Path, told: list[Any]) -> Outcome:
    folder.mkdir()
    told.clear()
    result = CliRunner().invoke(app, shlex.split(line.format(**places, run=folder)))
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return Outcome(result, folder, list(told))


PLAIN: dict[str, Outcome] = {}


def plain(base: str, places: dict[str, Path], folder: Path, told: list[Any]) -> Outcome:
    """The run without the option, made once for all options of a command."""
    if base not in PLAIN or not PLAIN[base].folder.is_dir():
        PLAIN[base] = invoke(base, places, folder / "without", told)
    return PLAIN[base]


@pytest.mark.parametrize(("command", "option"), TESTED, ids=lambda word: word)
def test_every_option_changes_what_it_says(
    command: str,
    option: str,
    places: dict[str, Path],
    recorded: list[Any],
    tmp_path: Path,
) -> None:
    """Its other names do the same."""
    row = ROWS[command][option]
    base = row.base or BASES[command]
    without = plain(base, places, tmp_path, recorded)
    assert without.result.exit_code == 0, without.result.output
    given = invoke(f"{base} {row.words}", places, tmp_path / "given", recorded)
    assert given.result.exit_code in row.codes, given.result.output
    assert row.look(given) != row.look(without)
    (declared,) = (each for each in options_of(command) if each.opts[0] == option)
    for alias in declared.opts[1:]:
        words = row.words.replace(option, alias)
        renamed = invoke(f"{base} {words}", places, tmp_path / "alias", recorded)
        assert row.look(renamed) == row.look(given)


def test_settings_of_an_export_reach_triton_too(
    places: dict[str, Path], recorded: list[Any], tmp_path: Path
) -> None:
    base = "export {checkpoint} --triton {run}/triton --height 48 --width 64 --objects 1"
    expected = calls(invoke(base, places, tmp_path / "without", recorded))
    options = (
        "--radius",
        "--logit-scale",
        "--top-k",
        "--roi-step",
        "--smoothing-radius",
        "--confidence-exponent",
        "--guided-filter-radius",
        "--precision",
        "--streams",
    )
    for option in options:
        words = ROWS["export"][option].words
        given = invoke(f"{base} {words}", places, tmp_path / option, recorded)
        assert given.result.exit_code == 0 and calls(given) != expected, option


def test_the_budget_is_that_of_the_p99(places: dict[str, Path], recorded: list[Any], tmp_path: Path) -> None:
    """Of the recorder's profile: 20 ms at p50, 40 ms at p99."""
    for number, (budget, expected) in enumerate({"19ms": 1, "21ms": 1, "39ms": 1, "41ms": 0}.items()):
        line = f"{BASES['profile']} --budget {budget}"
        run = invoke(line, places, tmp_path / str(number), recorded)
        assert run.result.exit_code == expected, budget


@pytest.mark.parametrize(
    ("choice", "names"),
    [
        (DeviceChoice, types.Device),
        (KernelChoice, types.Kernel),
        (PrecisionChoice, types.Precision),
    ],
)
def test_choices_are_those_of_the_library(choice: Any, names: Any) -> None:
    assert [each.value for each in choice] == list(get_args(names))
