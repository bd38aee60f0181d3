"""onnxruntime's CUDA provider: what it needs on this machine, and sessions that use it."""

from __future__ import annotations

import contextlib
import ctypes
import io
from pathlib import Path
from typing import Any

import onnx
import onnxruntime

from ....common.errors import UnavailableError
from ....common.machine import compute_capability
from ....plugins.operator_library import has_cuda, onnxruntime_library
from .cuda_packages import INSTALL, installed_packages
from .session import Providers, open_session

PROVIDER = "CUDAExecutionProvider"

DEVICE = "cuda"
"""onnxruntime's name of the memory that the provider works on."""

_SILENT, _WARNINGS = 4, 2
"""Severities of onnxruntime's log; warnings are its default."""

BUILD_WITH_CUDA = "reinstall maskring from source where nvcc is (docs/onnxruntime.md)"

SETTINGS = {
    "device_id": "0",
    # Features are compared by their inner products, and TF32 rounds them to ten bits.
    "use_tf32": "0",
}


def require_cuda() -> Path:
    """The operator library, once everything is there that can be asked for without running anything on the GPU.

    Raises:
        UnavailableError: when onnxruntime has no CUDA provider, the operator library has no CUDA kernels, or there is
            no driver or no GPU.
    """
    if len(installed_packages()) > 1:
        raise UnavailableError(
            "both onnxruntime and onnxruntime-gpu are installed, and overwrote each other's files", INSTALL
        )
    if PROVIDER not in onnxruntime.get_available_providers():
        raise UnavailableError(f"onnxruntime {onnxruntime.__version__} is built without {PROVIDER}", INSTALL)
    library = onnxruntime_library()
    if not has_cuda(library):
        raise UnavailableError(f"the operator library {library} has no CUDA kernels", BUILD_WITH_CUDA)
    compute_capability()
    return library


def open_cuda_session(graph: onnx.ModelProto) -> onnxruntime.InferenceSession:
    """A session whose operators run on the first GPU; the read runs in maskring's kernel.

    Raises:
        UnavailableError: when the provider cannot be used; the session never falls back to the CPU.
    """
    library = require_cuda()
    providers: Providers = [(PROVIDER, SETTINGS), "CPUExecutionProvider"]
    onnxruntime.set_default_logger_severity(_SILENT)  # the error below says what is missing
    try:
        with contextlib.redirect_stdout(io.StringIO()):  # it prints what it does not find
            getattr(onnxruntime, "preload_dlls", lambda: None)()  # of NVIDIA's Python packages; new in 1.21
        session = open_session(graph, 0, library=library, providers=providers)
    finally:
        onnxruntime.set_default_logger_severity(_WARNINGS)
    if PROVIDER not in session.get_providers():
        raise UnavailableError(f"onnxruntime cannot start {PROVIDER} ({_missing_library()})", INSTALL)
    return session


def _missing_library() -> str:
    """Why the provider's library does not load, in the loader's words."""
    folder = Path(onnxruntime.__file__).parent / "capi"
    for name in ("libonnxruntime_providers_shared.so", "libonnxruntime_providers_cuda.so"):
        try:
            ctypes.CDLL(str(folder / name), ctypes.RTLD_GLOBAL)
        except OSError as error:
            return " ".join(str(error).split())
    return "its libraries load, so look at the driver's version with nvidia-smi"


class PrimaryContext:
    """The GPU's primary context, which onnxruntime and the makers of frames share.

    Raises:
        UnavailableError: when there is no driver or no GPU.
    """

    _ORDINAL_OF_POINTER = 9  # CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL

    def __init__(self, driver: Any) -> None:
        self._driver = driver
        self._context = ctypes.c_void_p()
        driver.cuInit(0)
        if driver.cuDevicePrimaryCtxRetain(ctypes.byref(self._context), 0):
            raise UnavailableError("the GPU's context cannot be used", "check the GPU with nvidia-smi")

    def can_read(self, address: int) -> bool:
        """Whether an address belongs to memory of this GPU."""
        ordinal = ctypes.c_int(-1)
        with self._current():
            refused = self._driver.cuPointerGetAttribute(
                ctypes.byref(ordinal), self._ORDINAL_OF_POINTER, ctypes.c_ulonglong(address)
            )
        return not refused and ordinal.value == 0

    def finish(self, stream: int) -> bool:
        """Wait for the work of a stream; False when the driver does not know it."""
        with self._current():
            return not self._driver.cuStreamSynchronize(ctypes.c_void_p(stream))

    @contextlib.contextmanager
    def _current(self) -> Any:
        self._driver.cuCtxPushCurrent_v2(self._context)
        try:
            yield
        finally:
            self._driver.cuCtxPopCurrent_v2(ctypes.byref(ctypes.c_void_p()))

    def release(self) -> None:
        """Let go of the context. Doing so twice does nothing."""
        if self._context:
            self._context = ctypes.c_void_p()
            self._driver.cuDevicePrimaryCtxRelease_v2(0)
