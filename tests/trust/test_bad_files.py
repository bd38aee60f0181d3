"""Files of every kind that maskring reads, damaged at random: no traceback, no crash, no hang, no bomb."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from trust.targets import TARGETS

TOOLS = Path(__file__).resolve().parents[1] / "tools"

SAMPLE = 40
"""Cases per kind of file in the short run; each kind has its own seed."""

MANY = {
    **dict.fromkeys(("metadata", "recipes", "segments", "manifests"), 20_000),
    **dict.fromkeys(("masks", "images", "datasets", "checkpoints", "refiners"), 6_000),
    **dict.fromkeys(("models", "pickles", "states", "videos"), 2_500),
}
"""Cases per kind of file in the long run; more than 100 000 in all."""


WITH_TORCH = ("checkpoints", "models", "pickles", "recipes", "refiners", "states")
"""Kinds whose readers import torch, which takes longer than their cases."""


def attack(names: Sequence[str], seed: int, count: int, folder: Path, exported: Path) -> None:
    (folder / "models").mkdir()
    shutil.copy(exported, folder / "models" / "sound.onnx")
    run = subprocess.run(
        [sys.executable, "-m", "trust.attack", ",".join(names), str(seed), str(count), str(folder)],
        cwd=TOOLS,
        env={**os.environ, "PYTHONWARNINGS": "ignore", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    last = {name: path.read_text() for name in names if (path := folder / name / "case").exists()}
    said = f"exit code {run.returncode}, last cases {last}\n{run.stdout}\n{run.stderr[-3000:]}"
    assert run.returncode == 0, said
    assert all(f'"target": "{name}"' in run.stdout for name in names), said


@pytest.mark.parametrize("with_torch", [False, True])
def test_sample(with_torch: bool, tmp_path: Path, exported: Path) -> None:
    names = [name for name in TARGETS if (name in WITH_TORCH) == with_torch]
    attack(names, 7, SAMPLE, tmp_path, exported)


@pytest.mark.slow
@pytest.mark.parametrize("name", TARGETS)
def test_many(name: str, tmp_path: Path, exported: Path) -> None:
    assert sum(MANY.values()) >= 100_000
    attack([name], 1, MANY[name], tmp_path, exported)
