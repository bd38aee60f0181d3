"""Frames that are on the GPU already: the engine reads them where a decoder, torch or CuPy put them."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from ...common.errors import SourceError

_CUDA, _CUDA_MANAGED = 2, 13
"""DLDeviceType of memory that a GPU reads."""

_UNSIGNED = 1
"""DLDataTypeCode of unsigned integers."""

_LEGACY_DEFAULT_STREAM = 1
"""What both protocols call CUDA's legacy default stream; the driver calls it by the same number."""

_VERSION_WITH_STREAM = 3
"""Of the CUDA Array Interface, from which on it names the stream in which the pixels are being written."""

_REMEDY = "give uint8 RGB pixels [height, width, 3] of a GPU, contiguous in memory"


class DeviceFrame:
    """RGB pixels in the memory of a GPU, which :meth:`maskring.Tracker.step` takes in the place of an array.

    The pixels must not change until ``step`` returns.

    Args:
        pixels: an object [H, W, 3], uint8, contiguous, with ``__cuda_array_interface__`` (CuPy, Numba,
            VPI) or ``__dlpack__`` (PyTorch). It is kept alive as long as the frame.

    Attributes:
        address: of the first pixel, on the GPU.
        shape, dtype, ndim, size: as numpy's.
        stream: handle of the stream in which the pixels are still being written; None when they are there.

    Raises:
        SourceError: when the object offers neither protocol, is not such pixels, or does not give them out.

    Source: CUDA Array Interface version 3 (Numba's documentation); DLPack 1.0 (dmlc/dlpack).
    """

    dtype = np.dtype(np.uint8)
    ndim = 3

    def __init__(self, pixels: Any) -> None:
        interface = _asked(pixels, lambda: getattr(pixels, "__cuda_array_interface__", None))
        has_dlpack = hasattr(pixels, "__dlpack__")
        # Up to version 2, torch's, the interface does not tell when the pixels are there; DLPack does.
        if interface is not None and not (has_dlpack and _version(interface) < _VERSION_WITH_STREAM):
            self.address, shape, self.stream = _array_interface(interface)
            self._owner: Any = pixels
        elif has_dlpack:
            self.address, shape, self._owner = _dlpack(pixels)
            self.stream = _LEGACY_DEFAULT_STREAM
        else:
            raise SourceError(
                f"a frame of type {type(pixels).__name__} has neither __cuda_array_interface__ nor "
                "__dlpack__",
                _REMEDY,
            )
        if len(shape) != 3 or shape[2] != 3 or min(shape) < 1 or self.address < 1:
            raise SourceError(f"the frame on the GPU is {list(shape)} at address {self.address}", _REMEDY)
        self.shape: tuple[int, int, int] = shape[0], shape[1], 3
        self.size = shape[0] * shape[1] * 3

    def __array__(self, *_: Any, **__: Any) -> NoReturn:
        """Refuses: a model that runs on the CPU would copy the frame back, frame by frame."""
        raise SourceError(
            "the frame is in the memory of a GPU and the model runs on the CPU",
            "give a TensorRT engine as the model, or frames as numpy arrays",
        )


Pixels = NDArray[np.uint8] | DeviceFrame
"""A frame, in the memory of the host or of a GPU."""


def _asked(pixels: Any, question: Callable[[], Any]) -> Any:
    """What the owner of the pixels answers; it may raise anything, as torch does for gradients."""
    try:
        return question()
    except Exception as error:
        words = " ".join(str(error).split())[:200].rstrip(". ") or type(error).__name__
        raise SourceError(f"the {type(pixels).__name__} gives out no pixels ({words})", _REMEDY) from error


def _version(interface: Any) -> int:
    version = interface.get("version") if isinstance(interface, dict) else None
    return version if isinstance(version, int) else 0


def _array_interface(interface: Any) -> tuple[int, tuple[int, ...], int | None]:
    """Address, shape and stream."""
    try:
        shape, address = tuple(map(int, interface["shape"])), int(interface["data"][0])
        stream = None if interface.get("stream") is None else int(interface["stream"])
        if _version(interface) < _VERSION_WITH_STREAM:
            stream = _LEGACY_DEFAULT_STREAM
        sound = interface["typestr"] == "|u1" and _contiguous(shape, interface.get("strides"))
    except (KeyError, IndexError, TypeError, ValueError, OverflowError) as error:
        raise SourceError(f"the frame's __cuda_array_interface__ is damaged ({error!r})", _REMEDY) from error
    if not sound:
        raise SourceError(
            f"the frame on the GPU has type {interface['typestr']}, shape {list(shape)} and strides "
            f"{interface.get('strides')}",
            _REMEDY,
        )
    return address, shape, stream


def _contiguous(shape: tuple[int, ...], strides: Any) -> bool:
    """Whether ``strides`` (of elements that are one byte) are those of rows one after the other."""
    return strides is None or tuple(strides) == tuple(
        int(np.prod(shape[axis + 1 :])) for axis in range(len(shape))
    )


class _Tensor(ctypes.Structure):
    """DLTensor, which stands first in DLManagedTensor."""

    _fields_ = (
        ("data", ctypes.c_void_p),
        ("device_type", ctypes.c_int32),
        ("device_id", ctypes.c_int32),
        ("ndim", ctypes.c_int32),
        ("code", ctypes.c_uint8),
        ("bits", ctypes.c_uint8),
        ("lanes", ctypes.c_uint16),
        ("shape", ctypes.POINTER(ctypes.c_int64)),
        ("strides", ctypes.POINTER(ctypes.c_int64)),
        ("byte_offset", ctypes.c_uint64),
    )


def _dlpack(pixels: Any) -> tuple[int, tuple[int, ...], Any]:
    """Address, shape and the capsule, which gives the tensor back when it goes."""
    kind, _ = _asked(pixels, pixels.__dlpack_device__)
    if int(kind) not in (_CUDA, _CUDA_MANAGED):
        raise SourceError(f"the frame's DLPack device {int(kind)} is no GPU of CUDA", _REMEDY)
    # The producer makes this stream wait for the pixels; the backend waits for this stream.
    capsule = _asked(pixels, lambda: pixels.__dlpack__(stream=_LEGACY_DEFAULT_STREAM))
    pointer = ctypes.pythonapi.PyCapsule_GetPointer
    pointer.restype, pointer.argtypes = ctypes.c_void_p, (ctypes.py_object, ctypes.c_char_p)
    tensor = _Tensor.from_address(_asked(pixels, lambda: pointer(capsule, b"dltensor")))
    shape = tuple(tensor.shape[axis] for axis in range(tensor.ndim))
    strides = [tensor.strides[axis] for axis in range(tensor.ndim)] if tensor.strides else None
    if (tensor.code, tensor.bits, tensor.lanes) != (_UNSIGNED, 8, 1) or not _contiguous(shape, strides):
        raise SourceError(
            f"the frame on the GPU has DLPack type {(tensor.code, tensor.bits, tensor.lanes)}, shape "
            f"{list(shape)} and strides {strides}",
            _REMEDY,
        )
    return int(tensor.data or 0) + int(tensor.byte_offset), shape, capsule
