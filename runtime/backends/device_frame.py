"""Frames that are on the GPU already, from a decoder, torch or CuPy; the engine reads them in place."""

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
"""Number of CUDA's legacy default stream, in both protocols and for the driver."""

_VERSION_WITH_STREAM = 3
"""First version of the CUDA Array Interface that names the stream in which the pixels are being written."""

_REMEDY = "give uint8 RGB pixels [height, width, 3] of a GPU, contiguous in memory"


class DeviceFrame:
    """RGB pixels in the memory of a GPU; :meth:`maskring.Tracker.step` takes them in place of an array.

    The pixels must not change until ``step`` returns.

    Args:
        pixels: an object [H, W, 3], uint8, contiguous, with ``__cuda_array_interface__`` (CuPy, Numba,
            VPI) or ``__dlpack__`` (PyTorch). The frame keeps it alive.

    Attributes:
        address: of the first pixel, on the GPU.
        shape, dtype, ndim, size: as in numpy.
        stream: handle of the stream that still writes the pixels; None when they are complete.

    Raises:
        SourceError: when the object has neither protocol, is not such pixels, or refuses to export them.

    Source: CUDA Array Interface version 3 (Numba's documentation); DLPack 1.0 (dmlc/dlpack).
    """

    dtype = np.dtype(np.uint8)
    ndim = 3

    def __init__(self, pixels: Any) -> None:
        interface = _query(pixels, lambda: getattr(pixels, "__cuda_array_interface__", None))
        has_dlpack = hasattr(pixels, "__dlpack__")
        # Up to version 2, torch's, the interface does not say when the pixels are complete. DLPack does.
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
        """Raises: a model on the CPU would silently copy each frame back."""
        raise SourceError(
            "the frame is in the memory of a GPU, and the model runs on the CPU",
            "give --device cuda or a TensorRT engine, or frames as numpy arrays",
        )


Pixels = NDArray[np.uint8] | DeviceFrame
"""A frame, in the memory of the host or of a GPU."""


def not_on_this_gpu(frame: DeviceFrame) -> SourceError:
    """The error of a backend whose GPU cannot read a frame."""
    return SourceError(
        f"the frame at {frame.address:#x} is not in the memory of the GPU that runs the model",
        "put frames on that GPU (CUDA_VISIBLE_DEVICES chooses it), or give them as numpy arrays",
    )


def _query(pixels: Any, question: Callable[[], Any]) -> Any:
    """Ask the owner of the pixels, which may raise anything, as torch does for tensors with gradients."""
    try:
        return question()
    except Exception as error:
        words = " ".join(str(error).split())[:200].rstrip(". ") or type(error).__name__
        raise SourceError(
            f"the {type(pixels).__name__} does not export its pixels ({words})", _REMEDY
        ) from error


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
        usable = interface["typestr"] == "|u1" and _contiguous(shape, interface.get("strides"))
    except (KeyError, IndexError, TypeError, ValueError, OverflowError) as error:
        raise SourceError(f"the frame's __cuda_array_interface__ is damaged ({error!r})", _REMEDY) from error
    if not usable:
        raise SourceError(
            f"the frame on the GPU has type {interface['typestr']}, shape {list(shape)} and strides "
            f"{interface.get('strides')}",
            _REMEDY,
        )
    return address, shape, stream


def _contiguous(shape: tuple[int, ...], strides: Any) -> bool:
    """Whether ``strides``, in bytes of one-byte elements, are those of a contiguous array."""
    return strides is None or tuple(strides) == tuple(
        int(np.prod(shape[axis + 1 :])) for axis in range(len(shape))
    )


class _Tensor(ctypes.Structure):
    """DLTensor, the first member of DLManagedTensor."""

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
    """Address, shape and the capsule, whose end releases the tensor."""
    kind, _ = _query(pixels, pixels.__dlpack_device__)
    if int(kind) not in (_CUDA, _CUDA_MANAGED):
        raise SourceError(f"the frame's DLPack device {int(kind)} is not a CUDA GPU", _REMEDY)
    # The producer makes this stream wait for the pixels; the backend waits for this stream.
    capsule = _query(pixels, lambda: pixels.__dlpack__(stream=_LEGACY_DEFAULT_STREAM))
    pointer = ctypes.pythonapi.PyCapsule_GetPointer
    pointer.restype, pointer.argtypes = ctypes.c_void_p, (ctypes.py_object, ctypes.c_char_p)
    tensor = _Tensor.from_address(_query(pixels, lambda: pointer(capsule, b"dltensor")))
    shape = tuple(tensor.shape[axis] for axis in range(tensor.ndim))
    strides = [tensor.strides[axis] for axis in range(tensor.ndim)] if tensor.strides else None
    if (tensor.code, tensor.bits, tensor.lanes) != (_UNSIGNED, 8, 1) or not _contiguous(shape, strides):
        raise SourceError(
            f"the frame on the GPU has DLPack type {(tensor.code, tensor.bits, tensor.lanes)}, shape "
            f"{list(shape)} and strides {strides}",
            _REMEDY,
        )
    return int(tensor.data or 0) + int(tensor.byte_offset), shape, capsule
