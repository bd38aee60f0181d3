"""CMake's part for the CUDA kernels: which nvcc it takes, what it says without one, and the library."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from cuda_on_cpu.fibers import emulator

REPOSITORY = Path(__file__).resolve().parents[2]
PIP_NVCC = [
    nvcc
    for folder in emulator.cuda_headers()
    if (nvcc := folder.parent / "bin" / "nvcc").is_file() and "cu13" in str(nvcc)
]
needs_pip_nvcc = pytest.mark.skipif(not PIP_NVCC, reason="no nvcc from pip install 'maskring[cuda]'")


def configure(folder: Path, *options: str, **variables: str) -> list[str]:
    """The lines of a configuration that name the CUDA kernels."""
    programs = Path(sys.executable).parent
    environment = {**os.environ, "PATH": f"{programs}:{os.environ['PATH']}", **variables}
    command = [
        "cmake",
        "-G",
        "Ninja",
        "-S",
        str(REPOSITORY),
        "-B",
        str(folder),
        "-DMASKRING_TENSORRT=OFF",
        f"-DMASKRING_WERROR={emulator.WERROR}",
        *options,
    ]
    command.append(f"-DPython_EXECUTABLE={sys.executable}")
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=1800, check=False)
    assert done.returncode == 0, done.stderr
    return [line for line in done.stdout.splitlines() if "CUDA kernels" in line]


def test_without_nvcc_one_line_says_what_is_skipped(tmp_path: Path) -> None:
    (line,) = configure(tmp_path, CUDACXX="/nowhere/nvcc")
    assert re.search(r"CUDA kernels: skipped, no nvcc found \(.*pip install 'maskring\[cuda\]'\)", line)


def test_switched_off_is_said_too(tmp_path: Path) -> None:
    (line,) = configure(tmp_path, "-DMASKRING_CUDA=OFF")
    assert "CUDA kernels: skipped, MASKRING_CUDA is OFF" in line


@needs_pip_nvcc
def test_nvcc_from_pip_serves_without_a_system_toolkit(tmp_path: Path) -> None:
    (line,) = configure(tmp_path, "-DMASKRING_SYSTEM_NVCC=NO")
    assert "/cu13/bin/nvcc for 75-real;" in line


@pytest.mark.slow
@needs_pip_nvcc
def test_the_library_holds_every_architecture(tmp_path: Path) -> None:
    configure(tmp_path, "-DMASKRING_SYSTEM_NVCC=NO")
    programs = Path(sys.executable).parent
    subprocess.run(
        [programs / "cmake", "--build", tmp_path, "--target", "maskring_kernels"], check=True, timeout=1800
    )
    (library,) = tmp_path.rglob("libmaskring_kernels.a")
    (nvcc,) = PIP_NVCC
    listed = [
        subprocess.run(
            [nvcc.with_name("cuobjdump"), what, library], capture_output=True, text=True, check=True
        )
        for what in ("--list-elf", "--list-ptx")
    ]
    assert {75, 80, 86, 87, 89, 90, 100, 110, 120} == {
        int(n) for n in re.findall(r"sm_(\d+)", listed[0].stdout)
    }
    assert {80, 120} == {int(n) for n in re.findall(r"sm_(\d+)", listed[1].stdout)}
