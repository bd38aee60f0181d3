"""maskring: video object segmentation that learned without labels.

    >>> import maskring
    >>> tracker = maskring.open_tracker()                    # shipped checkpoint, exported on first use
    >>> result = tracker.step(first_frame, first_mask)       # doctest: +SKIP
    >>> result = tracker.step(next_frame)                    # doctest: +SKIP

Names are imported on first use, so that ``import maskring`` is instant.
"""

from __future__ import annotations

import importlib
import os
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

# onnxruntime 1.32 reports to its vendor unless this is set when it is imported. Set it to 0 to allow that.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

if TYPE_CHECKING:
    from .common.errors import MaskError as MaskError
    from .common.errors import ModelError as ModelError
    from .common.errors import OutputError as OutputError
    from .common.errors import SourceError as SourceError
    from .common.errors import UnavailableError as UnavailableError
    from .common.errors import UserError as UserError
    from .export.onnx_export import export_onnx as export_onnx
    from .models import open_tracker as open_tracker
    from .runtime.backends.device_frame import DeviceFrame as DeviceFrame
    from .runtime.interaction.boxes import masks_from_boxes as masks_from_boxes
    from .runtime.interaction.drawing import Drawing as Drawing
    from .runtime.interaction.events import Key as Key
    from .runtime.interaction.events import Pointer as Pointer
    from .runtime.interaction.grabcut import cut_from_box as cut_from_box
    from .runtime.interaction.session import Interaction as Interaction
    from .runtime.interaction.session import Screen as Screen
    from .runtime.pipeline.edits import Decision as Decision
    from .runtime.pipeline.edits import Edits as Edits
    from .runtime.pipeline.edits import Steering as Steering
    from .runtime.pipeline.loop import track as track
    from .runtime.pipeline.resized import ResizedTracker as ResizedTracker
    from .runtime.tracking.memory import MemoryPolicy as MemoryPolicy
    from .runtime.tracking.result import ObjectState as ObjectState
    from .runtime.tracking.result import Result as Result
    from .runtime.tracking.result import Timings as Timings
    from .runtime.tracking.tracker import Tracker as Tracker
    from .runtime.video.frame import Frame as Frame
    from .runtime.video.masks import read_mask as read_mask
    from .runtime.video.masks import write_mask as write_mask
    from .runtime.video.open_source import open_source as open_source
    from .runtime.video.overlay import draw_overlay as draw_overlay
    from .runtime.video.overlay_video import OverlayVideoSink as OverlayVideoSink
    from .runtime.video.sinks import JsonLinesSink as JsonLinesSink
    from .runtime.video.sinks import MaskFolderSink as MaskFolderSink
    from .runtime.video.source import Source as Source

_MODULES = {
    "common.errors": (
        "MaskError",
        "ModelError",
        "OutputError",
        "SourceError",
        "UnavailableError",
        "UserError",
    ),
    "export.onnx_export": ("export_onnx",),
    "models": ("open_tracker",),
    "runtime.backends.device_frame": ("DeviceFrame",),
    "runtime.interaction.boxes": ("masks_from_boxes",),
    "runtime.interaction.drawing": ("Drawing",),
    "runtime.interaction.events": ("Key", "Pointer"),
    "runtime.interaction.grabcut": ("cut_from_box",),
    "runtime.interaction.session": ("Interaction", "Screen"),
    "runtime.pipeline.edits": ("Decision", "Edits", "Steering"),
    "runtime.pipeline.loop": ("track",),
    "runtime.pipeline.resized": ("ResizedTracker",),
    "runtime.tracking.memory": ("MemoryPolicy",),
    "runtime.tracking.result": ("ObjectState", "Result", "Timings"),
    "runtime.tracking.tracker": ("Tracker",),
    "runtime.video.masks": ("read_mask", "write_mask"),
    "runtime.video.open_source": ("open_source",),
    "runtime.video.overlay": ("draw_overlay",),
    "runtime.video.frame": ("Frame",),
    "runtime.video.sinks": ("JsonLinesSink", "MaskFolderSink"),
    "runtime.video.overlay_video": ("OverlayVideoSink",),
    "runtime.video.source": ("Source",),
}
"""Public names by module. The block above repeats them for type checkers; a test compares both."""

_MODULE_OF = {name: module for module, names in _MODULES.items() for name in names}

_OLD_NAMES = {"with_boxes": "masks_from_boxes"}

__all__ = ["__version__", *_MODULE_OF]  # noqa: PLE0604 (all are strings)


def __getattr__(name: str) -> Any:
    name = _OLD_NAMES.get(name, name)
    if name not in _MODULE_OF:
        raise AttributeError(f"module 'maskring' has no attribute {name!r}")
    return getattr(importlib.import_module(f".{_MODULE_OF[name]}", __name__), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
