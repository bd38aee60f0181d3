"""Rows that join channels of several checkpoints."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[2] / "bench"))

from parts import Part, join, parse_row


def test_rows_are_read() -> None:
    name, parts = parse_row("both=a.safetensors+runs/b.safetensors[31:62]*0.5")
    assert name == "both"
    assert parts == [
        Part(Path("a.safetensors"), slice(0, None), 1.0),
        Part(Path("runs/b.safetensors"), slice(31, 62), 0.5),
    ]


@pytest.mark.parametrize("text", ["x=", "x=a[3]", "x=a[1:2]*", "x=a+"])
def test_other_rows_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is not FILE"):
        parse_row(text)


def test_parts_are_compared_as_one_by_distance() -> None:
    torch.manual_seed(0)
    stored = {Path(name): torch.randn(1, 6, 2, 3) for name in "ab"}
    encoders = {
        name: lambda frame, features=features: (features, features) for name, features in stored.items()
    }
    parts = [Part(Path("a"), slice(0, 2), 1.0), Part(Path("b"), slice(1, 4), 2.0)]
    query, key = join(encoders, parts)(torch.zeros(1))  # type: ignore[arg-type]
    points = torch.cat([stored[Path("a")][:, 0:2], 2 * stored[Path("b")][:, 1:4]], dim=1)
    one, other = points[0, :, 0, 1], points[0, :, 1, 2]
    logit = (query[0, :, 0, 1] * key[0, :, 1, 2]).sum() - 0.5 * one.square().sum()
    assert torch.isclose(logit, -0.5 * (one - other).square().sum(), atol=1e-4)
