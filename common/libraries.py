"""Why an installed package cannot be imported: a system library is missing, or it was built for another NumPy."""

from __future__ import annotations

import re
from importlib import metadata

from .errors import UnavailableError
from .machine import NEEDS_GPU

DEBIAN_PACKAGES = {
    "libGL": "libgl1",
    "libEGL": "libegl1",
    "libSM": "libsm6",
    "libX11": "libx11-6",
    "libXext": "libxext6",
    "libXrender": "libxrender1",
    "libglib-2.0": "libglib2.0-0",
    "libgthread-2.0": "libglib2.0-0",
    "libgomp": "libgomp1",
    "libxcb": "libxcb1",
}
"""Libraries that images without a desktop lack, and the packages of Debian and Ubuntu that hold them."""

OPENCV_WITHOUT_WINDOWS = "use opencv-python-headless instead of opencv-python, which needs none of it"

_MISSING_LIBRARY = re.compile(r"([\w.+-]+?)\.so((?:\.\d+)*): cannot open shared object file")
_OTHER_NUMPY = re.compile(r"multiarray failed to import|_ARRAY_API not found|compiled using NumPy 1")


def import_failure(error: BaseException) -> UnavailableError | None:
    """What an ImportError, or an OSError of the dynamic loader, means to a user; None when that is unknown."""
    text = str(error)
    if match := _MISSING_LIBRARY.search(text):
        library, version = match.groups()
        return UnavailableError(
            f"the system library {library}.so{version} is missing", _remedy(library, version.lstrip("."))
        )
    if _OTHER_NUMPY.search(text):
        return UnavailableError(
            f"an installed package was built for NumPy 1, and NumPy {metadata.version('numpy')} is installed",
            "run pip install 'numpy<2', or install a newer version of that package (maskring doctor names it)",
        )
    return None


def _remedy(library: str, version: str) -> str:
    if package := DEBIAN_PACKAGES.get(library):
        install = f"run apt-get install {package}"
        return f"{install}, or {OPENCV_WITHOUT_WINDOWS}" if package in ("libgl1", "libglib2.0-0") else install
    if library == "libcuda":
        return NEEDS_GPU
    if library.startswith(("libnvinfer", "libnvonnxparser")):
        return "run pip install 'maskring[gpu]', or on a Jetson apt-get install nvidia-jetpack"
    if library.startswith(("libcu", "libnv")):
        cuda = "cuDNN" if library.startswith("libcudnn") else "the CUDA toolkit"
        return (
            f"install {cuda} of version {version or 'your package'}, and name its folder in LD_LIBRARY_PATH"
        )
    return "install the package of your system that holds it"
