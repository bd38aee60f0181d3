"""``maskring.plugins.library_path()`` and ``load()``: which library is found, and what is refused."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
from plugin_builds import run

import maskring.plugins
from maskring.common.errors import UnavailableError
from maskring.plugins import library


def tiny_library(folder: Path, source: str) -> Path:
    path = folder / library.LIBRARY_NAME
    done = run("g++", "-shared", "-fPIC", "-x", "c++", "-", "-o", path, input=source)
    assert done.returncode == 0, done.stderr
    return path


class FakeRegistry:
    """A plugin registry that lists a creator for each library it loaded."""

    def __init__(self, loads: bool = True) -> None:
        self.all_creators: list[SimpleNamespace] = [SimpleNamespace(name="Other")]
        self.loaded: list[str] = []
        self.loads = loads

    def load_library(self, path: str) -> object | None:
        self.loaded.append(path)
        if not self.loads:
            return None
        name, version, namespace = library.PLUGIN
        creator = SimpleNamespace(name=name, plugin_version=version, plugin_namespace=namespace)
        self.all_creators.append(creator)
        return object()


def fake_tensorrt(registry: FakeRegistry, version: str = "11.1.0") -> ModuleType:
    module = ModuleType("tensorrt")
    module.__dict__.update(get_plugin_registry=lambda: registry, __version__=version)
    return module


@pytest.fixture
def library_for_11(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tiny_library(tmp_path, 'extern "C" int maskring_tensorrt_major() { return 11; }')
    monkeypatch.setenv(library.LIBRARY_VARIABLE, str(path))
    return path


def test_the_library_is_found_beside_the_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(library.LIBRARY_VARIABLE, raising=False)
    empty, installed = tmp_path / "sources", tmp_path / "installed"
    empty.mkdir()
    installed.mkdir()
    monkeypatch.setattr(maskring.plugins, "__path__", [str(empty), str(installed)])
    with pytest.raises(UnavailableError, match=r"TensorRT plugin.*; .*TENSORRT_ROOT"):
        library.library_path()
    (installed / library.LIBRARY_NAME).touch()
    assert library.library_path() == (installed / library.LIBRARY_NAME).resolve()


def test_the_variable_names_another_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = tmp_path / "other.so"
    monkeypatch.setenv(library.LIBRARY_VARIABLE, str(other))
    with pytest.raises(UnavailableError, match=r"MASKRING_PLUGINS_LIBRARY.*other\.so.*; .*unset"):
        library.library_path()
    other.touch()
    assert library.library_path() == other.resolve()


@pytest.mark.parametrize("version", ["11.0.0", "11.4.0.106", "1.5.0.114", "1.7.1"])
def test_load_registers_once(library_for_11: Path, version: str) -> None:
    registry = FakeRegistry()
    trt = fake_tensorrt(registry, version)
    assert library.load(trt) == library.load(trt) == library_for_11.resolve()
    assert registry.loaded == [str(library_for_11.resolve())]


@pytest.mark.parametrize(
    ("version", "running"), [("10.3.0", 10), ("10.16.1.11", 10), ("12.0", 12), ("1.4.0.76", 10)]
)
def test_load_refuses_another_major_version(library_for_11: Path, version: str, running: int) -> None:
    registry = FakeRegistry()
    with pytest.raises(
        UnavailableError, match=rf"TensorRT 11.*TensorRT {running}.*; build it with the headers"
    ):
        library.load(fake_tensorrt(registry, version))
    assert not registry.loaded


def test_load_says_that_tensorrt_refused(library_for_11: Path) -> None:
    with pytest.raises(UnavailableError, match=r"TensorRT 11\.1\.0.*; .*TensorRT's log"):
        library.load(fake_tensorrt(FakeRegistry(loads=False)))


def test_load_refuses_what_is_no_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trt = fake_tensorrt(FakeRegistry())
    path = tmp_path / "text.so"
    path.write_text("not a library")
    monkeypatch.setenv(library.LIBRARY_VARIABLE, str(path))
    with pytest.raises(UnavailableError, match=r"text\.so.*; build the library on this machine"):
        library.load(trt)
    monkeypatch.setenv(library.LIBRARY_VARIABLE, str(tiny_library(tmp_path, "int other() { return 0; }")))
    with pytest.raises(UnavailableError, match=f"{library.LIBRARY_NAME}.*; check MASKRING_PLUGINS_LIBRARY"):
        library.load(trt)


def test_load_takes_the_first_tensorrt_that_is_installed(
    library_for_11: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("tensorrt", "tensorrt_lean", "tensorrt_rtx"):
        monkeypatch.setitem(sys.modules, name, None)  # import fails
    with pytest.raises(UnavailableError, match=r"tensorrt, .*; pip install 'maskring\[gpu\]'"):
        library.load()
    lean, rtx = FakeRegistry(), FakeRegistry()
    monkeypatch.setitem(sys.modules, "tensorrt_lean", fake_tensorrt(lean))
    monkeypatch.setitem(sys.modules, "tensorrt_rtx", fake_tensorrt(rtx))
    library.load()
    assert lean.loaded and not rtx.loaded
