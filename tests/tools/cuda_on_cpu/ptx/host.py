"""Compiles the project's kernels with nvcc and runs problems through their own host code.

The host code (dispatch, grids, arguments) is compiled unchanged. ``recorder.cpp`` replaces libcudart and
passes every launch to the interpreter, which executes the PTX of that kernel.
"""

from __future__ import annotations

import ctypes
import hashlib
import importlib.util
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from affinity_cases import Array, Inputs
from once import alone

from ..fibers.emulator import BUILDS, KERNELS, Mutation, keep_rows
from .device import Device
from .errors import PtxError
from .parser import parse
from .program import Kernel

HERE = Path(__file__).resolve().parent
_PTX = ("-std=c++20", "-arch=sm_80", "-lineinfo", "-ptx")
# No machine code: only the host's half of this library is used.
_HOST = (
    "-std=c++20",
    "-gencode=arch=compute_80,code=compute_80",
    "-shared",
    "-cudart=none",
    "-Xcompiler=-fPIC",
)


def nvcc() -> Path | None:
    """nvcc from the pip packages, or from a system toolkit."""
    spec = importlib.util.find_spec("nvidia")
    roots = [Path(p) / "cu13" for p in (spec.submodule_search_locations or [])] if spec else []
    roots.append(Path(os.environ.get("CUDA_HOME", "/usr/local/cuda")))
    return next((root / "bin" / "nvcc" for root in roots if (root / "bin" / "nvcc").is_file()), None)


def compile_ptx(source: Path, include: Iterable[Path] = ()) -> str:
    """The PTX of a CUDA source, recompiled only when a source in its folder changed."""
    texts = [p.read_text() for p in sorted(source.parent.glob("*")) if p.suffix in (".cuh", ".hpp", ".cu")]
    name = f"{source.stem}-{_digest(source.read_text(), *texts, *_PTX)}.ptx"
    return _build(name, [*_PTX, *(f"-I{folder}" for folder in include), str(source)]).read_text()


def _digest(*texts: str) -> str:
    return hashlib.sha256("\0".join(texts).encode()).hexdigest()[:16]


def _build(name: str, arguments: list[str]) -> Path:
    """Runs nvcc unless its result exists. The result gets its name only when it is complete."""
    made = BUILDS / "ptx" / name
    with alone(made) as missing, tempfile.TemporaryDirectory(dir=made.parent) as scratch:
        if missing:
            out = Path(scratch) / name
            command = [str(nvcc()), *arguments, "-o", str(out)]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode != 0:
                raise PtxError("syntax", f"nvcc failed: {done.stderr[-4000:]}")
            out.rename(made)
    return made


class _Problem(ctypes.Structure):
    """``AffinityProblem`` of cuda/launch.hpp."""

    _fields_ = (
        *((name, ctypes.c_int32) for name in ("type", "batch", "slots", "channels", "labels")),
        *((name, ctypes.c_int32) for name in ("height", "width", "radius")),
        ("scale", ctypes.c_float),
        *(
            (name, ctypes.c_void_p)
            for name in ("query", "keys", "values", "dilation", "offsets", "out", "workspace")
        ),
    )


class _Dim3(ctypes.Structure):
    _fields_ = (("x", ctypes.c_uint), ("y", ctypes.c_uint), ("z", ctypes.c_uint))

    def triple(self) -> tuple[int, int, int]:
        return int(self.x), int(self.y), int(self.z)


_CALLBACK = ctypes.CFUNCTYPE(
    ctypes.c_int,
    ctypes.c_char_p,
    ctypes.POINTER(_Dim3),
    ctypes.POINTER(_Dim3),
    ctypes.POINTER(ctypes.c_void_p),
    ctypes.c_size_t,
)


@lru_cache(maxsize=1)
def _host_library() -> ctypes.CDLL:
    sources = [*sorted(KERNELS.glob("*.cu")), KERNELS / "dispatch.cpp", HERE / "recorder.cpp"]
    texts = [path.read_text() for path in [*sources, *sorted(KERNELS.glob("*.[hc]*"))]]
    name = f"host-{_digest(*texts, *_HOST)}.so"
    library = ctypes.CDLL(str(_build(name, [*_HOST, f"-I{KERNELS}", *map(str, sources)])))
    library.configuration_name = library["_ZN8maskring18configuration_nameEi"]  # type: ignore[attr-defined]
    library.configuration_name.restype = ctypes.c_char_p
    return library


def configurations() -> list[str]:
    """Names of the dispatch table's rows, in their order."""
    library = _host_library()
    count = library["_ZN8maskring19configuration_countEv"]()
    return [library.configuration_name(i).decode() for i in range(count)]


@lru_cache(maxsize=8)
def _kernels(family: str) -> dict[str, Kernel]:
    """Kernels of one .cu file."""
    return parse(compile_ptx(KERNELS / f"{family}.cu")).kernels


@lru_cache(maxsize=8)
def _broken_kernels(row: str, mutation: Mutation) -> dict[str, Kernel]:
    """Kernels of one row of the dispatch table, with a planted bug; all rows would take nvcc ten times as long."""
    with tempfile.TemporaryDirectory() as scratch:
        copy = Path(shutil.copytree(KERNELS, Path(scratch) / "kernels"))
        mutation.apply(copy)
        keep_rows(copy, [row])
        return parse(compile_ptx(copy / f"{row.split()[0]}.cu")).kernels


def run(row: str, inputs: Inputs, mutation: Mutation | None = None) -> Array:
    """What a row of the dispatch table computes, executed as PTX.

    Args:
        row: the row's name.
        inputs: in the row's type.
        mutation: a bug to plant in the kernels first.

    Raises:
        PtxError: the kernel's behaviour is undefined, or it left some of the output unwritten.
    """
    library, device = _host_library(), Device()
    kernels = _kernels(row.split()[0]) if mutation is None else _broken_kernels(row, mutation)
    failures: list[PtxError] = []

    def launched(name: bytes, grid: Any, block: Any, arguments: Any, shared: int) -> int:
        try:
            kernel = kernels[name.decode()]
            parameters = np.zeros((kernel.parameter_bytes + 15) // 16 * 16, np.uint8)
            for parameter, pointer in zip(kernel.parameters, arguments, strict=False):
                content = ctypes.string_at(pointer, parameter.size)
                parameters[parameter.offset : parameter.offset + parameter.size] = np.frombuffer(
                    content, np.uint8
                )
            device.launch_raw(kernel, grid[0].triple(), block[0].triple(), parameters, shared)
        except PtxError as error:
            failures.append(error)
            return 1
        return 0

    callback = _CALLBACK(launched)  # must live as long as launches may come
    library.record_launches(callback)
    problem, out = _problem(device, inputs)
    index = configurations().index(row)
    workspace_bytes = library["_ZN8maskring15workspace_bytesEiRKNS_15AffinityProblemE"]
    workspace_bytes.restype = ctypes.c_int64
    if size := workspace_bytes(index, ctypes.byref(problem)):
        problem.workspace = device.allocate(size, "workspace").address
    launch = library["_ZN8maskring6launchEiRKNS_15AffinityProblemEP11CUstream_st"]
    code = launch(index, ctypes.byref(problem), None)
    if failures:
        raise failures[0]
    if code != 0:
        raise PtxError("launch", f"launch() returned {code}")
    shape = (inputs.values.shape[0], *inputs.values.shape[2:])
    return device.download(out, shape, inputs.values.dtype)


def _problem(device: Device, inputs: Inputs) -> tuple[_Problem, Any]:
    """The problem with its tensors uploaded, and the output's buffer."""
    batch, slots, labels = inputs.values.shape[:3]
    channels, height, width = inputs.query.shape[1:]
    out = device.allocate(batch * labels * height * width * inputs.values.itemsize, "out")
    arrays = {
        "query": inputs.query,
        "keys": inputs.keys,
        "values": inputs.values,
        "dilation": inputs.dilation,
    }
    addresses = {name: device.upload(array, name).address for name, array in arrays.items()}
    if inputs.offsets is not None:
        addresses["offsets"] = device.upload(inputs.offsets, "offsets").address
    return (
        _Problem(
            type={"float32": 0, "float16": 1}[inputs.values.dtype.name],
            batch=batch,
            slots=slots,
            channels=channels,
            labels=labels,
            height=height,
            width=width,
            radius=inputs.radius,
            scale=inputs.scale,
            out=out.address,
            **addresses,
        ),
        out,
    )
