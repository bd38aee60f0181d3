"""CMake builds the plugin library, or says in one line why it is skipped."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest
from plugin_builds import configured, lines_about, run


def test_what_is_not_wanted_is_skipped_with_one_line(tmp_path: Path) -> None:
    output = configured(tmp_path, "cpu")
    assert lines_about("CUDA kernels", output) == ["CUDA kernels: skipped, MASKRING_CUDA is OFF"]
    assert lines_about("TensorRT plugin", output) == ["TensorRT plugin: skipped, MASKRING_TENSORRT is OFF"]


def test_what_cannot_be_built_is_skipped_with_one_line(tmp_path: Path) -> None:
    headers = tmp_path / "tensorrt" / "include"
    headers.mkdir(parents=True)
    (headers / "NvInferRuntime.h").touch()
    version = "#define NV_TENSORRT_MAJOR 10 //!< major\n#define NV_TENSORRT_MINOR 2 //!< minor\n"
    (headers / "NvInferVersion.h").write_text(version)
    output = configured(tmp_path / "build", "all", tensorrt=str(headers.parent))
    (line,) = lines_about("TensorRT plugin", output)
    if "skipped" in lines_about("CUDA kernels", output)[0]:
        assert line.startswith("TensorRT plugin: skipped") and "CUDA kernels" in line
    else:
        assert line.startswith("TensorRT plugin: skipped")
        assert str(headers) in line and "TensorRT 10.2" in line and "10.3 or newer" in line


def test_version_of_every_kind_of_header_is_read(tmp_path: Path, tensorrt_root: Path) -> None:
    (line,) = lines_about("TensorRT plugin", configured(tmp_path, "all", tensorrt=str(tensorrt_root)))
    text = (tensorrt_root / "include" / "NvInferVersion.h").read_text()
    major, minor = (re.findall(rf"define \w+_{part}\w* +(\d+)", text)[0] for part in ("MAJOR", "MINOR"))
    assert line == f"TensorRT plugin: for TensorRT {major}.{minor} ({tensorrt_root / 'include'})"


def test_the_library_exports_what_is_looked_up_and_nothing_else(built_library: Path) -> None:
    if shutil.which("nm") is None:
        pytest.skip("no nm (binutils)")
    symbols = {
        line.split()[-1] for line in run("nm", "-D", "--defined-only", built_library).stdout.splitlines()
    }
    ours = {"maskring_tensorrt_major", "maskring_cuda_runtime"}
    assert symbols == {"getCreators", "setLoggerFinder"} | ours
    needed = run("ldd", built_library).stdout
    assert "nvinfer" not in needed and "cudart" not in needed
