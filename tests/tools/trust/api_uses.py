"""Calls of the Python API as its documentation shows them: all are accepted."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from support import HEIGHT, WIDTH, moving_square, write_tiny_checkpoint
from trust.api_attacks import Accepted, keeps_its_word
from trust.api_values import tracker

import maskring


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
