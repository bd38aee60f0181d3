"""The code in ``docs/step_graph.md`` runs as printed and follows an object."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support import kept_export, moving_square

from maskring.training.weights import shipped_checkpoint

PAGE = Path(__file__).parents[2] / "docs" / "step_graph.md"


def test_the_minimal_tracker_follows_a_square(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(), flags=re.DOTALL)
    kept_export(shipped_checkpoint(), tmp_path / "model.onnx", radius=3)
    monkeypatch.chdir(tmp_path)
    namespace: dict[str, Any] = {}
    exec(code, namespace)
    clip = [[plane.repeat(2, 0).repeat(2, 1) for plane in moving_square(index)] for index in range(8)]
    found = list(namespace["track"]([image for image, _ in clip], clip[0][1]))
    assert found[0].dtype == np.uint8
    truth, still = clip[-1][1] > 0, clip[0][1] > 0
    assert overlap(found[-1] > 0, truth) > 0.6 > 0.1 > overlap(still, truth)


def overlap(found: np.ndarray, truth: np.ndarray) -> float:
    return float((found & truth).sum() / (found | truth).sum())
