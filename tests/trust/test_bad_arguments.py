"""The command line with arguments drawn at random: exit code 0, 1 or 2, a sentence instead of a traceback."""

from __future__ import annotations

import functools
from pathlib import Path

import pytest
import typer
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support import moving_square, write_frames, write_tiny_checkpoint
from typer.testing import CliRunner
from user_errors import raises_user_error

from maskring.cli import app
from maskring.common.types import MAX_LABELS
from maskring.runtime.model.metadata import MAX_SETTING

numbers = st.one_of(
    st.integers(-3, 40),
    st.sampled_from([2**31 - 1, 2**31, 2**63, 10**30, -(2**31)]),
    st.sampled_from(["nan", "inf", "-inf", "1e400", "0.5", "", "²", "x", "1_0", "٣", "9" * 5000]),
).map(str)
edits = st.tuples(numbers, st.sampled_from(["=", "", "=="]), numbers).map("".join)
ranges = st.lists(numbers, min_size=1, max_size=4).map(":".join)
texts = st.text(st.characters(exclude_characters="\0"), max_size=20)
strange_paths = st.one_of(
    texts,
    st.sampled_from(["x" * 300, "x" * 5000, "/", "/dev/null", "/proc/self/mem", "", ".", "~", "a/../.."]),
)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory, exported: Path) -> dict[str, Path]:
    """Sound inputs, so that the arguments under test are reached."""
    from maskring.runtime.video.masks import write_mask

    folder = tmp_path_factory.mktemp("files")
    _, mask = moving_square(0)
    write_frames(folder / "frames", 2)
    write_mask(folder / "mask.png", mask)
    (folder / "masks").mkdir()
    write_mask(folder / "masks" / "frames.png", mask)
    return {
        "model": exported,
        "checkpoint": write_tiny_checkpoint(folder / "tiny.safetensors"),
        "frames": folder / "frames",
        "mask": folder / "mask.png",
        "masks": folder / "masks",
        "out": folder / "out",
        "onnx": folder / "out.onnx",
        "weights": folder / "out.safetensors",
    }


@pytest.fixture(autouse=True)
def folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Outputs with strange names do not end in the repository."""
    monkeypatch.chdir(tmp_path)


def run(*arguments: object) -> None:
    """Whatever the arguments are, maskring ends with a code and says why."""
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code in (0, 1, 2), result.output
    if result.exit_code == 2:
        assert result.stderr.strip(), arguments
        assert "Traceback" not in result.output


FEW = settings(max_examples=15, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
MANY = settings(FEW, max_examples=2000, derandomize=False)


def track_options() -> st.SearchStrategy[list[str]]:
    option = st.one_of(
        st.tuples(st.just("--add"), edits),
        st.tuples(st.just("--remove"), edits),
        st.tuples(st.just("--threads"), numbers),
        st.tuples(st.just("--kernel"), st.sampled_from(["native", "x", ""])),
        st.tuples(st.just("--refine"), st.sampled_from(["off", "x", ""])),
        st.tuples(st.sampled_from(["--mask", "--model", "--out"]), strange_paths),
    )
    return st.lists(option, max_size=3).map(lambda pairs: [word for pair in pairs for word in pair])


class TestTrack:
    def attack(self, files: dict[str, Path], options: list[str]) -> None:
        given_here = {word for word in options if word.startswith("--")}
        fixed = {"--mask": files["mask"], "--model": files["model"], "--out": files["out"]}
        needed = [word for name, path in fixed.items() if name not in given_here for word in (name, path)]
        run("track", files["frames"], "--no-overlay", *needed, *options)

    @FEW
    @given(options=track_options())
    def test_few(self, files: dict[str, Path], options: list[str]) -> None:
        self.attack(files, options)

    @pytest.mark.slow
    @MANY
    @given(options=track_options())
    def test_many(self, files: dict[str, Path], options: list[str]) -> None:
        self.attack(files, options)


COMMANDS = {
    "track": ("--mask", "MASK", "--model", "MODEL", "--out", "OUT"),
    "export": ("--out", "ONNX"),
    "export-refiner": ("--out", "OUT"),
    "build": ("--out", "OUT"),
    "import": ("--out", "WEIGHTS"),
    "quantize": ("--calibrate", "FRAMES", "--out", "OUT"),
    "verify": (),
    "train": ("--data", "FRAMES", "--out", "OUT"),
}


@FEW
@given(command=st.sampled_from(sorted(COMMANDS)), path=strange_paths)
def test_strange_inputs(files: dict[str, Path], command: str, path: str) -> None:
    names = {name.upper(): path for name, path in files.items()}
    if not path.startswith("-"):
        run(command, path, *(names.get(word, word) for word in COMMANDS[command]))


def is_a_setting(text: str) -> bool:
    """Whether some option of an export takes it, in digits of any script: the export would take seconds."""
    try:
        return 0 <= int(text) < 2**31
    except ValueError:
        return False


@FEW
@given(
    option=st.sampled_from(["--height", "--width", "--objects", "--radius", "--top-k"]),
    text=numbers.filter(lambda text: not is_a_setting(text)),
)
def test_export(files: dict[str, Path], option: str, text: str) -> None:
    """Settings that no model has are refused before anything is exported."""
    run("export", files["checkpoint"], "--out", files["out"].with_suffix(".onnx"), option, text)


@FEW
@given(option=st.sampled_from(["--height", "--width", "--objects"]), text=ranges)
def test_build(files: dict[str, Path], option: str, text: str) -> None:
    run("build", files["model"], "--out", files["out"].with_suffix(".engine"), option, text)


@FEW
@given(option=st.sampled_from(["--frames", "--size"]), text=numbers)
def test_quantize(files: dict[str, Path], option: str, text: str) -> None:
    arguments = ("--calibrate", files["frames"], "--out", files["out"].with_suffix(".int8.onnx"))
    run("quantize", files["model"], *arguments, option, text)


@FEW
@given(option=st.sampled_from(["--cache-gb", "--max-minutes"]), text=numbers, recipe=strange_paths)
def test_train(files: dict[str, Path], option: str, text: str, recipe: str) -> None:
    if not recipe.startswith("-"):
        run("train", recipe, "--data", files["mask"], "--out", files["out"] / "run", option, text)
    run("train", "nano", "--data", files["mask"], "--out", files["out"] / "run", option, text)


@FEW
@given(split=strange_paths, root=strange_paths)
def test_evaluate(files: dict[str, Path], split: str, root: str) -> None:
    out = ("--out", files["out"], "--json", files["out"] / "scores.json", "--model", files["model"])
    run("evaluate", "--davis", files["frames"], f"--split={split}", *out)
    run("evaluate", f"--davis={root}", "--split", "val", *out)


LINES = {
    "demo": ("--out", "OUT", "--clip", "MASK", "--model", "MODEL"),
    "train": ("nano", "--data", "MASK", "--out", "OUT"),
    "import": ("MASK", "--out", "WEIGHTS"),
    "export": ("MODEL", "--out", "ONNX"),
    "export-refiner": ("MASK", "--out", "OUT"),
    "build": ("MODEL", "--out", "OUT"),
    "quantize": ("MASK", "--calibrate", "FRAMES", "--out", "OUT"),
    "verify": ("MODEL", "--source", "FRAMES", "--frames", "2"),
    "track": ("FRAMES", "--mask", "MASK", "--model", "MODEL", "--out", "OUT", "--no-overlay"),
    "label": ("FRAMES", "--masks", "MASKS", "--model", "MODEL", "--out", "OUT"),
    "evaluate": (
        "--davis",
        "FRAMES",
        "--split",
        "val",
        "--model",
        "MODEL",
        "--out",
        "OUT",
        "--json",
        "OUT/scores.json",
    ),
    "profile": (
        "MODEL",
        "--source",
        "FRAMES",
        "--out",
        "OUT",
        "--iterations",
        "2",
        "--runner-iterations",
        "1",
    ),
    "score": ("MASKS", "--davis", "FRAMES"),
    "convert": ("MASKS", "--to", "davis", "--out", "OUT"),
    "studio": ("OUT/none.mp4", "--no-browser"),
    "doctor": (),
}
"""A short run of each command; what would work for minutes is given an input that is refused late."""

WORK = {
    "--iterations",
    "--warm-up",
    "--runner-iterations",
    "--refine-iterations",
    "--refine-steps",
    "--frames",
}
"""Options whose value says how long to work: only small ones, and ones that are refused, end soon."""


@functools.cache
def options_of(command: str) -> list[str]:
    """Those that the command line itself knows, flags left out."""
    known = typer.main.get_command(app).commands[command].params  # type: ignore[attr-defined]
    takes_a_value = [parameter for parameter in known if not getattr(parameter, "is_flag", True)]
    return [name for parameter in takes_a_value for name in parameter.opts]


@st.composite
def lines(draw: st.DrawFn) -> tuple[str, ...]:
    """A short run, with one to three options that say something strange."""
    command = draw(st.sampled_from([name for name in LINES if options_of(name)]))
    line = list(LINES[command])
    for option in draw(st.lists(st.sampled_from(options_of(command)), min_size=1, max_size=3)):
        enough = numbers.filter(lambda text: not (text.isascii() and text.isdecimal() and int(text[:9]) > 3))
        anything = numbers | edits | ranges | strange_paths.filter(lambda path: path != "/")
        line.append(f"{option}={draw(enough if option in WORK else anything)}")
    return command, *line


def test_every_command_is_attacked() -> None:
    assert set(LINES) == set(typer.main.get_command(app).commands)  # type: ignore[attr-defined]


def attack_line(line: tuple[str, ...], files: dict[str, Path]) -> None:
    def filled(word: str) -> str:
        head, slash, rest = word.partition("/")
        return f"{files[head.lower()]}{slash}{rest}" if head.lower() in files and head.isupper() else word

    run(*map(filled, line))


@FEW
@given(line=lines())
def test_every_option(line: tuple[str, ...], files: dict[str, Path]) -> None:
    attack_line(line, files)


@pytest.mark.slow
@MANY
@given(line=lines())
def test_every_option_many(line: tuple[str, ...], files: dict[str, Path]) -> None:
    attack_line(line, files)


ENDLESS = ("nan", "inf", "-inf", "1e400")


@pytest.mark.parametrize("text", ENDLESS)
@pytest.mark.parametrize(
    "command",
    [
        ("export", "CHECKPOINT", "--out", "ONNX", "--scale"),
        ("train", "nano", "--data", "FRAMES", "--out", "OUT", "--max-minutes"),
        ("train", "nano", "--data", "FRAMES", "--out", "OUT", "--cache-gb"),
        ("track", "FRAMES", "--mask", "MASK", "--out", "OUT", "--refine", "online", "--refine-budget"),
    ],
    ids=lambda command: command[-1],
)
def test_no_number_to_count_with(files: dict[str, Path], command: tuple[str, ...], text: str) -> None:
    """nan lies inside every range: a training run would never have stopped."""
    arguments = [str(files.get(word.lower(), word)) for word in command]
    result = CliRunner().invoke(app, [*arguments, text])
    assert result.exit_code == 2 and "--" in result.stderr, result.output
    assert not files["out"].is_file()


@pytest.mark.parametrize("text", ["1e39", "1e-60"])
def test_scales_that_the_graph_cannot_hold(files: dict[str, Path], text: str) -> None:
    out = files["out"].with_suffix(".scaled.onnx")
    result = CliRunner().invoke(app, ["export", str(files["checkpoint"]), "--out", str(out), "--scale", text])
    assert result.exit_code == 2 and "scale" in result.stderr and not out.exists()


@pytest.mark.parametrize("threads", [-1, 1025, 10**6, 10**30])
def test_threads_that_no_machine_has(files: dict[str, Path], threads: int) -> None:
    from maskring import UserError, open_tracker

    out = files["out"] / "threads"
    arguments = ["track", files["frames"], "--mask", files["mask"], "--model", files["model"], "--out", out]
    result = CliRunner().invoke(app, [*map(str, arguments), "--threads", str(threads)])
    assert result.exit_code == 2 and "--threads" in result.stderr and not out.exists()
    with raises_user_error(UserError, mentions=(threads, 1024)):
        open_tracker(files["model"], threads=threads)


@pytest.mark.parametrize(
    ("option", "most"), [("--top-k", MAX_SETTING), ("--localise", MAX_SETTING), ("--objects", MAX_LABELS - 1)]
)
def test_the_limits_of_an_export_are_those_of_the_runtime(option: str, most: int, tmp_path: Path) -> None:
    """What the command line takes, no later part refuses by its size."""
    for number, named in ((most, "missing"), (most + 1, option)):
        arguments = ["export", "missing", "--out", str(tmp_path / "a.onnx"), option, str(number)]
        result = CliRunner().invoke(app, arguments)
        assert result.exit_code == 2 and named in result.stderr, result.output
