"""Calibration of ``maskring quantize`` on videos."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np

from ..common.errors import ModelError, SourceError
from ..common.types import Image


def quantize_on_videos(model: Path, videos: list[Path], out: Path, *, frames: int, size: int) -> int:
    """Calibrate ``model`` on frames of ``videos`` and write its int8 version.

    Args:
        model: a float32 ``.onnx`` export.
        videos: video files, folders of frames, and folders with either at any depth.
        out: the ``.onnx`` to write.
        frames: how many frames to take in all, the same number from each video. If there are more videos than
            that, an even choice of them is used.
        size: shorter side that frames are scaled down to, unless the model is fixed to a size.

    Returns:
        The number of frames that the calibration used.

    Raises:
        UserError: see :func:`maskring.export.int8.quantize_onnx` and
            :func:`maskring.runtime.video.open_source.open_source`.
    """
    from ..runtime.model.step_graph import load_step_graph
    from ..runtime.video.folders import find_clips
    from .int8 import quantize_onnx

    _, metadata = load_step_graph(model)
    if out.exists() and out.samefile(model):
        raise ModelError(f"{out} is the input model itself", "give another file with --out")

    def fit(image: Image) -> Image:
        height, width = image.shape[:2]
        scale = min(1.0, size / min(height, width))
        target = (metadata.width or round(width * scale), metadata.height or round(height * scale))
        return np.ascontiguousarray(cv2.resize(image, target, interpolation=cv2.INTER_AREA), np.uint8)

    clips = [clip for video in videos for clip in (find_clips(video) if video.is_dir() else [video])]
    taken = min(frames, len(clips))
    clips = [clips[index * len(clips) // taken] for index in range(taken)]
    chosen = [image for clip in clips for image in spread_frames(clip, frames // taken, fit)]
    return quantize_onnx(model, out, chosen)


def spread_frames(video: Path, count: int, fit: Callable[[Image], Image]) -> list[Image]:
    """Up to ``count`` frames of a video, evenly spread over its length, each passed through ``fit``.

    Raises:
        SourceError: when the video cannot be read or holds no frames.
    """
    from ..runtime.video.open_source import open_source

    with open_source(video) as stream:
        step = max(1, (stream.length or count) // count)
        chosen = []
        for frame in stream:
            if frame.index % step == 0:
                chosen.append(fit(frame.image))
            if len(chosen) == count:
                break
    if not chosen:
        raise SourceError(f"{video} holds no frames", "give another video")
    return chosen
