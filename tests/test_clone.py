"""maskring works in the folder of its repository: nothing there hides the installed package."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
import sysconfig
import venv
from collections.abc import Iterator
from pathlib import Path

import pytest
from checkout import ROOT, copy_checkout

SOURCES = ("src/maskring", "common", "plugins", "runtime", "training", "export")


def absolute_imports() -> Iterator[str]:
    """The top-level name of every module that the package imports by its full name."""
    for folder in SOURCES:
        for path in (ROOT / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Import):
                    yield from (alias.name.partition(".")[0] for alias in node.names)
                elif isinstance(node, ast.ImportFrom) and not node.level:
                    yield (node.module or "").partition(".")[0]


def test_no_folder_of_the_repository_hides_an_import() -> None:
    """``python -c`` searches the working folder first, and a folder without code counts as a package."""
    imported = {"maskring", *absolute_imports()}
    assert {"numpy", "typer", "cv2"} <= imported
    hiding = [path for path in ROOT.iterdir() if path.is_dir() or path.suffix == ".py"]
    assert not imported & {path.stem for path in hiding}


def test_the_package_is_imported_in_its_repository() -> None:
    command = [sys.executable, "-c", "import maskring; maskring.open_tracker"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def files_in(folder: Path) -> set[Path]:
    return {path.relative_to(folder) for path in folder.rglob("*")}


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A fresh clone, and the Python of an environment into which it was installed, not editable."""
    root = tmp_path_factory.mktemp("clone")
    copy_checkout(root / "maskring")
    venv.create(root / "env", with_pip=False, symlinks=os.name != "nt")
    python = root / "env" / ("Scripts" if os.name == "nt" else "bin") / "python"
    packages = Path(
        sysconfig.get_paths(vars={"base": str(root / "env"), "platbase": str(root / "env")})["purelib"]
    )
    before = files_in(root / "maskring")
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation"]
    command.append("--config-settings=cmake.define.MASKRING_CUDA=OFF")
    subprocess.run([*command, "--target", str(packages), str(root / "maskring")], check=True)
    assert files_in(root / "maskring") == before, "the folder may be read-only"
    # Dependencies and pytest come from here; .pth files in there, of an editable install, are not followed.
    (packages / "dependencies.pth").write_text(sysconfig.get_paths()["purelib"] + "\n")
    return root / "maskring", python


PAGE_IS_INSTALLED = """
from pathlib import Path
import maskring
installed = Path(maskring.__file__).parent / "studio" / "page"
source = Path("src") / "maskring" / "studio" / "page"
assert installed.resolve() != source.resolve()
names = [path.name for path in source.iterdir()]
assert "index.html" in names
assert {name: (installed / name).read_bytes() for name in names} == {
    name: (source / name).read_bytes() for name in names
}
"""


@pytest.mark.slow  # compiles the kernels for a wheel: minutes
@pytest.mark.parametrize(
    "arguments",
    [
        [
            "-c",
            "import maskring; maskring.open_tracker; assert 'env' in maskring.__file__, maskring.__file__",
        ],
        ["-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/common/test_machine.py"],
        ["-m", "maskring", "--version"],
        ["-c", PAGE_IS_INSTALLED],
    ],
    ids=["import", "pytest", "command", "page"],
)
def test_an_installed_clone_works_in_its_folder(clone: tuple[Path, Path], arguments: list[str]) -> None:
    folder, python = clone
    done = subprocess.run([python, *arguments], cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
