"""What several test files share."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real videos: ``MASKRING_DATA``, else ``shared/data`` beside the repository."""
    named = os.environ.get("MASKRING_DATA")
    folder = Path(named) if named else Path(__file__).resolve().parents[2] / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"no real videos: {folder} is not there (set MASKRING_DATA to their folder)")
    return folder
