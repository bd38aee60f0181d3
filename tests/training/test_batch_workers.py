"""Processes that prepare batches: the same batches, the same errors, nothing left behind."""

from __future__ import annotations

import multiprocessing
import pickle
import threading
from dataclasses import replace
from itertools import islice
from pathlib import Path

import pytest
import torch
from torch import Tensor
from training_runs import ALONE
from user_errors import raises_user_error

from maskring.common.errors import SourceError, UserError
from maskring.training.batches import Batch, TrainingData, prefetch_passes
from maskring.training.clips import ClipLibrary
from maskring.training.recipe import Recipe

RECIPE = Recipe(name="test", encoder="nano", steps=5, clips=2, frames=3, short_side=40, crop=32, accumulate=2)


def test_workers_make_the_same_batches_in_order(footage: Path) -> None:
    (footage / "broken.avi").write_bytes(b"no video")
    data = [TrainingData(ClipLibrary([footage], RECIPE.short_side, cache_bytes=0)) for _ in range(2)]
    alone = list(prefetch_passes(RECIPE, data[0], 1, ALONE))
    shared = list(prefetch_passes(RECIPE, data[1], 1, ALONE, workers=2))
    assert len(alone) == len(shared) == 4
    for ours, theirs in zip(alone, shared, strict=True):
        assert len(ours) == len(theirs) == 2
        for one, other in zip(ours, theirs, strict=True):
            assert torch.equal(one.frames, other.frames) and torch.equal(one.channel, other.channel)
    assert data[1].clips.skipped == data[0].clips.skipped
    assert not multiprocessing.active_children()


def test_errors_reach_the_caller_and_workers_end(footage: Path) -> None:
    data = TrainingData(ClipLibrary([footage], RECIPE.short_side, cache_bytes=0))
    long = replace(RECIPE, frames=10_000)
    with raises_user_error(SourceError, mentions=("no usable clip",)):
        list(prefetch_passes(long, data, 0, ALONE, workers=1))
    assert not multiprocessing.active_children()


def test_a_run_that_stops_early_ends_its_workers(footage: Path) -> None:
    data = TrainingData(ClipLibrary([footage], RECIPE.short_side, cache_bytes=0))
    batches = prefetch_passes(RECIPE, data, 0, ALONE, workers=1)
    assert len(list(islice(batches, 1))) == 1
    batches.close()  # type: ignore[attr-defined]
    assert not multiprocessing.active_children()


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("kind", ["cpu", "cuda"])
def test_batches_for_a_gpu_are_pinned_beside_the_training(
    kind: str, workers: int, footage: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pinned: list[tuple[int, threading.Thread]] = []

    def pin_memory(tensor: Tensor) -> Tensor:
        copy = tensor.clone()
        pinned.append((copy.data_ptr(), threading.current_thread()))
        return copy

    monkeypatch.setattr(Tensor, "pin_memory", pin_memory)
    recipe = replace(RECIPE, steps=1, pairs=1, accumulate=1)
    data = TrainingData(ClipLibrary([footage], recipe.short_side, cache_bytes=0))
    world = replace(ALONE, device=torch.device(kind))
    ((batch,),) = prefetch_passes(recipe, data, 0, world, workers)
    assert batch.pairs is not None
    tensors = [batch.frames, batch.channel, *vars(batch.pairs).values()]
    expected = [] if kind == "cpu" else [tensor.data_ptr() for tensor in tensors]
    assert sorted(address for address, _ in pinned) == sorted(expected)
    assert threading.main_thread() not in [thread for _, thread in pinned]


def test_a_copy_from_pinned_memory_does_not_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[bool] = []
    monkeypatch.setattr(Tensor, "to", lambda self, device, non_blocking=False: asked.append(non_blocking))
    Batch(torch.zeros(1, 2, 3, 4, 4, dtype=torch.uint8), torch.ones(1)).to(torch.device("cuda"))
    assert asked == [True, True]


@pytest.mark.parametrize("kind", [UserError, SourceError])
def test_errors_cross_processes(kind: type[UserError]) -> None:
    error = pickle.loads(pickle.dumps(kind("a problem", "a remedy")))
    assert type(error) is kind and (error.problem, error.remedy) == ("a problem", "a remedy")
