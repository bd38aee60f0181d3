"""The colours an encoder sees, as OpenCV computes them."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from ...model.metadata import ModelMetadata


def normalised_lab(frame: NDArray[np.uint8], metadata: ModelMetadata, out: NDArray[np.float32]) -> None:
    """Fill ``out`` with what the graph's tensor ``lab`` would hold for ``frame``.

    The graph does the same in ONNX operators; on a CPU, OpenCV's own conversion takes a fraction of the time.

    Args:
        frame: [H, W, 3] RGB.
        metadata: its ``lab_mean`` and ``lab_std`` say how to normalise.
        out: float32 [3, H, W].
    """
    lab = cv2.cvtColor(frame.astype(np.float32) * np.float32(1 / 255), cv2.COLOR_RGB2LAB)
    for plane, mean, std, to in zip(cv2.split(lab), metadata.lab_mean, metadata.lab_std, out, strict=True):
        np.subtract(plane, np.float32(mean), out=to)
        to *= np.float32(1 / std)
