"""What is published: the source distribution, and the wheel that is built from it, without git and offline."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from importlib import metadata
from itertools import islice
from pathlib import Path, PurePosixPath

import cv2
import pytest
import tomllib
from checkout import ROOT, copy_checkout, tracked_files
from packaging.requirements import Requirement

import maskring
from maskring.runtime.video.masks import write_mask
from maskring.runtime.video.synthetic import render_clip

SETTINGS = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]
PACKAGES: dict[str, str] = {
    folder: name for name, folder in SETTINGS["scikit-build"]["wheel"]["packages"].items()
}
"""Folder in the repository -> in the wheel."""

WITHOUT_NETWORK = {"PIP_NO_INDEX": "1", "GIT_DIR": os.devnull}


def in_wheel(path: str) -> str | None:
    """Where a file of the repository lies in the wheel; None for what is only needed to build or to test."""
    left_out = {pattern.rpartition("/")[2] for pattern in SETTINGS["scikit-build"]["wheel"]["exclude"]}
    if any(PurePosixPath(path).match(pattern) for pattern in left_out):
        return None
    return next(
        (path.replace(folder, name, 1) for folder, name in PACKAGES.items() if path.startswith(f"{folder}/")),
        None,
    )


@pytest.fixture(scope="module")
def sdist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sdist")
    code = f"from scikit_build_core.build import build_sdist; print(build_sdist({str(folder)!r}))"
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=copy_checkout(folder / "clone"),
        env=os.environ | WITHOUT_NETWORK,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return folder / done.stdout.split()[-1]


def test_the_sdist_holds_every_file_of_the_repository(sdist: Path) -> None:
    """The patterns of .gitignore keep files out even where git tracks them."""
    assert sdist.name == f"maskring-{maskring.__version__}.tar.gz"
    with tarfile.open(sdist) as archive:
        held = {name.partition("/")[2] for name in archive.getnames()}
    assert set(tracked_files()) <= held
    assert held - set(tracked_files()) == {"PKG-INFO"}


@pytest.fixture(scope="module")
def wheel(sdist: Path) -> Path:
    """The wheel of this Python, with the settings of the published ones."""
    settings = [
        f"--config-settings={name}={value}"
        for name, value in SETTINGS["cibuildwheel"]["config-settings"].items()
    ]
    command = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--quiet",
        "--no-deps",
        "--no-build-isolation",
        *settings,
    ]
    done = subprocess.run(
        [*command, "--wheel-dir", str(sdist.parent), str(sdist)],
        env=os.environ | WITHOUT_NETWORK,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    (made,) = sdist.parent.glob("*.whl")
    return made


@pytest.mark.slow  # compiles the kernels: minutes
def test_the_wheel_holds_the_package_and_nothing_else(wheel: Path) -> None:
    held = set(zipfile.ZipFile(wheel).namelist())
    expected = {place for path in tracked_files() if (place := in_wheel(path))}
    for place in (
        "maskring/studio/page/index.html",
        "maskring/demo/assets/langer_00240.png",
        "maskring/training/recipes/pico.toml",
        "maskring/training/weights/nano.safetensors",
        "maskring/training/weights/nano.graph",
        "maskring/py.typed",
    ):
        assert place in expected
    assert expected <= held
    (native,) = (
        name
        for name in held
        if re.fullmatch(r"maskring/plugins/windowed_affinity/_native\..+", name) and not name.endswith(".pyi")
    )
    others = held - expected - {native, "maskring/plugins/libmaskring_onnxruntime.so"}
    assert {PurePosixPath(name).parts[0] for name in others} == {f"maskring-{maskring.__version__}.dist-info"}
    is_stable = sys.version_info >= (3, 12)
    assert ("cp312-abi3" in wheel.name, ".abi3." in native) == (is_stable, is_stable)


def link_base_install(packages: Path) -> None:
    """Link what the base install of the wheel in another environment brings, however indirectly, into that one.

    The wheel says what it needs: the maskring that is installed here may be older than its pyproject.toml.
    """
    (held,) = metadata.distributions(name="maskring", path=[str(packages)])
    pending, linked = [held.requires], set[str]()
    while pending:
        for line in pending.pop() or ():
            needed = Requirement(line)
            if needed.name not in linked and (needed.marker is None or needed.marker.evaluate({"extra": ""})):
                linked.add(needed.name)
                pending.append(metadata.requires(needed.name))
                link_distribution(needed.name, packages)


def link_distribution(name: str, packages: Path) -> None:
    for top in {file.parts[0] for file in metadata.files(name) or () if file.parts[0] != ".."}:
        place = packages / top
        if not place.exists():
            place.symlink_to(metadata.distribution(name).locate_file(top))


@pytest.mark.slow  # compiles the kernels: minutes
def test_the_installed_wheel_tracks_from_another_folder(wheel: Path, tmp_path: Path) -> None:
    """In an environment of its own, which has what the base install brings, taken from this one, and so no torch."""
    venv.create(tmp_path / "env", with_pip=False, symlinks=os.name != "nt")
    base = {"base": str(tmp_path / "env"), "platbase": str(tmp_path / "env")}
    packages = Path(sysconfig.get_paths(vars=base)["platlib"])
    zipfile.ZipFile(wheel).extractall(packages)
    link_base_install(packages)
    assert not (packages / "torch").exists() and not (packages / "onnxscript").exists()
    python = tmp_path / "env" / ("Scripts" if os.name == "nt" else "bin") / "python"
    (tmp_path / "frames").mkdir()
    for index, (image, mask) in enumerate(islice(render_clip(64, 96), 4)):
        cv2.imwrite(str(tmp_path / f"frames/{index}.png"), image)
        if index == 0:
            write_mask(tmp_path / "first.png", mask)
    words = ["track", "frames", "--mask", "first.png", "--out", "out", "--model", "pico"]
    done = subprocess.run(
        [str(python), "-m", "maskring", *words],
        cwd=tmp_path,
        env=os.environ | {"MASKRING_CACHE": str(tmp_path / "cache")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert len(list((tmp_path / "out/masks").glob("*.png"))) == 4
    where = subprocess.run(
        [str(python), "-c", "import maskring.plugins; print(maskring.plugins.__file__)"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    assert where.stdout.startswith(str(packages))
