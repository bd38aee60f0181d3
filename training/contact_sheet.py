"""Contact sheets that show true and reconstructed colours side by side."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
from torch import Tensor

from ..common.files import atomic_path
from .network.colour import LAB_MEAN, LAB_STD

ENLARGEMENT = 3
MAX_CLIPS = 4


def write_contact_sheet(path: Path, truth: Tensor, reconstruction: Tensor) -> None:
    """Write a PNG with one row per clip: true and reconstructed colours of each frame, side by side.

    Args:
        path: the PNG to write.
        truth, reconstruction: [B, T, 3, h, w] normalised Lab.
    """
    rows = []
    for true_clip, copied_clip in zip(truth[:MAX_CLIPS], reconstruction[:MAX_CLIPS], strict=True):
        pairs = [_bgr(image) for pair in zip(true_clip, copied_clip, strict=True) for image in pair]
        rows.append(np.concatenate(pairs, axis=1))
    sheet: Any = np.concatenate(rows, axis=0)
    large = cv2.resize(sheet, None, fx=ENLARGEMENT, fy=ENLARGEMENT, interpolation=cv2.INTER_NEAREST)
    with atomic_path(path) as partial:
        partial.write_bytes(bytes(cv2.imencode(".png", large)[1]))


def _bgr(lab: Tensor) -> Any:
    """[3, h, w] normalised Lab -> [h, w, 3] uint8 BGR."""
    image = lab.detach().float().cpu().numpy().transpose(1, 2, 0) * LAB_STD + LAB_MEAN
    bgr: Any = cv2.cvtColor(np.ascontiguousarray(image, dtype=np.float32), cv2.COLOR_LAB2BGR)
    return (bgr.clip(0, 1) * 255).round().astype(np.uint8)
