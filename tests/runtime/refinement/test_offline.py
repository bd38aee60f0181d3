"""Offline refinement: two passes over a clip."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from disc_clip import OBJECT, OTHER, QUICK, Frames, clip, new_tracker, overlap
from numpy.typing import NDArray
from pixel_backend import PixelBackend

from maskring.runtime.evaluation.protocol import TwoPassTracker
from maskring.runtime.refinement.guard import NOT_LEARNED_REASON
from maskring.runtime.refinement.network.adaptation import Adaptation
from maskring.runtime.refinement.offline import OfflineRefiner
from maskring.runtime.refinement.samples import SampleBuffer
from maskring.runtime.refinement.settings import RefinementSettings
from maskring.runtime.tracking.memory import MemoryPolicy
from maskring.runtime.tracking.result import Result
from maskring.runtime.tracking.tracker import Tracker


class Drifting(Tracker):
    """A tracker that loses the lower half of everything after the second frame, and is not sure of it."""

    def step(self, frame: NDArray[np.uint8], mask: NDArray[np.uint8] | None = None) -> Result:
        result = super().step(frame, mask)
        if result.frame_index < 2:
            return result
        labels = result.labels.copy()
        labels[25:] = 0
        return replace(result, labels=labels, probabilities=np.full_like(result.probabilities, 0.5))


def both_passes(
    frames: Frames, settings: RefinementSettings, tracker: Tracker | None = None
) -> tuple[list[Result], list[Result]]:
    """Propagated and refined results."""
    with OfflineRefiner(tracker or new_tracker(), settings) as refiner:
        first = [refiner.step(image, labels if i == 0 else None) for i, (image, labels) in enumerate(frames)]
        refiner.adapt()
        return first, [refiner.refine(image) for image, _ in frames]


def test_what_propagation_lost_comes_back() -> None:
    frames = clip(8)
    drifting = new_tracker()
    drifting.__class__ = Drifting
    first, second = both_passes(frames, replace(QUICK, pseudo_frames=0, trust=0.9), drifting)
    propagated = [overlap(one.labels, labels) for one, (_, labels) in zip(first, frames, strict=True)]
    refined = [overlap(one.labels, labels) for one, (_, labels) in zip(second, frames, strict=True)]
    assert max(propagated[2:]) < 0.7 and min(refined[2:]) > 0.75
    assert all(one.fallback_reasons == {} for one in second)


def test_the_second_pass_goes_on_from_the_refined_mask_where_propagation_lost_the_object() -> None:
    """The second pass loses the object in frame 2; from the memory of one frame, nothing brings it back."""
    frames, tracker = clip(8), Tracker(PixelBackend(), policy=MemoryPolicy((), (1,)))
    with OfflineRefiner(tracker, replace(QUICK, pseudo_frames=0, trust=0.9)) as refiner:
        for index, (image, labels) in enumerate(frames):
            refiner.step(image, labels if index == 0 else None)
        refiner.adapt()
        propagated = []
        step = tracker.step

        def losing(frame: NDArray[np.uint8], mask: NDArray[np.uint8] | None = None) -> Result:
            result = step(frame, mask)
            if len(propagated) == 2:
                tracker.revise(np.zeros_like(result.labels))
                result = replace(
                    result,
                    labels=np.zeros_like(result.labels),
                    probabilities=np.full_like(result.probabilities, 0.5),
                )
            propagated.append(result)
            return result

        tracker.step = losing  # type: ignore[method-assign]
        refined = [refiner.refine(image) for image, _ in frames]
    assert not propagated[2].labels.any()
    for one, again, (_, labels) in list(zip(refined, propagated, frames, strict=True))[3:]:
        assert min(overlap(one.labels, labels), overlap(again.labels, labels)) > 0.75


def test_a_frame_keeps_the_mask_that_the_user_gave_with_it() -> None:
    frames = clip(6)
    drawn = frames[3][1].copy()
    drawn[:, :20] = 0  # as no U-Net would draw it
    with OfflineRefiner(new_tracker(), replace(QUICK, iterations=40, trust=1)) as refiner:
        for index, (image, labels) in enumerate(frames):
            refiner.step(image, {0: labels, 3: drawn}.get(index))
        refiner.adapt()
        refined = [refiner.refine(image) for image, _ in frames]
    np.testing.assert_array_equal(refined[0].labels, frames[0][1])
    np.testing.assert_array_equal(refined[3].labels, drawn)
    assert refined[3].fallback_reasons == {}


def test_the_results_are_reproducible() -> None:
    settings = replace(QUICK, iterations=4)
    one, two = (both_passes(clip(4), settings)[1] for _ in range(2))
    for left, right in zip(one, two, strict=True):
        np.testing.assert_array_equal(left.labels, right.labels)


def test_a_network_that_learned_nothing_changes_nothing() -> None:
    settings = replace(QUICK, iterations=1, learning_rate=1e-9)
    first, second = both_passes(clip(4, objects=2), settings)
    for before, after in zip(first[1:], second[1:], strict=True):
        assert after.fallback_reasons is not None and set(after.fallback_reasons) == {OBJECT, OTHER}
        assert NOT_LEARNED_REASON in after.fallback_reasons.values()
        np.testing.assert_array_equal(before.labels, after.labels)
        assert before.objects == after.objects


def test_progress_is_told_step_by_step() -> None:
    told: list[tuple[int, int, float]] = []
    with OfflineRefiner(new_tracker(), replace(QUICK, iterations=3)) as refiner:
        for index, (image, labels) in enumerate(clip(3)):
            refiner.step(image, labels if index == 0 else None)
        refiner.adapt(lambda *step: told.append(step))
    assert [step[:2] for step in told] == [(1, 3), (2, 3), (3, 3)]
    assert all(np.isfinite(step[2]) for step in told)


def test_propagated_masks_are_judged_once_half_way(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []
    reassess = Adaptation.reassess

    def watched(adaptation: Adaptation, buffer: SampleBuffer) -> None:
        before = [sample.quality for sample in buffer.pseudo]
        reassess(adaptation, buffer)
        assert before and before != [sample.quality for sample in buffer.pseudo]
        told.append("judged")

    monkeypatch.setattr(Adaptation, "reassess", watched)
    with OfflineRefiner(new_tracker(), replace(QUICK, iterations=6)) as refiner:
        for index, (image, labels) in enumerate(clip(3)):
            refiner.step(image, labels if index == 0 else None)
        refiner.adapt(lambda done, planned, loss: told.append(f"step {done}"))
    assert told == ["step 1", "step 2", "judged", "step 3", "step 4", "step 5", "step 6"]


def test_objects_come_and_go() -> None:
    frames = clip(6, objects=2)
    with OfflineRefiner(new_tracker(), replace(QUICK, iterations=2)) as refiner:
        for index, (image, labels) in enumerate(frames):
            mask = {0: np.where(labels == OBJECT, labels, 0), 2: np.where(labels == OTHER, labels, 0)}
            if index == 4:
                refiner.remove(OBJECT)
            refiner.step(image, mask.get(index))
        refiner.adapt()
        results = [refiner.refine(image) for image, _ in frames]
    followed = [[state.id for state in result.objects] for result in results]
    assert followed == [[OBJECT]] * 2 + [[OBJECT, OTHER]] * 2 + [[OTHER]] * 2
    for result in results:
        assert set(np.unique(result.labels)) <= {0, *(state.id for state in result.objects)}


def test_a_second_video_goes_on_from_the_first() -> None:
    frames = clip(5)
    with OfflineRefiner(new_tracker(), QUICK) as refiner:
        for index, (image, labels) in enumerate(frames):
            refiner.step(image, labels if index == 0 else None)
        refiner.adapt()
        learned = refiner.predictor
    losses = []
    with OfflineRefiner(new_tracker(), replace(QUICK, iterations=1), learned) as refiner:
        for index, (image, labels) in enumerate(frames):
            refiner.step(image, labels if index == 0 else None)
        refiner.adapt(lambda done, planned, loss: losses.append(loss))
    assert losses[0] < 0.6  # from scratch it begins above 1


def test_evaluation_knows_it() -> None:
    with OfflineRefiner(new_tracker(), QUICK) as refiner:
        assert isinstance(refiner, TwoPassTracker)
    assert not isinstance(new_tracker(), TwoPassTracker)


@pytest.mark.parametrize("frames", [1, 2])
def test_very_short_clips(frames: int) -> None:
    results = both_passes(clip(frames), replace(QUICK, iterations=2))[1]
    assert len(results) == frames
