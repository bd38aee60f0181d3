"""What ``maskring doctor`` says of installations that are broken, and what a command says there."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from maskring import doctor
from maskring.common import machine
from maskring.common.errors import UnavailableError
from maskring.common.libraries import import_failure

BROKEN = {
    "an image without a desktop": (
        "libGL.so.1: cannot open shared object file: No such file or directory",
        ("libGL.so.1", "apt-get install libgl1", "opencv-python-headless"),
    ),
    "no GLib": (
        "libgthread-2.0.so.0: cannot open shared object file: No such file or directory",
        ("libgthread-2.0.so.0", "apt-get install libglib2.0-0"),
    ),
    "JetPack's OpenCV with NumPy 2": ("numpy.core.multiarray failed to import", ("NumPy 1", "numpy<2")),
    "no CUDA": (
        "libcudart.so.12: cannot open shared object file: No such file or directory",
        ("libcudart.so.12", "CUDA toolkit of version 12", "LD_LIBRARY_PATH"),
    ),
    "no TensorRT": (
        "libnvinfer.so.10: cannot open shared object file: No such file or directory",
        ("libnvinfer.so.10", "maskring[gpu]", "nvidia-jetpack"),
    ),
    "no driver": (
        "libcuda.so.1: cannot open shared object file: No such file or directory",
        ("libcuda.so.1", "NVIDIA's driver", "--gpus all"),
    ),
}
"""What importing OpenCV says there, and what a user has to read."""


def with_opencv(code: str, folder: Path, *words: str | Path) -> subprocess.CompletedProcess[str]:
    """Run a command where ``import cv2`` runs ``code``."""
    (folder / "cv2").mkdir()
    (folder / "cv2" / "__init__.py").write_text(code)
    paths = os.pathsep.join(filter(None, (str(folder), os.environ.get("PYTHONPATH"))))
    environment = {**os.environ, "PYTHONPATH": paths, "COLUMNS": "400"}
    command = [sys.executable, "-m", "maskring", *map(str, words)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=1800, check=False)


@pytest.mark.parametrize(("said", "expected"), BROKEN.values(), ids=BROKEN)
def test_what_is_missing_is_named_with_its_package(said: str, expected: tuple[str, ...]) -> None:
    for kind in (ImportError, OSError):  # the latter from ctypes
        failure = import_failure(kind(said))
        assert failure is not None
        assert all(word in str(failure) for word in expected), str(failure)


def test_other_failures_are_not_explained() -> None:
    assert import_failure(ImportError("cannot import name 'a' from 'b'")) is None


@pytest.mark.parametrize("case", ["an image without a desktop", "JetPack's OpenCV with NumPy 2"])
def test_doctor_and_commands_say_it(case: str, tmp_path: Path) -> None:
    said, expected = BROKEN[case]
    code = f"raise ImportError({said!r})"
    (tmp_path / "a").mkdir()
    done = with_opencv(code, tmp_path / "a", "doctor")
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert all(word in done.stdout for word in expected), done.stdout
    (tmp_path / "b").mkdir()
    done = with_opencv(
        code, tmp_path / "b", "track", "clip.mp4", "--mask", "mask.png", "--out", tmp_path / "o"
    )
    assert done.returncode == 2 and len(done.stderr.splitlines()) == 1, done.stderr
    assert all(word in done.stderr for word in expected), done.stderr


BUILT_FOR_NUMPY_1 = """
import sys
import numpy
if numpy.__version__ < "2":
    sys.stderr.write("a warning of many lines\\n" * 30)
else:  # what a binary module built for NumPy 1 reads; NumPy says what it thinks of that
    try:
        from numpy.core import _multiarray_umath
        _multiarray_umath._ARRAY_API
    except ImportError:
        sys.excepthook(*sys.exc_info())
raise ImportError("numpy.core.multiarray failed to import")
"""


def test_numpys_own_warning_is_not_repeated(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    done = with_opencv(BUILT_FOR_NUMPY_1, tmp_path / "a", "doctor")
    assert done.returncode == 1 and "numpy<2" in done.stdout and not done.stderr
    (tmp_path / "b").mkdir()
    words = ("track", "clip.mp4", "--mask", "mask.png", "--out", tmp_path / "o")
    done = with_opencv(BUILT_FOR_NUMPY_1, tmp_path / "b", *words)
    assert done.returncode == 2 and len(done.stderr.splitlines()) == 1 and "numpy<2" in done.stderr


def test_what_a_package_says_of_another_problem_stays(tmp_path: Path) -> None:
    code = "import sys\nsys.stderr.write('a hint\\n')\nraise ImportError('cannot import name a from b')"
    done = with_opencv(code, tmp_path, "track", "clip.mp4", "--mask", "mask.png", "--out", tmp_path / "o")
    assert done.returncode != 0 and "a hint" in done.stderr


def test_a_hidden_opencv_of_the_system_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """JetPack's OpenCV has GStreamer; the one that pip installs over it has not."""
    (tmp_path / "dist-packages" / "cv2").mkdir(parents=True)
    monkeypatch.setattr(doctor, "SYSTEM_PACKAGES", (str(tmp_path / "dist-packages"),))
    (hidden,) = (f for f in doctor.examine() if f.part == "OpenCV of the system")
    assert hidden.state == "optional" and str(tmp_path / "dist-packages" / "cv2") in hidden.detail
    assert "pip uninstall" in hidden.remedy
    imported = tmp_path / "dist-packages" / "cv2" / "__init__.py"
    assert not [f for f in doctor._other_opencvs(imported) if f.part == "OpenCV of the system"]


def test_opencvs_that_overwrite_each_other_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    installed = ("opencv-python", "opencv-contrib-python-headless")
    monkeypatch.setattr(doctor, "_is_installed", installed.__contains__)
    (both,) = (f for f in doctor.examine() if f.part == "OpenCV, once")
    assert all(name in both.detail and name in both.remedy for name in installed)


def test_onnxruntimes_that_overwrite_each_other_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "installed_packages", lambda: {"onnxruntime": "1", "onnxruntime-gpu": "1"})
    (both,) = doctor._both_onnxruntimes()
    assert "onnxruntime and onnxruntime-gpu" in both.detail
    assert "uninstall" in both.remedy and "onnxruntime-gpu" in both.remedy
    monkeypatch.setattr(doctor, "installed_packages", lambda: {"onnxruntime-gpu": "1"})
    assert not list(doctor._both_onnxruntimes())


@pytest.mark.parametrize(
    ("installed", "used"),
    [
        ((), None),
        (("pycuda",), "pycuda"),
        (("cuda-bindings",), "cuda-bindings"),
        (("pycuda", "cuda-bindings"), "cuda-bindings"),
    ],
)
def test_the_package_that_calls_the_driver_is_named(
    installed: tuple[str, ...], used: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor, "_version", lambda name: "1.2" if name in installed else None)
    finding = doctor._cuda_package()
    missing = doctor.missing_parts([finding])["run engines for RTX cards"]
    if used is None:
        assert finding.state == "optional" and "pip install cuda-bindings" in finding.remedy
        assert finding.part in missing
    else:
        assert (finding.state, finding.detail) == ("ok", f"{used} 1.2")
        assert finding.part not in missing


@pytest.mark.parametrize(
    ("known", "built", "told"), [(12040, (13, 0), True), (13000, (13, 1), False), (13000, None, False)]
)
def test_a_driver_older_than_the_kernels_cuda_is_named(
    known: int, built: tuple[int, int] | None, told: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Driver:
        def cuDriverGetVersion(self, version: Any) -> int:
            version._obj.value = known
            return 0

    monkeypatch.setattr(machine, "cuda_driver", Driver)
    monkeypatch.setattr(doctor, "library_path", lambda: Path("libplugin.so"))
    monkeypatch.setattr(doctor, "onnxruntime_library", lambda: Path("liboperator.so"))
    monkeypatch.setattr(
        doctor, "cuda_runtime", lambda library: built if library.stem == "libplugin" else None
    )
    found = list(doctor._outdated_driver())
    assert bool(found) == told
    if found:
        (finding,) = found
        assert "13.0" in finding.detail and "12.4" in finding.detail
        assert "580" in finding.remedy and "toolkit 12" in finding.remedy


def test_without_a_driver_its_age_is_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    def none() -> None:
        raise UnavailableError("this machine has no NVIDIA driver", "install one")

    monkeypatch.setattr(machine, "cuda_driver", none)
    assert not list(doctor._outdated_driver())


def test_an_ffmpeg_that_cannot_be_loaded_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    said, expected = BROKEN["an image without a desktop"]

    def fails(name: str, package: str | None = None) -> Any:
        raise ImportError(said)

    monkeypatch.setattr(doctor, "import_module", fails)
    (finding,) = doctor._ffmpeg()
    assert finding.state == "missing" and expected[0] in finding.detail and expected[1] in finding.remedy
    assert finding.part in doctor.missing_parts(list(doctor.examine()))["track on a CPU (onnxruntime)"]


def test_an_ffmpeg_without_an_encoder_of_h264_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    import av

    monkeypatch.setattr(av, "codecs_available", {"mpeg4"})
    ffmpeg, encoder = doctor._ffmpeg()
    assert (ffmpeg.state, encoder.state) == ("ok", "optional") and "pip install av" in encoder.remedy
