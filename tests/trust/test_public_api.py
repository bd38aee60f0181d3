"""The Python API with arguments drawn at random: a call keeps its word, or raises what its docstring says.

Which exceptions a call may raise is read from the ``Raises`` sections of its documentation, and which calls
there are from the page of the API. Arguments have the types that are asked for; their values, shapes and
element types are whatever a program may hold by mistake.
"""

from __future__ import annotations

import ast
import contextlib
import importlib
import json
import math
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from pixel_model import write_pixel_model
from support import HEIGHT, WIDTH, moving_square, write_tiny_checkpoint
from user_errors import raises_user_error

import maskring
from maskring.common import errors
from maskring.common.errors import MaskError, ModelError, OutputError, UserError

ROOT = Path(__file__).resolve().parents[2]

Attack = Callable[[st.DataObject, Path], None]

EXCEPTIONS = {name: kind for name, kind in vars(errors).items() if isinstance(kind, type)}
EXCEPTIONS |= {"ValueError": ValueError}


def home(name: str) -> Any:
    """The object that the documentation means by ``maskring.Name``."""
    module, _, attribute = name.rpartition(".")
    return getattr(importlib.import_module(module), attribute)


def documented() -> list[str]:
    """Full names on the page of the API."""
    page = (ROOT / "docs" / "api.md").read_text()
    return [name for name in re.findall(r"^::: (\S+)$", page, flags=re.MULTILINE) if name[-6:] != "errors"]


@contextlib.contextmanager
def its_word(*calls: Any) -> Iterator[None]:
    """Swallow what the docstrings of ``calls`` say they raise; anything else fails the test."""
    sections = [(call.__doc__ or "").partition("Raises:")[2] for call in calls]
    names = {name for section in sections for name in re.findall(r"^\s+(\w+Error):", section, re.MULTILINE)}
    try:
        yield
    except tuple(EXCEPTIONS[name] for name in names) as error:
        assert str(error).isprintable() and len(str(error)) < 3000


integers = st.one_of(st.integers(-3, 300), st.sampled_from([2**31, 2**63, -(2**63), 10**30]))
floats = st.one_of(
    st.floats(-2, 2), st.sampled_from([math.nan, math.inf, -math.inf, 1e308, -1e308, 5e-324, 1e30])
)
sides = st.sampled_from([0, 1, 2, 3, 5, 16, HEIGHT, WIDTH])
kinds = st.sampled_from([np.uint8, np.uint8, np.uint8, np.int8, np.bool_, np.int64, np.float32, np.complex64])
words = st.one_of(
    st.text(max_size=12),
    st.sampled_from(["a", "../a", "/a", "a/b", ".", "..", "", "a\0", "\ud800", "a" * 300]),
)


@st.composite
def arrays(draw: st.DrawFn, dimensions: st.SearchStrategy[int] | None = None) -> NDArray[Any]:
    """Arrays of few pixels, contiguous or not."""
    shape = [draw(sides) for _ in range(draw(dimensions or st.integers(0, 4)))]
    if draw(st.booleans()) and shape:
        shape[-1] = 3
    made = np.random.default_rng(draw(st.integers(0, 9))).integers(0, 6, shape).astype(draw(kinds))
    return draw(st.sampled_from([made, made[::-1] if made.ndim else made, made.T, np.asfortranarray(made)]))


@st.composite
def frames(draw: st.DrawFn) -> NDArray[Any]:
    """Often what a stream holds."""
    return draw(arrays()) if draw(st.integers(0, 3)) == 0 else moving_square(draw(st.integers(0, 8)))[0]


@st.composite
def masks(draw: st.DrawFn) -> NDArray[Any] | None:
    """Often what a user draws."""
    if draw(st.integers(0, 3)) == 0:
        return draw(arrays())
    return draw(st.sampled_from([1, 2, 7, 255])) * moving_square(draw(st.integers(0, 8)))[1]


def tracker(folder: Path, **options: Any) -> maskring.Tracker:
    model = folder / "pixels.onnx"
    if not model.exists():
        write_pixel_model(model)
    return maskring.open_tracker(model, threads=1, **options)


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
    with its_word(home("maskring.read_mask")):
        home("maskring.read_mask")(data.draw(strange), allow_empty=data.draw(st.booleans()))


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

# Valid values are accepted ----------------------------------------------------------------------------------


def valid_trackers(folder: Path) -> None:
    tracker(folder).close()
    for kernel in ("native", "function"):
        maskring.open_tracker(str(folder / "pixels.onnx"), kernel=kernel, threads=0).close()


def valid_steps(folder: Path) -> None:
    with tracker(folder) as opened:
        keeps_its_word(opened.step(*moving_square(0)), moving_square(0)[0])
        opened.prefetch(moving_square(2)[0])
        keeps_its_word(opened.step(moving_square(1)[0]), moving_square(1)[0])
        opened.revise(moving_square(1)[1])
        found = opened.step(moving_square(2)[0], np.uint8(7) * moving_square(4)[1])
        assert {state.id for state in found.objects} == {1, 7}
        opened.remove(1)
        assert [state.id for state in opened.step(moving_square(3)[0]).objects] == [7]


def valid_sizes(folder: Path) -> None:
    for size in (24, 40, 96):
        with tracker(folder) as opened:
            inner = maskring.ResizedTracker(opened, size)
            assert inner.step(*moving_square(0)).labels.shape == (HEIGHT, WIDTH)
            inner.prefetch(moving_square(1)[0])
            assert inner.step(moving_square(1)[0]).labels.any()


def valid_results(folder: Path) -> None:
    with tracker(folder) as opened:
        found = opened.step(*moving_square(0))
    assert found.delayed(1.0).timings.total >= 1.0


def valid_policies(folder: Path) -> None:
    for policy in (maskring.MemoryPolicy(), maskring.MemoryPolicy((0,), (1, 2, 4))):
        with tracker(folder, policy=policy) as opened:
            opened.step(*moving_square(0))
            assert opened.step(moving_square(1)[0]).labels.any()


def valid_sources(folder: Path) -> None:
    images = folder / "valid"
    images.mkdir(exist_ok=True)
    for index in range(3):
        maskring.write_mask(images / f"{index}.png", moving_square(index)[1])
    for first, last, expected in ((0, None, [0, 1, 2]), (1, None, [1, 2]), (0, 1, [0, 1]), (2, 9, [2])):
        with maskring.open_source(images, first=first, last=last) as opened:
            assert [frame.index for frame in opened] == expected


def valid_frames_on_a_gpu(folder: Path) -> None:
    interface = {"shape": (4, 3, 3), "typestr": "|u1", "data": (4096, False), "version": 3}
    assert maskring.DeviceFrame(SimpleNamespace(__cuda_array_interface__=interface)).shape == (4, 3, 3)


def valid_masks(folder: Path) -> None:
    for ids in (moving_square(0)[1], np.uint8(255) * moving_square(3)[1], np.zeros((5, 7), np.uint8)):
        maskring.write_mask(folder / "valid.png", ids)
        assert np.array_equal(maskring.read_mask(folder / "valid.png", allow_empty=True), ids)


def valid_boxes(folder: Path) -> None:
    image, mask = moving_square(0)
    assert maskring.masks_from_boxes(image, [(6, 10, 36, 40)]).any()
    assert set(np.unique(maskring.masks_from_boxes(image, [(6, 10, 36, 40)], np.uint8(2) * mask))) >= {2}
    cut = maskring.cut_from_box(image, (6, 10, 36, 40))
    assert cut is not None and cut[mask > 0].mean() > 0.9


def valid_overlays(folder: Path) -> None:
    image, mask = moving_square(0)
    for alpha in (0.0, 0.4, 1.0):
        painted = maskring.draw_overlay(image, mask, alpha=alpha, contours=False)
        assert np.array_equal(painted, image) == (alpha == 0)


def valid_pipelines(folder: Path) -> None:
    stream = [maskring.Frame(moving_square(i)[0], i, i / 30, str(i)) for i in range(4)]
    edits = maskring.Edits({0: moving_square(0)[1], 2: np.uint8(2) * moving_square(8)[1]}, {3: [1]})
    out = folder / "results"
    with (
        tracker(folder) as opened,
        maskring.MaskFolderSink(out / "masks") as masks,
        maskring.OverlayVideoSink(out / "overlay.mp4", 30.0) as video,
        maskring.JsonLinesSink(out / "objects.jsonl") as lines,
    ):
        assert maskring.track(stream, opened, [masks, video, lines], edits).frames == 4
    assert len(list((out / "masks").iterdir())) == 4 and (out / "overlay.mp4").stat().st_size


def valid_drawings(folder: Path) -> None:
    image, mask = moving_square(0)
    drawn = maskring.Drawing(image, mask, frozenset({1}))
    height, width = drawn.picture().shape[:2]
    for x, y in ((0.1, 0.1), (0.9, 0.1), (0.9, 0.9), (0.1, 0.9)):
        drawn.handle(maskring.Pointer("press", int(x * width), int(y * height)))
    drawn.handle(maskring.Pointer("close", 0, 0))
    assert drawn.mask.mean() > 0.4 and not drawn.ended
    drawn.handle(maskring.Key("enter"))
    assert drawn.ended


def valid_interactions(folder: Path) -> None:
    from maskring.runtime.pipeline.edits import Schedule

    screen = SimpleNamespace(show=lambda _: None, close=lambda: None, events=lambda _: [])
    user = maskring.Interaction(screen, Schedule(maskring.Edits({0: moving_square(0)[1]})))
    stream = [maskring.Frame(moving_square(i)[0], i, i / 30, str(i)) for i in range(3)]
    with tracker(folder) as opened:
        assert maskring.track(stream, opened, [user], user).frames == 3


def valid_exports(folder: Path) -> None:
    import maskring.export.onnx_export as module

    def accept(*_: object) -> None:
        raise Accepted

    checkpoint = write_tiny_checkpoint(folder / "valid.safetensors")
    sizes = {"height": 48, "width": 64, "num_labels": 2, "num_slots": 5}
    read: dict[str, Any] = {"radius": 3, "logit_scale": 7.5, "top_k": 5, "roi_step": 2}
    read |= {"smoothing_radius": 1, "dtype": "float16"}
    for settings_ in ({}, sizes, read, sizes | read):
        with pytest.MonkeyPatch.context() as patch, pytest.raises(Accepted):
            patch.setattr(module, "step_model", accept)
            module.export_onnx(checkpoint, folder / "out.onnx", **settings_)


VALID: dict[str, Callable[[Path], None]] = {
    "maskring.open_tracker": valid_trackers,
    "maskring.Tracker": valid_steps,
    "maskring.ResizedTracker": valid_sizes,
    "maskring.Result": valid_results,
    "maskring.MemoryPolicy": valid_policies,
    "maskring.open_source": valid_sources,
    "maskring.DeviceFrame": valid_frames_on_a_gpu,
    "maskring.read_mask": valid_masks,
    "maskring.write_mask": valid_masks,
    "maskring.masks_from_boxes": valid_boxes,
    "maskring.draw_overlay": valid_overlays,
    "maskring.track": valid_pipelines,
    "maskring.MaskFolderSink": valid_pipelines,
    "maskring.Drawing": valid_drawings,
    "maskring.cut_from_box": valid_boxes,
    "maskring.Interaction": valid_interactions,
    "maskring.export_onnx": valid_exports,
}


@pytest.mark.parametrize("name", ATTACKS)
def test_valid_values_are_accepted(name: str, tmp_path: Path) -> None:
    """Nothing is swallowed here: the attacks would also pass where everything is refused."""
    VALID[name](tmp_path)


ATTACKED_ELSEWHERE = {
    "maskring.Source": "open_source",
    "maskring.OverlayVideoSink": "MaskFolderSink",
    "maskring.JsonLinesSink": "MaskFolderSink",
    "maskring.Edits": "track",
}

ONLY_HOLD = {
    "maskring.ObjectState",
    "maskring.Timings",
    "maskring.Frame",
    "maskring.Key",
    "maskring.Pointer",
    "maskring.Steering",
    "maskring.Decision",
    "maskring.Screen",
}
"""Records without behaviour, and protocols."""


def test_every_documented_name_is_attacked() -> None:
    assert sorted(documented()) == sorted([*ATTACKS, *ATTACKED_ELSEWHERE, *ONLY_HOLD])
    exported = {f"maskring.{name}" for name in maskring.__all__ if not name.startswith("__")}
    assert exported - {f"maskring.{name}" for name in EXCEPTIONS} == set(documented())


def test_type_checkers_see_the_names_that_there_are() -> None:
    tree = ast.parse(Path(maskring.__file__).read_text())
    (block,) = (node for node in tree.body if isinstance(node, ast.If))
    seen: dict[str, tuple[str, ...]] = {}
    for node in block.body:
        assert isinstance(node, ast.ImportFrom) and node.module is not None and node.level == 1
        (alias,) = node.names
        assert alias.asname == alias.name
        seen[node.module] = (*seen.get(node.module, ()), alias.name)
    assert seen == maskring._MODULES
    for name in maskring.__all__:
        assert getattr(maskring, name) is not None


def test_old_names_still_work() -> None:
    assert maskring.with_boxes is maskring.masks_from_boxes
    with pytest.raises(AttributeError, match="nothing"):
        maskring.nothing  # noqa: B018


FEW = settings(max_examples=25, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
MANY = settings(FEW, max_examples=3000, derandomize=False, database=None)


@pytest.mark.parametrize("name", ATTACKS)
@FEW
@given(data=st.data())
def test_few(name: str, data: st.DataObject, tmp_path_factory: pytest.TempPathFactory) -> None:
    ATTACKS[name](data, folder_of(name, tmp_path_factory))


@pytest.mark.slow
@pytest.mark.parametrize("name", ATTACKS)
@MANY
@given(data=st.data())
def test_many(name: str, data: st.DataObject, tmp_path_factory: pytest.TempPathFactory) -> None:
    ATTACKS[name](data, folder_of(name, tmp_path_factory))


FOLDERS: dict[str, Path] = {}


def folder_of(name: str, factory: pytest.TempPathFactory) -> Path:
    """One for all cases of an attack."""
    if name not in FOLDERS:
        FOLDERS[name] = factory.mktemp("api")
    return FOLDERS[name]


@FEW
@given(problem=words, remedy=words)
def test_errors_are_one_line(problem: str, remedy: str) -> None:
    for kind in (UserError, MaskError):
        error = kind(problem, remedy)
        assert str(error).isprintable() and str(error) == f"{error.problem}; {error.remedy}."
        json.dumps(str(error)).encode("ascii")


def test_rates_that_no_video_has(tmp_path: Path) -> None:
    """OpenCV's encoder never came back from an infinite one."""
    from maskring import OverlayVideoSink

    for rate in (math.inf, math.nan, 0.0, -1.0):
        with raises_user_error(OutputError, mentions=(rate, "frames per second")):
            OverlayVideoSink(tmp_path / "overlay.mp4", rate)


def test_masks_of_different_sizes_for_one_frame() -> None:
    from maskring import Edits, Frame
    from maskring.runtime.pipeline.edits import Schedule

    frame, mask = moving_square(0)
    schedule = Schedule(Edits({0: mask, 1: mask[:5]}))
    with raises_user_error(MaskError, ["[5, 64]", "[48, 64]"]):
        schedule.decide(Frame(frame, 2, 0.0, "a"))


def test_frames_named_like_folders(tmp_path: Path) -> None:
    from maskring import Frame, MaskFolderSink

    with tracker(tmp_path) as opened:
        result = opened.step(*moving_square(0))
    sink = MaskFolderSink(tmp_path / "masks")
    for name in ("../stolen", "a/b", str(tmp_path / "stolen")):
        with raises_user_error(OutputError, mentions=(name, "folder")):
            sink.write(Frame(moving_square(0)[0], 0, 0.0, name), result)
    assert not list(tmp_path.rglob("*stolen*"))


def test_boxes_beside_the_frame() -> None:
    from maskring import cut_from_box

    image = moving_square(0)[0]
    for box in ((-900, 0, -800, 40), (70, 0, 90, 40), (0, 0, 64, 48)):
        assert cut_from_box(image, box) is None


@pytest.mark.parametrize(
    "setting", ["num_slots", "radius", "top_k", "roi_step", "smoothing_radius", "num_labels"]
)
def test_no_export_that_could_not_be_opened(tmp_path: Path, setting: str) -> None:
    from maskring import export_onnx

    checkpoint = write_tiny_checkpoint(tmp_path / "tiny.safetensors")
    with raises_user_error(ModelError, mentions=["65536"]):
        export_onnx(checkpoint, tmp_path / "out.onnx", **{setting: 1 << 17})
    assert not (tmp_path / "out.onnx").exists()
