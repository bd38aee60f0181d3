"""PTX's fundamental types (PTX ISA 9.0, section 5.2.1) as numpy types."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import numpy.typing as npt

from .errors import PtxError

Array = npt.NDArray[Any]
BoolArray = npt.NDArray[np.bool_]
IntArray = npt.NDArray[np.int64]

_NUMPY: dict[str, type[np.generic]] = {
    "pred": np.bool_,
    "b8": np.uint8,
    "u8": np.uint8,
    "s8": np.int8,
    "b16": np.uint16,
    "u16": np.uint16,
    "s16": np.int16,
    "f16": np.float16,
    "b32": np.uint32,
    "u32": np.uint32,
    "s32": np.int32,
    "f32": np.float32,
    "f16x2": np.uint32,
    "b64": np.uint64,
    "u64": np.uint64,
    "s64": np.int64,
    "f64": np.float64,
}


def is_type(name: str) -> bool:
    """Whether ``name`` is a type of PTX that the interpreter knows."""
    return name in _NUMPY


def numpy_type(name: str) -> np.dtype[Any]:
    """The numpy type of a PTX type; f16x2 is its 32 bits."""
    if name not in _NUMPY:
        raise PtxError("unsupported", f"type .{name} is not supported")
    return np.dtype(_NUMPY[name])


def size_of(name: str) -> int:
    """Bytes of a PTX type."""
    return numpy_type(name).itemsize


def is_float(name: str) -> bool:
    """Whether a PTX type is one scalar floating-point number."""
    return re.fullmatch(r"f\d+", name) is not None


def is_signed(name: str) -> bool:
    """Whether a PTX type is a signed integer."""
    return name[0] == "s"
