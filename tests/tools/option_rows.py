"""The table of options: what each changes in the outcome of its command.

``test_options.py`` runs it. Names in braces are paths that the tests fill in.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from typer.testing import Result


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
        "--confidence-exponent": Row("--confidence-exponent 3", calls),
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
