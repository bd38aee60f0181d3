"""Files of every kind that maskring reads, damaged at random: never a traceback, a crash, a hang, or a bomb."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from trust.targets import TARGETS

TESTS = Path(__file__).resolve().parents[1]

SAMPLE = 40
"""Cases per kind of file in the short run; each kind has its own seed."""

MANY = {
    **dict.fromkeys(("metadata", "recipes", "segments", "manifests"), 20_000),
    **dict.fromkeys(("masks", "images", "datasets", "checkpoints", "refiners"), 6_000),
    **dict.fromkeys(("models", "pickles", "states", "videos"), 2_500),
}
"""Cases per kind of file in the long run; more than 100 000 in all."""


def attack(name: str, seed: int, count: int, folder: Path, exported: Path) -> None:
    shutil.copy(exported, folder / "sound.onnx")
    run = subprocess.run(
        [sys.executable, "-m", "trust.attack", name, str(seed), str(count), str(folder)],
        cwd=TESTS,
        env={**os.environ, "PYTHONWARNINGS": "ignore", "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    last = (folder / "case").read_text() if (folder / "case").exists() else "none"
    said = f"exit code {run.returncode}, last case {last}\n{run.stdout}\n{run.stderr[-3000:]}"
    assert run.returncode == 0, said
    assert f'"target": "{name}"' in run.stdout, said


@pytest.mark.parametrize("name", TARGETS)
def test_sample(name: str, tmp_path: Path, exported: Path) -> None:
    attack(name, 7, SAMPLE, tmp_path, exported)


@pytest.mark.slow
@pytest.mark.parametrize("name", TARGETS)
def test_many(name: str, tmp_path: Path, exported: Path) -> None:
    assert sum(MANY.values()) >= 100_000
    attack(name, 1, MANY[name], tmp_path, exported)
