"""Options of the commands, each declared once; a command names them as the types of its parameters."""

from __future__ import annotations

import math
from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from ..common.machine import MAX_THREADS
from ..runtime.model.metadata import MAX_SETTING

MAX_SIDE = 1 << 15
"""Pixels of a frame's side, of an export or of what is tracked."""

MAX_STREAMS = 1 << 12
"""Streams of a Triton server; a larger number is a mistake that would exhaust its memory."""

MAX_RADIUS = 1 << 8
"""Features from the centre of a window to its edge."""

RANGE = "N|MIN:BEST:MAX"
"""The longest placeholder of ``build``: a longer one would cut its longest option off on 80 columns."""


def finite(value: float | None) -> float | None:
    """Refuse NaN and infinity, which no ``min`` and ``max`` catch."""
    if value is not None and not math.isfinite(value):
        raise typer.BadParameter(f"{value} is not a finite number.")
    return value


class KernelChoice(str, Enum):
    """:data:`maskring.common.types.Kernel` for the command line."""

    native = "native"
    function = "function"


class DeviceChoice(str, Enum):
    """:data:`maskring.common.types.Device` for the command line."""

    cpu = "cpu"
    cuda = "cuda"


class PrecisionChoice(str, Enum):
    """:data:`maskring.common.types.Precision` for the command line."""

    float32 = "float32"
    float16 = "float16"


class EngineRuntime(str, Enum):
    """What executes an engine."""

    tensorrt = "tensorrt"
    tensorrt_rtx = "tensorrt-rtx"


class HardwareCompatibility(str, Enum):
    """GPUs that an engine runs on besides the one that built it."""

    ampere_plus = "ampere-plus"
    same_compute_capability = "same-compute-capability"


# Of several commands

Model = Annotated[
    Path | None,
    typer.Option(
        "--model",
        help="Checkpoint (.safetensors), .onnx, .engine, or the name of a shipped checkpoint; default: pico.",
    ),
]
Kernel = Annotated[
    KernelChoice,
    typer.Option(
        help="native: maskring's CPU kernel. function: standard ONNX operators only (portable, slow)."
    ),
]
Device = Annotated[
    DeviceChoice,
    typer.Option(help="Where an .onnx or checkpoint runs: cuda = an NVIDIA GPU, with onnxruntime-gpu."),
]
Threads = Annotated[int, typer.Option(min=0, max=MAX_THREADS, help="CPU threads; 0 = all cores.")]
TrackSize = Annotated[
    int | None,
    typer.Option(
        min=16, max=MAX_SIDE, help="Shorter side to track at: smaller is faster; masks keep the full size."
    ),
]
OnnxOut = Annotated[Path, typer.Option("--out", help="The ONNX file to write.")]

# demo, train, import

DemoOut = Annotated[Path, typer.Option("--out", help="Folder for videos, contact sheet and scores.")]
DemoClip = Annotated[
    Path | None, typer.Option(help="The real clip, if it cannot be downloaded from the package index.")
]
Recipe = Annotated[
    str,
    typer.Argument(
        help="nano, pico, static, full, tune (on CPUs); paper, mast, colorization (on GPUs); or a TOML file."
    ),
]
Data = Annotated[
    list[Path],
    typer.Option(metavar="PATH...", help="Footage: videos, folders of them, frames, DAVIS, YouTube-VOS."),
]
RunFolder = Annotated[
    Path, typer.Option("--out", help="Folder of the run; an interrupted run in it continues.")
]
MoreData = Annotated[
    list[Path] | None, typer.Argument(metavar="PATH", help="More footage after --data.", hidden=True)
]
Stills = Annotated[
    list[Path] | None,
    typer.Option(metavar="FOLDER", help="Photographs, for recipes that also learn from single images."),
]
Start = Annotated[
    Path | None,
    typer.Option(
        metavar="CHECKPOINT", help="Start from these weights, or a shipped checkpoint's; default: random."
    ),
]
MaxMinutes = Annotated[
    float | None,
    typer.Option(min=0, callback=finite, help="Stop after this time; the same command continues later."),
]
Validate = Annotated[
    Path | None, typer.Option(metavar="ROOT", help="Labelled footage (DAVIS layout) to score on.")
]
CacheGb = Annotated[
    float, typer.Option(min=0, callback=finite, help="Disk space for decoded frames, in GB; 0 keeps none.")
]
BatchWorkers = Annotated[
    int,
    typer.Option(
        "--workers", min=0, max=256, help="Processes that prepare batches, for a fast GPU; 0 for a thread."
    ),
]
TensorBoard = Annotated[bool, typer.Option("--tensorboard", help="Also write TensorBoard curves.")]
MastCheckpoint = Annotated[Path, typer.Argument(help="A published MAST checkpoint (.pth, .pt).")]
CheckpointOut = Annotated[
    Path, typer.Option("--out", help="The maskring checkpoint to write (.safetensors).")
]

# export, export-refiner, build, quantize, verify

Checkpoint = Annotated[
    Path, typer.Argument(help="A checkpoint (.safetensors), or the name of a shipped one.")
]
OptionalOnnxOut = Annotated[Path | None, typer.Option("--out", help="The ONNX file to write.")]
Triton = Annotated[
    Path | None,
    typer.Option(metavar="DIR", help="Write a Triton model repository; needs --height, --width, --objects."),
]
Streams = Annotated[
    int | None,
    typer.Option(
        min=1, max=MAX_STREAMS, help="Streams that Triton tracks at once; default: 8. With --triton."
    ),
]
FixedHeight = Annotated[
    int | None, typer.Option(min=1, max=MAX_SIDE, help="Fix the frame height; default: any.")
]
FixedWidth = Annotated[
    int | None, typer.Option(min=1, max=MAX_SIDE, help="Fix the frame width; default: any.")
]
FixedObjects = Annotated[
    int | None, typer.Option(min=1, max=255, help="Fix the number of objects; default: any.")
]
Radius = Annotated[
    int | None, typer.Option(min=0, max=MAX_RADIUS, help="Window radius; default: the checkpoint's.")
]
LogitScale = Annotated[
    float | None,
    typer.Option("--logit-scale", "--scale", callback=finite, help="Logit scale; default: the checkpoint's."),
]
TopK = Annotated[
    int | None,
    typer.Option(min=0, max=MAX_SETTING, help="Logits kept per pixel, 0 = all; default: the checkpoint's."),
]
RoiStep = Annotated[
    int | None,
    typer.Option(
        "--roi-step",
        "--localise",
        min=0,
        max=MAX_SETTING,
        help="Search window centres on every n-th feature, 0 = no search; default: the checkpoint's.",
    ),
]
ConfidenceExponent = Annotated[
    int | None,
    typer.Option(
        min=0, max=64, help="Lowers the weight of unsure labels, 0 = none; default: the checkpoint's."
    ),
]
GuidedFilterRadius = Annotated[
    int | None,
    typer.Option(
        min=0, max=MAX_RADIUS, help="Radius of the filter along edges, 0 = none; default: the checkpoint's."
    ),
]
SmoothingRadius = Annotated[
    int | None,
    typer.Option(
        "--smoothing-radius",
        "--smooth",
        min=0,
        max=MAX_RADIUS,
        help="Radius of the second read, which smooths, 0 = none; default: the checkpoint's.",
    ),
]
Precision = Annotated[PrecisionChoice, typer.Option(help="Element type of features and label maps.")]
OnnxModel = Annotated[Path, typer.Argument(help="An exported .onnx.")]
OnnxToBuild = Annotated[Path, typer.Argument(help="An exported .onnx; the engine keeps its precision.")]
EngineOut = Annotated[
    Path,
    typer.Option("--out", help="The .engine (.plan for Triton) to write, and a .json of the same name."),
]
Runtime = Annotated[
    EngineRuntime,
    typer.Option(
        metavar="NAME",
        help="tensorrt: with the plugin, for this GPU. tensorrt-rtx: ahead of time, without a GPU.",
    ),
]
ComputeCapability = Annotated[
    str, typer.Option(metavar="sm86,sm89", help="GPUs to compile for (tensorrt-rtx).")
]
HeightRange = Annotated[
    str | None, typer.Option(metavar=RANGE, help="Frame height, if the model leaves it open.")
]
WidthRange = Annotated[
    str | None, typer.Option(metavar=RANGE, help="Frame width, if the model leaves it open.")
]
ObjectsRange = Annotated[
    str | None,
    typer.Option(metavar=RANGE, help="Number of objects, if the model leaves it open; default 1:3:15."),
]
OptimizationLevel = Annotated[
    int | None, typer.Option(min=0, max=5, metavar="LEVEL", help="Effort of the search for fast kernels.")
]
Workspace = Annotated[int | None, typer.Option(min=1, metavar="MIB", help="Limit of scratch memory in MiB.")]
VersionCompatible = Annotated[
    bool,
    typer.Option("--version-compatible", help="Also run on later TensorRT of the same major version."),
]
Compatibility = Annotated[
    HardwareCompatibility | None,
    typer.Option(
        metavar="GPUS",
        help="Also run on other GPUs, somewhat slower: ampere-plus or same-compute-capability.",
    ),
]
TimingCache = Annotated[
    Path | None, typer.Option(metavar="FILE", help="Keep timings in this file for the next build.")
]
FloatModel = Annotated[Path, typer.Argument(help="An exported float32 .onnx.")]
Calibrate = Annotated[
    list[Path],
    typer.Option(metavar="VIDEOS...", help="Videos, or folders of videos or frames, like yours."),
]
MoreVideos = Annotated[
    list[Path] | None,
    typer.Argument(metavar="VIDEO", help="More videos after --calibrate.", hidden=True),
]
Int8Out = Annotated[Path, typer.Option("--out", help="The int8 ONNX file to write.")]
CalibrationFrames = Annotated[
    int, typer.Option(min=1, help="Frames to calibrate on, spread over the videos.")
]
CalibrationSize = Annotated[int, typer.Option(min=16, help="Shorter side that frames are scaled down to.")]
SourceCheckpoint = Annotated[
    Path | None,
    typer.Option(help="Its checkpoint, or the name of a shipped one; adds a comparison with torch."),
]
FrameSource = Annotated[
    str | None, typer.Option(help="Video or image folder for the frames; default: a rendered clip.")
]
ComparedFrames = Annotated[int, typer.Option(min=2, help="Frames to compare.")]

# track, label, evaluate

Source = Annotated[
    str, typer.Argument(help="Video file, image folder, webcam index, RTSP URL or GStreamer pipeline.")
]
Masks = Annotated[
    list[str] | None,
    typer.Option(
        "--mask",
        metavar="[ID=]FILE",
        help="Image or annotations (COCO, CVAT, LabelMe) with objects of the first frame; repeatable.",
    ),
]
Boxes = Annotated[
    list[str] | None,
    typer.Option("--box", metavar="X0,Y0,X1,Y1", help="Box around an object of the first frame; repeatable."),
]
TrackOut = Annotated[
    Path | None, typer.Option("--out", help="Folder for masks, overlay.mp4 and objects.jsonl.")
]
Live = Annotated[
    bool, typer.Option("--live", help="Always take the newest frame; drop those that came before it.")
]
First = Annotated[
    int,
    typer.Option(
        "--from", min=0, metavar="FRAME", help="First frame to track; --mask and --box describe it."
    ),
]
Last = Annotated[
    int | None,
    typer.Option("--to", min=0, metavar="FRAME", help="Last frame to track; default: the video's last."),
]
Add = Annotated[
    list[str] | None,
    typer.Option(
        metavar="FRAME[:ID]=FILE", help="Add or correct objects at a later frame, by a mask; repeatable."
    ),
]
Remove = Annotated[
    list[str] | None,
    typer.Option(metavar="FRAME=ID", help="Stop following an object at a frame; repeatable."),
]
Backward = Annotated[
    bool,
    typer.Option(
        "--backward", help="Also follow objects back from the frame of their first mask; needs a file."
    ),
]
WriteMasks = Annotated[bool, typer.Option(help="Write one palette PNG per frame.")]
WriteOverlay = Annotated[bool, typer.Option(help="Write overlay.mp4.")]
Show = Annotated[
    bool, typer.Option("--show", help="Open a window to draw objects, watch, correct and pause.")
]
Videos = Annotated[list[str], typer.Argument(help="Videos, or folders of videos or frames; or s3://...")]
FirstMasks = Annotated[
    str,
    typer.Option(
        help="Folder with the first frame's mask of each video, named like it: NAME.png for NAME.mp4."
    ),
]
LabelOut = Annotated[
    str, typer.Option("--out", help="Gets a folder per video; videos that have one are skipped.")
]
Davis = Annotated[Path, typer.Option(help="Dataset root in DAVIS or YouTube-VOS layout.")]
Split = Annotated[str, typer.Option(help="ImageSets/2017/NAME.txt, else ImageSets/2016/NAME.txt.")]
PredictionsOut = Annotated[Path, typer.Option("--out", help="Folder for the predicted masks.")]
Predicted = Annotated[Path, typer.Argument(help="Folder of predicted masks: a folder per sequence.")]
ScoredSplit = Annotated[
    str | None,
    typer.Option("--split", help="Score all sequences of a list; default: those with predictions."),
]
OptionalMeasures = Annotated[Path | None, typer.Option("--json", help="File for the measures.")]
MeasuresOut = Annotated[Path, typer.Option("--json", help="File for the measures.")]

# studio

StudioSource = Annotated[
    str,
    typer.Argument(
        help="Video, folder of frames, or folder of both (default: here); or, to watch live: camera number, RTSP or "
        "HTTP address, GStreamer pipeline."
    ),
]
Port = Annotated[int, typer.Option(min=0, max=65535, help="Port to listen on; 0 = any that is free.")]
Host = Annotated[
    str, typer.Option(help="Address to listen on; any but 127.0.0.1 opens the clips to other machines.")
]
StudioFirst = Annotated[
    int, typer.Option("--from", min=0, metavar="FRAME", help="First frame to open, of files.")
]
StudioLast = Annotated[
    int | None,
    typer.Option("--to", min=0, metavar="FRAME", help="Last frame to open; default: the video's last."),
]
Browser = Annotated[bool, typer.Option(help="Open the page in a browser.")]

# profile

ProfiledModel = Annotated[Path, typer.Argument(help="Exported .onnx, .engine or checkpoint.")]
Compare = Annotated[Path | None, typer.Option(metavar="OTHER", help="A second model, measured the same way.")]
ProfileOut = Annotated[Path, typer.Option("--out", help="Folder for profile.json and profile.html.")]
ProfileHeight = Annotated[int, typer.Option(min=16, max=MAX_SIDE, help="Height of the rendered clip.")]
ProfileWidth = Annotated[int, typer.Option(min=16, max=MAX_SIDE, help="Width of the rendered clip.")]
ProfileFrames = Annotated[int, typer.Option(min=1, help="Frames to measure.")]
WarmUp = Annotated[int, typer.Option(min=1, help="Frames to run before measuring.")]
RunnerIterations = Annotated[
    int, typer.Option(min=0, help="Runs of the model file alone by polygraphy; 0 = none.")
]
Budget = Annotated[
    str | None, typer.Option(metavar="33ms", help="Exit with 1 if the p99 of a frame is above this.")
]
