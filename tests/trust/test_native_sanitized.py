"""The native library compiled with AddressSanitizer and UBSan, on random and extreme problems."""

from __future__ import annotations

import hashlib
import platform
import subprocess
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from compilers import compiler
from once import alone

HERE = Path(__file__).resolve().parent
SOURCES = HERE.parents[1] / "plugins" / "windowed_affinity" / "cpu"
BUILDS = HERE.parents[1] / "build" / "native_sanitized"
FLAGS = ["-std=c++20", "-O1", "-g", "-pthread", "-ffp-contract=fast", "-fno-math-errno", f"-I{SOURCES}"]
SANITIZERS = ["-fsanitize=address,undefined", "-fno-sanitize-recover=undefined"]
INSTRUCTIONS = {
    "kernels_avx512.cpp": "-mavx512f -mavx512bw -mavx512dq -mavx512vl -mfma -mprefer-vector-width=512",
    "kernels_avx2.cpp": "-mavx2 -mfma",
}
X86 = platform.machine() in ("x86_64", "AMD64")
OTHER_MACHINES = {"kernels_neon.cpp"} if X86 else INSTRUCTIONS.keys()


@pytest.fixture(scope="session")
def sweep() -> Path:
    """The library and the program that drives it, compiled once for the sources as they are."""
    tool = compiler(*SANITIZERS)
    if tool is None:
        pytest.skip(f"no g++ or clang that compiles, links and runs a program with {SANITIZERS[0]}")
    names = [path.name for path in SOURCES.glob("*.cpp") if path.name not in OTHER_MACHINES]
    sources = [SOURCES / name for name in sorted(names) if name != "module.cpp"]
    sources.append(HERE.parent / "tools" / "native_sweep" / "sweep.cpp")
    texts = [path.read_text() for path in [*sources, *sorted(SOURCES.glob("*.[hi]*"))]]
    digest = hashlib.sha256("\0".join([tool, *FLAGS, *SANITIZERS, *texts]).encode()).hexdigest()[:16]
    program = BUILDS / f"sweep-{digest}"
    with alone(program) as missing, tempfile.TemporaryDirectory(dir=BUILDS) as folder:
        if missing:
            build(tool, sources, Path(folder) / "sweep").rename(program)
    return program


def build(tool: str, sources: list[Path], program: Path) -> Path:
    def compiled(source: Path) -> str:
        made = program.with_name(f"{source.stem}.o")
        flags = [*FLAGS, *SANITIZERS, *INSTRUCTIONS.get(source.name, "").split()]
        subprocess.run([tool, *flags, "-c", str(source), "-o", str(made)], check=True)
        return str(made)

    with ThreadPoolExecutor(2) as pool:
        objects = list(pool.map(compiled, sources))
    subprocess.run([tool, *FLAGS, *SANITIZERS, *objects, "-o", str(program)], check=True)
    return program


def run(program: Path, seed: int, cases: int) -> None:
    result = subprocess.run(
        [str(program), str(seed), str(cases)], capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr[:4000]
    assert result.stdout == f"{cases} cases\n"


def test_sample(sweep: Path) -> None:
    run(sweep, 1, 150)


@pytest.mark.slow
def test_many(sweep: Path) -> None:
    for seed in range(2, 12):
        run(sweep, seed, 1000)
