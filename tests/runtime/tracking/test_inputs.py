"""Frames and masks of every library, and a tracker that begins again."""

from __future__ import annotations

import copy
import pickle
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from pixel_backend import PixelBackend
from user_errors import raises_user_error

from maskring.common.errors import MaskError, SourceError
from maskring.runtime.pipeline.resized import ResizedTracker
from maskring.runtime.tracking.tracker import Tracker

HEIGHT, WIDTH = 48, 64
COLOURS = np.array([(40, 40, 40), (250, 10, 10), (10, 240, 20)], np.uint8)


def scene(shift: int, height: int = HEIGHT, width: int = WIDTH) -> tuple[np.ndarray, np.ndarray]:
    """A frame with two rectangles, and its object ids."""
    ids = np.zeros((height, width), np.uint8)
    ids[4:20, 4 + shift : 20 + shift], ids[28:40, 30 - shift : 50 - shift] = 1, 2
    return COLOURS[ids], ids


class OnlyDLPack:
    """A tensor of a framework without ``__array__``."""

    def __init__(self, array: np.ndarray) -> None:
        self._array = array

    def __dlpack__(self, **options: Any) -> Any:
        return self._array.__dlpack__(**options)

    def __dlpack_device__(self) -> Any:
        return self._array.__dlpack_device__()


def read_only(array: np.ndarray) -> np.ndarray:
    copy = array.copy()
    copy.setflags(write=False)
    return copy


def strided(array: np.ndarray) -> np.ndarray:
    return np.repeat(np.repeat(array, 2, 0), 3, 1)[::2, ::3]


KINDS: dict[str, Callable[[np.ndarray], Any]] = {
    "Pillow": Image.fromarray,
    "torch": torch.from_numpy,
    "torch, strided": lambda array: (
        torch.from_numpy(strided(array).copy()).transpose(0, 1).contiguous().transpose(0, 1)
    ),
    "DLPack": OnlyDLPack,
    "read-only": read_only,
    "strided": strided,
}


def run(tracker: Any, convert: Callable[[np.ndarray], Any]) -> list[np.ndarray]:
    labels = []
    for index in range(4):
        image, ids = scene(index)
        labels.append(tracker.step(convert(image), convert(ids) if index in (0, 2) else None).labels)
    return labels


@pytest.mark.parametrize("size", [None, 24])
@pytest.mark.parametrize("kind", KINDS)
def test_frames_and_masks_of_every_kind(kind: str, size: int | None) -> None:
    def new() -> Any:
        return Tracker(PixelBackend()) if size is None else ResizedTracker(Tracker(PixelBackend()), size)

    for expected, result in zip(run(new(), lambda array: array), run(new(), KINDS[kind]), strict=True):
        np.testing.assert_array_equal(result, expected)


@pytest.mark.parametrize("dtype", [np.int8, np.int32, np.int64, np.uint16, ">u2"])
def test_masks_of_every_integer(dtype: Any) -> None:
    image, ids = scene(0)
    np.testing.assert_array_equal(Tracker(PixelBackend()).step(image, ids.astype(dtype)).labels, ids)


def test_a_palette_image_of_pillow_is_a_mask() -> None:
    image, ids = scene(0)
    mask = Image.fromarray(ids).convert("P")
    mask.putpalette([0, 0, 0, 128, 0, 0, 0, 128, 0])
    np.testing.assert_array_equal(Tracker(PixelBackend()).step(image, mask).labels, ids)


def an_editors_palette(ids: np.ndarray) -> Image.Image:
    mask = Image.fromarray(2 - ids).convert("P")
    mask.putpalette([0, 0, 255, 255, 0, 0, 0, 0, 0])
    return mask


NO_MASKS: dict[str, tuple[Callable[[np.ndarray], Any], tuple[str, ...]]] = {
    "palette of an editor": (an_editors_palette, ("palette", "read_mask")),
    "colours": (lambda ids: Image.fromarray(COLOURS[ids]), ("[48, 64, 3]",)),
    "booleans": (lambda ids: torch.from_numpy(ids > 0), ("bool", "3 * mask")),
    "too large": (lambda ids: ids.astype(np.int64) * 200, ("int64", "255")),
    "negative": (lambda ids: ids.astype(np.int64) - 1, ("int64", "255")),
    "with a gradient": (lambda ids: torch.ones(ids.shape, requires_grad=True), ("Tensor", "grad")),
    "words": (lambda ids: "first.png", ("[]",)),
}


@pytest.mark.parametrize("kind", NO_MASKS)
def test_what_is_no_mask(kind: str) -> None:
    image, ids = scene(0)
    convert, mentions = NO_MASKS[kind]
    tracker = Tracker(PixelBackend())
    with raises_user_error(MaskError, mentions=mentions):
        tracker.step(image, convert(ids))
    np.testing.assert_array_equal(tracker.step(image, ids).labels, ids)


class OnAGpu:
    """What a tensor of torch on a GPU does when NumPy asks for its values."""

    def __array__(self, *_: Any, **__: Any) -> Any:
        raise TypeError("can't convert cuda:0 device type tensor to numpy.")


def test_pixels_on_a_gpu() -> None:
    image, ids = scene(0)
    with raises_user_error(SourceError, mentions=("OnAGpu", "cuda:0", "DeviceFrame")):
        Tracker(PixelBackend()).step(OnAGpu(), ids)
    with raises_user_error(MaskError, mentions=("OnAGpu", "cuda:0", "host")):
        Tracker(PixelBackend()).step(image, OnAGpu())


def test_a_revision_of_every_kind() -> None:
    image, ids = scene(0)
    for convert in (lambda array: array, Image.fromarray, lambda array: torch.from_numpy(array).long()):
        tracker = Tracker(PixelBackend())
        tracker.step(image, ids)
        tracker.revise(convert(np.where(ids == 1, 0, ids).astype(np.uint8)))
        assert set(np.unique(tracker.step(image).labels)) == {0, 2}


@pytest.mark.parametrize("shape", [(HEIGHT, WIDTH), (56, 72)])
def test_after_a_reset_a_tracker_is_like_new(shape: tuple[int, int]) -> None:
    backend = PixelBackend()
    used, new = Tracker(backend), Tracker(PixelBackend())
    image, ids = scene(0)
    many = np.where(ids == 2, 9, ids).astype(np.uint8)
    many[44:, :8] = 200
    for index in range(6):
        used.step(image, many if index == 0 else None)
    used.remove(9)
    used.reset()
    with raises_user_error(MaskError, mentions=("first frame", "mask")):
        used.step(scene(0, *shape)[0])
    for index in range(5):
        image, ids = scene(index, *shape)
        results = [tracker.step(image, ids if index in (0, 3) else None) for tracker in (used, new)]
        for name in ("labels", "probabilities"):
            np.testing.assert_array_equal(*(getattr(result, name) for result in results))
        assert results[0].objects == results[1].objects
        assert results[0].frame_index == results[1].frame_index == index
    assert not backend.closed


def test_a_closed_tracker_is_not_reset() -> None:
    tracker = Tracker(PixelBackend())
    tracker.close()
    with pytest.raises(ValueError, match="closed"):
        tracker.reset()


def test_a_tracker_is_neither_copied_nor_used_by_two_threads() -> None:
    """Copies would share its memory. The second thread comes while the first is within the backend."""
    within, second = threading.Event(), threading.Event()

    class Slow(PixelBackend):
        def step(self, *arguments: Any) -> Any:
            within.set()
            assert second.wait(20)
            return super().step(*arguments)

    tracker = Tracker(Slow())
    for attempt in (copy.copy, copy.deepcopy, pickle.dumps):
        with pytest.raises(TypeError, match="another one"):
            attempt(tracker)
    image, ids = scene(0)
    results: list[Any] = []
    thread = threading.Thread(target=lambda: results.append(tracker.step(image, ids)))
    thread.start()
    assert within.wait(20)
    with pytest.raises(RuntimeError, match="another thread"):
        tracker.step(image, ids)
    second.set()
    thread.join()
    np.testing.assert_array_equal(results[0].labels, ids)


def test_images_that_exif_turns_are_refused() -> None:
    """Pillow hands out their pixels as they are stored, unlike a mask or a frame that maskring reads."""
    image, ids = scene(0)
    turned = Image.fromarray(image)
    turned.getexif()[0x0112] = 3
    with raises_user_error(SourceError, mentions=("EXIF", "exif_transpose")):
        Tracker(PixelBackend()).step(turned, ids)
    mask = Image.fromarray(ids)
    mask.getexif()[0x0112] = 3
    with raises_user_error(MaskError, mentions=("EXIF", "exif_transpose")):
        Tracker(PixelBackend()).step(image, mask)
