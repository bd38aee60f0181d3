"""Why an installed package cannot be imported: a system library is missing, or it was built for another NumPy."""

from __future__ import annotations

import contextlib
import io
import re
import sys
from collections.abc import Iterator, Sequence
from importlib import metadata
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType

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


def explain_imports_alone(*packages: str) -> None:
    """Keep off stderr what others print when one of ``packages`` cannot be imported for a reason known here.

    NumPy 2 prints thirty lines where a package was built for NumPy 1, and the package may print the same error again
    (opencv#25772). The ImportError is raised as ever. What a successful import prints stays.
    """
    sys.meta_path.insert(0, _QuietFinder(packages))


class _QuietFinder(MetaPathFinder):
    """Finds some packages where they are, and gives each a :class:`_QuietLoader`."""

    def __init__(self, packages: Sequence[str]) -> None:
        self._packages = set(packages)

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Only the first time: OpenCV imports its binary module under the same name."""
        if fullname not in self._packages:
            return None
        spec = PathFinder.find_spec(fullname, path, target)
        if spec is not None and spec.loader is not None:
            self._packages.remove(fullname)
            spec.loader = _QuietLoader(spec.loader)
        return spec


class _QuietLoader(Loader):
    """Loads a module as another loader does, with stderr held back."""

    def __init__(self, loader: Loader) -> None:
        self._loader = loader

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        """See :class:`importlib.abc.Loader`. Binary modules are imported here."""
        spec.loader = self._loader  # whoever asks the module for its loader gets the usual one
        with _held_back():
            module = self._loader.create_module(spec)
        spec.loader = self
        return module

    def exec_module(self, module: ModuleType) -> None:
        """See :class:`importlib.abc.Loader`."""
        module.__loader__ = self._loader
        if module.__spec__ is not None:
            module.__spec__.loader = self._loader
        with _held_back():
            self._loader.exec_module(module)


@contextlib.contextmanager
def _held_back() -> Iterator[None]:
    """Hold stderr back in this block, and drop it where the block ends with an import failure that is known."""
    stderr, said = sys.stderr, io.StringIO()
    is_known = False
    try:
        with contextlib.redirect_stderr(said):
            yield
    except ImportError as error:
        is_known = import_failure(error) is not None
        raise
    finally:
        if said.getvalue() and not is_known:
            stderr.write(said.getvalue())


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
