"""Batches: windows of clips and pairs of views for one pass, prepared in the background."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from ..common.types import Image
from .augmentation import augment
from .clips import ClipLibrary
from .contrastive_loss import PairBatch
from .distributed import DistributedContext
from .pairs import make_pair
from .recipe import Recipe
from .stills import StillLibrary

T = TypeVar("T")

PREFETCHED_STEPS = 3
"""Steps whose batches are prepared while the network computes."""

PAIR_STREAM = 1 << 20
"""Separates the random numbers of pairs from those of windows."""

STILL_SHARE = 0.5
"""Of the pairs, when there are photographs; the others show footage."""


@dataclass(frozen=True)
class Batch:
    """The windows and pairs of one pass.

    Attributes:
        frames: [B, F, 3, S, S] uint8 RGB.
        channel: [B] int64, the Lab channel to hide and reconstruct: 1 (a) or 2 (b).
        pairs: pairs of views, or None.
    """

    frames: Tensor
    channel: Tensor
    pairs: PairBatch | None = None

    def map(self, move: Callable[[Tensor], Tensor]) -> Batch:
        """This batch with ``move`` applied to each tensor."""
        pairs = None if self.pairs is None else self.pairs.map(move)
        return Batch(move(self.frames), move(self.channel), pairs)

    def to(self, device: torch.device) -> Batch:
        """This batch on ``device``. Copies from pinned memory to a GPU run beside other work."""
        return self.map(lambda tensor: tensor.to(device, non_blocking=True))

    def ready_for(self, device: torch.device) -> Batch:
        """This batch in pinned memory where ``device`` is a CUDA GPU, which reads no other without waiting."""
        return self.map(Tensor.pin_memory) if device.type == "cuda" else self

    @property
    def num_images(self) -> int:
        """Images that the encoder processes."""
        return self.frames.shape[:2].numel() + (0 if self.pairs is None else 2 * len(self.pairs.views))


@dataclass(frozen=True)
class TrainingData:
    """What batches are drawn from.

    Attributes:
        clips: footage.
        stills: photographs for half of the pairs, or None.
    """

    clips: ClipLibrary
    stills: StillLibrary | None = None


def make_batch(recipe: Recipe, data: TrainingData, step: int, number: int) -> Batch:
    """Batch ``number`` of the step after ``step``, which depends on seed, step, number and files only.

    Numbers run through all passes and processes of a step, so two processes with one pass each train on the
    same windows as one process with two passes.
    """
    windows, channels = [], []
    for item in range(number * recipe.clips, (number + 1) * recipe.clips):
        rng = np.random.default_rng((recipe.seed, step, item))
        window = data.clips.window(rng, recipe.frames_at(step), recipe.max_gap)
        windows.append(
            augment(window.frames, rng, crop=recipe.crop, zoom=recipe.zoom, distortion=recipe.distortion)
        )
        channels.append(int(rng.integers(1, 3)))
    no_windows = np.zeros((0, recipe.frames_at(step), 3, recipe.crop, recipe.crop), np.uint8)
    frames = torch.from_numpy(np.stack(windows) if windows else no_windows)
    channel = torch.tensor(channels, dtype=torch.int64)
    return Batch(frames, channel, _make_pairs(recipe, data, step, number))


def _make_pairs(recipe: Recipe, data: TrainingData, step: int, number: int) -> PairBatch | None:
    """The pairs of batch ``number``; pieces in each are cut from the frames of the other pairs."""
    if recipe.pairs == 0:
        return None
    items = range(number * recipe.pairs, (number + 1) * recipe.pairs)
    rngs = [np.random.default_rng((recipe.seed, PAIR_STREAM, step, item)) for item in items]
    windows = [_pair_frames(recipe, data, rng) for rng in rngs]
    firsts = [window[0] for window in windows]
    pairs = []
    for index, (window, rng) in enumerate(zip(windows, rngs, strict=True)):
        others = firsts[:index] + firsts[index + 1 :] or firsts
        pair = make_pair(
            window,
            others,
            rng,
            crop=recipe.crop,
            zoom=recipe.zoom,
            distortion=recipe.pair_distortion,
            count=recipe.pair_places,
        )
        pairs.append(pair)
    return PairBatch.of(pairs)


def _pair_frames(recipe: Recipe, data: TrainingData, rng: np.random.Generator) -> list[Image]:
    """A photograph, or up to ``pair_frames`` frames of a clip."""
    count = int(rng.integers(1, recipe.pair_frames + 1))
    if data.stills is not None and rng.random() < STILL_SHARE:
        return [data.stills.draw(rng)]
    return data.clips.window(rng, count, recipe.max_gap).frames


def passes_of(recipe: Recipe, data: TrainingData, step: int, world: DistributedContext) -> list[Batch]:
    """The batches of this process for the step after ``step``."""
    numbers = range(world.rank, recipe.accumulate * world.size, world.size)
    return [make_batch(recipe, data, step, number) for number in numbers]


def prefetch_passes(
    recipe: Recipe, data: TrainingData, first: int, world: DistributedContext, workers: int = 0
) -> Iterator[list[Batch]]:
    """The passes of all steps from ``first`` on, prepared in the background.

    Args:
        workers: processes that prepare them; 0 for a thread of this one. The batches are the same.
    """
    if workers == 0:
        with ThreadPoolExecutor(max_workers=1) as thread:

            def prepare(step: int) -> list[Batch]:
                return [batch.ready_for(world.device) for batch in passes_of(recipe, data, step, world)]

            def submit(step: int) -> Future[list[Batch]]:
                return thread.submit(prepare, step)

            yield from _in_order(submit, Future.result, first, recipe.total_steps, PREFETCHED_STEPS)
        return
    from .batch_workers import BatchWorkers

    with BatchWorkers(workers, recipe, data, world) as pool:
        ahead = max(PREFETCHED_STEPS, workers + 1)
        yield from _in_order(pool.submit, pool.result, first, recipe.total_steps, ahead)


def _in_order(
    submit: Callable[[int], Future[T]],
    result: Callable[[Future[T]], list[Batch]],
    first: int,
    end: int,
    ahead: int,
) -> Iterator[list[Batch]]:
    """The passes of steps ``first`` to ``end``, while those of ``ahead`` more steps are prepared."""
    pending: list[Future[T]] = []
    try:
        for step in range(first, end + ahead):
            if step < end:
                pending.append(submit(step))
            if pending and step >= first + ahead:
                yield result(pending.pop(0))
    finally:
        for future in pending:
            future.cancel()
