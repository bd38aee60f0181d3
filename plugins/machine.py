"""What this process may use of the machine it runs on."""

from __future__ import annotations

import ctypes
import ctypes.util
import os
from typing import Any

from .errors import UnavailableError, UserError

NEEDS_GPU = "install NVIDIA's driver on a machine with a GPU; nvidia-smi must list it"
"""The remedy where there is no GPU."""

_COMPUTE_CAPABILITY = (75, 76)
"""CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR and _MINOR."""


MOST_THREADS = 1024
"""CPU threads that one process may be asked to use: each takes memory of its own."""


def threads_to_use(asked: int) -> int:
    """CPU threads: as many as ``asked`` for, or all that this process may use where that is 0.

    Raises:
        UserError: when it is negative, or more than :data:`MOST_THREADS`.
    """
    if not 0 <= asked <= MOST_THREADS:
        raise UserError(
            f"{asked} CPU threads are not to be had", f"ask for 1 to {MOST_THREADS}, or 0 for all cores"
        )
    return asked or usable_cores()


def usable_cores() -> int:
    """CPU cores this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def cuda_driver() -> Any:
    """NVIDIA's driver, ``libcuda``, as ctypes has it.

    Raises:
        UnavailableError: when this machine has none.
    """
    name = ctypes.util.find_library("cuda")
    if name is None:
        raise UnavailableError("this machine has no NVIDIA driver", NEEDS_GPU)
    return ctypes.CDLL(name)


def compute_capability(device: int = 0) -> str:
    """Of an NVIDIA GPU, as ``sm86``; asks the driver and makes no context.

    Raises:
        UnavailableError: when there is no driver or no such GPU.
    """
    driver = cuda_driver()
    handle, value = ctypes.c_int(), ctypes.c_int()
    if driver.cuInit(0) or driver.cuDeviceGet(ctypes.byref(handle), device):
        raise UnavailableError(f"NVIDIA's driver finds no GPU number {device}", NEEDS_GPU)
    version = []
    for attribute in _COMPUTE_CAPABILITY:
        if driver.cuDeviceGetAttribute(ctypes.byref(value), attribute, handle):
            raise UnavailableError(f"NVIDIA's driver does not answer for GPU number {device}", NEEDS_GPU)
        version.append(str(value.value))
    return "sm" + "".join(version)
