"""``examples/cpp`` compiled against onnxruntime's headers, and run on the shipped checkpoint."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import onnxruntime
import pytest
from compilers import compiler

from maskring.models import resolve_model
from maskring.plugins import onnxruntime_library

SOURCE = Path(__file__).resolve().parents[2] / "examples" / "cpp" / "track.cpp"


def test_the_example_tracks_a_square(tmp_path: Path) -> None:
    root = os.environ.get("ONNXRUNTIME_ROOT")
    if not root:
        pytest.skip("no onnxruntime headers: set ONNXRUNTIME_ROOT to the folder of a release's include/")
    libraries = sorted((Path(onnxruntime.__file__).parent / "capi").glob("libonnxruntime.so.*"))
    tool = compiler()
    if tool is None or not libraries:
        pytest.skip("no C++ compiler, or no libonnxruntime.so in the Python package")
    program, library = tmp_path / "track", libraries[0]
    built = subprocess.run(
        [
            tool,
            "-std=c++20",
            "-O1",
            f"-I{root}/include",
            SOURCE,
            library,
            f"-Wl,-rpath,{library.parent}",
            "-o",
            program,
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert built.returncode == 0, built.stderr
    environment = {**os.environ, "LD_LIBRARY_PATH": str(_by_soname(library, tmp_path))}
    command = [program, resolve_model(Path("pico")), onnxruntime_library()]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    overlaps = [float(number) for number in re.findall(r"square (\S+)", done.stdout)]
    assert len(overlaps) == 7 and min(overlaps) > 0.8, done.stdout


def _by_soname(library: Path, folder: Path) -> Path:
    """A folder with the library under the name that programs ask for."""
    (folder / "libonnxruntime.so.1").symlink_to(library)
    return folder
