"""The reference implementation against examples computed by hand.

Most examples give a key the value log(w) and the query the value 1, so that the softmax weight of a position is
w divided by the sum of all w in the pixel's windows.
"""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from maskring.plugins.windowed_affinity.reference import windowed_affinity


def frames(*maps: list[list[float]]) -> Tensor:
    """[1, N, 1, H, W] from one nested list per slot."""
    return torch.tensor(maps, dtype=torch.float64)[None, :, None]


def read(
    weights: Tensor,
    labels: Tensor,
    dilation: list[int],
    offsets: Tensor | None = None,
    *,
    radius: int,
    top_k: int = 0,
) -> list[list[float]]:
    """The result [H][W] for positions of the given weights, queries being 1."""
    query = torch.ones_like(weights[:, 0])
    steps = torch.tensor([dilation], dtype=torch.int32)
    out = windowed_affinity(
        query, weights.log(), labels, steps, offsets, radius=radius, scale=1.0, top_k=top_k
    )
    result: list[list[float]] = out[0, 0].tolist()
    return result


def test_radius_zero_copies_the_pixel_at_the_same_place() -> None:
    labels = frames([[1, 2, 3], [4, 5, 6]])
    assert read(torch.ones_like(labels), labels, [1], radius=0) == [[1, 2, 3], [4, 5, 6]]


def test_one_softmax_runs_over_the_part_of_the_window_inside_the_frame() -> None:
    out = read(frames([[1, 2, 3]]), frames([[10, 20, 60]]), [1], radius=1)
    assert out[0] == pytest.approx([(10 + 40) / 3, (10 + 40 + 180) / 6, (40 + 180) / 5])


def test_a_frame_smaller_than_the_window_is_averaged_whole() -> None:
    labels = frames([[3, 5], [7, 9]])
    out = read(torch.ones_like(labels), labels, [1], radius=4)
    assert out == [pytest.approx([6, 6])] * 2


def test_rows_and_columns_are_not_mixed_up() -> None:
    labels = frames([[1, 10], [100, 1000], [10000, 100000]])
    out = read(torch.ones_like(labels), labels, [1], radius=1)
    assert out[0] == pytest.approx([1111 / 4] * 2)
    assert out[1] == pytest.approx([111111 / 6] * 2)
    assert out[2] == pytest.approx([111100 / 4] * 2)


def test_dilation_two_steps_over_every_other_pixel() -> None:
    out = read(frames([[1, 1, 2, 3, 5]]), frames([[10, 20, 30, 40, 50]]), [2], radius=1)
    assert out[0] == pytest.approx(
        [(10 + 60) / 3, (20 + 120) / 4, (10 + 60 + 250) / 8, (20 + 120) / 4, (60 + 250) / 7]
    )


def test_a_dilation_beyond_the_frame_leaves_the_pixel_itself() -> None:
    labels = frames([[10, 20, 30]])
    assert read(torch.ones_like(labels), labels, [2**31 - 1], radius=2) == [[10, 20, 30]]


def test_slots_share_one_softmax_and_keep_their_own_dilation() -> None:
    weights, labels = frames([[1, 2, 3]], [[4, 5, 6]]), frames([[10, 20, 30]], [[40, 50, 60]])
    out = read(weights, labels, [1, 2], radius=1)
    # Slot 0 shows pixel 0 its positions 0 and 1, slot 1 its positions 0 and 2.
    assert out[0][0] == pytest.approx((10 + 2 * 20 + 4 * 40 + 6 * 60) / (1 + 2 + 4 + 6))
    assert out[0][1] == pytest.approx((10 + 2 * 20 + 3 * 30 + 5 * 50) / (1 + 2 + 3 + 5))


def test_an_empty_slot_is_never_looked_at() -> None:
    weights, labels = frames([[1, 2, 3]], [[math.nan] * 3]), frames([[10, 20, 60]], [[math.nan] * 3])
    assert read(weights, labels, [1, 0], radius=1)[0] == pytest.approx([50 / 3, 230 / 6, 44])


def test_nothing_to_read_gives_zero() -> None:
    labels = frames([[5, 6]], [[7, 8]])
    assert read(torch.ones_like(labels), labels, [0, 0], radius=1) == [[0, 0]]


def test_offsets_are_dy_dx_of_each_pixels_own_window() -> None:
    labels = frames([[1, 2, 3], [4, 5, 6]])
    offsets = torch.zeros(1, 1, 2, 2, 3, dtype=torch.int32)
    offsets[0, 0, :, 0, 0] = torch.tensor([1, 2])  # the top left pixel reads the bottom right one
    offsets[0, 0, :, 1, 1] = torch.tensor([-1, 0])
    assert read(torch.ones_like(labels), labels, [1], offsets, radius=0) == [[6, 2, 3], [4, 2, 6]]


def test_an_offset_may_leave_the_frame_partly_or_wholly() -> None:
    labels = frames([[10, 20, 60]])
    offsets = torch.zeros(1, 1, 2, 1, 3, dtype=torch.int32)
    offsets[0, 0, 1, 0] = torch.tensor([-1, 4, 2**31 - 1])  # centres at -1, at 5 and out of sight
    out = read(frames([[1, 2, 3]]), labels, [1], offsets, radius=1)
    assert out == [[10, 0, 0]]


def test_top_k_keeps_the_largest_and_renormalises() -> None:
    out = read(frames([[1, 2, 3, 4]]), frames([[10, 20, 30, 40]]), [1], radius=3, top_k=2)
    assert out[0] == pytest.approx([(90 + 160) / 7] * 4)


def test_ties_at_the_top_k_threshold_all_stay() -> None:
    out = read(frames([[2, 2, 3, 1]]), frames([[10, 20, 30, 40]]), [1], radius=3, top_k=2)
    assert out[0] == pytest.approx([(20 + 40 + 90) / 7] * 4)


def test_top_k_counts_over_all_slots() -> None:
    weights, labels = frames([[1, 5]], [[4, 2]]), frames([[10, 20]], [[30, 40]])
    out = read(weights, labels, [1, 1], radius=1, top_k=2)
    assert out[0] == pytest.approx([(100 + 120) / 9] * 2)


@pytest.mark.parametrize("top_k", [5, 1000])  # below and above the positions of the whole window
def test_top_k_with_fewer_valid_positions_keeps_them_all(top_k: int) -> None:
    out = read(frames([[1, 2, 3]]), frames([[10, 20, 60]]), [1], radius=1, top_k=top_k)
    assert out[0] == pytest.approx([50 / 3, 230 / 6, 44])


def test_scale_and_inner_product_make_the_logit() -> None:
    query = torch.tensor([2.0, 3.0], dtype=torch.float64).view(1, 2, 1, 1).expand(1, 2, 1, 2)
    keys = torch.tensor([[1.0, 0.0], [0.0, 1.0]], dtype=torch.float64).view(1, 1, 2, 1, 2)
    steps = torch.ones(1, 1, dtype=torch.int32)
    out = windowed_affinity(query, keys, frames([[0, 1]]), steps, radius=1, scale=0.5)
    # Logits are 0.5 * 2 = 1 and 0.5 * 3 = 1.5.
    assert out.flatten().tolist() == pytest.approx([1 / (1 + math.exp(-0.5))] * 2)


def test_logits_too_large_for_exp_still_give_weights() -> None:
    query = torch.full((1, 1, 1, 2), 1000.0, dtype=torch.float64)
    keys, steps = frames([[1000, 999.999]]), torch.ones(1, 1, dtype=torch.int32)
    out = windowed_affinity(query, keys, frames([[1, 0]]), steps, radius=1, scale=1.0)
    assert out.flatten().tolist() == pytest.approx([1 / (1 + math.exp(-1))] * 2)


def test_half_precision_is_accumulated_in_float32() -> None:
    # 4096 + 1 is not a float16: accumulated there, the second key would lose its lead.
    query = torch.ones(1, 2, 1, 2, dtype=torch.float16)
    keys = torch.tensor([[4096.0, 4096.0], [0.0, 1.0]], dtype=torch.float16).view(1, 1, 2, 1, 2)
    values = torch.tensor([0.0, 1.0], dtype=torch.float16).view(1, 1, 1, 1, 2)
    steps = torch.ones(1, 1, dtype=torch.int32)
    out = windowed_affinity(query, keys, values, steps, radius=1, scale=1.0)
    assert out.dtype == torch.float16
    assert out.flatten().tolist() == pytest.approx([1 / (1 + math.exp(-1))] * 2, abs=5e-4)


def test_elements_of_a_batch_do_not_see_each_other() -> None:
    labels = torch.cat([frames([[1, 3]]), frames([[5, 9]])])
    steps = torch.tensor([[1], [0]], dtype=torch.int32)
    query = torch.ones(2, 1, 1, 2, dtype=torch.float64)
    out = windowed_affinity(query, torch.zeros_like(labels), labels, steps, radius=1, scale=1.0)
    assert out.flatten().tolist() == [2, 2, 0, 0]
