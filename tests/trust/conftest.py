"""No test in here may hang: what is attacked might."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

import pytest
from support import write_tiny_checkpoint

SECONDS = int(os.environ.get("MASKRING_TRUST_SECONDS", "3600"))
"""After which a test has hung, far beyond what any takes on a busy machine."""


@pytest.fixture(scope="session")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny checkpoint as ONNX file."""
    from maskring.export.onnx_export import export_onnx

    folder = tmp_path_factory.mktemp("exported")
    export_onnx(write_tiny_checkpoint(folder / "tiny.safetensors"), folder / "tiny.onnx", radius=2)
    return folder / "tiny.onnx"


@pytest.fixture(autouse=True)
def no_hang() -> Iterator[None]:
    def hung(number: int, frame: FrameType | None) -> None:
        raise TimeoutError(f"the test hangs after {SECONDS} seconds")

    before = signal.signal(signal.SIGALRM, hung)
    signal.alarm(SECONDS)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)
