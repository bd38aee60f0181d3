"""Mask folders and JSON lines: what was written is there and valid, also after an error."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from sink_scene import frame_at, names_in, records, result_of, write
from user_errors import raises_user_error

from maskring.common.errors import OutputError
from maskring.runtime.video.frame import Frame
from maskring.runtime.video.masks import read_mask
from maskring.runtime.video.sinks import JsonLinesSink, MaskFolderSink

# Masks


def test_masks_are_named_like_their_frames(tmp_path: Path) -> None:
    with MaskFolderSink(tmp_path / "a" / "masks") as sink:
        write(sink, 0, 1, 7)
    assert names_in(tmp_path / "a" / "masks") == ["f000.png", "f001.png", "f007.png"]
    path = tmp_path / "a" / "masks" / "f007.png"
    assert np.array_equal(read_mask(path), result_of(frame_at(7)).labels)
    with Image.open(path) as image:
        assert image.mode == "P" and image.convert("RGB").getpixel((10, 5)) == (128, 128, 0)


def test_mask_folder_in_the_way(tmp_path: Path) -> None:
    (tmp_path / "masks").write_text("a file")
    with raises_user_error(OutputError, mentions=(tmp_path / "masks",)):
        MaskFolderSink(tmp_path / "masks")


# JSON lines


def test_json_lines(tmp_path: Path) -> None:
    path = tmp_path / "new" / "objects.jsonl"
    with JsonLinesSink(path) as sink:
        write(sink, 2)
        assert len(records(path)) == 1  # at once, not when the file is closed
        write(sink, 3, 7)
    first, second, third = records(path)
    assert first == {
        "index": 2,
        "name": "f002",
        "timestamp": 0.08,
        "dropped": 0,
        "objects": [
            {"id": 3, "area": 320, "box": [4, 4, 24, 20], "confidence": 0.8765},
            {"id": 5, "area": 0, "box": None, "confidence": None},
            {"id": 6, "area": 0, "box": None, "confidence": None},
        ],
        "timings": {"step": 0.012346, "post": 0.001, "total": 0.02},
    }
    assert [second["dropped"], third["dropped"]] == [0, 3]


def test_json_timestamps_are_those_of_the_frames(tmp_path: Path) -> None:
    frame = Frame(np.zeros((24, 32, 3), np.uint8), 1, 1 / 29.97, "f001")
    with JsonLinesSink(tmp_path / "objects.jsonl") as sink:
        sink.write(frame, result_of(frame))
    assert records(tmp_path / "objects.jsonl")[0]["timestamp"] == pytest.approx(1 / 29.97, abs=1e-6)


def test_json_lines_replace_those_of_an_earlier_run(tmp_path: Path) -> None:
    (tmp_path / "objects.jsonl").write_text("earlier\n" * 100)
    with JsonLinesSink(tmp_path / "objects.jsonl") as sink:
        write(sink, 0)
    assert len(records(tmp_path / "objects.jsonl")) == 1


def test_json_lines_of_an_earlier_run_outlive_one_that_came_to_nothing(tmp_path: Path) -> None:
    path = tmp_path / "objects.jsonl"
    path.write_text("earlier\n")
    JsonLinesSink(path).close()
    assert path.read_text() == "earlier\n"


def test_json_lines_in_the_way(tmp_path: Path) -> None:
    (tmp_path / "objects.jsonl").mkdir()
    with raises_user_error(OutputError, mentions=(tmp_path / "objects.jsonl",)):
        JsonLinesSink(tmp_path / "objects.jsonl")


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_half_a_line_is_taken_back(tmp_path: Path, error: BaseException) -> None:
    class Failing:
        """A file whose disk is full after ten more bytes."""

        def __init__(self, file: Any) -> None:
            self.file, self.calls = file, 0

        def write(self, data: bytes) -> int:
            self.calls += 1
            if self.calls == 2:
                raise error
            return int(self.file.write(data[:10]))

        def __getattr__(self, name: str) -> Any:
            return getattr(self.file, name)

    path = tmp_path / "objects.jsonl"
    with JsonLinesSink(path) as sink:
        write(sink, 0)
        sink._file = Failing(sink._file)  # type: ignore[assignment]
        with pytest.raises(OutputError if isinstance(error, OSError) else KeyboardInterrupt):
            write(sink, 1)
    assert [record["index"] for record in records(path)] == [0]
