"""Decoded frames as RGB: deinterlaced, with the stream's own colour matrix and range, upright."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast

import cv2
import numpy as np

from ...common.errors import SourceError
from ...common.types import Image
from .frame import check_pixel_limit

if TYPE_CHECKING:
    from av.filter import Graph
    from av.video.frame import VideoFrame

T = TypeVar("T")

UNSPECIFIED = 2
BT_601 = 5
FULL_RANGE = 2

MATRICES = {1: 1, 4: 4, 5: BT_601, 6: BT_601, 7: 7, 9: 9, 10: 9, UNSPECIFIED: BT_601}
"""Colour matrix as ITU-T H.273 numbers it -> as swscale does. A stream that names none is read as BT.601, like
FFmpeg and OpenCV do. The others are no matrices of Y'CbCr and are left to swscale."""

DEINTERLACE = "mode=send_frame:parity=auto:deint=interlaced"
"""One frame for each, from both fields; frames that are not flagged as interlaced stay as they are."""


class Deinterlacer(Generic[T]):
    """Passes frames on, interlaced ones through FFmpeg's bwdif, which holds one frame back.

    Progressive video takes no filter: the graph is built when the first interlaced frame comes. Each frame
    comes back with what was given with it.
    """

    def __init__(self) -> None:
        self._graph: Graph | None = None
        self._layout: tuple[int, int, str] | None = None
        self._waiting: deque[T] = deque()

    def push(self, frame: VideoFrame, companion: T) -> Iterator[tuple[VideoFrame, T]]:
        """Give the next frame; yields those that are ready."""
        layout = frame.width, frame.height, frame.format.name
        if self._graph is not None and layout != self._layout:
            yield from self.flush()
        if self._graph is None:
            if not frame.interlaced_frame:
                yield frame, companion
                return
            self._graph, self._layout = _graph(frame), layout
        self._waiting.append(companion)
        self._graph.vpush(frame)
        yield from self._ready()

    def flush(self) -> Iterator[tuple[VideoFrame, T]]:
        """No frame follows; yields the last ones."""
        if self._graph is not None:
            self._graph.vpush(None)
            yield from self._ready()
            self._graph = None

    def _ready(self) -> Iterator[tuple[VideoFrame, T]]:
        import av

        while self._graph is not None and self._waiting:
            try:
                frame = self._graph.vpull()
            except (av.BlockingIOError, av.EOFError):
                return
            yield frame, self._waiting.popleft()


def _graph(frame: VideoFrame) -> Graph:
    from av.filter import Graph

    graph = Graph()
    source = graph.add_buffer(
        width=frame.width, height=frame.height, format=frame.format, time_base=frame.time_base
    )
    graph.link_nodes(source, graph.add("bwdif", DEINTERLACE), graph.add("buffersink")).configure()
    return graph


class Converter:
    """Converts frames to RGB, and turns and mirrors them as their display matrix says.

    Args:
        name: the video's name in errors.
    """

    def __init__(self, name: str) -> None:
        from av.video.reformatter import VideoReformatter

        self._name = name
        self._reformatter = VideoReformatter()

    def image(self, frame: VideoFrame) -> Image:
        """[H, W, 3] uint8 RGB, which the receiver owns.

        Args:
            frame: a progressive one.

        Raises:
            SourceError: when the frame is giant, or its colours are coded in a way that swscale does not know.
        """
        check_pixel_limit(self._name, frame.height, frame.width)
        try:
            rgb = self._reformatter.reformat(
                frame,
                format="rgb24",
                src_colorspace=MATRICES.get(frame.colorspace),
                src_color_range=frame.color_range or None,
                dst_color_range=FULL_RANGE,
            )
        except OSError as error:
            raise SourceError(
                f"{self._name} codes its colours by matrix {int(frame.colorspace)} of ITU-T H.273, which FFmpeg's "
                "swscale cannot convert",
                "convert it to BT.709 first: ffmpeg -i IN -vf zscale=matrix=709,format=yuv420p OUT.mp4",
            ) from error
        image = np.ascontiguousarray(rgb.to_ndarray(), np.uint8)
        turn = turn_of(frame)
        return image if turn is None else turned(image, turn)


def turn_of(frame: VideoFrame) -> tuple[int, int, int, int] | None:
    """Signs of the display matrix (a, b, c, d): a pixel (x, y) is shown at (a x + c y, b x + d y).

    Returns:
        None for upright frames, and for angles between quarter turns, which are left alone.
    """
    try:
        data = bytes(cast("Any", frame.side_data)["DISPLAYMATRIX"])
    except KeyError:
        return None
    matrix = np.frombuffer(data, np.dtype("=i4"), 9).reshape(3, 3)[:2, :2].ravel()
    a, b, c, d = (int(value) for value in np.sign(matrix))
    straight, across = a and d and not (b or c), b and c and not (a or d)
    return (a, b, c, d) if across or (straight and (a, d) != (1, 1)) else None


def turned(image: Image, turn: tuple[int, int, int, int]) -> Image:
    """An image [H, W, 3] turned by quarters and mirrored; see :func:`turn_of`."""
    a, b, c, d = turn
    if not a:
        image = np.asarray(cv2.transpose(image), np.uint8)
    flips = {(True, False): 1, (False, True): 0, (True, True): -1}
    flip = flips.get((a + c < 0, b + d < 0))
    return image if flip is None else np.asarray(cv2.flip(image, flip), np.uint8)
