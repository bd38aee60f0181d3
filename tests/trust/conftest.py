"""No test in here may hang: what is attacked might."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

import pytest
from support import export_tiny_model

SECONDS = int(os.environ.get("MASKRING_TRUST_SECONDS", "3600"))
"""After which a test has hung, far beyond what any takes on a busy machine."""


@pytest.fixture(scope="session")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny checkpoint as ONNX file."""
    return export_tiny_model(tmp_path_factory.mktemp("exported"))


@pytest.fixture(autouse=True)
def no_hang() -> Iterator[None]:
    def hung(number: int, frame: FrameType | None) -> None:
        raise TimeoutError(f"the test hangs after {SECONDS} seconds")

    before = signal.signal(signal.SIGALRM, hung)
    signal.alarm(SECONDS)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)
