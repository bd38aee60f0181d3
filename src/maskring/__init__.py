"""maskring: real-time video object segmentation, learned without labels.

    >>> import maskring
    >>> tracker = maskring.open_tracker()                    # shipped checkpoint, exported on first use
    >>> result = tracker.step(first_frame, first_mask)       # doctest: +SKIP
    >>> result = tracker.step(next_frame)                    # doctest: +SKIP

Names are resolved on first use, so that importing maskring costs nothing.
"""

from __future__ import annotations

import importlib
import os
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

# onnxruntime 1.32 reports to its vendor unless this is set when it is imported. Set it to 0 to allow that.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

if TYPE_CHECKING:
    from .common.errors import UserError as UserError
    from .models import open_tracker as open_tracker
    from .runtime.backends.device_frame import DeviceFrame as DeviceFrame
    from .runtime.interaction.boxes import masks_from_boxes as masks_from_boxes
    from .runtime.tracking.memory import MemoryPolicy as MemoryPolicy
    from .runtime.tracking.result import Result as Result
    from .runtime.tracking.tracker import Tracker as Tracker
    from .runtime.video.masks import read_mask as read_mask
    from .runtime.video.masks import write_mask as write_mask
    from .runtime.video.open_source import open_source as open_source
    from .runtime.video.overlay import draw_overlay as draw_overlay

_HOMES = {
    "DeviceFrame": ".runtime.backends.device_frame",
    "MemoryPolicy": ".runtime.tracking.memory",
    "Result": ".runtime.tracking.result",
    "Tracker": ".runtime.tracking.tracker",
    "UserError": ".common.errors",
    "draw_overlay": ".runtime.video.overlay",
    "open_source": ".runtime.video.open_source",
    "open_tracker": ".models",
    "read_mask": ".runtime.video.masks",
    "masks_from_boxes": ".runtime.interaction.boxes",
    "write_mask": ".runtime.video.masks",
}

__all__ = [
    "DeviceFrame",
    "MemoryPolicy",
    "Result",
    "Tracker",
    "UserError",
    "__version__",
    "draw_overlay",
    "masks_from_boxes",
    "open_source",
    "open_tracker",
    "read_mask",
    "write_mask",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'maskring' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name], __name__), name)
