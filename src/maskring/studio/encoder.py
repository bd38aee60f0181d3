"""The encoder's features of a frame, for scribbles."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

from ..common.errors import ModelError
from ..common.types import Image
from ..runtime.arrays.resizing import scaled_to
from ..runtime.backends import open_backend
from ..runtime.backends.onnxrt.backend import OnnxRuntimeBackend
from ..runtime.interaction.scribble import FrameFeatures

MAX_SIDE = 480
"""Shorter side of the frames that the encoder sees; larger ones are scaled down, so that a stroke takes no longer."""


class FrameEncoder:
    """Opens the model at the first frame, and keeps the features of the latest one.

    Args:
        model: finds the exported model.
        threads: CPU threads, 0 for all.
    """

    def __init__(self, model: Callable[[], Path], threads: int = 0) -> None:
        self._model, self._threads = model, threads
        self._backend: OnnxRuntimeBackend | None = None
        self._latest: tuple[object, FrameFeatures] | None = None
        self._lock = threading.Lock()

    def features(self, key: object, image: Image) -> FrameFeatures:
        """The features of a frame.

        Args:
            key: names the frame.
            image: [H, W, 3] uint8 RGB.

        Raises:
            ModelError: when the model is an engine, whose features stay on the GPU.
        """
        with self._lock:
            if self._latest is None or self._latest[0] != key:
                small = scaled_to(image, MAX_SIDE) if min(image.shape[:2]) > MAX_SIDE else image
                backend = self._opened()
                stride = backend.metadata.stride * image.shape[0] / small.shape[0]
                self._latest = key, FrameFeatures(backend.features(small), stride)
            return self._latest[1]

    def _opened(self) -> OnnxRuntimeBackend:
        if self._backend is None:
            backend = open_backend(self._model(), threads=self._threads)
            if not isinstance(backend, OnnxRuntimeBackend):
                backend.close()
                raise ModelError(
                    "an engine cannot be scribbled with", "start studio with a checkpoint or an .onnx"
                )
            self._backend = backend
        return self._backend
