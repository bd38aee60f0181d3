"""The operator library for onnxruntime in two forms that only tests use.

Both are cached in ``build/operator_library`` under a hash of what they are made of.
"""

from __future__ import annotations

import hashlib
import platform
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

import pytest
from compilers import compiler
from cuda_on_cpu.fibers import emulator
from once import alone

REPOSITORY = Path(__file__).resolve().parents[2]
SOURCES = REPOSITORY / "plugins" / "windowed_affinity"
BUILDS = REPOSITORY / "build" / "operator_library"
SANITIZERS = ("-fsanitize=address,undefined", "-fno-sanitize-recover=undefined", "-g")
FLAGS = ("-std=c++20", "-shared", "-fPIC", "-O1", "-pthread", f"-I{SOURCES}")
CPU_SOURCES = ("compute.cpp", "offset_clusters.cpp", "uniform_blocks.cpp", "kernels_portable.cpp")
X86 = platform.machine() in ("x86_64", "AMD64")
DISPATCHED = (
    {
        "kernels_avx512.cpp": "-mavx512f -mavx512bw -mavx512dq -mavx512vl -mfma -mprefer-vector-width=512",
        "kernels_avx2.cpp": "-mavx2 -mfma",
    }
    if X86
    else {"kernels_neon.cpp": ""}
)


def sanitized() -> Path:
    """The library for CPUs with AddressSanitizer and UBSan inside."""
    tool = compiler(*SANITIZERS, names=("g++",))  # whose runtime `address_sanitizer` finds
    if tool is None:
        pytest.skip(f"no g++ that compiles, links and runs a program with {SANITIZERS[0]}")
    return _library("sanitized", tool, SANITIZERS, [SOURCES / "onnxruntime" / "operator.cpp"])


def address_sanitizer() -> str:
    """What ``LD_PRELOAD`` names for a Python that loads :func:`sanitized`.

    That is the sanitizer's runtime, and libstdc++, whose throw the runtime wraps.
    """

    def found(name: str) -> str:
        asked = ["g++", f"-print-file-name={name}"]
        return subprocess.run(asked, check=True, capture_output=True, text=True).stdout.strip()

    return " ".join(map(found, ("libasan.so", "libstdc++.so")))


def emulated() -> Path:
    """The library with CUDA, whose CPU provider executes the operator of the CUDA provider on emulated kernels.

    The emulated GPU has compute capability 8.6.
    """
    tool = emulator.compiler_for()
    if tool is None or not emulator.cuda_headers():
        pytest.skip("no C++ compiler, or no CUDA headers: pip install 'maskring[cuda]'")
    flags = ["-DMASKRING_ON_CPU", "-DMASKRING_WITH_CUDA"]
    flags += [f"-isystem{folder}" for folder in emulator.cuda_headers()]
    sources = [SOURCES / "onnxruntime" / name for name in ("operator.cpp", "cuda_kernel.cpp", "c_api.cpp")]
    sources.append(REPOSITORY / "tests" / "tools" / "tensorrt_cpp" / "cuda_double.cpp")
    return _library("emulated", tool, flags, sources, emulator.objects(("-O1", "-fPIC")))


def _library(
    name: str, tool: str, flags: Sequence[str], sources: Sequence[Path], objects: Sequence[Path] = ()
) -> Path:
    """A shared library of the CPU kernels and ``sources``."""
    sources = [*sources, *(SOURCES / "cpu" / each for each in (*CPU_SOURCES, *DISPATCHED))]
    read = [*sources, *sorted(SOURCES.rglob("*.[hi]*"))]
    texts = [path.read_text() for path in read] + [path.name for path in objects]
    digest = hashlib.sha256("\0".join([tool, *FLAGS, *flags, *texts]).encode()).hexdigest()[:16]
    made = BUILDS / f"lib{name}-{digest}.so"
    with alone(made) as missing, tempfile.TemporaryDirectory(dir=BUILDS) as folder:
        if missing:
            parts = [_compiled(tool, [*FLAGS, *flags], source, Path(folder)) for source in sources]
            linked = Path(folder) / made.name
            command = [tool, *FLAGS, *flags, *parts, *objects, "-o", linked]
            subprocess.run(command, check=True)
            linked.rename(made)
    return made


def _compiled(tool: str, flags: Sequence[str], source: Path, folder: Path) -> Path:
    made = folder / f"{source.stem}.o"
    extra = DISPATCHED.get(source.name, "").split()
    linking = {"-shared"}
    command = [tool, *(flag for flag in flags if flag not in linking), *extra, "-c", source, "-o", made]
    subprocess.run(command, check=True)
    return made
