"""The native library compiled with AddressSanitizer and UBSan, on random and extreme problems."""

from __future__ import annotations

import platform
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
SOURCES = HERE.parents[1] / "plugins" / "windowed_affinity" / "cpu"
FLAGS = ["-std=c++20", "-O1", "-g", "-pthread", "-ffp-contract=fast", "-fno-math-errno", f"-I{SOURCES}"]
SANITIZERS = ["-fsanitize=address,undefined", "-fno-sanitize-recover=undefined"]
INSTRUCTIONS = {
    "kernels_avx512.cpp": "-mavx512f -mavx512bw -mavx512dq -mavx512vl -mfma -mprefer-vector-width=512",
    "kernels_avx2.cpp": "-mavx2 -mfma",
}


@pytest.fixture(scope="module")
def sweep(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The library and the program that drives it."""
    compiler = shutil.which("g++") or shutil.which("clang++")
    if compiler is None:
        pytest.skip("no C++ compiler")
    names = ["compute.cpp", "clusters.cpp", "settled.cpp", "kernels_portable.cpp"]
    names += list(INSTRUCTIONS) if platform.machine() in ("x86_64", "AMD64") else ["kernels_neon.cpp"]
    folder = tmp_path_factory.mktemp("sanitized")

    def compiled(source: Path) -> str:
        made = folder / f"{source.stem}.o"
        flags = [*FLAGS, *SANITIZERS, *INSTRUCTIONS.get(source.name, "").split()]
        subprocess.run([compiler, *flags, "-c", str(source), "-o", str(made)], check=True)
        return str(made)

    with ThreadPoolExecutor(2) as pool:
        objects = list(
            pool.map(
                compiled,
                [*(SOURCES / name for name in names), HERE.parent / "tools" / "native_sweep" / "sweep.cpp"],
            )
        )
    program = folder / "sweep"
    subprocess.run([compiler, *FLAGS, *SANITIZERS, *objects, "-o", str(program)], check=True)
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
