"""The machine that a profile was taken on."""

from __future__ import annotations

import os
import platform
import re
import resource
from pathlib import Path

import onnxruntime

from ...common.machine import usable_cores


def peak_memory_mb() -> float:
    """Largest resident size of this process so far, in 10^6 bytes."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 1e6 if platform.system() == "Darwin" else peak * 1024 / 1e6


def machine_note() -> dict[str, str]:
    """The machine, by property. Figures of two runs can be compared only where clocks were fixed."""
    governor = Path("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")
    clocks = governor.read_text().strip() if governor.is_file() else "unknown: the system does not say"
    return {
        "processor": _processor(),
        "cores": str(usable_cores()),
        "clock governor": clocks,
        "load": f"{os.getloadavg()[0]:.1f} over the last minute",
        "onnxruntime": onnxruntime.__version__,
        "system": platform.platform(),
    }


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    match = re.search(r"model name\s*: (.*)", info.read_text()) if info.is_file() else None
    return match.group(1) if match else platform.processor() or platform.machine()
