"""Choices that several packages share, each listed once."""

from __future__ import annotations

from typing import Literal, TypeAlias

Kernel: TypeAlias = Literal["native", "function"]
"""What computes the memory read on a CPU: maskring's kernel, or standard ONNX operators alone."""

Precision: TypeAlias = Literal["float32", "float16"]
"""Element type of features and label maps in an exported model."""

RefineMode: TypeAlias = Literal["off", "offline", "online"]
"""When masks are refined: never, after the whole video was tracked, or while it is tracked."""
