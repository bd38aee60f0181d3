"""The command line. Each command imports the rooms it needs, so that ``maskring --help`` is instant."""

from __future__ import annotations

import math
import os
from contextlib import ExitStack
from enum import Enum
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich import box
from rich.table import Table
from rich.text import Text

from . import __version__
from .commands.console import (
    EXIT_USER_ERROR,
    busy,
    err,
    out,
    report_errors,
    split_callback,
    step_callback,
    stop_request,
    tell_losses,
)
from .common.errors import MaskError, ModelError, OutputError, SourceError, UserError, one_line
from .common.interrupts import EXIT_INTERRUPTED
from .common.machine import MOST_THREADS
from .runtime.model.metadata import MOST

if TYPE_CHECKING:
    from .runtime.arrays.label_maps import Box
    from .runtime.evaluation.protocol import SequenceTracker
    from .runtime.interaction.session import Interaction
    from .runtime.pipeline.loop import Steering
    from .runtime.video.open_source import Source
    from .runtime.video.sinks import Sink

app = typer.Typer(
    name="maskring",
    help="Follow objects through video, pixel by pixel: outline them in one frame, maskring does the rest.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
)


TRACK, TRAIN, DEPLOY, MACHINE = "Track", "Train", "Deploy", "This machine"
"""Parts of the list of commands."""

LARGEST_SIDE, LARGEST_RADIUS = 1 << 15, 1 << 8
"""Of what an export may be fixed to, and of what is tracked."""

LARGEST_U_NET = 1 << 12
"""Pixels of a side."""


def finite(value: float | None) -> float | None:
    """Refuse what is no number or without end: neither lies outside any range."""
    if value is not None and not math.isfinite(value):
        raise typer.BadParameter(f"{value} is not a number to count with.")
    return value


class Kernel(str, Enum):
    """What computes the memory read on a CPU."""

    native = "native"
    function = "function"


class Precision(str, Enum):
    """Element type of features and label maps in an exported model."""

    float32 = "float32"
    float16 = "float16"


ModelOption = Annotated[
    Path | None,
    typer.Option(
        "--model",
        help="Checkpoint (.safetensors), .onnx, .engine, or the name of a shipped checkpoint; default: nano.",
    ),
]
KernelOption = Annotated[
    Kernel,
    typer.Option(
        help="native: maskring's CPU kernel. function: standard ONNX operators alone (portable, slow)."
    ),
]
ThreadsOption = Annotated[
    int, typer.Option(min=0, max=MOST_THREADS, help="CPU threads; 0 = all that this process may use.")
]
SoftOption = Annotated[
    bool, typer.Option("--soft", help="Remember label probabilities instead of their winners.")
]
ShardOption = Annotated[
    bool, typer.Option("--shard", help="Do this process's share; torchrun starts them, on any machines.")
]


class Refine(str, Enum):
    """How masks are refined."""

    off = "off"
    offline = "offline"
    online = "online"


PANEL = "Refinement"
RefineOption = Annotated[
    Refine,
    typer.Option(
        help="offline: track, adapt a U-Net to the video, redraw the masks. online: adapt beside the stream.",
        rich_help_panel=PANEL,
    ),
]
RefineIterationsOption = Annotated[
    int, typer.Option(min=1, help="Offline: optimiser steps per video.", rich_help_panel=PANEL)
]
RefineStepsOption = Annotated[
    int,
    typer.Option(
        min=0,
        help="Online: optimiser steps within each frame, the same in every run; 0 = beside the stream.",
        rich_help_panel=PANEL,
    ),
]
RefineSizeOption = Annotated[
    int,
    typer.Option(
        min=32, max=LARGEST_U_NET, help="Pixels of the U-Net's square input.", rich_help_panel=PANEL
    ),
]
RefineBudgetOption = Annotated[
    float,
    typer.Option(
        min=0.01,
        max=1,
        callback=finite,
        help="Online: share of time that the worker may adapt.",
        rich_help_panel=PANEL,
    ),
]
RefineFeedbackOption = Annotated[
    bool,
    typer.Option("--refine-feedback", help="Online: refined masks go into memory.", rich_help_panel=PANEL),
]
RefinerOption = Annotated[
    Path | None,
    typer.Option(help="Adapted U-Net to go on from (see --save-refiner).", rich_help_panel=PANEL),
]


def _version(value: bool) -> None:
    if value:
        out.print(f"maskring {__version__}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Follow objects through video, pixel by pixel: outline them in one frame, maskring does the rest."""


@app.command(rich_help_panel=TRACK)
@report_errors
def demo(
    out_dir: Annotated[Path, typer.Option("--out", help="Folder for videos, contact sheet and scores.")],
    clip: Annotated[
        Path | None, typer.Option(help="The real clip, if it cannot be downloaded from the package index.")
    ] = None,
    model: ModelOption = None,
    threads: ThreadsOption = 0,
) -> None:
    """Export a checkpoint, track a real and a rendered clip, show what came out."""
    from .demo.run import run_demo

    run_demo(out_dir, clip=clip, model=model, threads=threads)


@app.command(rich_help_panel=TRAIN)
@report_errors
def train(
    recipe: Annotated[
        str,
        typer.Argument(
            help="nano, pico, full, tune (CPUs); paper, mast, colorization (GPUs); or a TOML file."
        ),
    ],
    data: Annotated[
        list[Path],
        typer.Option(metavar="PATH...", help="Footage: videos, folders of them, frames, DAVIS, YouTube-VOS."),
    ],
    out_dir: Annotated[
        Path, typer.Option("--out", help="Folder of the run; an interrupted run in it goes on.")
    ],
    more: Annotated[
        list[Path] | None, typer.Argument(metavar="PATH", help="Further footage after --data.", hidden=True)
    ] = None,
    start: Annotated[
        Path | None,
        typer.Option(
            metavar="CHECKPOINT", help="Begin with its weights, or a shipped one's; default: random."
        ),
    ] = None,
    max_minutes: Annotated[
        float | None,
        typer.Option(min=0, callback=finite, help="Stop after this time; the same command goes on later."),
    ] = None,
    validate: Annotated[
        Path | None, typer.Option(metavar="ROOT", help="Labelled footage (DAVIS layout) to score on.")
    ] = None,
    cache_gb: Annotated[
        float,
        typer.Option(min=0, callback=finite, help="Disk space for decoded frames, in GB; 0 keeps none."),
    ] = 8.0,
    tensorboard: Annotated[
        bool, typer.Option("--tensorboard", help="Also write TensorBoard curves.")
    ] = False,
) -> None:
    """Train an encoder on footage without any labels."""
    # Threads that wait spin by default, and take the cores from the decoding of clips.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    from .models import model_file
    from .runtime.video.open_source import silence_opencv
    from .training.loop import train as train_encoder
    from .training.recipe import load_recipe
    from .training.validation import validator

    silence_opencv()  # what cannot be decoded is named in the end
    settings = load_recipe(recipe)
    score = None if validate is None else validator(validate, settings.tracking)
    footage = [*data, *(more or [])]
    with stop_request() as stop, step_callback(settings.total_steps, max_minutes) as on_step:
        outcome = train_encoder(
            settings,
            footage,
            out_dir,
            start=None if start is None else model_file(start),
            max_minutes=max_minutes,
            validate=score,
            tensorboard=tensorboard,
            cache_bytes=int(min(1e6, cache_gb) * 1e9),  # a petabyte is enough for anybody
            report=on_step,
            stop=stop,
        )
    if os.environ.get("RANK", "0") != "0":
        return  # torchrun started several processes, of which the first one speaks
    for clip, reason in outcome.skipped.items():
        err.print(one_line(f"skipped {clip}: {reason}"), markup=False, soft_wrap=True)
    todo = "" if outcome.finished else "; run the same command again to go on"
    out.print(
        f"step {outcome.step} of {settings.total_steps}, {len(outcome.skipped)} clips skipped; "
        f"wrote {outcome.checkpoint}{todo}",
        markup=False,
        soft_wrap=True,
    )
    if stop() and not outcome.finished:
        raise typer.Exit(EXIT_INTERRUPTED)


@app.command("import", rich_help_panel=TRAIN)
@report_errors
def import_checkpoint(
    checkpoint: Annotated[Path, typer.Argument(help="A published MAST checkpoint (.pth, .pt).")],
    out_file: Annotated[Path, typer.Option("--out", help="The maskring checkpoint to write (.safetensors).")],
) -> None:
    """Convert a published MAST checkpoint into a maskring checkpoint."""
    from .models import CHECKPOINT_SUFFIX
    from .training.checkpoint import import_mast, save_checkpoint

    _require_suffix(out_file, CHECKPOINT_SUFFIX)
    imported, leftovers = import_mast(checkpoint)
    save_checkpoint(out_file, imported)
    for key in leftovers:
        err.print(f"not used: {one_line(key)}", markup=False)
    out.print(f"wrote {out_file}; {len(leftovers)} keys of {checkpoint.name} were not used", markup=False)


@app.command(rich_help_panel=DEPLOY)
@report_errors
def export(
    checkpoint: Annotated[Path, typer.Argument(help="A checkpoint (.safetensors), or a shipped one's name.")],
    out_file: Annotated[Path | None, typer.Option("--out", help="The ONNX file to write.")] = None,
    triton: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Write a Triton model repository; needs fixed sizes.")
    ] = None,
    height: Annotated[
        int | None, typer.Option(min=1, max=LARGEST_SIDE, help="Fix the frame height; default: any.")
    ] = None,
    width: Annotated[
        int | None, typer.Option(min=1, max=LARGEST_SIDE, help="Fix the frame width; default: any.")
    ] = None,
    objects: Annotated[
        int | None, typer.Option(min=1, max=255, help="Fix the number of objects; default: any.")
    ] = None,
    radius: Annotated[
        int | None, typer.Option(min=0, max=LARGEST_RADIUS, help="Window radius; default: the checkpoint's.")
    ] = None,
    scale: Annotated[
        float | None, typer.Option(callback=finite, help="Logit scale; default: the checkpoint's.")
    ] = None,
    top_k: Annotated[
        int | None,
        typer.Option(min=0, max=MOST, help="Logits kept per pixel, 0 = all; default: the checkpoint's."),
    ] = None,
    localise: Annotated[
        int | None,
        typer.Option(
            min=0,
            max=MOST,
            help="Search for window centres on every n-th feature, 0 = none; default: the checkpoint's.",
        ),
    ] = None,
    smooth: Annotated[
        int | None,
        typer.Option(
            min=0,
            max=LARGEST_RADIUS,
            help="Radius of the smoothing behind the memory read, 0 = none; default: the checkpoint's.",
        ),
    ] = None,
    precision: Annotated[
        Precision, typer.Option(help="Element type of features and label maps.")
    ] = Precision.float32,
) -> None:
    """Export a checkpoint to one ONNX file that holds a whole tracking step."""
    from .export.onnx_export import export_onnx
    from .models import model_file

    checkpoint = model_file(checkpoint)
    if out_file is None and triton is None:
        raise OutputError("nothing is to be written", "name a file with --out or a folder with --triton")
    if out_file is not None:
        _require_suffix(out_file, ".onnx")
    labels = None if objects is None else objects + 1
    read: dict[str, Any] = {
        "radius": radius,
        "scale": scale,
        "top_k": top_k,
        "smooth": smooth,
        "dtype": precision.value,
    }
    if triton is not None:
        with busy("exporting for Triton"):
            _export_triton(checkpoint, triton, height, width, labels, read)
    if out_file is None:
        return
    with busy("exporting"):
        export_onnx(
            checkpoint,
            out_file,
            height=height,
            width=width,
            labels=labels,
            localise=localise,
            **read,
        )
    out.print(f"wrote {out_file} ({out_file.stat().st_size / 1e6:.1f} MB)", markup=False)


@app.command("export-refiner", rich_help_panel=DEPLOY)
@report_errors
def export_refiner_command(
    refiner: Annotated[Path, typer.Argument(help="A U-Net that track --save-refiner wrote.")],
    out_file: Annotated[Path, typer.Option("--out", help="The ONNX file to write.")],
    size: Annotated[int, typer.Option(max=LARGEST_U_NET, help="Pixels of its square input.")] = 320,
) -> None:
    """Export an adapted U-Net to ONNX (standard operators alone)."""
    from .export.refiner_export import export_refiner

    export_refiner(refiner, out_file, size=size)
    out.print(f"wrote {out_file} ({out_file.stat().st_size / 1e6:.1f} MB)", markup=False)


def _export_triton(
    checkpoint: Path,
    folder: Path,
    height: int | None,
    width: int | None,
    labels: int | None,
    read: dict[str, Any],
) -> None:
    from .export.triton.repository import write_triton_repository

    if height is None or width is None or labels is None:
        raise ModelError(
            "a Triton model needs fixed sizes", "give --height, --width and --objects beside --triton"
        )
    written = write_triton_repository(
        checkpoint,
        folder,
        height=height,
        width=width,
        labels=labels,
        **read,
    )
    out.print(f"wrote {written}", markup=False, soft_wrap=True)


class EngineRuntime(str, Enum):
    """What executes an engine."""

    tensorrt = "tensorrt"
    tensorrt_rtx = "tensorrt-rtx"


class HardwareCompatibility(str, Enum):
    """GPUs beside the one that an engine is built on."""

    ampere_plus = "ampere-plus"
    same_compute_capability = "same-compute-capability"


RANGE = "N|MIN:BEST:MAX"
"""No placeholder of ``build`` is longer: terminals of 80 columns would cut its longest option off."""


@app.command(rich_help_panel=DEPLOY)
@report_errors
def build(
    model: Annotated[Path, typer.Argument(help="An exported .onnx; its precision is the engine's.")],
    out_file: Annotated[
        Path, typer.Option("--out", help="The .engine (for Triton .plan) to write; .json beside it.")
    ],
    runtime: Annotated[
        EngineRuntime,
        typer.Option(
            metavar="NAME",
            help="tensorrt: the plugin, on this GPU. tensorrt-rtx: ahead of time, without a GPU.",
        ),
    ] = EngineRuntime.tensorrt,
    compute_capability: Annotated[
        str, typer.Option(metavar="sm86,sm89", help="GPUs to compile for (tensorrt-rtx).")
    ] = "",
    height: Annotated[str | None, typer.Option(metavar=RANGE, help="Frame height, if not fixed.")] = None,
    width: Annotated[str | None, typer.Option(metavar=RANGE, help="Frame width, if not fixed.")] = None,
    objects: Annotated[
        str | None, typer.Option(metavar=RANGE, help="Number of objects, if not fixed; default 1:3:15.")
    ] = None,
    optimization_level: Annotated[
        int | None, typer.Option(min=0, max=5, metavar="LEVEL", help="How long to search for fast kernels.")
    ] = None,
    workspace: Annotated[
        int | None, typer.Option(min=1, metavar="MIB", help="Limit of scratch memory in MiB.")
    ] = None,
    version_compatible: Annotated[
        bool, typer.Option("--version-compatible", help="Run on later TensorRT of this major version too.")
    ] = False,
    hardware_compatibility: Annotated[
        HardwareCompatibility | None,
        typer.Option(
            metavar="GPUS",
            help="Run on other GPUs too, at some cost of speed: ampere-plus or same-compute-capability.",
        ),
    ] = None,
    timing_cache: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Timings kept for the next build.")
    ] = None,
) -> None:
    """Build an exported model into an engine for NVIDIA GPUs."""
    from .commands.console import build_callback
    from .export.engine import EngineOptions, build_engine, parse_range

    ranges = {
        name: None if text is None else parse_range(text, f"--{name}")
        for name, text in (("height", height), ("width", width), ("objects", objects))
    }
    options = EngineOptions(
        runtime=runtime.value,
        compute_capabilities=tuple(name.strip() for name in compute_capability.split(",") if name.strip()),
        optimization_level=optimization_level,
        workspace_mb=workspace,
        version_compatible=version_compatible,
        hardware_compatibility=hardware_compatibility.value if hardware_compatibility else "",
        timing_cache=timing_cache,
        **ranges,
    )
    with build_callback() as on_progress:
        built = build_engine(model, out_file, options, on_progress)
    if built.replaced:
        err.print(f"built anew: {built.replaced}", markup=False, soft_wrap=True)
    done = f"{out_file} is what was asked for, nothing built" if built.reused else f"wrote {out_file}"
    memory = ", ".join(f"{name} {size / 1e6:.1f} MB" for name, size in built.manifest.memory.items())
    on_gpu = f"; on the GPU: {memory}" if memory else ""
    size = out_file.stat().st_size / 1e6
    out.print(f"{done} ({size:.1f} MB{on_gpu})", markup=False, soft_wrap=True)


@app.command(rich_help_panel=DEPLOY)
@report_errors
def quantize(
    model: Annotated[Path, typer.Argument(help="An exported float32 .onnx.")],
    calibrate: Annotated[
        list[Path],
        typer.Option(
            metavar="VIDEOS...", help="Videos, folders of them or of frames, like those to be tracked."
        ),
    ],
    out_file: Annotated[Path, typer.Option("--out", help="The int8 ONNX file to write.")],
    more: Annotated[
        list[Path] | None,
        typer.Argument(metavar="VIDEO", help="Further videos after --calibrate.", hidden=True),
    ] = None,
    frames: Annotated[int, typer.Option(min=1, help="Frames to calibrate on, spread over the videos.")] = 32,
    size: Annotated[int, typer.Option(min=16, help="Shorter side they are scaled down to.")] = 240,
) -> None:
    """Make the encoder of an exported model compute in int8, calibrated on unlabelled videos."""
    from .export.calibration import quantize_on_videos

    _require_suffix(out_file, ".onnx")
    with busy("calibrating"):
        seen = quantize_on_videos(model, [*calibrate, *(more or [])], out_file, frames=frames, size=size)
    out.print(
        f"calibrated on {seen} frames; wrote {out_file} ({out_file.stat().st_size / 1e6:.1f} MB)",
        markup=False,
        soft_wrap=True,
    )


@app.command(rich_help_panel=DEPLOY)
@report_errors
def verify(
    model: Annotated[Path, typer.Argument(help="An exported .onnx.")],
    checkpoint: Annotated[
        Path | None,
        typer.Option(
            help="The checkpoint it came from, or a shipped one's name; adds the comparison with torch."
        ),
    ] = None,
    source: Annotated[
        str | None, typer.Option(help="Video or image folder for the frames; default: a rendered clip.")
    ] = None,
    frames: Annotated[int, typer.Option(min=2, help="Frames to compare.")] = 4,
) -> None:
    """Compare torch, plain onnxruntime and the native kernel on frames; exit 1 beyond tolerance."""
    from .export.parity import COLUMNS
    from .export.verification import verify_on_frames
    from .models import model_file

    checkpoint = None if checkpoint is None else model_file(checkpoint)
    with busy("executing the model in every way there is"):
        report = verify_on_frames(model, checkpoint, source, frames)
    for compared, rows in groupby(report.rows, lambda row: row.compared):
        table = Table(*COLUMNS, box=box.SIMPLE, title=compared, title_justify="left")
        for row in rows:
            table.add_row(*row.cells())
        out.print(table)
    if not report.ok:
        err.print(f"{model} does not compute what it was exported from.", style="red", markup=False)
        raise typer.Exit(1)
    out.print(f"{model}: all ways to execute it agree", markup=False, soft_wrap=True)


@app.command(rich_help_panel=TRACK)
@report_errors
def track(
    source: Annotated[
        str, typer.Argument(help="Video file, image folder, webcam index, RTSP URL or GStreamer pipeline.")
    ],
    mask: Annotated[
        Path | None, typer.Option(help="PNG with the objects of the first frame (palette, grey or colour).")
    ] = None,
    boxes: Annotated[
        list[str] | None,
        typer.Option(
            "--box",
            metavar="X0,Y0,X1,Y1",
            help="Cut an object out of a box in the first frame; may be repeated.",
        ),
    ] = None,
    out_dir: Annotated[
        Path | None, typer.Option("--out", help="Folder for masks, overlay.mp4 and objects.jsonl.")
    ] = None,
    model: ModelOption = None,
    live: Annotated[
        bool, typer.Option("--live", help="Always take the newest frame; drop what comes in between.")
    ] = False,
    first: Annotated[
        int,
        typer.Option(
            "--from", min=0, metavar="FRAME", help="Begin at this frame; mask and boxes are its own."
        ),
    ] = 0,
    last: Annotated[
        int | None,
        typer.Option("--to", min=0, metavar="FRAME", help="End with this frame; default: the last."),
    ] = None,
    size: Annotated[
        int | None,
        typer.Option(
            min=16,
            max=LARGEST_SIDE,
            help="Shorter side to track at: smaller is faster; masks keep the video's size.",
        ),
    ] = None,
    add: Annotated[
        list[str] | None, typer.Option(metavar="FRAME=PNG", help="Add or correct objects at a later frame.")
    ] = None,
    remove: Annotated[
        list[str] | None, typer.Option(metavar="FRAME=ID", help="Stop following an object at a frame.")
    ] = None,
    masks: Annotated[bool, typer.Option(help="Write one palette PNG per frame.")] = True,
    overlay: Annotated[bool, typer.Option(help="Write overlay.mp4.")] = True,
    show: Annotated[
        bool, typer.Option("--show", help="Open a window: draw the objects there, watch, correct, pause.")
    ] = False,
    soft: SoftOption = False,
    kernel: KernelOption = Kernel.native,
    threads: ThreadsOption = 0,
    refine: RefineOption = Refine.off,
    refine_iterations: RefineIterationsOption = 400,
    refine_steps: RefineStepsOption = 0,
    refine_size: RefineSizeOption = 320,
    refine_budget: RefineBudgetOption = 1.0,
    refine_feedback: RefineFeedbackOption = False,
    refiner: RefinerOption = None,
    save_refiner: Annotated[
        Path | None, typer.Option(help="Write the adapted U-Net to this file.", rich_help_panel=PANEL)
    ] = None,
) -> None:
    """Follow objects through SOURCE: those of a mask, in boxes, or drawn in a window."""
    from .common.files import directory
    from .models import open_tracker
    from .runtime.refinement.session import Refinement
    from .runtime.refinement.session import save_refiner as write_refiner
    from .runtime.refinement.settings import RefinementSettings
    from .runtime.video.open_source import open_source

    _require_use(mask, boxes, out_dir, show, refine)
    planned = _planned(mask, boxes or [], add or [], remove or [])
    settings = RefinementSettings(
        size=refine_size, iterations=refine_iterations, budget=refine_budget, feedback=refine_feedback
    )
    refinement = Refinement(refine.value, settings, refine_steps, refiner)
    with ExitStack() as stack:
        if out_dir is not None:
            stack.enter_context(directory(out_dir))
        reopen = partial(open_source, source, live=live, first=first, last=last)
        stream = stack.enter_context(reopen())
        edits = {"--add": add or [], "--remove": remove or []}
        _require_reached(stream.end, edits)
        refinement.require_possible(source, stream, live, save_refiner is not None)
        with busy("opening the model"):
            plain = open_tracker(model, soft=soft, kernel=kernel.value, threads=threads)
        tracker = refinement.wrap(plain, out_dir)
        stack.push(tracker)
        sinks = [] if out_dir is None else _file_sinks(stack, out_dir, stream, masks, overlay, refine)
        steering = _steered(stack, planned, sinks) if show else planned
        summary = refinement.follow(stream, reopen, tracker, sinks, steering, out_dir, size)
        if save_refiner is not None:
            write_refiner(tracker, save_refiner)
        dropped = f", {stream.dropped} dropped" if live else ""
        lost = f", {stream.undecodable} undecodable" if stream.undecodable else ""
        lost += f", reconnects: {stream.reconnects}" if stream.reconnects else ""
    # With a window, most of the time may have been the user's.
    speed = "" if show else f", {summary.fps:.1f} fps"
    where = "" if out_dir is None or not summary.frames else f"; results in {out_dir}"
    out.print(f"{summary.frames} frames{dropped}{lost}{speed}{where}", markup=False, soft_wrap=True)
    tell_losses(summary.losses())
    _note_others(sinks)
    if not show:  # a user who watches may stop before
        _require_reached(summary.last, edits)


@app.command(rich_help_panel=TRACK)
@report_errors
def label(
    videos: Annotated[list[Path], typer.Argument(help="Videos, folders of them or of frames.")],
    masks: Annotated[
        Path, typer.Option(help="Folder with the mask of each one's first frame, NAME.png for NAME.mp4.")
    ],
    out_dir: Annotated[
        Path, typer.Option("--out", help="Gets a folder for each video; those that are there are left alone.")
    ],
    model: ModelOption = None,
    size: Annotated[
        int | None,
        typer.Option(min=16, max=LARGEST_SIDE, help="Shorter side to track at; masks keep the video's size."),
    ] = None,
    soft: SoftOption = False,
    kernel: KernelOption = Kernel.native,
    threads: ThreadsOption = 0,
    shard: ShardOption = False,
) -> None:
    """Follow objects through many videos, from the masks of their first frames."""
    from .common.files import directory
    from .models import open_tracker, resolve_model
    from .runtime.pipeline.label_many import clips_to_label, label_clips
    from .runtime.pipeline.shard import join

    clips = clips_to_label(videos, masks, out_dir)
    this, threads = join(shard, threads)
    with ExitStack() as stack:
        stack.enter_context(directory(out_dir))
        with busy("opening the model"):
            executable = resolve_model(model)
        new_tracker = partial(open_tracker, executable, soft=soft, kernel=kernel.value, threads=threads)
        on_frame = stack.enter_context(split_callback(shown=this is None or this.local_rank == 0))
        labelled = label_clips(clips, new_tracker, shard=this, size=size, on_frame=on_frame)
    where = f"; labels in {out_dir}" if labelled.videos or labelled.present else ""
    out.print(f"{labelled}{where}", markup=False, soft_wrap=True)
    tell_losses(labelled.losses)
    for clip, reason in labelled.failed.items():
        err.print(f"error: {clip} is not labelled: {reason}", style="red", markup=False, soft_wrap=True)
    if labelled.failed:
        raise typer.Exit(EXIT_USER_ERROR)


@app.command(rich_help_panel=TRACK)
@report_errors
def evaluate(
    davis: Annotated[Path, typer.Option(help="Dataset root in DAVIS or YouTube-VOS layout.")],
    split: Annotated[str, typer.Option(help="ImageSets/2017/NAME.txt, else ImageSets/2016/NAME.txt.")],
    out_dir: Annotated[Path, typer.Option("--out", help="Folder for the predicted masks.")],
    json_file: Annotated[Path, typer.Option("--json", help="File for the measures.")],
    model: ModelOption = None,
    size: Annotated[
        int | None,
        typer.Option(
            min=16, max=LARGEST_SIDE, help="Shorter side to track at; masks keep the annotations' size."
        ),
    ] = None,
    soft: SoftOption = False,
    kernel: KernelOption = Kernel.native,
    threads: ThreadsOption = 0,
    shard: ShardOption = False,
    refine: RefineOption = Refine.off,
    refine_iterations: RefineIterationsOption = 400,
    refine_steps: RefineStepsOption = 0,
    refine_size: RefineSizeOption = 320,
    refine_feedback: RefineFeedbackOption = False,
    refiner: RefinerOption = None,
) -> None:
    """Track a labelled dataset and print the DAVIS measures."""
    from .models import open_tracker, resolve_model
    from .runtime.evaluation.protocol import COLUMNS
    from .runtime.evaluation.sharded import DatasetRun
    from .runtime.refinement.session import Refinement
    from .runtime.refinement.settings import RefinementSettings

    run = DatasetRun(davis, split, out_dir, json_file, size)
    threads = run.join(shard, threads)
    with busy("opening the model"):
        executable = resolve_model(model)
    settings = RefinementSettings(size=refine_size, iterations=refine_iterations, feedback=refine_feedback)
    refinement = Refinement(refine.value, settings, refine_steps, refiner)

    def new_tracker() -> SequenceTracker:
        return refinement.wrap(open_tracker(executable, soft=soft, kernel=kernel.value, threads=threads))

    with split_callback(shown=run.shows_progress) as on_frame:
        evaluation = run.evaluate(new_tracker, [executable, refiner], (soft, kernel, refinement), on_frame)
    if evaluation is None:
        out.print(f"{run.name} is done; the others are still at work", markup=False)
        return
    table = Table(*COLUMNS, box=box.SIMPLE)
    for row in evaluation.rows():
        table.add_row(*row)
    out.print(table)


@app.command(rich_help_panel=DEPLOY)
@report_errors
def profile(
    model: Annotated[Path, typer.Argument(help="Exported .onnx, .engine or checkpoint.")],
    compare: Annotated[
        Path | None, typer.Option(metavar="OTHER", help="A second model, measured the same way.")
    ] = None,
    out_dir: Annotated[Path, typer.Option("--out", help="Folder for profile.json and profile.html.")] = Path(
        "profile"
    ),
    source: Annotated[str | None, typer.Option(help="Video or frames; default: a rendered clip.")] = None,
    height: Annotated[int, typer.Option(min=16, max=LARGEST_SIDE, help="Height of the rendered clip.")] = 480,
    width: Annotated[int, typer.Option(min=16, max=LARGEST_SIDE, help="Width of the rendered clip.")] = 480,
    iterations: Annotated[int, typer.Option(min=1, help="Frames to measure.")] = 50,
    warm_up: Annotated[int, typer.Option(min=1, help="Frames before the clock starts.")] = 8,
    runner_iterations: Annotated[
        int, typer.Option(min=0, help="Runs of the bare file by polygraphy's runner; 0 leaves it out.")
    ] = 5,
    budget: Annotated[
        str | None, typer.Option(metavar="33ms", help="Exit with 1 if the p99 of a frame takes longer.")
    ] = None,
    threads: ThreadsOption = 0,
) -> None:
    """Measure where the time of a frame goes: stages of the tracker, the bare model, its layers."""
    from .models import resolve_model
    from .runtime.profiling.run import ProfileOptions, profile_models
    from .runtime.profiling.stages import budget_ms

    limit = None if budget is None else budget_ms(budget)
    models = [model] if compare is None else [model, compare]
    options = ProfileOptions(source, height, width, iterations, warm_up, threads, runner_iterations)
    with busy(f"profiling {' and '.join(path.name for path in models)}"):
        profiles, commands = profile_models([resolve_model(path) for path in models], options, out_dir, limit)
    for measured in profiles:
        table = Table("ms", "p50", "p90", "p99", "max", "jitter", box=box.SIMPLE, title=measured.model)
        rows = {"whole frame": measured.total, **measured.stages}
        if measured.runner is not None:
            rows["bare file, polygraphy"] = measured.runner
        for name, latency in rows.items():
            figures = (latency.p50, latency.p90, latency.p99, latency.max, latency.jitter)
            table.add_row(name, *(f"{figure:.2f}" for figure in figures))
        out.print(table)
        out.print(f"{measured.fps:.1f} fps, peak memory {measured.peak_memory_mb:.0f} MB", markup=False)
    out.print("To measure the bare file with NVIDIA's tools, on a frame of this run:")
    for line in commands.values():
        out.print(line, markup=False, soft_wrap=True)
    out.print(f"wrote {out_dir / 'profile.html'}", markup=False, soft_wrap=True)
    late = [p for p in profiles if limit is not None and p.total.p99 > limit]
    for measured in late:
        err.print(
            f"{measured.model}: p99 {measured.total.p99:.2f} ms is beyond the budget of {limit:g} ms",
            style="red",
            markup=False,
            soft_wrap=True,
        )
    if late:
        raise typer.Exit(1)


@app.command(rich_help_panel=MACHINE)
@report_errors
def doctor() -> None:
    """Say what is installed, what each backend needs, and how to mend what is missing."""
    from .doctor import examine, lacking

    findings = examine()
    colours = {"ok": "green", "optional": "yellow", "missing": "red"}
    table = Table(box=box.SIMPLE)
    for heading in ("part", "state", "found", "to mend it"):
        table.add_column(heading, overflow="fold")  # names are of no use when cut off
    for finding in findings:
        state = Text(finding.state, style=colours[finding.state])
        table.add_row(finding.part, state, Text(finding.found), Text(finding.remedy))
    out.print(table)
    for use, parts in lacking(findings).items():
        out.print(f"{use}: " + (f"not ready, needs {', '.join(parts)}" if parts else "ready"), markup=False)
    if any(finding.state == "missing" for finding in findings):
        raise typer.Exit(1)


def _require_suffix(out_file: Path, suffix: str) -> None:
    """Refuse to write what no command would take afterwards: what a file holds is told by its name."""
    if out_file.suffix != suffix:
        raise OutputError(f"{out_file} would not be taken for a model by its name", f"let it end in {suffix}")


def _require_use(
    mask: Path | None, boxes: list[str] | None, out_dir: Path | None, show: bool, refine: Refine
) -> None:
    """Refuse to track nothing, for nobody, or what cannot be watched."""
    if mask is None and not boxes and not show:
        raise MaskError(
            "no object was named",
            "give a PNG with the objects of the first frame (--mask FIRST.png), a box around each "
            "(--box X0,Y0,X1,Y1), or draw them (--show)",
        )
    if out_dir is None and not show:
        raise SourceError("no output folder was given", "name one: --out DIR")
    if show and refine is Refine.offline:
        raise UserError(
            "masks that are refined offline are not there to be watched while tracking",
            "choose --show or --refine offline; --refine online goes with --show",
        )


def _file_sinks(
    stack: ExitStack, out_dir: Path, stream: Source, masks: bool, overlay: bool, refine: Refine
) -> list[Sink]:
    """What takes results to files; closed with the stack."""
    from .runtime.refinement.comparison import ComparisonVideoSink
    from .runtime.video.sinks import JsonLinesSink, MaskFolderSink, OverlayVideoSink

    sinks: list[Sink] = [stack.enter_context(JsonLinesSink(out_dir / "objects.jsonl"))]
    if masks:
        sinks.append(stack.enter_context(MaskFolderSink(out_dir / "masks")))
    timed = stream.length is not None  # frames of cameras and endless streams know their arrival alone
    if overlay:
        video = OverlayVideoSink(out_dir / "overlay.mp4", stream.fps, by_time=timed)
        sinks.append(stack.enter_context(video))
    if overlay and refine is Refine.offline:
        before = out_dir / "propagated" / "masks"
        comparison = ComparisonVideoSink(out_dir / "comparison.mp4", stream.fps, before, by_time=timed)
        sinks.append(stack.enter_context(comparison))
    return sinks


def _note_others(sinks: list[Sink]) -> None:
    """Tell of masks that a glance into the folder would take for those of this run."""
    from .runtime.video.sinks import MaskFolderSink

    for sink in sinks:
        if isinstance(sink, MaskFolderSink) and sink.others:
            note = (
                f"note: {sink.folder} also holds {len(sink.others)} masks of earlier runs, left as they were"
            )
            err.print(note, markup=False, soft_wrap=True)


def _steered(stack: ExitStack, planned: Steering, sinks: list[Sink]) -> Interaction:
    """A window, closed with the stack, that takes the results last and steers from there."""
    from .runtime.interaction.session import Interaction
    from .runtime.interaction.window import Window

    interaction = Interaction(Window("maskring"), planned)
    stack.callback(interaction.close)
    sinks.append(interaction)
    return interaction


def _planned(mask: Path | None, boxes: list[str], additions: list[str], removals: list[str]) -> Steering:
    """The masks, boxes and removals named on the command line, read."""
    from .runtime.interaction.boxes import Boxed
    from .runtime.pipeline.loop import Edits, Schedule, merge_masks
    from .runtime.video.masks import read_mask

    masks = {} if mask is None else {0: read_mask(mask)}
    for text in additions:
        frame, png = _at_frame(text, "--add", "FRAME=PNG")
        added = read_mask(Path(png))
        masks[frame] = merge_masks(added, masks[frame]) if frame in masks else added
    removed: dict[int, list[int]] = {}
    for text in removals:
        frame, object_id = _at_frame(text, "--remove", "FRAME=ID")
        if not _is_number(object_id):
            raise MaskError(f"--remove {text} names no object", "give it as FRAME=ID, for example 40=2")
        removed.setdefault(frame, []).append(int(object_id))
    schedule = Schedule(Edits(masks, removed))
    return Boxed([_box(text) for text in boxes], schedule) if boxes else schedule


def _require_reached(end: int | None, edits: dict[str, list[str]]) -> None:
    """Refuse edits behind the last frame, once that is known: nobody would see that they came to nothing."""
    for option, texts in edits.items():
        for text in texts:
            if end is not None and int(text.partition("=")[0]) > end:
                raise MaskError(
                    f"{option} {text} lies behind frame {end}, the last one that is tracked",
                    "name an earlier frame, counting from 0",
                )


def _box(text: str) -> Box:
    edges = text.replace(" ", "").split(",")
    if len(edges) != 4 or not all(map(_is_number, edges)):
        raise MaskError(
            f"--box {text} names no box",
            "give its left, top, right and bottom edge in pixels as X0,Y0,X1,Y1, for example 120,40,260,310",
        )
    x0, y0, x1, y1 = map(int, edges)
    return x0, y0, x1, y1


def _is_number(text: str) -> bool:
    """Whether ``int`` reads it: superscripts are digits, too, and it refuses thousands of them."""
    return text.isascii() and text.isdecimal() and len(text) < 10


def _at_frame(text: str, option: str, form: str) -> tuple[int, str]:
    frame, separator, rest = text.partition("=")
    if not separator or not _is_number(frame):
        raise MaskError(f"{option} {text} does not say at which frame", f"give it as {form}")
    return int(frame), rest
