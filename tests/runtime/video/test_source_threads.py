"""Sources: the thread that decodes ahead, and live mode."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from coded_frames import FakeReader, NoWaiting, blank, decoding_threads, write_video

from maskring.runtime.video.frame import Frame
from maskring.runtime.video.handoff import FRAMES_AHEAD, Handoff
from maskring.runtime.video.open_source import open_source
from maskring.runtime.video.source import Source, paced


def test_decoding_runs_ahead_by_a_few_frames_only() -> None:
    filled = threading.Event()
    produced = []

    def generate() -> Iterator[Frame]:
        for index in range(50):
            produced.append(index)
            if index == FRAMES_AHEAD:
                filled.set()
            yield blank(index)

    with Source(FakeReader(generate)) as source:
        seen = [next(source).index]
        assert filled.wait(600)  # ahead of the consumer, which took one frame
        for frame in source:
            seen.append(frame.index)
            assert len(produced) <= len(seen) + FRAMES_AHEAD + 1
    assert seen == list(range(50))


def test_nothing_is_read_before_the_first_frame_is_wanted() -> None:
    started = []

    def generate() -> Iterator[Frame]:
        started.append(1)
        yield blank(0)

    reader = FakeReader(generate)
    with Source(reader) as source:
        assert not started and not decoding_threads()
        assert next(source).index == 0
    assert reader.closed


def test_two_threads_that_close_at_once_release_the_file_once() -> None:
    """FFmpeg crashes otherwise, as when Studio ends while its stream does."""
    entered, may_leave, released = threading.Event(), threading.Event(), []

    class Slow(FakeReader):
        def close(self) -> None:
            released.append(1)
            entered.set()
            may_leave.wait(600)

    source = Source(Slow(lambda: iter([blank(0)])))
    closing = [threading.Thread(target=source.close) for _ in range(2)]
    closing[0].start()
    assert entered.wait(600)
    closing[1].start()
    may_leave.set()
    for thread in closing:
        thread.join()
    source.close()
    assert released == [1]


def test_leaving_early_stops_the_thread_and_releases_the_file(tmp_path: Path) -> None:
    source = open_source(write_video(tmp_path / "clip.mp4", frames=60))
    with source:
        next(source)
    assert not decoding_threads()
    opened = [link.resolve() for link in Path("/proc/self/fd").iterdir()]
    assert tmp_path / "clip.mp4" not in opened
    assert list(source) == []
    source.close()


def test_closing_frees_a_thread_that_waits_to_hand_over_a_frame() -> None:
    full = threading.Event()

    def generate() -> Iterator[Frame]:
        for index in range(50):
            if index > FRAMES_AHEAD:
                full.set()
            yield blank(index)

    stop = threading.Event()
    source = Source(FakeReader(generate), stop=stop)
    next(source)
    assert full.wait(600)
    closing = threading.Thread(target=source.close, daemon=True)
    closing.start()
    closing.join(600)
    assert not closing.is_alive() and stop.is_set()


def test_errors_of_the_thread_reach_the_consumer_after_the_frames_before_them() -> None:
    def generate() -> Iterator[Frame]:
        yield blank(0)
        yield blank(1)
        raise ZeroDivisionError("in the thread")

    reader = FakeReader(generate)
    with Source(reader) as source:
        assert [next(source).index, next(source).index] == [0, 1]
        with pytest.raises(ZeroDivisionError, match="in the thread"):
            next(source)
        assert reader.closed and not decoding_threads()
        with pytest.raises(StopIteration):
            next(source)


def test_live_hands_out_the_newest_frame_and_counts_the_others() -> None:
    go, done = threading.Event(), threading.Event()

    def generate() -> Iterator[Frame]:
        yield blank(0)
        assert go.wait(600)
        for index in range(1, 6):
            yield blank(index)
        done.set()

    with Source(FakeReader(generate), live=True) as source:
        assert next(source).index == 0
        go.set()
        assert done.wait(600)
        assert [frame.index for frame in source] == [5]
        assert source.dropped == 4


def test_live_never_drops_the_first_frame() -> None:
    """It is the one that the user's mask was drawn on."""
    handoff = Handoff(newest_only=True)
    assert handoff.put(blank(0))
    second = threading.Thread(target=handoff.put, args=(blank(1),))
    second.start()
    second.join(0.05)
    first = handoff.get()
    second.join(600)
    assert first is not None and first.index == 0
    assert handoff.dropped == 0


def test_live_files_play_at_their_own_speed() -> None:
    stop = NoWaiting()
    now = iter([100.0, 100.0, 100.01, 100.2])
    played = paced(map(blank, range(3)), stop, lambda: next(now))
    assert [frame.index for frame in played] == [0, 1, 2]
    assert stop.waits == pytest.approx([0.0, 0.03, 0.0])  # the third frame is late


def test_closing_ends_the_wait_of_a_live_file() -> None:
    stop = NoWaiting()
    stop.set()
    assert list(paced(map(blank, range(3)), stop)) == []


@pytest.mark.parametrize(("endless", "paced"), [(True, False), (False, True)])
def test_only_sources_with_an_end_are_paced(endless: bool, paced: bool) -> None:
    stop = NoWaiting()
    with Source(FakeReader(lambda: map(blank, range(2)), endless=endless), live=True, stop=stop) as source:
        list(source)
    assert bool(stop.waits) == paced


def test_live_file(tmp_path: Path) -> None:
    with open_source(write_video(tmp_path / "clip.mp4", fps=1000), live=True) as source:
        indices = [frame.index for frame in source]
    assert indices[0] == 0 and indices[-1] == 19 and indices == sorted(set(indices))
    assert len(indices) + source.dropped == 20
