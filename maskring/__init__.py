"""maskring: real-time video object segmentation, learned without labels.

    >>> import maskring
    >>> tracker = maskring.open_tracker()                    # shipped checkpoint, exported on first use
    >>> result = tracker.step(first_frame, first_mask)       # doctest: +SKIP
    >>> result = tracker.step(next_frame)                    # doctest: +SKIP

Names are resolved on first use, so that importing maskring costs nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from .models import open_tracker as open_tracker
    from .plugins.errors import UserError as UserError
    from .runtime.backends.device_frame import DeviceFrame as DeviceFrame
    from .runtime.boxes import with_boxes as with_boxes
    from .runtime.masks import read_mask as read_mask
    from .runtime.masks import write_mask as write_mask
    from .runtime.memory import MemoryPolicy as MemoryPolicy
    from .runtime.overlay import draw_overlay as draw_overlay
    from .runtime.sources import open_source as open_source
    from .runtime.tracker import Result as Result
    from .runtime.tracker import Tracker as Tracker

_HOMES = {
    "DeviceFrame": ".runtime.backends.device_frame",
    "MemoryPolicy": ".runtime.memory",
    "Result": ".runtime.tracker",
    "Tracker": ".runtime.tracker",
    "UserError": ".plugins.errors",
    "draw_overlay": ".runtime.overlay",
    "open_source": ".runtime.sources",
    "open_tracker": ".models",
    "read_mask": ".runtime.masks",
    "with_boxes": ".runtime.boxes",
    "write_mask": ".runtime.masks",
}

__all__ = [
    "DeviceFrame",
    "MemoryPolicy",
    "Result",
    "Tracker",
    "UserError",
    "__version__",
    "draw_overlay",
    "open_source",
    "open_tracker",
    "read_mask",
    "with_boxes",
    "write_mask",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'maskring' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name], __name__), name)
