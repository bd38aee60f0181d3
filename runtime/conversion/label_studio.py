"""Masks as brush strokes of Label Studio: tasks with predictions, one task per frame.

The run lengths are those of its brush tool (``decode_rle`` in label-studio-sdk): bits, most significant first, over
the RGBA bytes of the picture, row by row. A header of 53 bits gives the number of bytes (32 bits), the bits of
a value less one (5), and the bits of the four kinds of run lengths, each less one (4 each). A run is a bit 1, the
kind (2), its length less one, and the value.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...common.files import atomic_path
from ...common.types import Labels
from ..pipeline.progress import Progress
from .objects import masks_of_objects
from .result import TrackedMasks

CHANNELS = 4
"""Label Studio stores the opacity of a pixel in each channel of RGBA."""

LENGTH_BITS = (3, 4, 8, 16)
"""Bits of each kind of run length."""

VALUE_BITS = 8

CONTROL, IMAGE = "tag", "image"
"""Names of the tags ``BrushLabels`` and ``Image`` in Label Studio's template for brush masks."""


def write_label_studio(
    masks: TrackedMasks, out: Path, names: Mapping[int, str], progress: Progress
) -> list[str]:
    """Label Studio: a JSON file with a task per frame; masks as brush RLE, which is exact.

    Arguments and result as for :data:`.formats.Writer`.
    """
    height, width = masks.size
    tasks: list[dict[str, Any]] = []
    for done, frame in enumerate(masks, 1):
        results = [
            {
                "id": f"{frame.index}-{number}",
                "type": "brushlabels",
                "from_name": CONTROL,
                "to_name": IMAGE,
                "original_width": width,
                "original_height": height,
                "image_rotation": 0,
                "value": {"format": "rle", "rle": encode_brush(shape), "brushlabels": [names[number]]},
                "meta": {"text": [f"object {number}"]},
            }
            for number, shape in masks_of_objects(frame.labels)
        ]
        # A path below the folder that Label Studio serves from its own disk.
        data = {IMAGE: f"/data/local-files/?d={masks.name}/{frame.image_name}", "frame": frame.index}
        tasks.append({"data": data, "predictions": [{"model_version": "maskring", "result": results}]})
        progress("label-studio", done, len(masks))
    with atomic_path(out) as partial:
        partial.write_text(json.dumps(tasks), encoding="utf-8")
    return []


def encode_brush(shape: Labels) -> list[int]:
    """The run lengths of a mask as Label Studio has them: bytes, 0 to 255.

    Args:
        shape: [H, W], not 0 where the object is.
    """
    pixels = (np.ravel(shape) != 0).astype(np.int64)
    starts = np.concatenate([[0], np.flatnonzero(np.diff(pixels)) + 1])
    lengths = np.diff(starts, append=pixels.size) * CHANNELS
    values = pixels[starts] * 255
    longest = 1 << LENGTH_BITS[-1]
    pieces = -(-lengths // longest)
    values = np.repeat(values, pieces)
    last = np.cumsum(pieces) - 1
    split = np.full(values.size, longest, np.int64)
    split[last] = lengths - (pieces - 1) * longest
    kinds = np.searchsorted([1 << bits for bits in LENGTH_BITS], split)
    bits_of_length = np.array(LENGTH_BITS)[kinds]
    codes = 1 << (2 + bits_of_length + VALUE_BITS)
    codes |= kinds << (bits_of_length + VALUE_BITS)
    codes |= (split - 1) << VALUE_BITS
    codes |= values
    header = [
        _bits(np.array([pixels.size * CHANNELS]), np.array([32])),
        _bits(np.array([VALUE_BITS - 1]), np.array([5])),
    ]
    header.append(_bits(np.array(LENGTH_BITS) - 1, np.full(len(LENGTH_BITS), 4)))
    runs = _bits(codes, 1 + 2 + bits_of_length + VALUE_BITS)
    packed: list[int] = np.packbits(np.concatenate([*header, runs])).tolist()
    return packed


def _bits(numbers: NDArray[Any], widths: NDArray[Any]) -> NDArray[np.uint8]:
    """The lowest bits of each number, ``widths`` of them, most significant first, one after another."""
    every = np.unpackbits(numbers.astype(">u4").view(np.uint8)).reshape(-1, 32)
    wanted: NDArray[np.uint8] = every[np.arange(32) >= 32 - widths[:, None]]
    return wanted
