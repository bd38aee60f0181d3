"""The CPU kernels on processors that are not this one, emulated by QEMU, against the reference."""

from __future__ import annotations

import hashlib
import platform
import shutil
import struct
import subprocess
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from affinity_cases import TOLERANCE, Case, corner_cases, expected_of, inputs_of, random_case
from once import alone

ROOT = Path(__file__).resolve().parents[2]
SOURCES = ROOT / "plugins" / "windowed_affinity" / "cpu"
BUILDS = ROOT / "build" / "other_processors"
FLAGS = ["-std=c++20", "-O3", "-pthread", "-static", "-ffp-contract=fast", "-fno-math-errno", f"-I{SOURCES}"]
X86_FLAGS = {
    "kernels_avx512.cpp": "-mavx512f -mavx512bw -mavx512dq -mavx512vl -mfma -mprefer-vector-width=512",
    "kernels_avx2.cpp": "-mavx2 -mfma",
}
COMMON = ("compute.cpp", "kernels_portable.cpp", "offset_clusters.cpp", "uniform_blocks.cpp")


@dataclass(frozen=True)
class Processor:
    """A processor: the compiler for it, the emulator that is it, and the kernels that it has."""

    machine: str
    compiler: str
    emulator: tuple[str, ...]
    sources: tuple[str, ...]
    kernels: tuple[str, ...]


X86 = ("x86_64", "x86_64-linux-gnu-g++")
PROCESSORS = {
    "x86-64 without AVX2": Processor(*X86, ("qemu-x86_64", "-cpu", "Nehalem"), tuple(X86_FLAGS), ("scalar",)),
    "x86-64 without AVX-512": Processor(
        *X86, ("qemu-x86_64", "-cpu", "Haswell"), tuple(X86_FLAGS), ("avx2", "scalar")
    ),
    "aarch64": Processor(
        "aarch64", "aarch64-linux-gnu-g++", ("qemu-aarch64",), ("kernels_neon.cpp",), ("neon", "scalar")
    ),
}


def program_of(processor: Processor) -> Path:
    """``replay.cpp`` and the kernels for a processor, compiled once for the sources as they are."""
    for tool in (processor.compiler, processor.emulator[0]):
        if shutil.which(tool) is None:
            pytest.skip(f"{tool} is not installed (Debian: g++-aarch64-linux-gnu, qemu-user)")
    sources = [SOURCES / name for name in (*COMMON, *processor.sources)]
    sources.append(ROOT / "tests/tools/native_sweep/replay.cpp")
    texts = [path.read_text() for path in (*sources, *sorted(SOURCES.glob("*.[hi]*")))]
    digest = hashlib.sha256("\0".join([processor.compiler, *FLAGS, *texts]).encode()).hexdigest()[:16]
    program = BUILDS / f"replay-{processor.machine}-{digest}"
    with alone(program) as missing, tempfile.TemporaryDirectory(dir=BUILDS) as folder:

        def compiled(source: Path) -> str:
            made = Path(folder) / f"{source.stem}.o"
            flags = [*FLAGS, *X86_FLAGS.get(source.name, "").split()]
            subprocess.run([processor.compiler, *flags, "-c", source, "-o", made], check=True)
            return str(made)

        if missing:
            with ThreadPoolExecutor(2) as pool:
                objects = list(pool.map(compiled, sources))
            linked = Path(folder) / "replay"
            subprocess.run([processor.compiler, *FLAGS, *objects, "-o", linked], check=True)
            linked.rename(program)
    return program


def written(cases: list[Case]) -> Iterator[bytes]:
    """The cases as ``replay.cpp`` reads them."""
    yield struct.pack("=i", len(cases))
    for case in cases:
        data = inputs_of(case)
        batch, slots, channels, height, width = data.keys.shape
        flags = (data.query.dtype == np.float32) | (data.offsets is not None) << 1
        sizes = (batch, slots, channels, data.values.shape[2], height, width, data.radius, data.top_k, flags)
        yield struct.pack("=9if", *sizes, data.scale)
        yield from (array.tobytes() for array in (data.query, data.keys, data.values, data.dilation))
        yield b"" if data.offsets is None else data.offsets.tobytes()


@pytest.mark.slow  # compiles the kernels, and emulates them
@pytest.mark.parametrize("name", PROCESSORS)
def test_kernels_agree_with_the_reference(name: str) -> None:
    processor = PROCESSORS[name]
    if processor.machine == "x86_64" and platform.machine() != "x86_64":
        pytest.skip("only compiled on x86-64")
    program = program_of(processor)
    cases = corner_cases() + [random_case(seed) for seed in range(30)]
    done = subprocess.run(
        [*processor.emulator, program], input=b"".join(written(cases)), capture_output=True, check=False
    )
    assert done.returncode == 0, done.stderr[:2000]
    output, at = done.stdout, 0
    for case in cases:
        expected = expected_of(case)
        size = expected.size * np.dtype(case.dtype).itemsize
        count, at = struct.unpack_from("=i", output, at)[0], at + 4
        kernels = []
        for _ in range(count):
            kernels.append(output[at : at + 16].rstrip(b"\0").decode())
            out = np.frombuffer(output, case.dtype, expected.size, at + 16).reshape(expected.shape)
            at += 16 + size
            assert np.abs(out - expected).max() <= TOLERANCE[case.dtype], (case, kernels[-1])
        assert tuple(kernels) == processor.kernels
    assert at == len(output)
