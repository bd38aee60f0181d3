"""Every option of every command changes what the command does: a table with a row for each.

Each command runs twice in this process, with and without the option, and a row says which part of the outcome
must differ. Where the work itself would take long, a recorder stands in its place and the arguments it gets
are compared; what the work makes of them is tested with the work.
"""

from __future__ import annotations

import json
import shlex
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, get_args

import cv2
import numpy as np
import pytest
import typer
from pixel_model import write_pixel_model
from support import HEIGHT, WIDTH, moving_square
from typer.testing import CliRunner, Result

from maskring.cli import app
from maskring.commands.options import DeviceChoice, KernelChoice, PrecisionChoice
from maskring.commands.refinement import ModeChoice
from maskring.common import types
from maskring.runtime.video.masks import write_mask

if TYPE_CHECKING:
    from conftest import Workspace

GROUP = typer.main.get_command(app)
COMMANDS: dict[str, Any] = GROUP.commands  # type: ignore[attr-defined]


@dataclass
class Outcome:
    """What a run left behind.

    Attributes:
        result: exit code and what was printed.
        folder: everything that was written, by its path below.
        calls: what the recorders were called with.
    """

    result: Result
    folder: Path
    calls: list[Any] = field(default_factory=list)


Look = Callable[[Outcome], Any]


def names(run: Outcome) -> Any:
    """The files that were written."""
    return sorted(str(path.relative_to(run.folder)) for path in run.folder.rglob("*") if path.is_file())


def masks(run: Outcome) -> Any:
    """The masks that were written."""
    return {path.name: path.read_bytes() for path in run.folder.rglob("*.png")}


def said_in_files(run: Outcome) -> Any:
    """What was written."""
    return {path.name: path.read_bytes() for path in run.folder.rglob("*") if path.is_file()}


def cvat(run: Outcome) -> Any:
    """The XML file beside the masks."""
    return (run.folder / "out/cvat.xml").read_text(encoding="utf-8")


def refiner(run: Outcome) -> Any:
    """The U-Net that was saved."""
    return (run.folder / "r.safetensors").read_bytes()


def objects(run: Outcome) -> Any:
    """The objects in every frame."""
    lines = (run.folder / "out" / "objects.jsonl").read_text().splitlines()
    return [[state["id"] for state in json.loads(line)["objects"]] for line in lines]


def calls(run: Outcome) -> Any:
    """What recorders were told, the folder of the run left out."""
    return [repr(call).replace(str(run.folder), "RUN") for call in run.calls]


def said(run: Outcome) -> Any:
    """What was printed, figures and the folder of the run left out."""
    text = run.result.stdout.replace(str(run.folder), "RUN")
    return "".join(letter for letter in text if not letter.isdigit())


def code(run: Outcome) -> Any:
    """The exit code."""
    return run.result.exit_code


@dataclass(frozen=True)
class Row:
    """An option given, and what must differ by it.

    Attributes:
        words: the option and its value.
        look: the part of the outcome that must differ.
        base: the command line without the option; None for the command's own in BASES.
        codes: exit codes with the option.
    """

    words: str
    look: Look
    base: str | None = None
    codes: tuple[int, ...] = (0,)


TRACKED = "--mask {mask} --model {model} --out {run}/out --no-overlay --threads 1"
ADAPT = "--refine-size 32 --refine-iterations 2"
OFFLINE = f"track {{frames}} {TRACKED} --refine offline {ADAPT} --save-refiner {{run}}/r.safetensors"
ONLINE = f"track {{frames}} {TRACKED} --refine online --refine-size 32"
MEASURED = "--out {run}/masks --json {run}/scores.json --threads 1"

BASES = {
    "demo": "demo --out {run}/demo --clip {others} --model {model} --threads 1",
    "track": f"track {{frames}} {TRACKED}",
    "studio": "studio {frames} --model {model} --no-browser",
    "label": "label {frames} --masks {masks} --model {model} --out {run}/out --threads 1",
    "evaluate": f"evaluate --davis {{davis}} --split val --model {{model}} {MEASURED}",
    "score": "score {davis}/Annotations/480p --davis {davis}",
    "convert": "convert {davis}/Annotations/480p/a --to davis --out {run}/out",
    "train": "train nano --data {frames} --out {run}/out",
    "export": "export {checkpoint} --out {run}/model.onnx",
    "export-refiner": "export-refiner {checkpoint} --out {run}/refiner.onnx",
    "build": "build {model} --out {run}/model.engine",
    "quantize": "quantize {model} --calibrate {frames} --out {run}/int8.onnx",
    "verify": "verify {model}",
    "profile": "profile {model} --out {run}/profile",
}

FOLLOWED = " --model {pixels}"
"""A model that does not lose the object."""

ROWS: dict[str, dict[str, Row]] = {
    "demo": {
        "--out": Row("--out {run}/elsewhere", names),
        "--clip": Row("--clip {noise}", masks),
        "--model": Row("--model {pixels}", calls),
        "--threads": Row("--threads 2", calls),
    },
    "track": {
        "--mask": Row("--mask {second}", objects),
        "--box": Row(
            "--box 6,10,36,40", objects, "track {frames} --mask {second} --model {model} --out {run}/out"
        ),
        "--out": Row("--out {run}/elsewhere", names),
        "--model": Row("--model {pixels}", calls),
        "--live": Row("--live", said),
        "--from": Row("--from 2", names),
        "--to": Row("--to 3", names),
        "--size": Row("--size 17", masks, BASES["track"] + FOLLOWED),
        "--add": Row("--add 2={second}", objects),
        "--remove": Row("--remove 3=1", objects),
        "--backward": Row(
            "--backward",
            objects,
            "track {frames} --mask {mask} --add 3={second} --model {pixels} --out {run}/out",
        ),
        "--masks": Row("--no-masks", names),
        "--overlay": Row("--overlay", names),
        "--format": Row("--format cvat", names),
        "--name": Row("--name 1=cup", cvat, BASES["track"] + " --format cvat"),
        "--show": Row("--show", calls),
        "--kernel": Row("--kernel function", calls),
        "--threads": Row("--threads 2", calls),
        "--device": Row("--device cuda", calls, codes=(0, 2)),
        "--refine": Row(f"--refine offline {ADAPT}", names),
        "--refine-iterations": Row("--refine-iterations 3", refiner, OFFLINE),
        "--refine-steps": Row(
            "--refine-steps 2", refiner, f"{ONLINE} --refine-steps 1 --save-refiner {{run}}/r.safetensors"
        ),
        "--refine-size": Row("--refine-size 64", refiner, OFFLINE),
        "--refine-budget": Row("--refine-budget 0.5", calls, ONLINE),
        "--refine-feedback": Row("--refine-feedback", calls, f"{ONLINE} --refine-steps 1"),
        "--refiner": Row("--refiner {refiner}", refiner, OFFLINE),
        "--save-refiner": Row(
            "--save-refiner {run}/saved.safetensors", names, f"{BASES['track']} --refine offline {ADAPT}"
        ),
    },
    "studio": {
        "--model": Row("--model {pixels}", calls),
        "--port": Row("--port 8123", calls),
        "--host": Row("--host localhost", calls),
        "--size": Row("--size 240", calls),
        "--from": Row("--from 2", calls),
        "--to": Row("--to 3", calls),
        "--threads": Row("--threads 2", calls),
        "--browser": Row("--browser", calls),
    },
    "label": {
        "--masks": Row("--masks {other_masks}", masks),
        "--out": Row("--out {run}/elsewhere", names),
        "--model": Row("--model {pixels}", calls),
        "--size": Row("--size 17", masks, BASES["label"] + FOLLOWED),
        "--kernel": Row("--kernel function", calls),
        "--threads": Row("--threads 2", calls),
        "--device": Row("--device cuda", calls, codes=(0, 2)),
        "--processes": Row("--processes 2", calls),
        "--ray": Row("--ray local --processes 2", said, codes=(2,)),
    },
    "evaluate": {
        "--davis": Row("--davis {other_davis}", masks),
        "--split": Row("--split none", names),
        "--out": Row("--out {run}/elsewhere", names),
        "--json": Row("--json {run}/elsewhere.json", names),
        "--model": Row("--model {pixels}", calls),
        "--size": Row("--size 17", masks, BASES["evaluate"] + FOLLOWED),
        "--kernel": Row("--kernel function", calls),
        "--threads": Row("--threads 2", calls),
        "--device": Row("--device cuda", calls, codes=(0, 2)),
        "--processes": Row("--processes 2", calls),
        "--ray": Row("--ray local --processes 2", said, codes=(2,)),
        "--refine": Row("--refine online --refine-size 32", calls),
        "--refine-iterations": Row(
            "--refine-iterations 3", calls, f"{BASES['evaluate']} --refine offline {ADAPT}"
        ),
        "--refine-steps": Row(
            "--refine-steps 1", calls, f"{BASES['evaluate']} --refine online --refine-size 32"
        ),
        "--refine-size": Row("--refine-size 64", calls, f"{BASES['evaluate']} --refine offline {ADAPT}"),
        "--refine-feedback": Row(
            "--refine-feedback", calls, f"{BASES['evaluate']} --refine online --refine-size 32"
        ),
        "--refiner": Row("--refiner {refiner}", calls, f"{BASES['evaluate']} --refine offline {ADAPT}"),
    },
    "score": {
        "--davis": Row("--davis {masks}", code, codes=(2,)),
        "--split": Row("--split none", said),
        "--json": Row("--json {run}/scores.json", names),
    },
    "convert": {
        "--to": Row("--to youtube-vos", names),
        "--out": Row("--out {run}/elsewhere", names),
        "--frames": Row("--frames {davis}/JPEGImages/480p/a", names),
        "--name": Row(
            "--name 1=cup", said_in_files, "convert {davis}/Annotations/480p/a --to cvat --out {run}/a.xml"
        ),
    },
    "train": {
        "--data": Row("--data {others}", calls),
        "--out": Row("--out {run}/elsewhere", calls),
        "--stills": Row("--stills {others}", calls),
        "--start": Row("--start {checkpoint}", calls),
        "--max-minutes": Row("--max-minutes 3", calls),
        "--validate": Row("--validate {davis}", calls),
        "--cache-gb": Row("--cache-gb 1", calls),
        "--workers": Row("--workers 2", calls),
        "--tensorboard": Row("--tensorboard", calls),
    },
    "export": {
        "--out": Row("--out {run}/elsewhere.onnx", names),
        "--triton": Row("--triton {run}/triton --height 48 --width 64 --objects 1", calls),
        "--streams": Row("--streams 3 --triton {run}/triton --height 48 --width 64 --objects 1", calls),
        "--height": Row("--height 48", calls),
        "--width": Row("--width 64", calls),
        "--objects": Row("--objects 3", calls),
        "--radius": Row("--radius 3", calls),
        "--logit-scale": Row("--logit-scale 7.5", calls),
        "--top-k": Row("--top-k 5", calls),
        "--roi-step": Row("--roi-step 2", calls),
        "--smoothing-radius": Row("--smoothing-radius 1", calls),
        "--guided-filter-radius": Row("--guided-filter-radius 1", calls),
        "--precision": Row("--precision float16", calls),
    },
    "export-refiner": {
        "--out": Row("--out {run}/elsewhere.onnx", names),
        "--size": Row("--size 64", calls),
    },
    "build": {
        "--out": Row("--out {run}/elsewhere.engine", names),
        "--runtime": Row("--runtime tensorrt-rtx", calls),
        "--compute-capability": Row("--compute-capability sm86,sm89", calls),
        "--height": Row("--height 48", calls),
        "--width": Row("--width 32:48:64", calls),
        "--objects": Row("--objects 1:2:3", calls),
        "--optimization-level": Row("--optimization-level 0", calls),
        "--workspace": Row("--workspace 64", calls),
        "--version-compatible": Row("--version-compatible", calls),
        "--hardware-compatibility": Row("--hardware-compatibility ampere-plus", calls),
        "--timing-cache": Row("--timing-cache timings", calls),
    },
    "quantize": {
        "--calibrate": Row("--calibrate {others}", calls),
        "--out": Row("--out {run}/elsewhere.onnx", names),
        "--frames": Row("--frames 3", calls),
        "--size": Row("--size 32", calls),
    },
    "verify": {
        "--checkpoint": Row("--checkpoint {checkpoint}", calls),
        "--source": Row("--source {frames}", calls),
        "--frames": Row("--frames 3", calls),
    },
    "profile": {
        "--compare": Row("--compare {pixels}", calls),
        "--out": Row("--out {run}/elsewhere", calls),
        "--source": Row("--source {frames}", calls),
        "--height": Row("--height 64", calls),
        "--width": Row("--width 64", calls),
        "--iterations": Row("--iterations 3", calls),
        "--warm-up": Row("--warm-up 2", calls),
        "--runner-iterations": Row("--runner-iterations 0", calls),
        "--budget": Row("--budget 33ms", code, codes=(1,)),
        "--threads": Row("--threads 1", calls),
    },
}

REASONS: dict[tuple[str, str], str] = {
    (
        "import",
        "--out",
    ): "a published checkpoint is large: test_commands.py, test_import_reads_a_published_checkpoint",
}
"""Options without a row, and where their effect is tested."""


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
        _write_dataset(root / name, length)
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


def _write_dataset(root: Path, length: int) -> None:
    for sequence in ("a", "b"):
        for kind in ("JPEGImages", "Annotations"):
            (root / kind / "480p" / sequence).mkdir(parents=True)
        for index in range(length):
            image, mask = moving_square(index)
            cv2.imwrite(str(root / "JPEGImages" / "480p" / sequence / f"{index:05d}.jpg"), image)
            write_mask(root / "Annotations" / "480p" / sequence / f"{index:05d}.png", mask)
    (root / "ImageSets" / "2017").mkdir(parents=True)
    (root / "ImageSets" / "2017" / "val.txt").write_text("a\nb\n")
    (root / "ImageSets" / "2017" / "none.txt").write_text("a\n")


# Recorders --------------------------------------------------------------------------------------------------


@pytest.fixture
def recorded(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Calls of the parts that are recorded, and the parts that work long replaced."""
    told: list[Any] = []
    _record_trackers(told, monkeypatch)
    _replace_exports(told, monkeypatch)
    _replace_training_and_profiling(told, monkeypatch)
    _replace_server(told, monkeypatch)
    return told


def _record_trackers(told: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    from maskring.demo import clip
    from maskring.runtime import backends
    from maskring.runtime.interaction import window
    from maskring.runtime.refinement import session, worker
    from maskring.runtime.tracking.tracker import Tracker
    from maskring.runtime.video import synthetic

    monkeypatch.setattr(clip, "FIRST_FRAME", 0)
    monkeypatch.setattr(clip, "LAST_FRAME", 2)

    open_backend, revise, wrap = backends.open_backend, Tracker.revise, session.Refinement.wrap
    render_clip = synthetic.render_clip

    def opened(model: Path, **settings: Any) -> Any:
        told.append(("open_backend", model.name, settings))
        return open_backend(model, **settings)

    def revised(tracker: Tracker, labels: Any) -> None:
        told.append("revise")
        revise(tracker, labels)

    def wrapped(refinement: Any, tracker: Tracker) -> Any:
        told.append(refinement)
        return wrap(refinement, tracker)

    def in_background(settings: Any, predictor: Any = None) -> Any:
        told.append(settings)
        return worker.StepsPerFrame(settings, 1, predictor)

    class Window:
        def __init__(self, title: str) -> None:
            told.append(title)

        def show(self, picture: Any) -> None: ...

        def events(self, wait_ms: int) -> list[Any]:
            return []

        def close(self) -> None: ...

    monkeypatch.setattr(backends, "open_backend", opened)
    monkeypatch.setattr(Tracker, "revise", revised)
    monkeypatch.setattr(session.Refinement, "wrap", wrapped)
    monkeypatch.setattr(worker, "new_worker", in_background)
    monkeypatch.setattr(window, "OpenCVWindow", Window)
    monkeypatch.setattr(synthetic, "render_clip", lambda *_: render_clip(HEIGHT, WIDTH, frames=4))


def _replace_server(told: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    from maskring.studio import hub, runs, server

    class Hub:
        def __init__(self, *settings: Any) -> None:
            told.append(settings[3:])

    class Runner:
        def __init__(self, new_tracker: Callable[[], Any], size: int | None) -> None:
            new_tracker().close()
            told.append(size)

    def serve(app: Any, host: str, port: int, on_ready: Callable[[str], None]) -> None:
        told.append((host, port))
        on_ready("http://127.0.0.1/")

    monkeypatch.setattr(hub, "Hub", Hub)
    monkeypatch.setattr(runs, "Runner", Runner)
    monkeypatch.setattr(server, "serve", serve)
    monkeypatch.setattr("webbrowser.open", told.append)


def _replace_exports(told: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    from maskring.export import calibration, engine, onnx_export, refiner_export, verification
    from maskring.export.triton import repository

    def export_onnx(checkpoint: Path, out: Path, **settings: Any) -> None:
        told.append(("export_onnx", settings))
        out.write_bytes(b"model")

    def write_repository(checkpoint: Path, folder: Path, **settings: Any) -> Path:
        told.append(("triton", folder, settings))
        return folder

    def export_refiner(refiner: Path, out: Path, *, size: int) -> None:
        told.append(size)
        out.write_bytes(b"model")

    def build_engine(model: Path, out: Path, options: Any, progress: Any) -> Any:
        told.append(options)
        out.write_bytes(b"engine")
        manifest = SimpleNamespace(memory={"scratch": 1})
        return SimpleNamespace(manifest=manifest, reused=False, replaced="")

    def quantize(model: Path, videos: list[Path], out: Path, **settings: Any) -> int:
        told.append((videos, settings))
        out.write_bytes(b"model")
        return 2

    def verify(*arguments: Any) -> Any:
        told.append(arguments)
        return SimpleNamespace(rows=(), ok=True)

    monkeypatch.setattr(onnx_export, "export_onnx", export_onnx)
    monkeypatch.setattr(repository, "write_triton_repository", write_repository)
    monkeypatch.setattr(refiner_export, "export_refiner", export_refiner)
    monkeypatch.setattr(engine, "build_engine", build_engine)
    monkeypatch.setattr(calibration, "quantize_on_videos", quantize)
    monkeypatch.setattr(verification, "verify_on_frames", verify)


def _replace_training_and_profiling(told: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    from maskring.runtime.profiling import run
    from maskring.runtime.profiling.report import Latency, Profile
    from maskring.training import loop, validation

    def train(recipe: Any, footage: list[Path], out: Path, **settings: Any) -> Any:
        told.append(
            (footage, out, {key: value for key, value in settings.items() if key not in ("report", "stop")})
        )
        return SimpleNamespace(skipped={}, skipped_stills={}, finished=True, step=2, checkpoint=out)

    def profile(models: list[Path], options: Any, out: Path, limit: float | None) -> Any:
        told.append((models, options, out))
        late = Latency(p50=20.0, p90=30.0, p99=40.0, max=50.0, mean=21.0, jitter=1.0)
        return [Profile("m", 48, 64, 1, 2, 1, late, {}, [], None, [], 10.0)], {}

    monkeypatch.setattr(loop, "train", train)
    monkeypatch.setattr(validation, "validator", lambda root, tracking: f"scores on {root.name}")
    monkeypatch.setattr(run, "profile_models", profile)


# Runs -------------------------------------------------------------------------------------------------------


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
        (ModeChoice, types.RefineMode),
    ],
)
def test_choices_are_those_of_the_library(choice: Any, names: Any) -> None:
    assert [each.value for each in choice] == list(get_args(names))
