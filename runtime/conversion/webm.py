"""Masks as one video with an alpha channel: VP9 in WebM, which browsers and editors lay over other pictures."""

from __future__ import annotations

import os
from collections.abc import Mapping
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import cv2
import numpy as np

from ...common.errors import SourceError, UnavailableError
from ...common.files import atomic_path
from ...common.types import Image
from ..pipeline.progress import Progress
from ..video.images import read_image
from ..video.palette import PALETTE
from .result import MaskFrame, TrackedMasks

if TYPE_CHECKING:
    from av.video.stream import VideoStream

ENCODER = "libvpx-vp9"
OPTIONS = {"lossless": "1", "auto-alt-ref": "0", "deadline": "realtime", "cpu-used": "8"}
"""Lossless, so that each pixel is on or off as in the mask. Frames of reference that are not shown exclude alpha."""

TICKS = 1000
"""Units of time in a second: WebM counts milliseconds."""

MARGIN = 5
"""Side of the square by which a cut-out's colours reach beyond the object: two pixels share a colour difference."""


def write_webm(masks: TrackedMasks, out: Path, names: Mapping[int, str], progress: Progress) -> list[str]:
    """WebM: VP9 with alpha, opaque where objects are; objects in their colours, or cut out of the images.

    Arguments and result as for :data:`.formats.Writer`.

    Raises:
        SourceError: when an image differs in size from the masks.
        UnavailableError: when FFmpeg has no encoder for VP9.
    """
    av = import_av()
    height, width = masks.size
    with atomic_path(out) as partial, av.open("file:" + os.fspath(partial), "w", format="webm") as container:
        # One rate for the header; frames have times of their own.
        stream = cast("VideoStream", container.add_stream(ENCODER, 25, options=OPTIONS))
        context = stream.codec_context
        context.width, context.height, context.pix_fmt = width, height, "yuva420p"
        context.time_base = Fraction(1, TICKS)
        last = -1
        for done, frame in enumerate(masks, 1):
            picture = av.VideoFrame.from_ndarray(_picture(frame), "rgba")
            last = max(last + 1, round(frame.time * TICKS))
            picture.pts, picture.time_base = last, context.time_base
            container.mux(stream.encode(picture))
            progress("webm", done, len(masks))
        container.mux(stream.encode(None))
    return []


def import_av() -> Any:
    """PyAV, with the encoder.

    Raises:
        UnavailableError: when it lacks the encoder.
    """
    import av

    if ENCODER not in av.codecs_available:
        raise UnavailableError(f"this FFmpeg has no {ENCODER}", "install PyAV from a wheel (pip install av)")
    return av


def _picture(frame: MaskFrame) -> Image:
    """A frame [H, W, 4] RGBA."""
    shape = (frame.labels > 0).astype(np.uint8)
    if frame.image is None:
        colours = PALETTE[frame.labels]
    else:
        image = read_image(frame.image)
        if image.shape[:2] != shape.shape:
            raise SourceError(
                f"{frame.image} differs in size from its mask", "name the folder of the tracked frames"
            )
        near = cv2.dilate(shape, np.ones((MARGIN, MARGIN), np.uint8))
        colours = np.where(near[..., None] > 0, image, np.uint8(0))
    return np.dstack([colours, shape * 255])
