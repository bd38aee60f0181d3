"""What several test files share."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# Before anything imports torch: its threads share tiny arrays, and wait for each other where cores are few.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# A busy machine is no reason to fail.
settings.register_profile("maskring", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("maskring")

STARTED = time.monotonic()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--minutes", type=float, help="skip the tests that have not begun after that many minutes"
    )


def pytest_runtest_setup(item: pytest.Item) -> None:
    minutes = item.config.getoption("--minutes")
    if minutes is not None and time.monotonic() - STARTED > 60 * minutes:
        pytest.skip(f"the {minutes:g} minutes of this run are over")


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real videos: ``MASKRING_DATA``, else ``shared/data`` beside the repository."""
    named = os.environ.get("MASKRING_DATA")
    folder = Path(named) if named else Path(__file__).resolve().parents[2] / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"no real videos: {folder} is not there (set MASKRING_DATA to their folder)")
    return folder
