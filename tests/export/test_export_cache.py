"""The cache of exports: what decides a file decides its name, and finding one is cheap."""

from __future__ import annotations

import ast
import dataclasses
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from support import kept_exports, moving_square, write_tiny_checkpoint

from maskring.common.errors import UnavailableError
from maskring.export import export_cache
from maskring.export.export_cache import PACKAGE, cached_onnx, source_files
from maskring.training.checkpoint import load_checkpoint, save_checkpoint
from maskring.training.weights import shipped_checkpoint, shipped_names

SIZE = {"height": 16, "width": 16, "num_labels": 2, "num_slots": 2}


@pytest.fixture
def checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setenv("MASKRING_CACHE", str(tmp_path / "cache"))
    with kept_exports():
        yield write_tiny_checkpoint(tmp_path / "tiny.safetensors")


def test_content_and_settings_decide_the_file(checkpoint: Path, tmp_path: Path) -> None:
    first = cached_onnx(checkpoint, radius=1, **SIZE)
    stamp = first.stat().st_mtime_ns
    assert cached_onnx(checkpoint, radius=1, **SIZE) == first
    assert first.stat().st_mtime_ns == stamp
    assert cached_onnx(checkpoint, radius=2, **SIZE) != first
    changed = dataclasses.replace(load_checkpoint(checkpoint), key=None)
    state = {name: tensor * 2 for name, tensor in changed.query.items()}
    same_name = tmp_path / "other" / "tiny.safetensors"
    save_checkpoint(same_name, dataclasses.replace(changed, query=state))
    assert cached_onnx(same_name, radius=1, **SIZE) != first


@pytest.mark.parametrize(
    "source", ["export/triton/graph.py", "export/step_module.py", "training/network/colour.py"]
)
def test_code_decides_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str) -> None:
    for path in source_files():
        copy = tmp_path / path.relative_to(PACKAGE)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, copy)
    before = export_cache._source_digest()
    monkeypatch.setattr(export_cache, "PACKAGE", tmp_path)
    assert export_cache._source_digest() == before
    (tmp_path / source).write_text((tmp_path / source).read_text() + "\n# changed\n")
    assert export_cache._source_digest() != before


def imported_files(path: Path) -> set[Path]:
    """Files of the package that a file imports, at any depth; ``common`` decides no content."""
    found: set[Path] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if not isinstance(node, ast.ImportFrom) or not node.level:
            continue
        base = path.parents[node.level - 1].joinpath(*(node.module or "").split("."))
        candidates = [base, *(base / alias.name for alias in node.names)]
        files = [c.with_suffix(".py") for c in candidates] + [c / "__init__.py" for c in candidates]
        found |= {file for file in files if file.is_file() and PACKAGE / "common" not in file.parents}
    return found


def test_all_code_behind_the_exporter_decides_the_file() -> None:
    pending, reached = [PACKAGE / "export" / "onnx_export.py"], set[Path]()
    while pending:
        path = pending.pop()
        if path not in reached:
            reached.add(path)
            pending += imported_files(path)
    assert PACKAGE / "training" / "checkpoint.py" in reached and len(reached) > 10
    # Only the choice of model files, not their content, is in these.
    missing = reached - set(source_files())
    assert not missing


def test_without_an_exporter_a_cached_export_is_taken(
    checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export_cache, "EXPORTERS", ("torch", "a-distribution-that-is-not-there"))
    with pytest.raises(UnavailableError) as refused:
        cached_onnx(checkpoint, **SIZE)
    assert str(checkpoint) in refused.value.problem and "maskring export" in refused.value.remedy
    monkeypatch.undo()
    monkeypatch.setenv("MASKRING_CACHE", str(checkpoint.parent / "cache"))
    cached = cached_onnx(checkpoint, **SIZE)
    monkeypatch.setattr(export_cache, "EXPORTERS", ("torch", "a-distribution-that-is-not-there"))
    assert cached_onnx(checkpoint, **SIZE) == cached


def run_without(modules: tuple[str, ...], program: str) -> str:
    """Output of a fresh interpreter in which importing ``modules`` fails as if they were not installed."""
    prologue = f"import sys\nsys.modules.update(dict.fromkeys({modules!r}))\n"
    done = subprocess.run(
        [sys.executable, "-c", prologue + program],
        check=False,
        capture_output=True,
        text=True,
        timeout=120,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[1] / "tools")},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_cached_model_is_found_without_torch_or_onnx(checkpoint: Path) -> None:
    cached = cached_onnx(checkpoint)
    program = (
        "from pathlib import Path\n"
        "from maskring.models import resolve_model\n"
        f"print(resolve_model(Path({str(checkpoint)!r})))\n"
        "print(*sorted({'torch', 'onnx', 'onnxscript', 'onnxruntime'} & {*sys.modules}))\n"
    )
    heavy = ("torch", "onnx", "onnxscript")
    assert run_without((), program).splitlines() == [str(cached), ""]
    assert run_without(heavy, program).splitlines()[0] == str(cached)


@pytest.mark.parametrize("name", shipped_names())
def test_a_shipped_checkpoint_tracks_without_torch(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MASKRING_CACHE", str(tmp_path / "empty"))
    program = (
        "import maskring, sys\n"
        "from maskring.models import provenance\n"
        "from support import moving_square\n"
        f"with maskring.open_tracker({name!r}, threads=1) as tracker:\n"
        "    tracker.step(*moving_square(0))\n"
        "    print(int((tracker.step(moving_square(1)[0]).labels == 1).sum()))\n"
        f"print(provenance({name!r}))\n"
    )
    area, said = run_without(("torch", "onnxscript"), program).splitlines()
    assert abs(int(area) - int(moving_square(1)[1].sum())) < 64 and "recipe" in said
    (made,) = (tmp_path / "empty").glob(f"{name}-*.onnx")
    stamp = made.stat().st_mtime_ns
    run_without(("torch", "onnxscript"), program)
    assert made.stat().st_mtime_ns == stamp


def test_other_settings_of_a_shipped_checkpoint_need_the_exporter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MASKRING_CACHE", str(tmp_path))
    monkeypatch.setattr(export_cache, "EXPORTERS", ("torch", "a-distribution-that-is-not-there"))
    with pytest.raises(UnavailableError) as refused:
        cached_onnx(shipped_checkpoint("pico"), radius=5)
    assert "maskring[train]" in refused.value.remedy


def test_a_cached_model_is_opened_and_tracks_without_torch(checkpoint: Path) -> None:
    cached_onnx(checkpoint)
    program = (
        "import maskring\n"
        "from support import moving_square\n"
        f"with maskring.open_tracker({str(checkpoint)!r}, threads=1) as tracker:\n"
        "    print(int((tracker.step(*moving_square(0)).labels == 1).sum()))\n"
    )
    assert int(run_without(("torch", "onnxscript"), program)) == moving_square(0)[1].sum()


@pytest.mark.skipif(os.name == "nt", reason="Windows has other permissions")
def test_what_another_user_made_for_himself_is_made_again(
    checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = cached_onnx(checkpoint, **SIZE)
    assert made.stat().st_mode & 0o444 == made.parent.stat().st_mode & 0o444
    made.write_bytes(b"of another user")
    access = os.access  # root may read everything
    monkeypatch.setattr(os, "access", lambda path, mode: path != made and access(path, mode))
    assert cached_onnx(checkpoint, **SIZE) == made
    assert made.read_bytes() != b"of another user"
