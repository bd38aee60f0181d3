"""What maskring does with its base install: no torch, and any versions that pyproject.toml allows.

`make test-lowest` and `make test-newest` run this file, and others that need no more, in environments of their own.
"""

from __future__ import annotations

import json
import lzma
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import cv2
import numpy as np
import onnx
import onnx.inliner
import pytest
from support import moving_square, write_frames

from maskring import read_mask, write_mask

FILES = Path(__file__).parent / "files" / "version_0_1"

WITHOUT_TORCH = "import sys; sys.modules['torch'] = None; from maskring.__main__ import main; main()"


def maskring(*arguments: object, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run a command where torch cannot be imported."""
    words = [sys.executable, "-c", WITHOUT_TORCH, *map(str, arguments)]
    return subprocess.run(words, cwd=folder, capture_output=True, text=True, timeout=1800, check=False)


def release(distribution: str) -> tuple[int, ...]:
    """Major and minor version of an installed package."""
    return tuple(map(int, metadata.version(distribution).split(".")[:2]))


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a clip, its first mask and an exported model."""
    folder = tmp_path_factory.mktemp("scene")
    write_frames(folder / "clip", 12)
    write_mask(folder / "mask.png", moving_square(0)[1])
    (folder / "tiny.onnx").write_bytes(lzma.decompress((FILES / "tiny.onnx.xz").read_bytes()))
    return folder


@pytest.mark.parametrize("kernel", ["native", "function"])
def test_tracks_as_everywhere(scene: Path, kernel: str) -> None:
    """The export has several function bodies, which older versions of onnxruntime refuse."""
    expected = np.load(FILES / "labels.npz")["export"]
    options = ("--mask", "mask.png", "--model", "tiny.onnx", "--kernel", kernel, "--out", kernel)
    done = maskring("track", "clip", *options, "--threads", 1, folder=scene)
    if kernel == "function" and release("onnxruntime") < (1, 28):
        assert done.returncode == 2 and "--kernel function" in done.stderr and "1.28" in done.stderr
        return
    assert done.returncode == 0, done.stderr
    found = [read_mask(scene / kernel / "masks" / f"{i:05}.png", allow_empty=True) for i in range(12)]
    agreement = (np.stack(found) == expected).mean()
    assert agreement == 1 if kernel == "native" else agreement > 0.999
    lines = (scene / kernel / "objects.jsonl").read_text().splitlines()
    assert len(lines) == 12 and all(json.loads(line) for line in lines)
    assert cv2.VideoCapture(str(scene / kernel / "overlay.mp4")).read()[0]


def test_tracks_with_an_inlined_file(scene: Path) -> None:
    """One line says that it is slower; no line of source stands beside it."""
    onnx.save(onnx.inliner.inline_local_functions(onnx.load(scene / "tiny.onnx")), scene / "inlined.onnx")
    options = ("--mask", "mask.png", "--model", "inlined.onnx", "--out", "inlined", "--threads", 1)
    done = maskring("track", "clip", *options, folder=scene)
    assert done.returncode == 0, done.stderr
    (said,) = (line for line in done.stderr.splitlines() if "inlined.onnx" in line)
    assert "slower" in said and "Warning" not in done.stderr
    expected = np.load(FILES / "labels.npz")["export"]
    found = [read_mask(scene / "inlined" / "masks" / f"{i:05}.png", allow_empty=True) for i in range(12)]
    assert (np.stack(found) == expected).mean() > 0.999


def test_tracks_with_the_default_checkpoint(scene: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A shipped checkpoint needs no exporter, and nothing in the cache."""
    monkeypatch.setenv("MASKRING_CACHE", str(scene / "cache"))
    done = maskring("track", "clip", "--mask", "mask.png", "--out", "pico", "--threads", 1, folder=scene)
    assert done.returncode == 0, done.stderr
    last = read_mask(scene / "pico" / "masks" / "00011.png", allow_empty=True)
    assert (last == moving_square(11)[1]).mean() > 0.97


@pytest.mark.parametrize(
    "command",
    [
        ("export", "pico", "--out", "other.onnx", "--radius", "5"),
        ("track", "clip", "--mask", "mask.png", "--model", "tiny.onnx", "--refine", "offline", "--out", "no"),
    ],
    ids=("export", "refine"),
)
def test_what_needs_torch_names_the_extra(scene: Path, command: tuple[str, ...]) -> None:
    done = maskring(*command, folder=scene)
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert (
        len(done.stderr.splitlines()) == 1
        and "torch" in done.stderr
        and "pip install 'maskring[" in done.stderr
    )


@pytest.mark.parametrize("command", ["track", "score", "convert", "export", "train", "studio", "profile"])
def test_commands_explain_themselves(scene: Path, command: str) -> None:
    done = maskring(command, "--help", folder=scene)
    assert done.returncode == 0 and "--help" in done.stdout, done.stderr


def test_doctor_finds_all_that_tracking_needs(scene: Path) -> None:
    done = maskring("doctor", folder=scene)
    assert done.returncode == 0 and "ready" in done.stdout, done.stdout + done.stderr


def test_what_is_missing_is_named(scene: Path) -> None:
    done = maskring(
        "track", "clip", "--model", "tiny.onnx", "--mask", "none.png", "--out", "no", folder=scene
    )
    assert done.returncode == 2 and "none.png" in done.stderr and "Traceback" not in done.stderr
