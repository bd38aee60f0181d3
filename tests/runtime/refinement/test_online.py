"""Online refinement: the worker beside the stream, and what a frame gets of it."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import textwrap
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from disc_clip import OBJECT, OTHER, QUICK, clip, new_tracker, overlap
from user_errors import assert_sentence, raises_user_error

from maskring.common.errors import MaskError, UserError
from maskring.runtime.refinement.guard import NOT_ADAPTED_REASON
from maskring.runtime.refinement.online import OnlineRefiner
from maskring.runtime.refinement.samples import Sample, SampleMaker
from maskring.runtime.refinement.settings import RefinementSettings
from maskring.runtime.refinement.worker import (
    WAITING_SAMPLES,
    ProcessWorker,
    Snapshot,
    StepsPerFrame,
    ThreadWorker,
    Worker,
)
from maskring.runtime.tracking.result import Result
from maskring.runtime.tracking.tracker import Tracker

SMALL = replace(QUICK, size=32)


class Silent:
    """A worker that never publishes anything; takes note of what it is offered."""

    def __init__(self) -> None:
        self.offered: list[Sample] = []
        self.closed = 0
        self.publish: Snapshot | None = None

    def offer(self, sample: Sample) -> None:
        self.offered.append(sample)

    def newest(self) -> Snapshot | None:
        snapshot, self.publish = self.publish, None
        return snapshot

    def close(self) -> None:
        self.closed += 1


def run(worker: Worker, settings: RefinementSettings, length: int, objects: int = 1) -> list[Any]:
    """Results of a clip."""
    with OnlineRefiner(new_tracker(), settings, worker) as refiner:
        frames = enumerate(clip(length, objects=objects))
        return [refiner.step(image, labels if index == 0 else None) for index, (image, labels) in frames]


def test_until_something_is_learned_masks_are_propagations() -> None:
    worker, tracker = Silent(), new_tracker()
    results = run(worker, SMALL, 4)
    for index, (image, labels) in enumerate(clip(4)):
        plain = tracker.step(image, labels if index == 0 else None)
        np.testing.assert_array_equal(results[index].labels, plain.labels)
    assert [dict(one.fallback_reasons) for one in results] == [{}] + [{OBJECT: NOT_ADAPTED_REASON}] * 3
    assert len(worker.offered) == 4 and worker.offered[0].true and worker.closed == 1


def test_it_adapts_from_the_second_frame_on_and_refines() -> None:
    settings = replace(QUICK, online_trust=0.9)
    results = run(StepsPerFrame(settings, 15), settings, 8)
    frames = clip(8)
    assert all(overlap(one.labels, labels) > 0.75 for one, (_, labels) in zip(results, frames, strict=True))
    assert OBJECT not in results[-1].fallback_reasons
    plain = new_tracker()
    propagated = [plain.step(image, labels if i == 0 else None) for i, (image, labels) in enumerate(frames)]
    assert any((a.labels != b.labels).any() for a, b in zip(results, propagated, strict=True))


def test_steps_within_frames_give_the_same_masks_in_every_run() -> None:
    settings = replace(SMALL, online_trust=1.0)
    one, two = (run(StepsPerFrame(settings, 3), settings, 5, objects=2) for _ in range(2))
    for left, right in zip(one, two, strict=True):
        np.testing.assert_array_equal(left.labels, right.labels)
        assert left.fallback_reasons == right.fallback_reasons


def test_what_the_worker_warns_of_stays_as_propagated() -> None:
    settings, worker = replace(SMALL, online_trust=1.0), Silent()
    with OnlineRefiner(new_tracker(), settings, worker) as refiner:
        frames, plain = clip(3, objects=2), new_tracker()
        for index, (image, labels) in enumerate(frames):
            mask = labels if index == 0 else None
            refiner.predictor.follow([OBJECT, OTHER], 0)
            weights = refiner.predictor.weights()
            worker.publish = Snapshot((OBJECT, OTHER), weights, {OBJECT: "no", OTHER: "no"}, index)
            result, propagated = refiner.step(image, mask), plain.step(image, mask)
        assert result.fallback_reasons == {OBJECT: "no", OTHER: "no"} and refiner.iterations == 2
        np.testing.assert_array_equal(result.labels, propagated.labels)


def test_feedback_puts_refined_masks_into_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Refinement erases the object here; propagation then is that of a tracker whose memory is revised by hand."""

    def propagated(feedback: bool, *, by_hand: bool = False) -> list[np.ndarray]:
        tracker, seen = new_tracker(), []

        def step(image: np.ndarray, mask: np.ndarray | None = None) -> Result:
            seen.append(Tracker.step(tracker, image, mask))
            return seen[-1]

        monkeypatch.setattr(tracker, "step", step)
        with OnlineRefiner(tracker, replace(SMALL, feedback=feedback), Silent()) as refiner:
            refiner.predictor.follow([OBJECT], 0)
            monkeypatch.setattr(
                refiner._guard, "decide", lambda frame, result, *_: replace(result, labels=0 * result.labels)
            )
            for index, (image, labels) in enumerate(clip(4)):
                refined = refiner.step(image, labels if index == 0 else None)
                if by_hand and index:
                    tracker.revise(refined.labels)
        return [result.probabilities for result in seen]

    fed_back, revised, plain = propagated(True), propagated(False, by_hand=True), propagated(False)
    for one, two in zip(fed_back, revised, strict=True):
        np.testing.assert_array_equal(one, two)
    assert [(one != two).any() for one, two in zip(fed_back, plain, strict=True)] == [
        False,
        False,
        True,
        True,
    ]


def test_a_revised_memory_is_what_the_next_frame_sees() -> None:
    (image, labels), tracker = clip(1)[0], new_tracker()
    tracker.step(image, labels)
    tracker.revise(np.zeros_like(labels))
    assert not tracker.step(image).labels.any()
    with raises_user_error(MaskError, mentions=("latest frame", f"{labels.shape[1]}x10")):
        tracker.revise(labels[:10])
    with raises_user_error(MaskError, mentions=("no frame", "step()")):
        new_tracker().revise(labels)


def test_objects_come_and_go() -> None:
    settings, frames = replace(SMALL), clip(6, objects=2)
    with OnlineRefiner(new_tracker(), settings, StepsPerFrame(settings, 1)) as refiner:
        for index, (image, labels) in enumerate(frames):
            mask = {0: np.where(labels == OBJECT, labels, 0), 2: np.where(labels == OTHER, labels, 0)}
            if index == 4:
                refiner.remove(OBJECT)
            result = refiner.step(image, mask.get(index))
    assert [state.id for state in result.objects] == [OTHER]
    assert set(np.unique(result.labels)) <= {0, OTHER}


def samples() -> list[Sample]:
    """A true sample and a propagated one."""
    tracker, maker = new_tracker(), SampleMaker(SMALL, 4)
    made = []
    for index, (image, labels) in enumerate(clip(2)):
        mask = labels if index == 0 else None
        made.append(maker.make(image, tracker.step(image, mask), mask))
    return made


def published(worker: ProcessWorker | ThreadWorker) -> Snapshot:
    """The next snapshot of a worker that has been given all it needs."""
    adapts = worker.process if isinstance(worker, ProcessWorker) else worker.thread
    while not worker.arrived.wait(1):
        assert adapts.is_alive(), "the worker ended without a snapshot"
    snapshot = worker.newest()
    assert snapshot is not None
    return snapshot


@pytest.mark.parametrize("new_worker", [ProcessWorker, ThreadWorker])
def test_workers_learn_beside_the_stream(new_worker: type[ProcessWorker | ThreadWorker]) -> None:
    worker = new_worker(SMALL)
    try:
        for sample in samples():
            worker.offer(sample)
        first = published(worker)
        second = published(worker)
    finally:
        worker.close()
        worker.close()
    assert first.ids == (OBJECT,) and 0 < first.iterations < second.iterations
    assert np.isfinite(second.weights).all() and (first.weights != second.weights).any()


def test_a_worker_that_is_behind_drops_samples_but_none_that_is_true() -> None:
    worker = ThreadWorker(SMALL)
    worker.close()  # nobody takes samples any more
    true, propagated = samples()
    for _ in range(3 * WAITING_SAMPLES):
        worker.offer(propagated)
    before = worker.samples.qsize()
    worker.offer(true)
    assert before == WAITING_SAMPLES and worker.samples.qsize() == before + 1


def test_a_worker_that_died_is_reported() -> None:
    worker = ProcessWorker(SMALL)
    try:
        worker.process.kill()
        worker.process.join()
        with raises_user_error(UserError, mentions=("died",)):
            worker.newest()
    finally:
        worker.close()


def test_a_death_that_no_frame_told_of_is_told_at_the_end() -> None:
    """A short stream is over before its worker has imported anything."""
    worker = ProcessWorker(SMALL)
    worker.process.kill()
    with raises_user_error(UserError, mentions=("-9",)):
        run(StillAlive(worker), SMALL, 2)
    worker.close()


def test_what_fails_first_is_what_is_told() -> None:
    worker = ProcessWorker(SMALL)
    worker.process.kill()
    with pytest.raises(MaskError), OnlineRefiner(new_tracker(), SMALL, worker) as refiner:
        refiner.step(clip(1)[0][0], np.ones((3, 3), np.uint8))


class StillAlive:
    """A worker whose death has not come to notice yet."""

    def __init__(self, worker: ProcessWorker) -> None:
        self.offer, self.close = worker.offer, worker.close

    def newest(self) -> None:
        return None


def test_a_worker_does_not_hear_what_a_terminal_sends_to_all(monkeypatch: pytest.MonkeyPatch) -> None:
    # However long it takes on a busy machine, it must end by itself and not be killed.
    monkeypatch.setattr("maskring.runtime.refinement.worker.CLOSING_SECONDS", None)
    worker = ProcessWorker(SMALL)
    try:
        for number in (signal.SIGINT, signal.SIGTERM):
            os.kill(worker.process.pid or 0, number)
        for sample in samples():
            worker.offer(sample)
        assert published(worker).iterations > 0
    finally:
        worker.close()
    assert worker.process.exitcode == 0


SCRIPT = """
import sys
from maskring.runtime.refinement.settings import RefinementSettings
from maskring.runtime.refinement.worker import ProcessWorker
worker = ProcessWorker(RefinementSettings())
"""


def ran(folder: Path, script: str) -> subprocess.CompletedProcess[str]:
    (folder / "script.py").write_text(script)
    command = [sys.executable, folder / "script.py"]
    return subprocess.run(command, check=False, capture_output=True, text=True, timeout=1800)


def test_a_script_that_its_worker_cannot_import(tmp_path: Path) -> None:
    done = ran(tmp_path, SCRIPT + "worker.process.join(); worker.close()")
    assert done.returncode != 0 and "has died (exit code 1)" in done.stderr
    first = done.stderr.splitlines()[0]
    assert first.startswith("error: ") and first.endswith('under: if __name__ == "__main__":')


def test_a_worker_that_nobody_closes_ends_with_its_program(tmp_path: Path) -> None:
    done = ran(tmp_path, "if __name__ == '__main__':" + SCRIPT.replace("\n", "\n    "))
    assert done.returncode == 0 and not done.stderr


def test_a_failed_thread_is_reported() -> None:
    worker = ThreadWorker(SMALL)
    for sample in samples():
        worker.offer(replace(sample, image=sample.image[:5]))
    worker.thread.join()
    with raises_user_error(UserError, mentions=("U-Net", "--refine off")):
        worker.newest()


def test_tracking_without_refinement_imports_no_torch() -> None:
    tools = Path(__file__).resolve().parents[2] / "tools"
    program = f"""
        import sys
        sys.modules["torch"] = None  # makes an import fail as if it were not installed
        sys.path.insert(0, {str(tools)!r})
        from disc_clip import clip, new_tracker
        from maskring.runtime.refinement.session import Refinement
        tracker = Refinement().wrap(new_tracker())
        for index, (image, labels) in enumerate(clip(3)):
            tracker.step(image, labels if index == 0 else None)
    """
    command = [sys.executable, "-c", textwrap.dedent(program)]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=1800)
    assert done.returncode == 0, done.stderr


START_A_WORKER = """
from maskring.common.errors import UnavailableError
from maskring.runtime.refinement.settings import RefinementSettings
from maskring.runtime.refinement.worker import ProcessWorker
try:
    ProcessWorker(RefinementSettings())
except UnavailableError as error:
    print(error)
"""


def test_without_shared_memory_it_is_named() -> None:
    """As in a container that hides /dev/shm: a read-only file system lies over it, for this process alone."""
    hidden = ["unshare", "--mount", "sh", "-c", 'mount -t tmpfs -o ro tmpfs /dev/shm && exec "$0" "$@"']
    if shutil.which("unshare") is None or subprocess.run([*hidden, "true"], check=False).returncode:
        pytest.skip("no right to mount a file system over /dev/shm")
    done = subprocess.run(
        [*hidden, sys.executable, "-c", START_A_WORKER],
        capture_output=True,
        text=True,
        timeout=1800,
        check=True,
    )
    assert_sentence(done.stdout.strip(), ("/dev/shm", "mount", "--refine offline"))
