"""The CUDA kernels through their C interface: problems are described by addresses, so no array library is needed.

The kernels are part of the operator library (:mod:`..operator_library`) where that was built with CUDA.
"""

from __future__ import annotations

import ctypes
import functools
import logging
from collections.abc import Sequence
from pathlib import Path

from ...common.errors import UnavailableError
from ..operator_library import has_cuda, onnxruntime_library

log = logging.getLogger(__name__)

ALIGNMENT = 16
"""Bytes: each tensor must begin at a multiple of it."""

ELEMENT_TYPES = {"float32": 0, "float16": 1}


class Problem(ctypes.Structure):
    """One call of the operator; ``AffinityProblem`` of ``cuda/launch.hpp`` says what the fields mean.

    Tensors are dense and given by their device addresses; ``offsets`` may be None. ``workspace`` is scratch
    memory of :meth:`CudaKernels.workspace_bytes`, aligned to 256 bytes.
    """

    _fields_ = (
        *((name, ctypes.c_int32) for name in ("type", "batch", "slots", "channels", "labels")),
        *((name, ctypes.c_int32) for name in ("height", "width", "radius")),
        ("scale", ctypes.c_float),
        *((name, ctypes.c_void_p) for name in ("query", "keys", "values", "dilation", "offsets", "out")),
        ("workspace", ctypes.c_void_p),
    )


class CudaKernels:
    """The kernels of one library.

    Args:
        path: of a library with the C interface.

    Attributes:
        names: of the rows of its dispatch table, fastest first.

    Raises:
        UnavailableError: if the library cannot be loaded, has no CUDA kernels or another interface.
    """

    def __init__(self, path: Path) -> None:
        try:
            self._library = ctypes.CDLL(str(path))
            problem_bytes = self._library.maskring_cuda_problem_bytes()
            workspace_bytes = self._library.maskring_cuda_workspace_bytes
        except (OSError, AttributeError) as error:
            raise UnavailableError(
                f"{path} has no CUDA kernels ({error})",
                "install a CUDA toolkit and reinstall maskring from source (docs/kernels.md)",
            ) from error
        if problem_bytes != ctypes.sizeof(Problem):
            raise UnavailableError(
                f"{path} belongs to another version of maskring", "reinstall maskring from source"
            )
        for name in ("maskring_cuda_row_name", "maskring_cuda_error"):
            getattr(self._library, name).restype = ctypes.c_char_p
        workspace_bytes.restype = ctypes.c_int64
        rows: int = self._library.maskring_cuda_rows()
        self.names: Sequence[str] = [
            self._library.maskring_cuda_row_name(row).decode() for row in range(rows)
        ]

    def choose(self, problem: Problem, sm: int) -> int | None:
        """The row that is expected to be fastest on compute capability ``sm`` (86 = 8.6), None if none can."""
        row: int = self._library.maskring_cuda_choose(ctypes.byref(problem), sm, None)
        return None if row < 0 else row

    def reason_against(self, row: int, problem: Problem, sm: int) -> str | None:
        """Why a row does not support a problem, as "problem; remedy"; None if it does."""
        reason = ctypes.c_char_p()
        if self._library.maskring_cuda_can_run(row, ctypes.byref(problem), sm, ctypes.byref(reason)):
            return None
        return (reason.value or b"").decode()

    def workspace_bytes(self, row: int, problem: Problem) -> int:
        """Size of the scratch memory that a row needs."""
        size: int = self._library.maskring_cuda_workspace_bytes(row, ctypes.byref(problem))
        return size

    def launch(self, row: int, problem: Problem, stream: int) -> None:
        """Launch a row that supports the problem on the current GPU.

        Args:
            row: from :meth:`choose`.
            problem: with ``workspace``; its tensors and its workspace must stay until the stream has run the
                kernels.
            stream: handle of a CUDA stream, 0 for the default one.

        Raises:
            RuntimeError: if CUDA reports an error.
        """
        if error := self._library.maskring_cuda_launch(row, ctypes.byref(problem), ctypes.c_void_p(stream)):
            text = self._library.maskring_cuda_error(error).decode()
            raise RuntimeError(
                f"kernel {self.names[row]} failed ({text}); look for an earlier CUDA error in this process"
            )


@functools.cache
def installed_kernels() -> CudaKernels | None:
    """The kernels of the operator library; None where it was built without CUDA, or not at all.

    A library that was built with CUDA and cannot be used is told in the log, since what runs instead is slower.
    """
    try:
        library = onnxruntime_library()
    except UnavailableError:
        return None
    try:
        return CudaKernels(library) if has_cuda(library) else None
    except UnavailableError as error:
        log.warning("the compiled CUDA kernels are not used: %s; %s", error.problem, error.remedy)
        return None
