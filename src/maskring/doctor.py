"""What is installed, what each use of maskring needs, and the command that installs what is missing."""

from __future__ import annotations

import platform
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import import_module, metadata, util
from pathlib import Path
from typing import Literal

from .common.errors import UnavailableError
from .common.libraries import import_failure
from .common.machine import NEEDS_CUDA_PACKAGE, compute_capability, cuda_of_driver, usable_cores
from .plugins.library import cuda_runtime, library_path
from .plugins.operator_library import has_cuda, onnxruntime_library
from .runtime.backends.onnxrt.cuda_packages import INSTALL, installed_packages
from .runtime.backends.trt.driver import DRIVERS
from .runtime.video.encoding import H264_ENCODERS

State = Literal["ok", "optional", "missing"]


@dataclass(frozen=True)
class Finding:
    """One line of the report.

    Attributes:
        part: package, library or device.
        state: ``ok``; ``optional`` = absent, only some uses need it; ``missing`` = absent, tracking needs it.
        detail: version, or why it is absent.
        remedy: what to do, empty when nothing.
    """

    part: str
    state: State
    detail: str
    remedy: str = ""


REQUIRED = ("av", "numpy", "onnx", "onnxruntime", "opencv-python", "pillow", "safetensors")
"""Dependencies of the base install, but for those without which `doctor` does not start."""

OPTIONAL = {
    "torch": "train, import and export checkpoints: pip install 'maskring[train]'",
    "onnxscript": "export checkpoints: pip install 'maskring[train]'",
    "starlette": "work in a browser: pip install 'maskring[studio]'",
    "uvicorn": "work in a browser: pip install 'maskring[studio]'",
    "websockets": "work in a browser: pip install 'maskring[studio]'",
    "tensorrt": "run engines on NVIDIA GPUs: pip install 'maskring[gpu]' (JetPack brings its own)",
    "polygraphy": "profile models, build engines: pip install 'maskring[profile]'",
    "tensorrt-rtx": "build engines for RTX cards, without a GPU: pip install 'maskring[rtx]'",
}
OPENCV_PACKAGES = (
    "opencv-python",
    "opencv-python-headless",
    "opencv-contrib-python",
    "opencv-contrib-python-headless",
)
"""Distributions that all install the module ``cv2``."""

SYSTEM_PACKAGES = ("/usr/lib/python3*/dist-packages", "/usr/local/lib/python3*/dist-packages")
"""Folders in which JetPack, Debian and builds from source install OpenCV."""

STAND_INS = {
    "onnxruntime": ("onnxruntime-gpu",),
    "opencv-python": OPENCV_PACKAGES[1:],
    "tensorrt-rtx": ("tensorrt-rtx-cu13-bindings", "tensorrt-rtx-cu12-bindings"),
}
"""Distributions that contain the same module under another name."""

MODULES = {
    "opencv-python": "cv2",
    "pillow": "PIL",
    "tensorrt-rtx": "tensorrt_rtx",
}
"""Module names that differ from their distribution's."""

CUDA_PACKAGE = "calls to NVIDIA's driver"
"""The part that several distributions can play."""

CUDA_DRIVERS = {12: 525, 13: 580}
"""The oldest Linux driver for each major version of CUDA (NVIDIA's table of minor version compatibility)."""

CAPABILITIES = {
    "track on a CPU (onnxruntime)": (
        *REQUIRED,
        "native CPU kernel",
        "FFmpeg (PyAV)",
        "OpenCV",
        "onnxruntime providers",
    ),
    "refine masks": ("torch",),
    "track with your own checkpoints, train, import, export": ("torch", "onnxscript"),
    "outline and correct in a browser (studio)": ("starlette", "uvicorn", "websockets"),
    "verify exports": ("operator library",),
    "build engines for RTX cards": ("tensorrt-rtx", "polygraphy"),
    "run engines for RTX cards": ("tensorrt-rtx", CUDA_PACKAGE, "NVIDIA driver"),
    "build and run TensorRT engines": (
        "tensorrt",
        CUDA_PACKAGE,
        "polygraphy",
        "TensorRT plugin",
        "NVIDIA driver",
    ),
}
"""Uses of maskring and the parts each one needs."""


def examine() -> list[Finding]:
    """Examine this machine: fast, without importing torch or tensorrt or running anything on a GPU."""
    return [
        Finding("Python", "ok", f"{platform.python_version()} on {platform.machine()}"),
        Finding("CPU cores", "ok", str(usable_cores())),
        *(_required(name) for name in REQUIRED),
        _native_kernel(),
        *_ffmpeg(),
        *_opencv(),
        *_execution_providers(),
        *(_optional(name, use) for name, use in OPTIONAL.items()),
        _cuda_package(),
        _operator_library(),
        *_both_onnxruntimes(),
        _plugin_library(),
        _gpu_driver(),
        *_outdated_driver(),
        _nvcc(),
    ]


def missing_parts(findings: list[Finding]) -> dict[str, list[str]]:
    """For each use, the parts it still needs; an empty list means ready."""
    present = {finding.part for finding in findings if finding.state == "ok"}
    return {use: [part for part in parts if part not in present] for use, parts in CAPABILITIES.items()}


def _version(distribution: str) -> str | None:
    for name in (distribution, *STAND_INS.get(distribution, ())):
        try:
            return metadata.version(name) if name == distribution else f"{metadata.version(name)} ({name})"
        except metadata.PackageNotFoundError:
            continue
    # JetPack and Debian install some modules without package metadata.
    if util.find_spec(MODULES.get(distribution, distribution)) is not None:
        return "installed, version unknown"
    return None


def _required(distribution: str) -> Finding:
    version = _version(distribution)
    if version is None:
        return Finding(distribution, "missing", "not installed", "pip install maskring")
    return Finding(distribution, "ok", version)


def _optional(distribution: str, use: str) -> Finding:
    version = _version(distribution)
    if version is None:
        return Finding(distribution, "optional", "not installed", f"to {use}")
    return Finding(distribution, "ok", version)


def _cuda_package() -> Finding:
    """The package through which engines run: the first that is installed."""
    for distribution in DRIVERS:
        if (version := _version(distribution)) is not None:
            return Finding(CUDA_PACKAGE, "ok", f"{distribution} {version}")
    remedy = f"to run engines on NVIDIA GPUs: {NEEDS_CUDA_PACKAGE}"
    return Finding(CUDA_PACKAGE, "optional", f"neither {' nor '.join(DRIVERS)} is installed", remedy)


def _native_kernel() -> Finding:
    part = "native CPU kernel"
    try:
        kernel = import_module(".plugins.windowed_affinity.cpu_op", __package__)
        return Finding(part, "ok", str(kernel.instruction_set()))
    except ImportError as error:
        return Finding(part, "missing", str(error), "reinstall with a C++20 compiler: pip install maskring")


def _ffmpeg() -> Iterator[Finding]:
    """FFmpeg reads and writes videos."""
    part = "FFmpeg (PyAV)"
    if util.find_spec("av") is None:
        return
    try:
        av = import_module("av")
    except ImportError as error:
        yield _broken(part, error)
        return
    yield Finding(part, "ok", str(av.ffmpeg_version_info))
    if not any(encoder in av.codecs_available for encoder in H264_ENCODERS):
        remedy = "for overlays that browsers play: pip install av (its wheels have one)"
        yield Finding("encoder of H.264", "optional", "not in this FFmpeg", remedy)


def _opencv() -> Iterator[Finding]:
    """OpenCV reads images, cameras and GStreamer pipelines."""
    try:
        cv2 = import_module("cv2")
    except ImportError as error:
        yield _broken("OpenCV", error)
        return
    yield Finding("OpenCV", "ok", str(cv2.__version__))
    lines = (line.strip() for line in cv2.getBuildInformation().splitlines())
    part = "OpenCV with GStreamer"
    if any(line.startswith("GStreamer:") and "YES" in line for line in lines):
        yield Finding(part, "ok", "yes")
    else:
        remedy = "for GStreamer pipelines: use JetPack's OpenCV, or one built from source with it"
        yield Finding(part, "optional", "no", remedy)
    yield from _other_opencvs(Path(str(cv2.__file__)))


def _other_opencvs(imported: Path) -> Iterator[Finding]:
    """Several packages of OpenCV in one folder overwrite each other, and pip's hides the system's."""
    names = [name for name in OPENCV_PACKAGES if _is_installed(name)]
    if len(names) > 1:
        remedy = f"pip uninstall -y {' '.join(names)} && pip install {names[0]}"
        yield Finding("OpenCV, once", "optional", f"{' and '.join(names)} overwrite each other", remedy)
    for system in SYSTEM_PACKAGES:
        for found in sorted(Path("/").glob(f"{system.lstrip('/')}/cv2*")):
            if imported.is_relative_to(found.parent) or found.suffix not in ("", ".so"):
                continue
            detail = f"{found} is hidden by {imported.parent}"
            remedy = f"to use it: pip uninstall -y {' '.join(names) or 'opencv-python'}"
            yield Finding("OpenCV of the system", "optional", detail, f"{remedy} (docs/deploy.md)")


def _is_installed(distribution: str) -> bool:
    try:
        metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return False
    return True


def _broken(part: str, error: ImportError) -> Finding:
    """An installed package that cannot be imported."""
    failure = import_failure(error)
    if failure is None:
        return Finding(part, "missing", str(error), "install the package again")
    return Finding(part, "missing", failure.problem, failure.remedy)


def _execution_providers() -> Iterator[Finding]:
    if util.find_spec("onnxruntime") is None:
        return
    part = "onnxruntime providers"
    try:
        yield Finding(part, "ok", ", ".join(import_module("onnxruntime").get_available_providers()))
    except ImportError as error:
        yield _broken(part, error)


def _both_onnxruntimes() -> Iterator[Finding]:
    if len(names := installed_packages()) > 1:
        yield Finding("onnxruntime, once", "optional", f"{' and '.join(names)} overwrite each other", INSTALL)


def _operator_library() -> Finding:
    part = "operator library"
    try:
        library = onnxruntime_library()
        return Finding(part, "ok", f"{library} for {'CPU and CUDA' if has_cuda(library) else 'CPU'}")
    except UnavailableError as error:
        return Finding(part, "optional", error.problem, f"to run exports in onnxruntime: {error.remedy}")


def _plugin_library() -> Finding:
    try:
        return Finding("TensorRT plugin", "ok", str(library_path()))
    except UnavailableError as error:
        return Finding("TensorRT plugin", "optional", error.problem, error.remedy)


def _gpu_driver() -> Finding:
    try:
        return Finding("NVIDIA driver", "ok", f"a GPU with compute capability {compute_capability()}")
    except UnavailableError as error:
        return Finding("NVIDIA driver", "optional", error.problem, f"to run engines: {error.remedy}")


def _outdated_driver() -> Iterator[Finding]:
    """Libraries with kernels that were built with a newer CUDA than the driver knows."""
    try:
        known = cuda_of_driver()
    except UnavailableError:
        return
    for name, find in (("TensorRT plugin", library_path), ("operator library", onnxruntime_library)):
        try:
            built = cuda_runtime(find())
        except UnavailableError:
            continue
        if built is not None and built[0] > known[0]:
            detail = f"the {name} was built with CUDA {built[0]}.{built[1]}, the driver knows {known[0]}.{known[1]}"
            driver = CUDA_DRIVERS.get(built[0])
            newer = f"install NVIDIA driver {driver} or newer" if driver else "install a newer NVIDIA driver"
            remedy = f"{newer}, or build maskring with CUDA toolkit {known[0]}"
            yield Finding(f"driver for the {name}", "optional", detail, remedy)


def _nvcc() -> Finding:
    compiler = shutil.which("nvcc")
    if compiler is None:
        return Finding("nvcc", "optional", "not found", "to build the CUDA plugin: install the CUDA toolkit")
    return Finding("nvcc", "ok", compiler)
