"""Arrays and choices that several packages share."""

from __future__ import annotations

from typing import Any, Literal, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

Kernel: TypeAlias = Literal["native", "function"]
"""What computes the memory read on a CPU: maskring's kernel, or standard ONNX operators alone."""

Device: TypeAlias = Literal["cpu", "cuda"]
"""Where an exported ``.onnx`` runs."""

Precision: TypeAlias = Literal["float32", "float16"]
"""Element type of features and label maps in an exported model."""

Array = NDArray[Any]
"""Any shape, any type."""

Image = NDArray[np.uint8]
"""[H, W, 3] RGB pixels."""

Labels = NDArray[np.uint8]
"""[H, W], one label per pixel; 0 is background."""

Floats = NDArray[np.float32]
"""Any shape; probabilities, shares, features or colours."""

FloatMaps = NDArray[np.floating[Any]]
"""[C, h, w] float32 or float16, as a model computes them."""


class SupportsArray(Protocol):
    """NumPy arrays, and tensors of torch and others in the memory of the host."""

    def __array__(self) -> Any:
        """The values as a NumPy array."""


class SupportsArrayInterface(Protocol):
    """Images of Pillow."""

    @property
    def __array_interface__(self) -> dict[str, Any]:
        """Where the values are (NumPy's array interface)."""


class SupportsDLPack(Protocol):
    """Tensors of most frameworks."""

    def __dlpack__(self) -> Any:
        """The values as a DLPack capsule."""

    def __dlpack_device__(self) -> tuple[Any, Any]:
        """Kind and number of the device."""


ArrayLike: TypeAlias = NDArray[Any] | SupportsArray | SupportsArrayInterface | SupportsDLPack
"""Pixels in the memory of the host: an array of NumPy, an image of Pillow, a tensor of torch."""

MAX_LABELS = 256
"""Labels that a uint8 map can hold, background included."""
