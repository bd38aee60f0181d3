"""Builds of the TensorRT plugin: with the C++ tests of ``tensorrt_cpp``, and by CMake."""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from cuda_on_cpu.fibers import emulator
from once import alone

REPOSITORY = Path(__file__).resolve().parents[2]
SOURCES = REPOSITORY / "plugins" / "windowed_affinity"
TEST_SOURCES = REPOSITORY / "tests" / "tools" / "tensorrt_cpp"
WARNINGS = ("-Wall", "-Wextra", *(["-Werror"] if emulator.WERROR else []))
ARCHITECTURE = "87"


def cases(name: str) -> list[str]:
    """Names of the tests in a C++ file."""
    return re.findall(r"^TEST\((\w+)\)", (TEST_SOURCES / name).read_text(), re.MULTILINE)


def run(*command: str | Path, **more: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, check=False, capture_output=True, text=True, timeout=1800, **more)


def build_with_plugin(
    program: Path, headers: Path, tests: list[str], flags: Sequence[str], objects: Sequence[Path] = ()
) -> None:
    """Compile the plugin with files of ``tensorrt_cpp``, a double of the CUDA runtime and object files."""
    compiler = emulator.compiler_for(flags)
    if compiler is None:
        pytest.skip(emulator.lacks(flags))
    command = [compiler, "-std=c++20", "-pthread", *WARNINGS, "-Wno-missing-field-initializers", *flags]
    command += ['-DMASKRING_VERSION="0"', f"-I{SOURCES}", f"-isystem{headers}"]
    command += [f"-isystem{folder}" for folder in emulator.cuda_headers()]
    files = [
        *(TEST_SOURCES / name for name in (*tests, "cuda_double.cpp")),
        *(SOURCES / "tensorrt").glob("*.cpp"),
    ]
    built = run(*command, *files, *objects, "-o", program)
    assert built.returncode == 0, built.stderr


def configured(build: Path, preset: str, *options: str, tensorrt: str = "") -> str:
    """What CMake says about a preset."""
    environment = os.environ | {"TENSORRT_ROOT": tensorrt}
    command = [
        "cmake",
        "--preset",
        preset,
        "-B",
        str(build),
        f"-DPython_EXECUTABLE={sys.executable}",
        f"-DMASKRING_WERROR={emulator.WERROR}",
        *options,
    ]
    done = run(*command, cwd=REPOSITORY, env=environment)
    assert done.returncode == 0, done.stderr
    return done.stdout


def lines_about(part: str, output: str) -> list[str]:
    return [line.removeprefix("-- ") for line in output.splitlines() if line.startswith(f"-- {part}: ")]


def plugin_values() -> Path:
    """The program that runs problems through the plugin, with the real kernels executed as C++.

    It is cached under a hash of what it is made of.
    """
    if not emulator.cuda_headers():
        pytest.skip("no CUDA headers: pip install 'maskring[cuda]'")
    double, objects = TEST_SOURCES / "tensorrt_double", emulator.objects()
    read = [*sorted(SOURCES.rglob("*.?pp")), *sorted(TEST_SOURCES.rglob("*.?pp")), *sorted(double.iterdir())]
    texts = [path.read_text() for path in read] + [path.name for path in objects]
    digest = hashlib.sha256("\0".join(texts).encode()).hexdigest()[:16]
    made = REPOSITORY / "build" / "plugin_values" / f"plugin_values-{digest}"
    with alone(made) as missing:
        if missing:
            partial = made.with_suffix(".partial")
            build_with_plugin(partial, double, ["plugin_values.cpp"], ["-O1", "-DMASKRING_ON_CPU"], objects)
            partial.rename(made)
    return made
