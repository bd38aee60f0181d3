"""Packages import in one order, and a machine that only tracks needs no torch."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("common", "plugins", "runtime", "training", "export", "face")
"""Each may import itself and those before it. ``face`` is the API and the commands, in ``src/maskring``."""

RUNTIME = (
    ("arrays",),
    ("model",),
    ("backends",),
    ("tracking",),
    ("video",),
    ("pipeline",),
    ("interaction", "refinement", "evaluation", "profiling", "conversion"),
)
"""The same inside ``runtime``; those of one rank do not import each other."""

MAY_IMPORT_TORCH = (
    "training",
    "export",
    "runtime.refinement",
    "plugins.windowed_affinity.reference",
    "plugins.windowed_affinity.torch",
)
"""Beginnings of the module names that may import torch; all others belong to the base install."""

OF_THE_TRAIN_EXTRA = ("torch", "onnxscript", "safetensors")
HEAVY = ("torch", "onnx", "onnxruntime", "cv2")
MAX_LINES = 400
"""Of a Python module."""


def modules() -> dict[str, Path]:
    """Every module by its name below ``maskring``; API and commands are ``face`` and ``face.*``."""
    found = {}
    folders = {name: ROOT / name for name in PACKAGES} | {"face": ROOT / "src" / "maskring"}
    for name, folder in folders.items():
        for path in sorted(folder.rglob("*.py")):
            parts = path.relative_to(folder).with_suffix("").parts
            found[".".join([name, *(part for part in parts if part != "__init__")])] = path
    return found


MODULES = modules()


def imported(name: str, path: Path) -> Iterator[tuple[int, str]]:
    """(line, absolute module or member) of every import in the file, in functions too."""
    package = ["maskring", *name.removeprefix("face").strip(".").split(".")]
    package = [part for part in package if part]
    if path.name != "__init__.py":
        package.pop()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            start = ".".join([*base, *([node.module] if node.module else [])])
            yield from ((node.lineno, f"{start}.{alias.name}") for alias in node.names)


def starts(name: str, beginnings: tuple[str, ...]) -> bool:
    return any(name == begin or name.startswith(f"{begin}.") for begin in beginnings)


def needs_torch(name: str) -> bool:
    return any(name.startswith(begin) for begin in MAY_IMPORT_TORCH)


def rank(name: str) -> tuple[int, int, str]:
    """Rank of a module's package, rank within ``runtime``, and the package of that second rank."""
    first, second = [*name.split("."), ""][:2]
    outer = PACKAGES.index(first if first in PACKAGES else "face")
    if first != "runtime" or not second:
        return outer, -1, ""
    inner = next((index for index, names in enumerate(RUNTIME) if second in names), None)
    assert inner is not None, f"{name} is in no package of runtime that RUNTIME lists"
    return outer, inner, second


def may_import(name: str, target: str) -> bool:
    """Whether module ``name`` may import module ``target``; both named as in :data:`MODULES`."""
    importer, imported_one = rank(name), rank(target)
    if importer[0] != imported_one[0] or -1 in (importer[1], imported_one[1]):
        return imported_one[0] <= importer[0]
    return imported_one[1] < importer[1] or imported_one[2] == importer[2]


def test_modules_are_short_enough_to_know() -> None:
    """In tests, benchmarks and documentation too."""
    folders = (*PACKAGES[:-1], "src", "tests", "bench", "docs", "examples", ".ci")
    paths = [path for folder in folders for path in sorted((ROOT / folder).rglob("*.py"))]
    assert len(paths) > len(MODULES)
    lengths = {str(path.relative_to(ROOT)): len(path.read_text("utf-8").splitlines()) for path in paths}
    assert not {path: lines for path, lines in lengths.items() if lines > MAX_LINES}


@pytest.mark.parametrize("name", MODULES)
def test_imports_point_down(name: str) -> None:
    wrong = [
        f"{MODULES[name].relative_to(ROOT)}:{line} imports {target}"
        for line, target in imported(name, MODULES[name])
        if starts(target, ("maskring",)) and not may_import(name, target.removeprefix("maskring."))
    ]
    assert not wrong


@pytest.mark.parametrize(
    ("name", "target", "allowed"),
    [
        ("training.loop", "runtime.video.folders", True),
        ("runtime.video.folders", "training.loop", False),
        ("common.files", "plugins.library", False),
        ("export.onnx_export", "models", False),
        ("face.models", "export.export_cache", True),
        ("runtime.pipeline.loop", "runtime.tracking.tracker", True),
        ("runtime.tracking.tracker", "runtime.pipeline.loop", False),
        ("runtime.evaluation.protocol", "runtime.refinement.session", False),
        ("runtime.evaluation.protocol", "runtime.evaluation.measures", True),
    ],
)
def test_ranks_decide(name: str, target: str, allowed: bool) -> None:
    assert may_import(name, target) is allowed


@pytest.mark.parametrize(
    "name", [name for name in MODULES if not starts(name, ("face",)) and not needs_torch(name)]
)
def test_the_base_install_names_no_torch(name: str) -> None:
    lines = [line for line, target in imported(name, MODULES[name]) if starts(target, OF_THE_TRAIN_EXTRA)]
    assert not lines


def python(program: str) -> str:
    """Output of a fresh interpreter."""
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=1800)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_base_install_works_where_torch_is_missing() -> None:
    base = [
        f"maskring.{n}" for n in MODULES if starts(n, ("common", "plugins", "runtime")) and not needs_torch(n)
    ]
    assert {"maskring.plugins", "maskring.runtime.model.metadata"} <= set(base)
    # None in sys.modules makes an import fail as if the package were not installed.
    python(
        "import importlib, sys\n"
        f"sys.modules.update(dict.fromkeys({OF_THE_TRAIN_EXTRA!r}))\n"
        f"for name in {['maskring', *base]!r}: importlib.import_module(name)\n"
    )


@pytest.mark.parametrize(
    "name", ["maskring", "maskring.cli", *(f"maskring.{name}" for name in PACKAGES if name != "face")]
)
def test_nothing_heavy_is_imported_before_it_is_needed(name: str) -> None:
    loaded = python(f"import sys, {name}\nprint(*sys.modules)").split()
    assert name in loaded
    assert not set(HEAVY) & set(loaded)
