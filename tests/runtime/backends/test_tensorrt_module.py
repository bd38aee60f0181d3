"""One logger for engines that run and engines that are built: TensorRT keeps the first one that it is given."""

from __future__ import annotations

from typing import Any

import fake_device
import pytest
from fake_device import FakeGpu

from maskring.runtime.backends.trt.module import tensorrt_logger


@pytest.fixture
def trt(monkeypatch: pytest.MonkeyPatch) -> Any:
    return fake_device.install(monkeypatch, FakeGpu(no_op=True))


def test_a_process_has_one_logger(trt: Any) -> None:
    assert tensorrt_logger(trt) is tensorrt_logger(trt)


def test_the_listener_hears_everything_and_errors_are_remembered(trt: Any) -> None:
    logger, messages = tensorrt_logger(trt), list[tuple[str, bool]]()
    logger.listener = lambda message, is_error: messages.append((message, is_error))
    logger.log(trt.ILogger.WARNING, "slow")
    logger.log(trt.ILogger.INTERNAL_ERROR, "broken")
    logger.listener = None
    logger.log(trt.ILogger.ERROR, "later")
    assert messages == [("slow", False), ("broken", True)]
    assert list(logger.errors) == ["broken", "later"]
