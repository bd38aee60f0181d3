"""Offline refinement: propagate through a whole video, adapt a U-Net to it, then track again and refine each mask.

Source: arXiv 2006.12480, section on online adaptation. The guard and the weighting of pseudo masks are ours.
"""

from __future__ import annotations

import time
import zlib
from collections.abc import Callable
from dataclasses import replace
from types import TracebackType

import numpy as np
from numpy.typing import NDArray

from ...common.types import ArrayLike
from ..tracking.checks import as_image, as_mask
from ..tracking.result import Result
from ..tracking.tracker import Tracker
from .guard import Guard, corrected_memory, unsure
from .network.adaptation import Adaptation
from .network.predictor import Predictor
from .samples import SampleBuffer, SampleMaker
from .settings import RefinementSettings

REASSESSED = 0.5
"""Fraction of the iterations after which the adapted U-Net weights the propagated masks anew."""

OnStep = Callable[[int, int, float], None]


class OfflineRefiner:
    """A tracker that passes over its stream twice.

    Call :meth:`step` for every frame, as with a :class:`Tracker`; its results are propagated. Then call
    :meth:`adapt`, then :meth:`refine` for every frame in the same order; its results are final. The second pass
    tracks anew: where propagation has lost an object that the U-Net finds, memory takes the refined mask.
    ``settings.buffer`` bounds the memory, beside the masks that the user gave.

    Args:
        tracker: has seen no frame; closed together with this object.
        settings: see :class:`RefinementSettings`.
        predictor: adapted to another video; None to start from random weights.
    """

    def __init__(
        self, tracker: Tracker, settings: RefinementSettings, predictor: Predictor | None = None
    ) -> None:
        self._tracker = tracker
        self._samples = SampleMaker(settings, tracker.stride)
        self._buffer = SampleBuffer(settings.buffer)
        self._settings = settings
        self._adaptation = Adaptation(settings, predictor)
        self._guard = Guard(settings.trust, tracker.metadata)
        self._not_learned: dict[int, str] = {}
        self._frames = 0  # of the first pass
        self._given: dict[int, bytes] = {}  # masks of the user, compressed
        self._removed: dict[int, list[int]] = {}  # objects to stop tracking before a frame
        self._refined = 0  # frames of the second pass

    @property
    def predictor(self) -> Predictor:
        """The adapted U-Net."""
        return self._adaptation.predictor

    def step(self, frame: ArrayLike, mask: ArrayLike | None = None) -> Result:
        """Propagate into the next frame, see :meth:`Tracker.step`.

        Raises:
            UserError: as :meth:`Tracker.step`.
        """
        image = as_image(frame)
        ids = None if mask is None else as_mask(mask, image.shape)
        result = self._tracker.step(image, ids)
        self._buffer.add(self._samples.make(image, result, ids))
        if ids is not None:
            self._given[self._frames] = zlib.compress(ids.tobytes())
            self._guard.drawn(result)
        self._frames += 1
        return result

    def prefetch(self, frame: NDArray[np.uint8]) -> None:
        """Announce the frame after the next one, see :meth:`Tracker.prefetch`."""
        self._tracker.prefetch(frame)

    def remove(self, object_id: int) -> None:
        """Stop tracking an object, see :meth:`Tracker.remove`."""
        self._tracker.remove(object_id)
        self._removed.setdefault(self._frames, []).append(object_id)

    def close(self) -> None:
        """Close the tracker. Closing twice does nothing."""
        self._tracker.close()

    def __enter__(self) -> OfflineRefiner:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def adapt(self, on_step: OnStep = lambda done, planned, loss: None) -> None:
        """Fit the U-Net to the video.

        Args:
            on_step: called after each optimiser step with the steps done, the steps planned, and the loss.
        """
        planned = self._settings.iterations
        while self._adaptation.iterations < planned:
            loss = self._adaptation.step(self._buffer, anneal=True)
            done = self._adaptation.iterations
            if done == int(REASSESSED * planned):
                self._adaptation.reassess(self._buffer)
            on_step(done, planned, loss)
        self._not_learned = self._adaptation.not_learned(self._buffer)
        self.rewind()

    def rewind(self) -> None:
        """Begin the second pass, or begin it again."""
        self._tracker.reset()
        self._refined = 0

    def refine(self, frame: NDArray[np.uint8]) -> Result:
        """The final result of the next frame; ``Result.fallback_reasons`` says which masks stay as propagated.

        A frame with a mask from the user keeps that mask.

        Args:
            frame: [H, W, 3] uint8 RGB, as in the first pass.
        """
        index, self._refined = self._refined, self._refined + 1
        for object_id in self._removed.get(index, ()):
            self._tracker.remove(object_id)
        if index in self._given:
            pixels = np.frombuffer(zlib.decompress(self._given[index]), np.uint8)
            result = self._tracker.step(frame, pixels.reshape(frame.shape[:2]))
            return replace(result, fallback_reasons={})
        result = self._tracker.step(frame)
        started = time.perf_counter()
        ids = [state.id for state in result.objects]
        crop = self._samples.crop(result)
        scaled = crop.image(frame)
        direct = self.predictor.predict(scaled, ids)
        mirrored = self.predictor.predict(scaled, ids, mirrored=True)
        reasons = unsure(ids, direct, mirrored) | self._not_learned
        network = np.float32(0.5) * (direct + mirrored)
        refined = self._guard.decide(frame, result, network, crop, reasons)
        memory = corrected_memory(result, refined, network, crop, self._tracker.stride)
        if memory is not None:
            self._tracker.revise(memory)
        return refined.delayed(time.perf_counter() - started)
