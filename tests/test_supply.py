"""What CI installs: versions, the hashes of files, the bill of materials. Nothing here needs a network."""

from __future__ import annotations

import importlib
import re
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import tomllib
from packaging.requirements import Requirement

from maskring import doctor

ROOT = Path(__file__).resolve().parents[1]
LOCK = ROOT / "constraints.hashes.txt"

NOT_IN_CI = {
    "atheris": "fuzz",
    "ray": "ray",
    "tensorrt-cu12-bindings": "tensorrt-test",
    "tensorrt-lean-cu12-bindings": "tensorrt-test",
    "tensorrt-lean-cu12-libs": "tensorrt-test",
}
"""Packages with a version that CI does not install, and the extra that brings them."""


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def versions(path: Path) -> dict[str, str]:
    """Normal name -> version."""
    pins = re.findall(r"^([\w.-]+)==([\w.!+-]+)", path.read_text(), flags=re.MULTILINE)
    return {normal(name): version for name, version in pins}


def hashes() -> dict[str, set[str]]:
    """Normal name -> SHA-256 of the files that may be installed."""
    found: dict[str, set[str]] = {}
    for entry in LOCK.read_text().replace("\\\n", " ").splitlines():
        if not entry.startswith("#"):
            name = normal(entry.partition("==")[0])
            found[name] = set(re.findall(r"--hash=sha256:([0-9a-f]{64})(?!\w)", entry))
    return found


@pytest.fixture(scope="module")
def sbom() -> ModuleType:
    """.ci/sbom.py"""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(ROOT / ".ci")
        return importlib.import_module("sbom")


def test_the_lock_holds_the_versions_of_the_constraints() -> None:
    pinned = versions(ROOT / "constraints.txt")
    assert versions(LOCK) == {name: pinned[name] for name in pinned if name not in NOT_IN_CI}


def test_every_package_of_the_lock_has_a_hash() -> None:
    assert hashes().keys() == versions(LOCK).keys()
    assert all(hashes().values())


def test_extras_that_ci_does_not_install() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    for name, extra in NOT_IN_CI.items():
        assert any(line.startswith(name) for line in extras[extra])
        assert not any(line.startswith((name, f"maskring[{extra}]")) for line in extras["test"])


def test_everything_that_the_tests_bring_has_a_version(sbom: ModuleType) -> None:
    """However indirectly: what is asked for without one changes from a day to the next."""
    brought = sbom.closure("maskring", frozenset({"test"}))
    assert brought - {"maskring"} <= versions(LOCK).keys()


def test_no_file_names_the_host_of_an_index() -> None:
    for path in (LOCK, ROOT / "constraints.txt", ROOT / "Makefile", ROOT / ".ci" / "run"):
        assert "://" not in path.read_text(), path


@pytest.fixture(scope="module")
def bill(sbom: ModuleType) -> dict[str, Any]:
    document: dict[str, Any] = sbom.bill()
    return document


def test_the_bill_lists_what_is_locked(bill: dict[str, Any]) -> None:
    libraries = [part for part in bill["components"] if part["type"] == "library"]
    assert {normal(part["name"]): part["version"] for part in libraries} == versions(LOCK)
    listed = {normal(part["name"]): {each["content"] for each in part["hashes"]} for part in libraries}
    assert listed == hashes()
    assert all(part["purl"] == f"pkg:pypi/{normal(part['name'])}@{part['version']}" for part in libraries)
    assert all(part["licenses"] for part in libraries)


def test_the_bill_tells_a_board_that_tracks_from_a_desk_that_trains(bill: dict[str, Any]) -> None:
    required = {normal(part["name"]) for part in bill["components"] if part["scope"] == "required"}
    base = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    assert {normal(re.match(r"[\w-]+", line)[0]) for line in base} < required  # type: ignore[index]
    assert not required & {"torch", "onnxscript", "pytest", "mkdocs", "pip"}
    assert {"nano-safetensors", "pico-safetensors", "full-safetensors"} < required


def test_doctor_examines_what_the_base_install_brings() -> None:
    """But for the packages that print its table."""
    base = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    assert {Requirement(line).name for line in base} - {"rich", "typer"} == set(doctor.REQUIRED)


def test_the_bill_names_only_what_it_lists(bill: dict[str, Any]) -> None:
    parts = [part["bom-ref"] for part in (bill["metadata"]["component"], *bill["components"])]
    assert len(set(parts)) == len(parts)
    for line in bill["dependencies"]:
        assert {line["ref"], *line["dependsOn"]} <= set(parts)
