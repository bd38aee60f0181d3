"""A dataset for all tests of evaluation."""

from __future__ import annotations

from pathlib import Path

import pytest
from evaluation_runs import davis, write_palette, write_white


@pytest.fixture
def mixed(tmp_path: Path) -> Path:
    return davis(tmp_path / "davis", {"many": write_palette, "one": write_white})
