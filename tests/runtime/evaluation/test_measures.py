"""The DAVIS measures equal vos-benchmark's frame by frame, and examples worked by hand."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image
from vos_benchmark.evaluator import Evaluator
from vos_benchmark.utils import _seg2bmap

from maskring.runtime.arrays.overlap import intersection_over_union
from maskring.runtime.evaluation.datasets import load_split
from maskring.runtime.evaluation.measures import (
    Measure,
    Score,
    SequenceScorer,
    boundary,
    boundary_accuracy,
    boundary_tolerance,
)


def square(top: int, left: int, side: int, shape: tuple[int, int] = (64, 96)) -> np.ndarray:
    mask = np.zeros(shape, bool)
    mask[top : top + side, left : left + side] = True
    return mask


def assert_equals_vos_benchmark(pairs: list[tuple[np.ndarray, np.ndarray]]) -> None:
    ours, theirs = SequenceScorer(), Evaluator()
    for prediction, truth in pairs:
        ours.add(prediction, truth)
        theirs.feed_frame(prediction, truth)
    j, f = theirs.conclude()
    scores = ours.scores()
    assert {key: score.j.mean for key, score in scores.items()} == pytest.approx(j, abs=1e-9)
    assert {key: score.f.mean for key, score in scores.items()} == pytest.approx(f, abs=1e-9)


labels = st.integers(0, 3)


@st.composite
def clips(draw: st.DrawFn) -> list[tuple[np.ndarray, np.ndarray]]:
    """Predictions and truths of blocks, so that boundaries are more than salt and pepper."""
    shape = draw(st.tuples(st.integers(1, 8), st.integers(1, 8)))
    zoom = draw(st.integers(1, 5))
    maps = hnp.arrays(np.uint8, shape, elements=labels).map(
        lambda a: np.ascontiguousarray(a.repeat(zoom, 0).repeat(zoom, 1))
    )
    return draw(st.lists(st.tuples(maps, maps), min_size=1, max_size=4))


@settings(max_examples=150, deadline=None)
@given(clips())
def test_equals_vos_benchmark_on_any_maps(pairs: list[tuple[np.ndarray, np.ndarray]]) -> None:
    assert_equals_vos_benchmark(pairs)


@pytest.mark.parametrize("shape", [(240, 432), (480, 854), (1080, 1920)])
def test_equals_vos_benchmark_at_video_sizes(shape: tuple[int, int]) -> None:
    """Discs that drift over the frame and its borders, with ragged outlines."""
    rng = np.random.default_rng(0)
    y, x = np.ogrid[: shape[0], : shape[1]]

    def disc(cy: float, cx: float, radius: float) -> np.ndarray:
        ragged = np.hypot(y - cy * shape[0], x - cx * shape[1]) + 4 * rng.standard_normal(shape)
        return ragged < radius * shape[0]

    pairs = []
    for index in range(3):
        truth = disc(0.1 + 0.1 * index, 0.9, 0.2) + 2 * disc(0.6, 0.4, 0.15).astype(np.uint8)
        prediction = disc(0.12 + 0.1 * index, 0.88, 0.2) + 2 * disc(0.62, 0.4, 0.14).astype(np.uint8)
        pairs.append((prediction.astype(np.uint8), truth.astype(np.uint8)))
    assert_equals_vos_benchmark(pairs)


def test_equals_vos_benchmark_on_real_annotations(shared_data: Path) -> None:
    """Predictions: the annotation of two frames earlier, which leaves every kind of error behind."""
    for sequence in load_split(shared_data / "davis_dev", "dev"):
        truths = [np.array(Image.open(path)) for path in list(sequence.annotations.values())[:14:2]]
        assert_equals_vos_benchmark(list(pairwise(truths)))


@given(hnp.arrays(bool, hnp.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=9)))
def test_boundary_is_that_of_the_berkeley_benchmark(mask: np.ndarray) -> None:
    assert np.array_equal(boundary(mask), _seg2bmap(mask))


def test_region_similarity_by_hand() -> None:
    assert intersection_over_union(square(0, 0, 10), square(0, 5, 10)) == 50 / 150
    assert intersection_over_union(square(0, 0, 10), square(20, 20, 10)) == 0
    empty = np.zeros((64, 96), bool)
    assert intersection_over_union(empty, empty) == 1
    assert intersection_over_union(empty, square(0, 0, 1)) == 0


def test_boundary_accuracy_by_hand() -> None:
    """A displacement within the tolerance costs nothing; beyond it, every boundary pixel that it moved."""
    truth = square(20, 30, 20)
    assert boundary_accuracy(square(20, 32, 20), truth, tolerance=2) == 1
    assert boundary_accuracy(square(0, 60, 20), truth, tolerance=2) == 0
    # Rings of 80 pixels, 4 apart: of top and bottom 2 x 19 match, of the near side 4 beside the corners.
    assert boundary_accuracy(square(20, 34, 20), truth, tolerance=2) == pytest.approx(42 / 80)
    empty = np.zeros_like(truth)
    assert boundary_accuracy(empty, empty, 2) == 1
    assert boundary_accuracy(empty, truth, 2) == 0
    assert boundary_accuracy(truth, empty, 2) == 0


@pytest.mark.parametrize(
    ("size", "pixels"),
    [((240, 432), 4), ((480, 854), 8), ((576, 1024), 10), ((1080, 1920), 18), ((2160, 3840), 36)],
)
def test_tolerance_is_rounded_up(size: tuple[int, int], pixels: int) -> None:
    assert boundary_tolerance(*size) == pixels


@pytest.mark.parametrize("length", [1, 2, 3, 4, 5, 7, 23, 78, 103, 255])
def test_statistics_are_those_of_the_official_toolkit(length: int) -> None:
    values = np.random.default_rng(length).random(length)
    ends = (np.round(np.linspace(1, length, 5) + 1e-10) - 1).astype(np.uint8)
    bins = [values[ends[i] : ends[i + 1] + 1] for i in range(4)]
    measure = Measure.of_frames(list(values))
    assert measure.mean == pytest.approx(100 * values.mean())
    assert measure.recall == pytest.approx(100 * np.mean(values > 0.5))
    assert measure.decay == pytest.approx(100 * (bins[0].mean() - bins[3].mean()))


def test_decay_of_a_long_sequence_compares_its_quarters() -> None:
    """The ends of the bins do not overflow."""
    values = [1.0] * 500 + [0.0] * 500
    assert Measure.of_frames(values) == Measure(mean=50, recall=50, decay=100)


def test_recall_counts_frames_above_one_half() -> None:
    assert Measure.of_frames([0.5, 0.5, 0.51, 1.0]).recall == 50


def test_every_object_counts_once() -> None:
    """Neither longer sequences nor larger objects weigh more."""
    one = Score(Measure(80, 100, 2), Measure(60, 50, 4))
    two = Score(Measure(40, 0, -2), Measure(20, 0, 0))
    mean = Score.of_objects([one, two])
    assert mean == Score(Measure(60, 50, 0), Measure(40, 25, 2))
    assert mean.jf == 50


def test_an_object_counts_from_its_first_appearance() -> None:
    scorer = SequenceScorer()
    blank, one, both = np.zeros((8, 8), np.uint8), np.ones((8, 8), np.uint8), np.ones((8, 8), np.uint8)
    both[4:] = 2
    scorer.add(one, one)
    scorer.add(one, both)
    scorer.add(one, blank)
    scores = scorer.scores()
    assert scores[1].j.mean == pytest.approx(100 * (1 + 0.5 + 0) / 3)
    assert scores[2].j.mean == pytest.approx(100 * (0 + 1) / 2)


def test_objects_that_are_only_predicted_do_not_count() -> None:
    scorer = SequenceScorer()
    truth = np.zeros((8, 8), np.uint8)
    truth[:4] = 1
    scorer.add(truth + 1, truth)
    assert set(scorer.scores()) == {1}
    assert scorer.scores()[1].j.mean == 0
