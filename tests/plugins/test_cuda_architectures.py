"""GPUs that the kernels are compiled for, by version of nvcc."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

PLUGINS = Path(__file__).parents[2] / "plugins"
ALL = re.findall(
    r"\d+", re.findall(r"set\(MASKRING_CUDA_ARCHITECTURES ([\d ]+)", (PLUGINS / "cuda.cmake").read_text())[0]
)


def architectures(tmp_path: Path, version: str, wanted: list[str]) -> set[str]:
    """What CMake is told to compile."""
    script = tmp_path / "print.cmake"
    script.write_text(
        f'include("{PLUGINS}/cuda_architectures.cmake")\n'
        f'maskring_cuda_architectures({version} found {" ".join(wanted)})\nmessage("${{found}}")\n'
    )
    beside = shutil.which("cmake", path=str(Path(sys.executable).parent))
    cmake = beside or shutil.which("cmake")
    assert cmake is not None
    printed = subprocess.run([cmake, "-P", str(script)], capture_output=True, text=True, check=True).stderr
    return set(printed.strip().split(";"))


def runs_on(compiled: set[str], capability: int) -> bool:
    """Whether code for a GPU is there: machine code of its major version, or PTX that the driver compiles."""
    for entry in compiled:
        number, kind = entry.split("-")
        same_major = int(number) // 10 == capability // 10 and int(number) <= capability
        if (kind == "real" and same_major) or (kind == "virtual" and int(number) <= capability):
            return True
    return False


@pytest.mark.parametrize("version", ["12.6.85", "12.8.93", "12.9.86", "13.0.88", "13.2.51"])
@pytest.mark.parametrize("capability", [75, 80, 86, 87, 89, 90, 100, 110, 120, 121])
def test_every_gpu_finds_code(tmp_path: Path, version: str, capability: int) -> None:
    assert runs_on(architectures(tmp_path, version, ALL), capability)


def test_jetson_thor_has_machine_code_of_its_own(tmp_path: Path) -> None:
    assert "110-real" in architectures(tmp_path, "13.0.88", ALL)
    assert "101-real" in architectures(tmp_path, "12.9.86", ALL)
    assert not {"101-real", "110-real", "120-real"} & architectures(tmp_path, "12.6.85", ALL)


def test_one_architecture(tmp_path: Path) -> None:
    assert architectures(tmp_path, "12.6.85", ["87"]) == {"87-real", "87-virtual", "80-virtual"}
    assert architectures(tmp_path, "12.6.85", ["75"]) == {"75-real", "75-virtual"}
