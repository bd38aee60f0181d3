"""Calls of the Python API with arguments drawn at random.

Arguments have the types that are asked for; their values, shapes and element types are whatever a program may
hold by mistake.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import strategies as st
from numpy.typing import NDArray
from support import moving_square, write_tiny_checkpoint
from trust.api_values import arrays, floats, frames, integers, its_word, masks, tracker, words

import maskring
from maskring.common.errors import UserError

Attack = Callable[[st.DataObject, Path], None]


# What tracks ------------------------------------------------------------------------------------------------


def open_tracker(data: st.DataObject, folder: Path) -> None:
    tracker(folder).close()
    model = data.draw(
        st.sampled_from([folder / "pixels.onnx", folder, folder / "none", "", "x" * 5000, "a\0b"])
    )
    kernel, threads = data.draw(st.sampled_from(["native", "function", "x", ""])), data.draw(integers)
    with its_word(maskring.open_tracker):
        maskring.open_tracker(model, kernel=kernel, threads=threads).close()


def steps(data: st.DataObject, folder: Path) -> None:
    """What is refused leaves no trace: a tracker that was never given it says the same."""
    with tracker(folder) as first, tracker(folder) as twin:
        for _ in range(data.draw(st.integers(1, 6))):
            kind = data.draw(st.sampled_from(["step", "step", "step", "remove", "revise", "prefetch"]))
            if kind == "step":
                frame, mask = data.draw(frames()), data.draw(st.none() | masks())
                with its_word(maskring.Tracker.step):
                    found = first.step(frame, mask)
                    keeps_its_word(found, frame)
                    assert np.array_equal(found.labels, twin.step(frame, mask).labels)
            elif kind == "remove":
                object_id = data.draw(integers)
                with its_word(maskring.Tracker.remove):
                    first.remove(object_id)
                    twin.remove(object_id)
            elif kind == "revise":
                labels = data.draw(arrays() | masks())
                with its_word(maskring.Tracker.revise):
                    first.revise(labels)
                    twin.revise(labels)
            else:
                first.prefetch(moving_square(0)[0])
        frame, mask = moving_square(0)
        try:
            expected = twin.step(frame, mask).labels
        except UserError:  # the stream has another size
            with its_word(maskring.Tracker.step):
                first.step(frame, mask)
        else:
            assert np.array_equal(first.step(frame, mask).labels, expected)


def keeps_its_word(found: maskring.Result, frame: NDArray[Any]) -> None:
    ids = [state.id for state in found.objects]
    assert found.labels.dtype == np.uint8 and found.labels.shape == frame.shape[:2]
    assert set(np.unique(found.labels)) <= {0, *ids} and ids == sorted(ids)
    np.testing.assert_allclose(found.probabilities.sum(axis=0), 1, atol=1e-3)
    assert len(found.probabilities) == 1 + len(ids)
    for state in found.objects:
        assert state.area == np.count_nonzero(found.labels == state.id)
        assert (state.box is None) == (state.area == 0)


def scaled(data: st.DataObject, folder: Path) -> None:
    from maskring import ResizedTracker

    size = data.draw(st.sampled_from([24, 40, 96]) | integers.filter(lambda side: not 200 < side < 2**15 + 1))
    with its_word(ResizedTracker), tracker(folder) as opened:
        inner = ResizedTracker(opened, size)
        for _ in range(data.draw(st.integers(1, 4))):
            frame, mask = data.draw(frames()), data.draw(st.none() | masks())
            if data.draw(st.booleans()):
                with its_word(ResizedTracker.prefetch):
                    inner.prefetch(frame)
            with its_word(ResizedTracker.step):
                found = inner.step(frame, mask)
                assert found.labels.shape == frame.shape[:2]
                assert set(np.unique(found.labels)) <= {0, *(state.id for state in found.objects)}


def results(data: st.DataObject, folder: Path) -> None:
    with tracker(folder) as opened:
        found = opened.step(*moving_square(0))
    later = found.delayed(data.draw(st.floats(0, 1e6)))
    assert later.timings.total >= found.timings.total and later.labels is found.labels


def policies(data: st.DataObject, folder: Path) -> None:
    ages = st.lists(integers, max_size=5).map(tuple)
    with its_word(maskring.MemoryPolicy):
        policy = maskring.MemoryPolicy(
            data.draw(ages), data.draw(ages), data.draw(integers), data.draw(integers), data.draw(floats)
        )
        assert 1 <= policy.num_slots <= 256
        for clock in (0, 1, 7, 10**6):
            assert all(0 <= frame < max(1, clock) for frame in policy.frames_read(clock))
        for windows in (0.01, 1.0, 1e6):
            assert 1 <= policy.dilation(data.draw(st.integers(1, 10**6)), windows) <= policy.max_dilation
        if policy.num_slots < 20:
            with tracker(folder, policy=policy) as opened:
                opened.step(*moving_square(0))
                keeps_its_word(opened.step(moving_square(1)[0]), moving_square(1)[0])


# Frames in, masks -------------------------------------------------------------------------------------------


def sources(data: st.DataObject, folder: Path) -> None:
    from maskring import Source, write_mask

    images = folder / "images"
    if not images.exists():
        images.mkdir()
        for index in range(3):
            write_mask(images / f"{index}.png", moving_square(index)[1])
    strange = st.text(max_size=20).filter(lambda text: "://" not in text and not text.strip().isdecimal())
    strange |= st.sampled_from(
        ["99", "x" * 5000, "a\0b", "/dev/null", " ! ", "a ! appsink", "file:///none", ""]
    )
    text = data.draw(st.just(images) | st.just(images) | strange)
    first, last = data.draw(integers), data.draw(st.none() | integers)
    with its_word(maskring.open_source, Source), maskring.open_source(text, first=first, last=last) as opened:
        found = [frame.index for frame in opened]
        assert found == list(range(first, 3 if last is None else min(3, last + 1)))
        assert opened.length == len(found)


def frames_on_a_gpu(data: st.DataObject, folder: Path) -> None:
    """No GPU is asked: what lies is seen by what it says of itself."""
    anything = integers | floats | st.none() | st.text(max_size=3) | st.lists(integers, max_size=3)
    number = st.sampled_from([1, 3, 4, 0, -1, 10**30])
    interface = {
        "shape": st.tuples(number, number, st.sampled_from([3, 3, 4])) | anything,
        "typestr": st.sampled_from(["|u1", "|u1", "<f4", ""]) | anything,
        "data": st.tuples(st.sampled_from([4096, 0, -8]), st.booleans()) | anything,
        "strides": st.none() | st.just((9, 3, 1)) | anything,
        "stream": st.none() | integers,
    }
    said = data.draw(st.fixed_dictionaries({}, optional=interface) | anything)
    pixels = SimpleNamespace(
        **data.draw(st.sampled_from([{"__cuda_array_interface__": said}, {"shape": said}]))
    )
    with its_word(maskring.DeviceFrame):
        frame = maskring.DeviceFrame(pixels)
        assert frame.address > 0 and min(frame.shape) > 0 and frame.size == math.prod(frame.shape)


def read(data: st.DataObject, folder: Path) -> None:
    path = folder / "read.png"
    path.write_bytes(data.draw(st.binary(max_size=40)))
    strange = st.sampled_from([path, folder, folder / "none", Path("x" * 5000), Path("a\0b"), Path()])
    with its_word(maskring.read_mask):
        maskring.read_mask(data.draw(strange), allow_empty=data.draw(st.booleans()))


def write(data: st.DataObject, folder: Path) -> None:
    """What was written is read again; what cannot be written leaves nothing."""
    from maskring import read_mask, write_mask

    where = folder / "written"
    where.mkdir(exist_ok=True)
    path, ids = (
        where / data.draw(st.sampled_from(["a.png", "x" * 300, "a\0b"])),
        data.draw(arrays() | masks()),
    )
    with its_word(write_mask):
        write_mask(path, ids)
        assert np.array_equal(read_mask(path, allow_empty=True), ids)
    assert {each.name for each in where.iterdir()} <= {"a.png"}


def overlay(data: st.DataObject, folder: Path) -> None:
    from maskring import draw_overlay

    image, labels = data.draw(frames()), data.draw(masks() | arrays())
    before = image.copy()
    with its_word(draw_overlay):
        painted = draw_overlay(image, labels, alpha=data.draw(floats), contours=data.draw(st.booleans()))
        assert painted.shape == image.shape and painted.dtype == np.uint8
    assert np.array_equal(image, before)


# From source to results -------------------------------------------------------------------------------------


def pipeline(data: st.DataObject, folder: Path) -> None:
    from maskring import Edits, Frame, track

    edits = st.dictionaries(st.integers(-1, 3), masks(), max_size=2)
    removals = st.dictionaries(st.integers(-1, 3), st.lists(integers, max_size=2), max_size=1)
    given_frames = data.draw(st.lists(frames(), max_size=3))
    stream = [Frame(image, index, index / 30, str(index)) for index, image in enumerate(given_frames)]
    with its_word(track), tracker(folder) as opened:
        chosen = Edits({0: moving_square(0)[1], **data.draw(edits)}, data.draw(removals))
        assert track(stream, opened, [], chosen).frames == len(stream)


def sinks(data: st.DataObject, folder: Path) -> None:
    """Results stay in the folder, whatever frames are called."""
    from maskring import Frame, JsonLinesSink, MaskFolderSink, OverlayVideoSink

    out = folder / "deep" / "out"
    with tracker(folder) as opened:
        result = opened.step(*moving_square(0))
    index = data.draw(st.integers(-3, 40))
    frame = Frame(moving_square(0)[0], index, data.draw(st.floats(0, 1e9)), data.draw(words))
    with its_word(MaskFolderSink, MaskFolderSink.write), MaskFolderSink(out / data.draw(words)) as sink:
        sink.write(frame, result)
        assert (sink.folder / f"{frame.name}.png").parent == sink.folder
    name = data.draw(st.sampled_from(["a.mp4", "a.MP4", "a.avi", "", "a\0.mp4", "a" * 300 + ".mp4"]))
    with (
        its_word(OverlayVideoSink, OverlayVideoSink.write, OverlayVideoSink.close),
        OverlayVideoSink(out / name, data.draw(floats | st.sampled_from([24.0, 29.97]))) as video,
    ):
        video.write(frame, result)
        video.write(Frame(frame.image, index + 1, 1.0, "b"), result)
    with its_word(JsonLinesSink, JsonLinesSink.write), JsonLinesSink(out / data.draw(words)) as lines:
        lines.write(frame, result)
    assert {path.name for path in folder.iterdir()} <= {"deep", "pixels.onnx"}


# Drawing ----------------------------------------------------------------------------------------------------


def events() -> st.SearchStrategy[Any]:
    from maskring import Key, Pointer

    keys = ["enter", "backspace", "escape", "space", *"qspbrxn1239ar", "", "é"]
    place = st.integers(-50, 1500) | integers
    pointers = st.builds(Pointer, st.sampled_from(["press", "move", "release", "close"]), place, place)
    return st.sampled_from(keys).map(Key) | pointers | pointers


def drawing(data: st.DataObject, folder: Path) -> None:
    from maskring import Drawing

    image, mask = moving_square(0)
    shape = data.draw(st.sampled_from([(48, 64), (1, 1), (3, 60), (40, 3)]))
    image, mask = image[: shape[0], : shape[1]].copy(), mask[: shape[0], : shape[1]].copy()
    drawn = Drawing(image, mask, frozenset({1}), started=data.draw(st.booleans()))
    for event in data.draw(st.lists(events(), max_size=12)):
        if not drawn.ended:
            drawn.handle(event)
    assert drawn.mask.shape == image.shape[:2] and drawn.mask.dtype == np.uint8
    picture = drawn.picture()
    assert picture.dtype == np.uint8 and picture.ndim == 3 and picture.size < 1 << 24


def boxes(data: st.DataObject, folder: Path) -> None:
    from maskring import cut_from_box

    side = st.integers(-20, 90) | integers
    box = tuple(data.draw(side) for _ in range(4))
    image = data.draw(st.sampled_from([moving_square(0)[0], np.zeros((1, 1, 3), np.uint8)]))
    with its_word(cut_from_box):
        found = cut_from_box(image, box)  # type: ignore[arg-type]
        assert found is None or (found.dtype == bool and found.shape == image.shape[:2] and found.any())


def masks_of_boxes(data: st.DataObject, folder: Path) -> None:
    from maskring import masks_from_boxes

    image, side = moving_square(0)[0], st.integers(-2, 66) | integers
    box = st.tuples(side, side, side, side) | st.just((8, 12, 40, 36))
    drawn = data.draw(st.none() | st.just(moving_square(4)[1]) | st.just(np.zeros((3, 3), np.uint8)))
    with its_word(masks_from_boxes):
        mask = masks_from_boxes(image, data.draw(st.lists(box, max_size=2)), drawn)
        assert mask.dtype == np.uint8 and mask.shape == (image.shape[:2] if drawn is None else drawn.shape)
        assert drawn is None or np.array_equal(mask[drawn > 0], drawn[drawn > 0])


def interaction(data: st.DataObject, folder: Path) -> None:
    from maskring import Edits, Frame, Interaction, Key, track
    from maskring.runtime.pipeline.edits import Schedule

    heard = [data.draw(st.lists(events(), max_size=4)) for _ in range(4)]
    screen = SimpleNamespace(show=lambda _: None, close=lambda: None)
    screen.events = lambda _: heard.pop(0) if heard else [Key("q")]
    stream = [Frame(moving_square(index)[0], index, index / 30, str(index)) for index in range(4)]
    planned = Schedule(Edits({0: moving_square(0)[1]} if data.draw(st.booleans()) else {}))
    user = Interaction(screen, planned)
    with its_word(track), tracker(folder) as opened:
        assert track(stream, opened, [user], user).frames <= len(stream)


# Export -----------------------------------------------------------------------------------------------------


class Accepted(Exception):
    """Raised in the place of an export that would take seconds."""


def export(data: st.DataObject, folder: Path) -> None:
    """What is accepted is what the runtime would open; what is refused is refused before any work."""
    import maskring.export.onnx_export as module
    from maskring.runtime.model.metadata import ModelMetadata

    checkpoint = folder / "tiny.safetensors"
    if not checkpoint.exists():
        write_tiny_checkpoint(checkpoint)

    def accept(_: object, metadata: ModelMetadata) -> None:
        try:
            opened = ModelMetadata.from_json(metadata.to_json(), "model")
        except UserError as error:
            raise AssertionError(f"exported, but never opened: {metadata}") from error
        assert opened == metadata
        raise Accepted

    names = ["height", "width", "num_labels", "num_slots", "radius", "top_k", "roi_step", "smoothing_radius"]
    chosen = data.draw(st.dictionaries(st.sampled_from(names), integers, max_size=4))
    chosen |= data.draw(st.fixed_dictionaries({}, optional={"logit_scale": floats, "dtype": words}))
    source = data.draw(st.sampled_from([checkpoint] * 9 + [folder, folder / "none"]))
    with pytest.MonkeyPatch.context() as patch, its_word(module.export_onnx), contextlib.suppress(Accepted):
        patch.setattr(module, "step_model", accept)
        module.export_onnx(source, folder / "out.onnx", **chosen)
    assert not (folder / "out.onnx").exists()


ATTACKS: dict[str, Attack] = {
    "maskring.open_tracker": open_tracker,
    "maskring.Tracker": steps,
    "maskring.ResizedTracker": scaled,
    "maskring.Result": results,
    "maskring.MemoryPolicy": policies,
    "maskring.open_source": sources,
    "maskring.DeviceFrame": frames_on_a_gpu,
    "maskring.read_mask": read,
    "maskring.write_mask": write,
    "maskring.masks_from_boxes": masks_of_boxes,
    "maskring.draw_overlay": overlay,
    "maskring.track": pipeline,
    "maskring.MaskFolderSink": sinks,
    "maskring.Drawing": drawing,
    "maskring.cut_from_box": boxes,
    "maskring.Interaction": interaction,
    "maskring.export_onnx": export,
}
