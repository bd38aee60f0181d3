"""Online refinement: the U-Net adapts beside the stream and refines each frame with what it knows by then."""

from __future__ import annotations

import contextlib
import time
from dataclasses import replace
from types import TracebackType

import numpy as np
from numpy.typing import NDArray

from ...common.errors import UserError
from ..tracking.result import Result
from ..tracking.tracker import Tracker
from .guard import NOT_ADAPTED_REASON, Guard
from .network.predictor import Predictor, one_thread
from .samples import SampleMaker
from .settings import RefinementSettings
from .worker import Worker


class OnlineRefiner:
    """A tracker whose results are refined; it can stand wherever a :class:`Tracker` can.

    A frame costs one forward pass of the U-Net beside its tracking; learning happens in the worker. Until the
    first snapshot arrives, masks are propagation's.

    Args:
        tracker: one that has seen no frame; closed together with this object.
        settings: see :class:`RefinementSettings`.
        worker: adapts; closed together with this object.

    Attributes:
        predictor: the U-Net as it is used for the next frame.
        iterations: optimiser steps behind it.
        worker: adapts.
    """

    def __init__(self, tracker: Tracker, settings: RefinementSettings, worker: Worker) -> None:
        self.predictor = Predictor.untrained(settings.width, settings.seed)
        self.iterations = 0
        self._tracker = tracker
        self._settings = settings
        self.worker = worker
        self._samples = SampleMaker(settings, tracker.stride)
        self._guard = Guard(settings.online_trust, tracker.stride)
        self._kept: dict[int, str] = {}

    def step(self, frame: NDArray[np.uint8], mask: NDArray[np.uint8] | None = None) -> Result:
        """Label the next frame of the stream, see :meth:`Tracker.step`; a frame with a mask is not refined.

        ``Result.fallback_reasons`` names the objects whose mask is propagation's, with the reason.

        Raises:
            UserError: as :meth:`Tracker.step`, and when the worker has died.
        """
        result = self._tracker.step(frame, mask)
        self.worker.offer(self._samples.make(frame, result, mask))
        snapshot = self.worker.newest()
        if snapshot is not None:
            self.predictor.adopt(snapshot.ids, snapshot.weights)
            self._kept, self.iterations = dict(snapshot.kept), snapshot.iterations
        if mask is not None:
            self._guard.drawn(result)
            return replace(result, fallback_reasons={})
        return self._refined(frame, result)

    def prefetch(self, frame: NDArray[np.uint8]) -> None:
        """Say which frame follows the next one, see :meth:`Tracker.prefetch`."""
        self._tracker.prefetch(frame)

    def remove(self, object_id: int) -> None:
        """Stop following an object, see :meth:`Tracker.remove`."""
        self._tracker.remove(object_id)

    def close(self) -> None:
        """Stop the worker and close the tracker. Closing twice does nothing.

        Raises:
            UserError: when the worker has died and :meth:`step` has not told.
        """
        try:
            self.worker.close()
        finally:
            self._tracker.close()

    def __enter__(self) -> OnlineRefiner:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # What went wrong within the block is what the user has to hear of.
        with contextlib.nullcontext() if error is None else contextlib.suppress(UserError):
            self.close()

    def _refined(self, frame: NDArray[np.uint8], result: Result) -> Result:
        started = time.perf_counter()
        ids = [state.id for state in result.objects]
        unknown = {known: NOT_ADAPTED_REASON for known in ids if known not in self.predictor.ids}
        if len(unknown) == len(ids):
            return replace(result, fallback_reasons=unknown)
        view = self._samples.view(result)
        with one_thread():  # a second one would wait for the core that the worker computes on
            network = self.predictor.predict(view.image(frame), ids)
        refined = self._guard.decide(result, network, view, self._kept | unknown)
        if self._settings.feedback:
            self._tracker.revise(refined.labels)
        return refined.delayed(time.perf_counter() - started)
