"""The native CPU kernel: any number of threads, wide frames, and arguments that do not match.

``test_sweep.py`` compares values with the reference, for every instruction set.
"""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import pytest
import torch
from affinity_cases import TOLERANCE, Case, corner_cases, inputs_of, random_case

from maskring.plugins.windowed_affinity import cpu_op
from maskring.plugins.windowed_affinity.reference import windowed_affinity

CASES = [*corner_cases()[:6], *map(random_case, range(100, 110))]


def run(case: Case, **settings: Any) -> np.ndarray:
    data = inputs_of(case)
    arrays = (data.query, data.keys, data.values, data.dilation, data.offsets)
    return cpu_op.windowed_affinity(
        *arrays, radius=data.radius, scale=data.scale, top_k=data.top_k, **settings
    )


def arguments(**changes: Any) -> dict[str, Any]:
    """Arguments that fit, with changes."""
    fitting: dict[str, Any] = {
        "query": np.zeros((1, 3, 4, 5), np.float32),
        "keys": np.zeros((1, 2, 3, 4, 5), np.float32),
        "values": np.zeros((1, 2, 2, 4, 5), np.float32),
        "dilation": np.ones((1, 2), np.int32),
        "radius": 1,
        "scale": 1.0,
    }
    return fitting | changes


def test_an_unknown_instruction_set_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(cpu_op.ISA_VARIABLE, "abacus")
    with pytest.raises(ValueError, match=r"abacus.*scalar"):
        cpu_op.windowed_affinity(**arguments())


@pytest.mark.parametrize("threads", [2, 3, 16])
def test_threads_change_nothing(threads: int) -> None:
    """Work is cut differently for each number of threads; every pixel's arithmetic stays the same."""
    for case in CASES:
        np.testing.assert_array_equal(run(case, threads=threads), run(case, threads=1))


def test_calls_from_several_threads_at_once() -> None:
    case = random_case(7)
    expected, found = run(case), [np.empty(0)] * 4

    def work(index: int) -> None:
        for _ in range(5):
            found[index] = run(case, threads=2)

    workers = [threading.Thread(target=work, args=(index,)) for index in range(len(found))]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    for result in found:
        np.testing.assert_array_equal(result, expected)


def test_the_result_goes_where_it_is_wanted() -> None:
    case = random_case(3)
    expected = run(case)
    out = np.full_like(expected, np.nan)
    assert run(case, out=out) is out
    np.testing.assert_array_equal(out, expected)


def test_wide_frames_are_cut_into_columns() -> None:
    """Frames wider than one rectangle: windows extend across the cut."""
    rng = np.random.default_rng(0)
    query = rng.normal(size=(1, 4, 3, 600)).astype(np.float32)
    keys = rng.normal(size=(1, 1, 4, 3, 600)).astype(np.float32)
    values = rng.random((1, 1, 2, 3, 600), np.float32)
    whole = cpu_op.windowed_affinity(query, keys, values, np.ones((1, 1), np.int32), radius=2, scale=1.0)
    for left in (250, 508):
        part = [np.ascontiguousarray(array[..., left - 8 : left + 20]) for array in (query, keys, values)]
        near = cpu_op.windowed_affinity(*part, np.ones((1, 1), np.int32), radius=2, scale=1.0)
        np.testing.assert_allclose(whole[..., left : left + 12], near[..., 8:20], atol=1e-6)


@pytest.mark.parametrize("instruction_set", cpu_op.instruction_sets())
@pytest.mark.parametrize("dtype", [np.float32, np.float16])
@pytest.mark.parametrize("shares", [False, True])
def test_keys_are_read_where_labels_differ(
    monkeypatch: pytest.MonkeyPatch, instruction_set: str, dtype: type, shares: bool
) -> None:
    """An object in one of two frames: out of its reach all is background, whatever features and votes are."""
    monkeypatch.setenv(cpu_op.ISA_VARIABLE, instruction_set)
    values = np.zeros((1, 2, 2, 40, 80), dtype)
    values[:, :, 0] = np.random.default_rng(0).uniform(0.01, 1, (1, 2, 40, 80)) if shares else 1
    values[0, 1, :, 20, 40] = 0, 0.5 if shares else 1
    data = {"query": np.zeros((1, 3, 40, 80), dtype), "keys": np.zeros((1, 2, 3, 40, 80), dtype)}
    read: dict[str, Any] = {"values": values, "dilation": np.array([[1, 2]], np.int32), "shares": shares}
    plain = cpu_op.windowed_affinity(**data, **read, radius=3, scale=1.0)
    assert 0 < plain[0, 1].max() < 1
    away = np.indices((40, 80)) - np.array([20, 40])[:, None, None]
    far = (np.abs(away[0]) > 7) | (np.abs(away[1]) > 6 + 2 * 16)
    data["query"][:, :, far] = np.nan
    out = cpu_op.windowed_affinity(**data, **read, radius=3, scale=1.0)
    np.testing.assert_array_equal(out, plain)
    np.testing.assert_array_equal(out[0, :, far], np.broadcast_to([1, 0], (far.sum(), 2)))


@pytest.mark.parametrize("case", [*corner_cases(), *map(random_case, range(40))], ids=str)
def test_shares_are_votes_divided_by_their_sum(case: Case) -> None:
    data = inputs_of(case)
    best = data.values == data.values.max(2, keepdims=True)
    votes = np.where(best, np.abs(data.values) + data.values.dtype.type(0.01), 0).astype(data.values.dtype)
    settings: dict[str, Any] = {"radius": data.radius, "scale": data.scale, "top_k": data.top_k}
    found = cpu_op.windowed_affinity(
        data.query, data.keys, votes, data.dilation, data.offsets, shares=True, **settings
    )
    offsets = None if data.offsets is None else torch.from_numpy(data.offsets)
    tensors = [torch.from_numpy(array).double() for array in (data.query, data.keys, votes)]
    read = windowed_affinity(*tensors, torch.from_numpy(data.dilation), offsets, **settings).numpy()
    total = read.sum(1, keepdims=True)
    expected = np.divide(read, total, out=np.zeros_like(read), where=total > 0)
    np.testing.assert_allclose(found, expected, atol=TOLERANCE[case.dtype])


def test_an_infinite_dilation_leaves_the_own_pixel() -> None:
    rng = np.random.default_rng(0)
    values = rng.random((1, 1, 2, 4, 5), np.float32)
    for dilation in (1000, 2**31 - 1):
        out = cpu_op.windowed_affinity(
            **arguments(
                keys=np.zeros((1, 1, 3, 4, 5), np.float32),
                values=values,
                dilation=np.full((1, 1), dilation, np.int32),
                radius=12,
            )
        )
        np.testing.assert_allclose(out, values[:, 0], atol=1e-6)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"query": np.zeros((3, 4, 5), np.float32)}, "query must have 4 dimensions"),
        ({"query": np.zeros((1, 3, 4, 5), np.float64)}, "query must be float32 or float16"),
        ({"keys": np.zeros((1, 2, 3, 4, 6), np.float32)}, "keys must have shape"),
        ({"keys": np.zeros((1, 2, 3, 4, 5), np.float16)}, "keys must be float32"),
        ({"values": np.zeros((1, 3, 2, 4, 5), np.float32)}, "must have shape"),
        ({"values": np.zeros((1, 2, 2, 4, 10), np.float32)[..., ::2]}, "values must be C-contiguous"),
        ({"dilation": np.ones((1, 2), np.int64)}, "dilation must be int32"),
        ({"dilation": np.ones((1, 3), np.int32)}, "dilation must have shape"),
        ({"offsets": np.zeros((1, 2, 2, 4, 6), np.int32)}, "offsets must have shape"),
        ({"out": np.zeros((1, 2, 4, 5), np.float16)}, "out must be float32"),
        ({"out": np.zeros((1, 3, 4, 5), np.float32)}, "out must have shape"),
        ({"radius": -1}, "radius and top_k must not be negative"),
        ({"top_k": -1}, "radius and top_k must not be negative"),
        ({"scale": float("nan")}, "scale must be finite"),
        ({"scale": -1.0}, "scale must be finite and not negative"),
        (
            {
                "query": np.zeros((1, 3, 0, 5), np.float32),
                "keys": np.zeros((1, 2, 3, 0, 5), np.float32),
                "values": np.zeros((1, 2, 2, 0, 5), np.float32),
            },
            "must not be empty",
        ),
    ],
)
def test_arguments_that_do_not_fit(changes: dict[str, Any], words: str) -> None:
    cpu_op.windowed_affinity(**arguments())
    with pytest.raises(ValueError, match=words):
        cpu_op.windowed_affinity(**arguments(**changes))


@pytest.mark.parametrize(("slots", "labels"), [(0, 2), (2, 0), (0, 0)])
def test_no_slots_or_no_labels(slots: int, labels: int) -> None:
    out = cpu_op.windowed_affinity(
        **arguments(
            keys=np.zeros((1, slots, 3, 4, 5), np.float32),
            values=np.zeros((1, slots, labels, 4, 5), np.float32),
            dilation=np.ones((1, slots), np.int32),
        )
    )
    assert out.shape == (1, labels, 4, 5)
    assert not out.any()


@pytest.mark.parametrize("moving", [0, 1])
def test_offsets_that_differ_in_one_direction_only(moving: int) -> None:
    """With radius 0 an offset is a look-up of values."""
    rng = np.random.default_rng(0)
    values = rng.random((1, 2, 2, 4, 5), np.float32)
    values[:, 1] = values[:, 0]
    offsets = np.zeros((1, 2, 2, 4, 5), np.int32)
    offsets[:, :, moving] = np.indices((4, 5))[moving] // 2 * -1
    pixels = np.indices((4, 5)) + offsets[0, 0]
    out = cpu_op.windowed_affinity(**arguments(values=values, offsets=offsets, radius=0))
    np.testing.assert_allclose(out, values[:, 0, :, pixels[0], pixels[1]].transpose(2, 3, 0, 1), atol=1e-6)
