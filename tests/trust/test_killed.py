"""kill -9 in the middle of writing: nothing half-written counts, and the same command then does its work."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from support import moving_square, write_davis, write_frames, write_tiny_checkpoint
from typer.testing import CliRunner

from maskring.cli import app
from maskring.common.files import PARTIAL_NAME, remove_abandoned
from maskring.runtime.video.masks import read_mask, write_mask

TOOLS = Path(__file__).resolve().parents[1] / "tools"


def kill(what: str, number: int, arguments: Sequence[str | Path], **environment: str) -> None:
    """Run a command that is killed at its ``number``-th ``write`` or ``replace``."""
    done = subprocess.run(
        [sys.executable, "-m", "trust.killed", what, str(number), *map(str, arguments)],
        cwd=TOOLS,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == -signal.SIGKILL, done.stderr


def finish(arguments: Sequence[str | Path]) -> str:
    """The same command once more, in this process, which looks into each folder anew."""
    remove_abandoned.cache_clear()
    result = CliRunner().invoke(app, list(map(str, arguments)))
    assert result.exit_code == 0, result.output
    return result.output


def partials(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if PARTIAL_NAME.fullmatch(path.name)]


def let_a_day_pass(folder: Path) -> None:
    """Temporary files of killed processes are removed after that."""
    for path in partials(folder):
        os.utime(path, (0, 0))


@pytest.fixture
def frames(tmp_path: Path) -> Path:
    return write_frames(tmp_path / "frames", 4)


@pytest.mark.slow
def test_export(tmp_path: Path) -> None:
    checkpoint = write_tiny_checkpoint(tmp_path / "tiny.safetensors")
    out = tmp_path / "out" / "tiny.onnx"
    out.parent.mkdir()
    out.write_bytes(b"before")
    command = ["export", checkpoint, "--out", out]
    kill("write", 1, command)
    assert out.read_bytes() == b"before" and len(partials(tmp_path)) == 1
    let_a_day_pass(tmp_path)
    finish(command)
    finish(["export", checkpoint, "--out", tmp_path / "undisturbed.onnx"])
    assert out.read_bytes() == (tmp_path / "undisturbed.onnx").read_bytes()
    assert [path.name for path in out.parent.iterdir()] == ["tiny.onnx"]


@pytest.mark.parametrize("shipped", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_an_export_into_the_cache(
    tmp_path: Path, frames: Path, monkeypatch: pytest.MonkeyPatch, shipped: bool
) -> None:
    """What stands in the cache is taken without a look: it must be whole. Of a shipped checkpoint it is filled."""
    cache = tmp_path / "cache"
    checkpoint = "pico" if shipped else write_tiny_checkpoint(tmp_path / "tiny.safetensors")
    write_mask(tmp_path / "mask.png", moving_square(0)[1])
    command = ["track", frames, "--mask", tmp_path / "mask.png", "--model", checkpoint, "--no-overlay"]
    command += ["--out", tmp_path / "out"]
    kill("write", 1, command, MASKRING_CACHE=str(cache))
    assert [path.name for path in cache.iterdir()] == [path.name for path in partials(cache)] != []
    monkeypatch.setenv("MASKRING_CACHE", str(cache))
    let_a_day_pass(cache)
    finish(command)
    assert len(list(cache.iterdir())) == 1 and not partials(cache)
    assert len(list((tmp_path / "out" / "masks").iterdir())) == 4


def test_quantize(tmp_path: Path, frames: Path, exported: Path) -> None:
    out = tmp_path / "int8" / "model.onnx"
    out.parent.mkdir()
    command = ["quantize", exported, "--calibrate", frames, "--out", out, "--frames", "2", "--size", "48"]
    kill("write", 1, command)
    assert not out.exists() and len(partials(tmp_path)) == 1
    let_a_day_pass(tmp_path)
    finish(command)
    assert [path.name for path in out.parent.iterdir()] == ["model.onnx"]
    finish(["verify", out, "--source", str(frames), "--frames", "2"])


@pytest.mark.parametrize(
    ("what", "number"),
    [
        pytest.param("write", 1, id="in the engine", marks=pytest.mark.slow),
        pytest.param("write", 2, id="in its manifest", marks=pytest.mark.slow),
        pytest.param("replace", 1, id="between their names"),
    ],
)
def test_build(tmp_path: Path, exported: Path, what: str, number: int) -> None:
    """NVIDIA's own builder; an engine of an earlier model stands there, with its manifest."""
    if importlib.util.find_spec("tensorrt_rtx_bindings") is None:
        pytest.skip("no TensorRT-RTX: pip install 'maskring[rtx]'")
    out = tmp_path / "engines" / "model.engine"
    sizes = ("--height", "48", "--width", "64")
    rtx = ("--runtime", "tensorrt-rtx", "--compute-capability", "sm86")

    def command(objects: int) -> list[str | Path]:
        return ["build", exported, "--out", out, *rtx, *sizes, "--objects", str(objects)]

    def built(objects: int) -> str:
        run = subprocess.run(
            [sys.executable, "-m", "maskring", *map(str, command(objects))],
            capture_output=True,
            text=True,
            check=False,
        )
        assert run.returncode == 0, run.stderr
        return run.stdout + run.stderr

    built(1)
    kill(what, number, command(2))
    let_a_day_pass(tmp_path)
    said = built(2)
    assert "wrote" in said and "rebuilt" in said
    manifest = json.loads(out.with_name("model.engine.json").read_text())
    assert manifest["engine_sha256"] == hashlib.sha256(out.read_bytes()).hexdigest()
    assert manifest["key"]["shapes"]["memory_values"][0][2] == 3
    assert sorted(path.name for path in out.parent.iterdir()) == ["model.engine", "model.engine.json"]


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    """Two sequences in DAVIS layout."""
    return write_davis(tmp_path / "davis", {"a": 5, "b": 5})


@pytest.mark.parametrize(("number", "masks"), [(7, 5), (13, 10)], ids=["in a mask", "in the measures"])
def test_evaluate(tmp_path: Path, dataset: Path, exported: Path, number: int, masks: int) -> None:
    """Each sequence writes 5 masks, then its result."""

    def command(out: Path) -> list[str | Path]:
        where = ["--out", out / "masks", "--json", out / "scores.json"]
        return ["evaluate", "--davis", dataset, "--split", "val", "--model", exported, *where]

    out = tmp_path / "out"
    kill("write", number, command(out))
    assert not (out / "scores.json").exists() and len(partials(out)) == 1
    whole = [path for path in out.rglob("*.png") if not PARTIAL_NAME.fullmatch(path.name)]
    assert len(whole) == masks
    for path in whole:
        read_mask(path, allow_empty=True)
    let_a_day_pass(out)
    finish(command(out))
    finish(command(tmp_path / "undisturbed"))
    assert not partials(out)
    for path in sorted((tmp_path / "undisturbed").rglob("*.png")):
        assert (out / path.relative_to(tmp_path / "undisturbed")).read_bytes() == path.read_bytes()
    scores = [json.loads((run / "scores.json").read_text()) for run in (out, tmp_path / "undisturbed")]
    assert scores[0]["sequences"].keys() == scores[1]["sequences"].keys()


@pytest.mark.slow
def test_two_processes_export_into_one_cache(tmp_path: Path) -> None:
    """Both find what they need, whoever is first; the file is whole and the only one."""
    checkpoint, cache = write_tiny_checkpoint(tmp_path / "tiny.safetensors"), tmp_path / "cache"
    code = (
        "import sys; from pathlib import Path; from maskring.models import resolve_model;"
        "from maskring.runtime.backends import open_backend; model = resolve_model(Path(sys.argv[1]));"
        "open_backend(model, threads=1).close(); print(model)"
    )
    runs = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(checkpoint)],
            env={**os.environ, "MASKRING_CACHE": str(cache)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    ]
    said = [run.communicate() for run in runs]
    assert all(run.returncode == 0 for run in runs), said
    (model,) = cache.iterdir()
    assert {out.strip() for out, _ in said} == {str(model)}
