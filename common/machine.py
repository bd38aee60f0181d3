"""Cores and GPUs that this process may use."""

from __future__ import annotations

import contextlib
import ctypes
import math
import os
from pathlib import Path
from typing import Any

from .errors import UnavailableError, UserError

NEEDS_GPU = "install NVIDIA's driver (nvidia-smi must list the GPU), or start the container with --gpus all"
"""Remedy where there is no GPU."""

NEEDS_CUDA_PACKAGE = "run pip install cuda-bindings (or pycuda, which is compiled against a CUDA toolkit)"
"""Remedy where nothing calls NVIDIA's driver. Not maskring's extra: on JetPack pip must not replace TensorRT."""

DRIVER = "nvcuda.dll" if os.name == "nt" else "libcuda.so.1"
"""The driver's library by the name that the loader knows; a toolkit's stub has another one."""

_COMPUTE_CAPABILITY = (75, 76)
"""CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR and _MINOR."""


MAX_THREADS = 1024
"""CPU threads that one process may use: each takes memory of its own."""


def threads_to_use(asked: int) -> int:
    """``asked``, or the number of usable cores where that is 0.

    Raises:
        UserError: when it is negative, or more than :data:`MAX_THREADS`.
    """
    if not 0 <= asked <= MAX_THREADS:
        raise UserError(f"{asked} CPU threads is out of range", f"use 1 to {MAX_THREADS}, or 0 for all cores")
    return asked or usable_cores()


def usable_cores() -> int:
    """CPU cores this process may run on: those it is bound to, and no more than its container's quota."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(cores, cpu_quota() or cores)


def cpu_quota(root: Path = Path("/")) -> int | None:
    """Cores that the CPU quota of this process's control groups amounts to, rounded up; None without one.

    ``docker run --cpus``, Kubernetes' limits and systemd's CPUQuota set it. More threads than that would be
    halted for the rest of each period.

    Args:
        root: where ``proc`` and ``sys`` are mounted.
    """
    groups = root / "sys/fs/cgroup"
    quotas = []
    with contextlib.suppress(OSError):  # not Linux, or /proc is hidden
        for line in (root / "proc/self/cgroup").read_text().splitlines():
            hierarchy, controllers, path = line.split(":", 2)
            group = Path(path.lstrip("/"))
            if hierarchy == "0":  # version 2
                quotas += [_quota_v2(groups / above / "cpu.max") for above in (group, *group.parents)]
            elif "cpu" in controllers.split(","):  # version 1, as JetPack 5 has it
                quotas += [_quota_v1(groups / controllers / above) for above in (group, *group.parents)]
    return min((math.ceil(quota) for quota in quotas if quota), default=None)


def _quota_v2(file: Path) -> float | None:
    try:
        quota, period = file.read_text().split()
        return None if quota == "max" else int(quota) / int(period)
    except (OSError, ValueError, ZeroDivisionError):
        return None


def _quota_v1(folder: Path) -> float | None:
    try:
        quota = int((folder / "cpu.cfs_quota_us").read_text())
        return None if quota <= 0 else quota / int((folder / "cpu.cfs_period_us").read_text())
    except (OSError, ValueError, ZeroDivisionError):
        return None


def cuda_driver() -> Any:
    """NVIDIA's driver, ``libcuda``, loaded by ctypes.

    Raises:
        UnavailableError: when this machine has none.
    """
    try:
        return ctypes.CDLL(DRIVER)
    except OSError as error:
        raise UnavailableError("this machine has no NVIDIA driver", NEEDS_GPU) from error


def compute_capability() -> str:
    """Compute capability of the first NVIDIA GPU, as ``sm86``; asks the driver and creates no context.

    Raises:
        UnavailableError: when there is no driver or no GPU.
    """
    driver = cuda_driver()
    handle, value = ctypes.c_int(), ctypes.c_int()
    if error := driver.cuInit(0) or driver.cuDeviceGet(ctypes.byref(handle), 0):
        words = driver_words(driver, error)
        raise UnavailableError(f"NVIDIA's driver finds no GPU 0 ({words})", NEEDS_GPU)
    version = []
    for attribute in _COMPUTE_CAPABILITY:
        if error := driver.cuDeviceGetAttribute(ctypes.byref(value), attribute, handle):
            words = driver_words(driver, error)
            raise UnavailableError(f"NVIDIA's driver cannot query GPU 0 ({words})", NEEDS_GPU)
        version.append(str(value.value))
    return "sm" + "".join(version)


def cuda_of_driver() -> tuple[int, int]:
    """The newest CUDA version that NVIDIA's driver knows, as (12, 4).

    Raises:
        UnavailableError: when this machine has no driver, or it does not answer.
    """
    driver = cuda_driver()
    version = ctypes.c_int()
    if error := driver.cuDriverGetVersion(ctypes.byref(version)):
        words = driver_words(driver, error)
        raise UnavailableError(f"NVIDIA's driver does not tell its version ({words})", NEEDS_GPU)
    return version.value // 1000, version.value % 1000 // 10


def driver_words(driver: Any, error: int) -> str:
    """The text of an error code that a call of the driver (:func:`cuda_driver`) returned."""
    text = ctypes.c_char_p()
    unknown = driver.cuGetErrorString(error, ctypes.byref(text)) or text.value is None
    return f"error {error}" if unknown else (text.value or b"").decode(errors="replace")
