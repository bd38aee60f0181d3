"""Sources: streams that are lost and come back."""

from __future__ import annotations

import threading
from itertools import islice

import pytest
from coded_frames import FakeCapture, NoWaiting, camera, coded, number_in

from maskring.common.errors import SourceError
from maskring.runtime.video import readers
from maskring.runtime.video.opencv import CaptureConnection
from maskring.runtime.video.readers import RECONNECT_DELAYS_S, SILENCE_S, StreamReader


def test_reconnecting_waits_longer_each_time_and_then_gives_up() -> None:
    opened = []

    def reopen() -> CaptureConnection | None:
        opened.append(FakeCapture([]))
        return CaptureConnection(opened[-1], "camera 0") if len(opened) % 2 == 0 else None

    stop = NoWaiting()
    frames = StreamReader(camera(coded(0)), reopen, "camera 0").frames(stop)
    assert next(frames).index == 0
    with pytest.raises(SourceError, match="camera 0 stopped sending"):
        next(frames)
    assert stop.waits == list(RECONNECT_DELAYS_S) and len(opened) == len(RECONNECT_DELAYS_S)
    assert all(capture.released for capture in opened[1:-1:2])


def test_the_patience_starts_anew_after_each_return() -> None:
    later = [None, camera(coded(1)), camera(coded(2))]
    stop = NoWaiting()
    reader = StreamReader(camera(coded(0)), lambda: later.pop(0), "camera 0")
    frames = reader.frames(stop)
    assert [
        (frame.index, number_in(frame.image)) for frame in (next(frames), next(frames), next(frames))
    ] == [
        (0, 0),
        (1, 1),
        (2, 2),
    ]
    assert stop.waits == [*RECONNECT_DELAYS_S[:2], RECONNECT_DELAYS_S[0]]
    assert reader.reconnects == 2


def test_a_damaged_frame_of_a_stream_is_skipped_and_counted() -> None:
    """Without opening it anew, which takes half a second at least."""
    reader = StreamReader(camera(coded(0), None, None, coded(3)), camera, "camera 0")
    frames = reader.frames(NoWaiting())
    assert [(frame.index, number_in(frame.image)) for frame in islice(frames, 2)] == [(0, 0), (3, 3)]
    assert (reader.undecodable, reader.reconnects) == (2, 0)


def test_a_stream_that_keeps_silent_is_lost_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each attempt waits for as long as the network may."""
    seconds = iter([0.0, 0.0, SILENCE_S + 0.1, 20.0, 20.0])
    monkeypatch.setattr(readers.time, "perf_counter", lambda: next(seconds))
    reader = StreamReader(camera(coded(0), None, coded(1)), lambda: camera(coded(2)), "camera 0")
    frames = reader.frames(NoWaiting())
    assert [number_in(next(frames).image), number_in(next(frames).image)] == [0, 2]
    assert (reader.undecodable, reader.reconnects) == (0, 1)


def test_a_stream_may_not_come_back_in_another_size() -> None:
    frames = StreamReader(camera(coded(0)), lambda: camera(coded(1)[:32]), "camera 0").frames(NoWaiting())
    next(frames)
    with pytest.raises(SourceError, match="camera 0 changes from 96x64 to 96x32"):
        next(frames)


def test_closing_ends_the_wait_for_a_lost_stream() -> None:
    attempts = []

    def reopen() -> None:
        attempts.append(1)

    class Closing(NoWaiting):
        def wait(self, timeout: float | None = None) -> bool:
            self.set()
            return super().wait(timeout)

    frames = StreamReader(camera(coded(0)), reopen, "camera 0").frames(Closing())
    next(frames)
    assert list(frames) == [] and not attempts


def test_streams_have_the_time_of_arrival(monkeypatch: pytest.MonkeyPatch) -> None:
    ticks = iter([100.0, 100.5, 102.0])
    monkeypatch.setattr(readers.time, "monotonic", lambda: next(ticks))
    reader = StreamReader(camera(coded(0), coded(1), coded(2)), camera, "camera 0")
    frames = reader.frames(threading.Event())
    assert [next(frames).timestamp for _ in range(3)] == [0.0, 0.5, 2.0]


def test_a_camera_without_frames() -> None:
    capture = FakeCapture([])
    with pytest.raises(SourceError, match="camera 0 sends no frame"):
        StreamReader(CaptureConnection(capture, "camera 0"), camera, "camera 0")
    assert capture.released
