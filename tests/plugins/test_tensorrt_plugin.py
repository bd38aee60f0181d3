"""The TensorRT plugin: its virtual functions one by one, and its values with the real kernels.

``tensorrt_cpp/plugin_tests.cpp`` calls the plugin as TensorRT does, under AddressSanitizer, with kernels that
compute nothing. The tests that need NVIDIA's headers look for them in ``TENSORRT_ROOT``.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import plugin_builds
import pytest
from affinity_cases import TOLERANCE, Case, expected_of, inputs_of
from cuda_on_cpu.fibers import emulator
from cuda_on_cpu.kernel_cases import ROWS, Row, cases_of
from plugin_builds import TEST_SOURCES, WARNINGS, build_with_plugin, cases, run

from maskring.plugins import library

SANITIZERS = ("-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-O0", "-g")


# ---- every virtual function, called directly


@pytest.fixture(scope="session", params=["double", "NVIDIA"])
def plugin_tests(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The program of the C++ tests, built against our double of TensorRT's interface or the real headers."""
    if not emulator.cuda_headers():
        pytest.skip("no CUDA headers: pip install 'maskring[cuda]'")
    double = TEST_SOURCES / "tensorrt_double"
    headers = double if request.param == "double" else request.getfixturevalue("tensorrt_root") / "include"
    program = tmp_path_factory.mktemp("plugin") / "plugin_tests"
    build_with_plugin(program, headers, ["plugin_tests.cpp", "launch_double.cpp"], SANITIZERS)
    return program


@pytest.mark.parametrize("case", cases("plugin_tests.cpp"))
def test_virtual_functions(plugin_tests: Path, case: str) -> None:
    done = run(plugin_tests, case)
    assert done.returncode == 0, done.stderr


# ---- from the creator to the values


@pytest.fixture(scope="module")
def plugin_values() -> Path:
    return plugin_builds.plugin_values()


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_every_row_computes_what_the_reference_does(plugin_values: Path, row: Row) -> None:
    tried = cases_of(row)[:3]
    results = emulator.run(plugin_values, row.name, [inputs_of(case) for case in tried]).results
    for case, result in zip(tried, results, strict=True):
        assert np.abs(result - expected_of(case)).max() <= TOLERANCE[case.dtype], case


@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("offsets", [None, 4])
def test_without_a_given_row_the_plugin_chooses(plugin_values: Path, dtype: str, offsets: int | None) -> None:
    case = Case(
        "chosen",
        height=13,
        width=17,
        radius=6,
        dilation=((1, 2, 0),),
        channels=64,
        offsets=offsets,
        dtype=dtype,
    )
    (result,) = emulator.run(plugin_values, None, [inputs_of(case)]).results
    assert np.abs(result - expected_of(case)).max() <= TOLERANCE[dtype]


# ---- a program that opens the library and calls nothing in it


@pytest.fixture(scope="module")
def opened_libraries(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A ``libnvinfer`` that is only a plugin registry, and the plugin library."""
    if not emulator.cuda_headers():
        pytest.skip("no CUDA headers: pip install 'maskring[cuda]'")
    folder, double = tmp_path_factory.mktemp("opened"), TEST_SOURCES / "tensorrt_double"
    shared = ("-shared", "-fPIC")
    build_with_plugin(folder / library.LIBRARY_NAME, double, ["launch_double.cpp"], shared)
    name = "libnvinfer.so.11"
    command = ["g++", "-std=c++20", *WARNINGS, *shared, f"-Wl,-soname,{name}", f"-isystem{double}"]
    command += [f"-isystem{headers}" for headers in emulator.cuda_headers()]
    built = run(*command, TEST_SOURCES / "nvinfer_double.cpp", "-o", folder / name)
    assert built.returncode == 0, built.stderr
    return folder / name, folder / library.LIBRARY_NAME


def opened(libraries: Sequence[Path], **variables: str) -> subprocess.CompletedProcess[str]:
    """A process that opens libraries one after the other, as Triton does its TensorRT backend and plugins."""
    script = f"import ctypes\nfor path in {[str(path) for path in libraries]}: ctypes.CDLL(path)"
    done = run(sys.executable, "-c", script, env=os.environ | variables)
    assert done.returncode == 0, done.stderr
    return done


def test_opened_by_triton_the_library_registers_itself_if_asked(opened_libraries: tuple[Path, Path]) -> None:
    done = opened(opened_libraries, MASKRING_PRELOAD="1")
    assert done.stdout.split() == list(library.PLUGIN) and not done.stderr
    assert opened(opened_libraries).stdout == "", "who uses the registry would find the name taken"
    _, plugin = opened_libraries
    alone = opened([plugin], MASKRING_PRELOAD="1")
    assert "MASKRING_PRELOAD" in alone.stderr and "; build the library with the headers" in alone.stderr
