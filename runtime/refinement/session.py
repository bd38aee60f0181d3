"""The options of refinement, and the trackers that they lead to."""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from ...common.errors import SourceError, UnavailableError, UserError
from ..arrays.resizing import scaled_to
from ..pipeline.edits import Steering
from ..pipeline.loop import revisit
from ..pipeline.loop import track as track_source
from ..pipeline.progress import Progress, count_frames, no_progress
from ..pipeline.resized import ResizedTracker, upscale_result
from ..pipeline.summary import Summary
from ..tracking.result import Result
from ..tracking.tracker import Tracker
from ..video.open_source import without_credentials
from ..video.sinks import JsonLinesSink, MaskFolderSink, Sink
from ..video.source import Source
from .settings import RefinementSettings

if TYPE_CHECKING:
    from .network.predictor import Predictor
    from .offline import OfflineRefiner
    from .online import OnlineRefiner

AnyTracker: TypeAlias = "Tracker | OnlineRefiner | OfflineRefiner"


@dataclass(frozen=True)
class Refinement:
    """What a user chose.

    Attributes:
        mode: ``off`` imports no torch.
        settings: see :class:`RefinementSettings`.
        steps: online, optimiser steps within each frame; 0 to adapt beside the stream.
        start: a refiner to go on from; its width counts.

    Raises:
        UserError: on construction, when something was chosen that the mode does not do.
    """

    mode: Literal["off", "offline", "online"] = "off"
    settings: RefinementSettings = field(default_factory=RefinementSettings)
    steps: int = 0
    start: Path | None = None

    def __post_init__(self) -> None:
        chosen, default = self.settings, RefinementSettings()
        online = {
            "--refine-steps": self.steps != 0,
            "--refine-budget": chosen.budget != default.budget,
            "--refine-feedback": chosen.feedback,
        }
        both = {
            "--refine-iterations": chosen.iterations != default.iterations,
            "--refine-size": chosen.size != default.size,
            "--refiner": self.start is not None,
        }
        idle = {"off": online | both, "offline": online, "online": {}}[self.mode]
        for option in (option for option, given in idle.items() if given):
            other = "--refine online" if option in online else "--refine offline or --refine online"
            raise UserError(
                f"{option} does nothing with --refine {self.mode}", f"add {other}, or leave it out"
            )

    def wrap(self, tracker: Tracker) -> AnyTracker:
        """The tracker itself when refinement is off, or one around it.

        Args:
            tracker: one that has seen no frame; closed when this fails.

        Raises:
            UserError: when torch is missing or ``start`` is no refiner.
        """
        try:
            if self.mode == "offline":
                return self._offline(tracker)
            return self._online(tracker) if self.mode == "online" else tracker
        except BaseException:
            tracker.close()
            raise

    def follow(
        self,
        stream: Source,
        reopen: Callable[[], Source],
        tracker: AnyTracker,
        sinks: Sequence[Sink],
        steering: Steering,
        out: Path | None,
        size: int | None = None,
        progress: Progress = no_progress,
    ) -> Summary:
        """Track a source to its end, twice when it is refined offline.

        After the first pass the propagated masks are complete in ``out/propagated``; an interruption of the
        second one leaves them there.

        Args:
            stream: the source, opened.
            reopen: opens the same again.
            tracker: what :meth:`wrap` gave.
            sinks: take the final results.
            steering: what decides at each frame; offline it may not skip or stop, for the second pass would
                not know where.
            out: the user's folder, needed offline.
            size: shorter side of the frames that the tracker sees, None for their own.
            progress: told after each frame and each step of adaptation.
        """
        seen = tracker if size is None else ResizedTracker(tracker, size)
        if self.mode != "offline":
            on_frame = count_frames(progress, "tracking", stream.length)
            return track_source(stream, seen, sinks, steering, on_frame)
        from .offline import OfflineRefiner

        assert isinstance(tracker, OfflineRefiner) and out is not None
        started = time.perf_counter()
        with (
            JsonLinesSink(out / "propagated" / "objects.jsonl") as objects,
            MaskFolderSink(out / "propagated" / "masks") as masks,
        ):
            on_frame = count_frames(progress, "propagating", stream.length)
            track_source(stream, seen, [objects, masks], steering, on_frame)
        tracker.adapt(lambda done, planned, loss: progress("adapting", done, planned, f"loss {loss:.3f}"))

        def refine(frame: NDArray[np.uint8], index: int) -> Result:
            return upscale_result(tracker.refine(scaled_to(frame, size)), frame.shape)

        with reopen() as again:
            refined = revisit(again, refine, sinks, count_frames(progress, "refining", stream.length))
        return replace(refined, seconds=time.perf_counter() - started)

    def check_source(self, source: str, stream: Source, live: bool, save: bool) -> None:
        """Refuse what cannot be done with a stream.

        Raises:
            SourceError: when it cannot be seen twice and is to be refined offline.
            UserError: when a refiner is to be saved and there is none.
        """
        if self.mode == "offline" and (live or stream.length is None):
            raise SourceError(
                f"{without_credentials(source)} cannot be seen twice, as offline refinement needs",
                "run with --refine online, or record it first",
            )
        if save and self.mode == "off":
            raise UserError("there is no refiner to save", "add --refine offline or --refine online")

    def _offline(self, tracker: Tracker) -> OfflineRefiner:
        settings, predictor = self._started()
        from .offline import OfflineRefiner

        return OfflineRefiner(tracker, settings, predictor)

    def _online(self, tracker: Tracker) -> OnlineRefiner:
        settings, predictor = self._started()
        from .online import OnlineRefiner
        from .worker import StepsPerFrame, new_worker

        if self.steps:
            return OnlineRefiner(tracker, settings, StepsPerFrame(settings, self.steps, predictor))
        return OnlineRefiner(tracker, settings, new_worker(settings, predictor))

    def _started(self) -> tuple[RefinementSettings, Predictor | None]:
        """The settings and the U-Net to begin with."""
        missing = [name for name in ("torch", "safetensors") if importlib.util.find_spec(name) is None]
        if missing:
            raise UnavailableError(
                f"refinement needs {' and '.join(missing)}",
                "run pip install 'maskring[refine]', or run with --refine off",
            )
        if self.start is None:
            return self.settings, None
        from .network.checkpoint import load_predictor

        predictor = load_predictor(self.start)
        return replace(self.settings, width=predictor.unet.width), predictor


def save_refiner(tracker: AnyTracker, path: Path) -> None:
    """Write the U-Net that was adapted.

    Raises:
        OutputError: when it cannot be written.
    """
    from .network.checkpoint import save_predictor

    assert not isinstance(tracker, Tracker)
    save_predictor(path, tracker.predictor)
