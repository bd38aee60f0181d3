"""Who imports whom: the rooms keep their doors, and a machine that only tracks needs no torch."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
ROOMS = ("plugins", "training", "export", "runtime")

MAY_IMPORT = {
    "plugins": ("plugins",),
    "training": ("training", "plugins"),
    "runtime": ("runtime", "plugins"),
    "export": (
        "export",
        "training",
        "plugins",
        "runtime.model",
        "runtime.engine_file",
        "runtime.memory",
        "runtime.refinement",
        "runtime.backends.step_graph_parts",
    ),
}
"""What of maskring each room may import, anywhere in its files; never the face."""

TORCH_ROOMS = (
    "training",
    "export",
    "runtime.refinement",
    "plugins.windowed_affinity.reference",
    "plugins.windowed_affinity.torch",
)
"""Beginnings of the module names that may import torch; all others belong to the base install."""

OF_THE_TRAIN_EXTRA = ("torch", "onnxscript", "safetensors")
HEAVY = ("torch", "onnx", "onnxruntime", "cv2")


def modules() -> dict[str, Path]:
    """Every module of the package by its name below ``maskring``; the face is ``face`` and ``face.*``."""
    found = {}
    for folder, name in [("maskring", "face"), *((room, room) for room in ROOMS)]:
        for path in sorted((ROOT / folder).rglob("*.py")):
            parts = path.relative_to(ROOT / folder).with_suffix("").parts
            found[".".join([name, *(part for part in parts if part != "__init__")])] = path
    return found


MODULES = modules()


def imported(name: str, path: Path) -> Iterator[tuple[int, str]]:
    """(line, absolute module or member) of every import in the file, in functions too."""
    package = ["maskring", *name.split(".")]
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
    return any(name.startswith(begin) for begin in TORCH_ROOMS)


@pytest.mark.parametrize("name", [name for name in MODULES if starts(name, ROOMS)])
def test_rooms_keep_their_doors(name: str) -> None:
    room = name.split(".")[0]
    allowed = tuple(f"maskring.{other}" for other in MAY_IMPORT[room])
    wrong = [
        f"{MODULES[name].relative_to(ROOT)}:{line} imports {target}"
        for line, target in imported(name, MODULES[name])
        if starts(target, ("maskring",)) and not starts(target, allowed)
    ]
    assert not wrong


@pytest.mark.parametrize("name", [name for name in MODULES if starts(name, ROOMS) and not needs_torch(name)])
def test_the_base_install_names_no_torch(name: str) -> None:
    lines = [line for line, target in imported(name, MODULES[name]) if starts(target, OF_THE_TRAIN_EXTRA)]
    assert not lines


def python(program: str) -> str:
    """Output of a fresh interpreter."""
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_base_install_works_where_torch_is_missing() -> None:
    base = [f"maskring.{n}" for n in MODULES if starts(n, ("runtime", "plugins")) and not needs_torch(n)]
    assert {"maskring.plugins", "maskring.runtime.model"} <= set(base)
    # None in sys.modules makes an import fail as if the package were not installed.
    python(
        "import importlib, sys\n"
        f"sys.modules.update(dict.fromkeys({OF_THE_TRAIN_EXTRA!r}))\n"
        f"for name in {['maskring', *base]!r}: importlib.import_module(name)\n"
    )


@pytest.mark.parametrize("name", ["maskring", "maskring.cli", *(f"maskring.{room}" for room in ROOMS)])
def test_nothing_heavy_is_imported_before_it_is_needed(name: str) -> None:
    loaded = python(f"import sys, {name}\nprint(*sys.modules)").split()
    assert name in loaded
    assert not set(HEAVY) & set(loaded)
