"""What a run did, for the line that is printed at its end."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field

from ..tracking.result import Result
from ..video.frame import Frame


@dataclass(frozen=True)
class Summary:
    """What a finished run did.

    Attributes:
        frames: frames processed.
        seconds: wall-clock time.
        last: index of the last frame, None when there was none.
        lost: tracked objects that cover no pixel of the last frame -> index of the last frame that shows
            them, None when no frame does.
    """

    frames: int
    seconds: float
    last: int | None = None
    lost: Mapping[int, int | None] = field(default_factory=dict)

    @property
    def fps(self) -> float:
        """Frames per second of the whole loop: decoding, tracking and writing."""
        return self.frames / self.seconds if self.seconds else 0.0

    def lost_objects(self) -> list[str]:
        """One sentence for each lost object, without a full stop."""
        return [
            f"object {object_id} was " + ("never seen" if index is None else f"last seen in frame {index}")
            for object_id, index in self.lost.items()
        ]


class SummaryBuilder:
    """Collects results for a :class:`Summary`; its clock starts when it is made."""

    def __init__(self) -> None:
        self._start, self._frames = time.perf_counter(), 0
        self._last: int | None = None
        self._seen: dict[int, int] = {}
        self._lost: dict[int, int | None] = {}

    def add(self, frame: Frame, result: Result) -> None:
        """Count one more frame."""
        self._frames += 1
        self._last = frame.index
        self._seen |= {state.id: frame.index for state in result.objects if state.area}
        self._lost = {state.id: self._seen.get(state.id) for state in result.objects if not state.area}

    def summary(self) -> Summary:
        """What was collected until now."""
        return Summary(self._frames, time.perf_counter() - self._start, self._last, self._lost)
