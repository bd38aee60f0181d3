"""The normalised colours that an encoder sees, computed by OpenCV."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from ...model.metadata import ModelMetadata


def normalised_lab(frame: NDArray[np.uint8], metadata: ModelMetadata, out: NDArray[np.float32]) -> None:
    """Fill ``out`` with the values of the graph's tensor ``lab`` for ``frame``.

    The graph has the same conversion in ONNX operators; OpenCV takes a fraction of its time on a CPU.

    Args:
        frame: [H, W, 3] RGB.
        metadata: its ``lab_mean`` and ``lab_std`` normalise.
        out: float32 [3, H, W].
    """
    lab = cv2.cvtColor(frame.astype(np.float32) * np.float32(1 / 255), cv2.COLOR_RGB2LAB)
    for plane, mean, std, to in zip(cv2.split(lab), metadata.lab_mean, metadata.lab_std, out, strict=True):
        np.subtract(plane, np.float32(mean), out=to)
        to *= np.float32(1 / std)
