"""A model of raw pixels, and its engine on the fake GPU."""

from __future__ import annotations

from pathlib import Path

import pytest
from fake_device import write_engine
from pixel_model import write_pixel_model


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_pixel_model(tmp_path_factory.mktemp("model") / "pixel.onnx")


@pytest.fixture(scope="module")
def engine(model: Path, request: pytest.FixtureRequest) -> Path:
    """Built with the ``OPTIONS`` of the test's module."""
    return write_engine(model, model.with_suffix(".engine"), request.module.OPTIONS)
