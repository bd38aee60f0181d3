"""The parts of refinement that need no torch: settings, quality, samples, spool, guard."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from disc_clip import OBJECT, OTHER, SIZE, clip, new_tracker
from numpy.typing import NDArray
from user_errors import raises_user_error

from maskring.common.errors import OutputError, UserError
from maskring.runtime.arrays.overlap import intersection_over_union
from maskring.runtime.pipeline.result_store import ResultStore
from maskring.runtime.refinement import guard
from maskring.runtime.refinement.comparison import (
    ADDED,
    CAPTION_HEIGHT,
    MISSED,
    compare,
    draw_error,
)
from maskring.runtime.refinement.crop import Crop
from maskring.runtime.refinement.guard import Guard, corrected_memory, fuse, fuse_along_edges, keep_propagated
from maskring.runtime.refinement.quality import area_quality, confidence, frame_quality
from maskring.runtime.refinement.samples import Sample, SampleBuffer, SampleMaker
from maskring.runtime.refinement.settings import RefinementSettings
from maskring.runtime.tracking.result import ObjectState, Result, Timings

WHOLE = Crop((0, 0, 32, 32), 32)
BLANK = np.zeros((32, 32, 3), np.uint8)
PIXELS = new_tracker().metadata
GUIDED = replace(PIXELS, guided_filter_radius=2, lab_mean=(50.0, 0.0, 0.0), lab_std=(50.0, 50.0, 50.0))


def square(*sides: tuple[int, int], size: int = 32) -> NDArray[np.uint8]:
    """Labels with object 1, 2, ... between pixels (start, stop) of both axes."""
    labels = np.zeros((size, size), np.uint8)
    for object_id, (start, stop) in enumerate(sides, start=1):
        labels[start:stop, start:stop] = object_id
    return labels


def result_of(labels: NDArray[np.uint8], confidence: float | None = 0.9, objects: int = 1) -> Result:
    """A propagated result of stride 4 that is as sure of each label as ``confidence`` says."""
    sure = 0.5 if confidence is None else confidence
    winners = labels[::4, ::4] == np.arange(objects + 1).reshape(-1, 1, 1)
    probabilities = np.where(winners, sure, (1 - sure) / objects).astype(np.float32)
    states = tuple(
        ObjectState(known, int((labels == known).sum()), None, confidence) for known in range(1, objects + 1)
    )
    return Result(labels, probabilities, states, Timings(0, 0, 0), 1)


def network_of(labels: NDArray[np.uint8], sure: float, objects: int = 1) -> NDArray[np.float32]:
    """Probabilities of a U-Net that is so sure of ``labels``."""
    winners = labels == np.arange(objects + 1).reshape(-1, 1, 1)
    return np.where(winners, sure, (1 - sure) / objects).astype(np.float32)


@pytest.mark.parametrize(
    "wrong",
    [
        {"size": 8},
        {"iterations": -1},
        {"buffer": 1},
        {"width": 12},
        {"learning_rate": 0.0},
        {"cross_entropy": 0.0, "dice": 0.0},
        {"dice": -1.0},
        {"trust": 1.5},
        {"online_trust": -0.1},
        {"budget": 0.0},
    ],
)
def test_settings_that_make_no_sense_are_refused(wrong: dict[str, Any]) -> None:
    with raises_user_error(UserError, mentions=("8 pixels",) if "size" in wrong else wrong):
        RefinementSettings(**wrong)


def test_confidence_is_0_where_labels_tie_and_1_where_one_is_certain() -> None:
    probabilities = np.zeros((3, 2, 2), np.float32)
    probabilities[:, 0], probabilities[1, 1] = 1 / 3, 1
    np.testing.assert_allclose(confidence(probabilities), [[0, 0], [1, 1]], atol=1e-6)
    assert confidence(probabilities[:1]).all()


def test_the_view_surrounds_the_objects_and_stays_in_the_frame() -> None:
    def box(*boxes: tuple[int, int, int, int] | None) -> tuple[int, int, int, int]:
        states = [ObjectState(1, 1, one, 0.5) for one in boxes]
        return Crop.around(states, (100, 200), 32, 2.0).box

    assert box((80, 40, 120, 60)) == (60, 30, 140, 70)
    assert box((0, 0, 40, 20)) == (0, 0, 80, 40)
    assert box((160, 80, 200, 100)) == (120, 60, 200, 100)
    assert box((80, 40, 100, 50), None, (100, 50, 120, 60)) == (60, 30, 140, 70)
    assert box((100, 50, 101, 51)) == (76, 38, 126, 63)  # a quarter of the frame at least
    assert box((0, 0, 200, 90)) == (0, 0, 200, 100)
    assert box(None) == (0, 0, 200, 100)
    assert Crop.around([ObjectState(1, 1, (0, 0, 1, 1), 0.5)], (100, 200), 32, 0).box == (0, 0, 200, 100)


def test_what_a_view_shows_is_put_back_where_it_was() -> None:
    image, labels = clip(1)[0]
    view = Crop((10, 8, 42, 40), 32)  # its own size: nothing is interpolated
    np.testing.assert_array_equal(view.image(image), image[8:40, 10:42])
    np.testing.assert_array_equal(view.labels(labels), labels[8:40, 10:42])
    seen = view.values(labels[8:40, 10:42].astype(np.float32))
    np.testing.assert_array_equal(view.pixels(seen), labels[8:40, 10:42])


def test_samples_show_the_same_as_what_is_refined_later() -> None:
    maker, (image, labels) = SampleMaker(RefinementSettings(size=32), 4), clip(1)[0]
    result = new_tracker().step(image, labels)
    x0, y0, x1, y1 = maker.crop(result).box
    assert (x1 - x0, y1 - y0) == (38, 38)  # twice the disc's diameter
    sample = maker.make(image, result, labels)
    np.testing.assert_array_equal(sample.image, maker.crop(result).image(image))
    assert 0.15 < (sample.labels == OBJECT).mean() < 0.25


def test_an_area_that_jumps_is_not_believed() -> None:
    assert area_quality(100, [100.0, 100.0, 1000.0]) == pytest.approx(1)  # one frame does not decide
    usual = [100.0, 110.0, 90.0]
    assert area_quality(100, usual) == pytest.approx(1)
    assert 0 < area_quality(150, usual) < 1
    assert area_quality(400, usual) == area_quality(20, usual) == 0


def test_the_quality_of_a_frame_joins_confidence_and_area() -> None:
    assert frame_quality([0.8], [100], [[100.0]]) == pytest.approx(0.8)
    assert frame_quality([0.8, 0.8], [100, 1000], [[100.0], [100.0]]) == pytest.approx(0.4)
    assert frame_quality([], [], []) == 0


def test_agreement_is_intersection_over_union() -> None:
    one, two = square((0, 4), size=8) > 0, square((2, 6), size=8) > 0
    assert intersection_over_union(one, two) == pytest.approx(4 / 28)
    assert intersection_over_union(one & False, two & False) == 1


def test_samples_are_small_and_true_where_the_user_drew() -> None:
    tracker, maker = new_tracker(), SampleMaker(RefinementSettings(size=32), 4)
    samples = []
    for index, (image, labels) in enumerate(clip(3)):
        mask = labels if index == 0 else None
        samples.append(maker.make(image, tracker.step(image, mask), mask))
    first, *others = samples
    assert first.true and first.quality == 1 and (first.confidence == 255).all()
    assert first.image.shape == (32, 32, 3) and set(np.unique(first.labels)) == {0, OBJECT}
    assert all(not sample.true and 0 < sample.quality <= 1 for sample in others)
    assert [sample.index for sample in samples] == [0, 1, 2] and first.ids == (OBJECT,)


def sample(index: int, *, true: bool = False) -> Sample:
    blank = np.zeros((2, 2), np.uint8)
    return Sample(index, np.zeros((2, 2, 3), np.uint8), blank, blank, (1,), 1.0, true)


def test_the_buffer_is_bounded_and_stays_spread_over_the_stream() -> None:
    buffer = SampleBuffer(8)
    buffer.add(sample(0, true=True))
    for index in range(1, 1000):
        buffer.add(sample(index))
        assert len(buffer) <= 8
    kept = [one.index for one in buffer.pseudo]
    steps = np.diff(kept)
    assert len(buffer.true) == 1 and len(kept) >= 3
    assert (steps == steps[0]).all() and kept[-1] >= 1000 - 2 * steps[0]


def test_the_buffer_keeps_the_first_true_mask_and_the_newest() -> None:
    buffer = SampleBuffer(8)
    for index in range(20):
        buffer.add(sample(index, true=True))
    assert [one.index for one in buffer.true] == [0, 17, 18, 19]


def test_the_spool_gives_back_what_it_was_given(tmp_path: Path) -> None:
    spool, tracker = ResultStore(tmp_path), new_tracker()
    results = []
    for index, (image, labels) in enumerate(clip(3, objects=2)):
        results.append(tracker.step(image, labels if index == 0 else None))
        spool.write(results[-1])
    again = spool.read(2)
    np.testing.assert_array_equal(again.labels, results[2].labels)
    np.testing.assert_allclose(again.probabilities, results[2].probabilities, atol=1e-3)
    assert again.objects == results[2].objects and again.frame_index == 2
    with pytest.raises(IndexError):
        spool.read(3)
    spool.close()
    assert not list(tmp_path.iterdir())


def test_a_spool_without_a_place_says_so(tmp_path: Path) -> None:
    with pytest.raises(OutputError):
        ResultStore(tmp_path / "missing")


def test_the_surer_side_wins_where_the_two_differ() -> None:
    here, there = square((0, 16)), square((16, 32))
    unsure, sure = result_of(here, 0.6), result_of(here, 0.99)
    np.testing.assert_array_equal(fuse(unsure, network_of(there, 0.99), WHOLE, 0.5, 4) == 1, there == 1)
    kept = fuse(sure, network_of(there, 0.6), WHOLE, 0.5, 4)
    assert kept[:12, :12].all() and not kept[20:, 20:].any()


@pytest.mark.parametrize("trust", [0.0, 1.0])
def test_trust_decides_between_the_two(trust: float) -> None:
    here, there = square((0, 16)), square((16, 32))
    labels = fuse(result_of(here), network_of(there, 0.9), WHOLE, trust, 4)
    wanted = there if trust else here
    assert (labels == wanted).mean() > 0.9  # propagation's outline is interpolated


def test_a_guided_filter_finds_the_edge_in_the_frame() -> None:
    """Both sides end the object at column 16, the frame's colours at column 18."""
    frame, labels = BLANK.copy(), square((0, 0))
    frame[:, :18] = 200
    labels[:, :16] = 1
    result, network = result_of(labels, 0.8), network_of(labels, 0.8)
    columns = fuse_along_edges(frame, result, network, WHOLE, 0.5, GUIDED)[16]
    np.testing.assert_array_equal(columns, np.arange(32) < 18)
    guarded = Guard(0.5, GUIDED).decide(frame, result, network, WHOLE, {})
    np.testing.assert_array_equal(guarded.labels[16], columns)
    assert fuse(result, network, WHOLE, 0.5, 4)[16].sum() == 16


@pytest.mark.parametrize("trust", [0.0, 1.0])
def test_trust_decides_along_edges_too(trust: float) -> None:
    here, there = square((0, 16), (24, 28)), square((16, 32))
    result = replace(result_of(here, objects=2))
    result = replace(
        result, objects=tuple(replace(o, id=i) for o, i in zip(result.objects, (OTHER, 200), strict=True))
    )
    labels = fuse_along_edges(BLANK, result, network_of(there, 0.9, objects=2), WHOLE, trust, GUIDED)
    wanted = np.array([0, OTHER, 200])[there if trust else here]
    assert (labels == wanted).mean() > 0.85  # edges are coarse where the frame has no colours


def test_features_lie_where_pixels_do() -> None:
    seen = np.add.outer(np.arange(SIZE), 2 * np.arange(SIZE)).astype(np.float32)
    view = Crop((8, 4, 40, 60), SIZE)
    features = view.features(seen, (16, 16), 4)
    pixels = view.pixels(seen)[::4, ::4]
    np.testing.assert_allclose(features[2:14, 3:9], pixels[1:13, 1:7], atol=0.3)
    np.testing.assert_array_equal(features[:, 12:], np.broadcast_to(features[:, 12:13], (16, 4)))


def test_along_edges_only_what_the_network_saw_is_decided() -> None:
    everywhere, view = np.ones((32, 32), np.uint8), Crop((8, 4, 24, 28), SIZE)
    network = np.stack([np.full((SIZE, SIZE), share, np.float32) for share in (0.1, 0.9)])
    labels = fuse_along_edges(BLANK, result_of(everywhere), network, view, 0.5, GUIDED)
    assert labels[4:28, 8:24].all() and labels.sum() == 24 * 16


def test_an_explosion_and_a_disappearance_are_noticed() -> None:
    result = result_of(square((0, 8)), 0.95)
    everywhere, nowhere = np.ones((32, 32), np.uint8), np.zeros((32, 32), np.uint8)
    assert guard.degenerate(result, everywhere, {}) == {1: guard.EXPLODED_REASON}
    assert guard.degenerate(result, nowhere, {}) == {1: guard.VANISHED_REASON}
    unsure = replace(result, objects=(replace(result.objects[0], confidence=0.5),))
    assert guard.degenerate(unsure, everywhere, {1: 1000.0}) == {}
    assert guard.degenerate(unsure, nowhere, {}) == {}


def test_an_object_does_not_outgrow_a_propagated_mask_that_is_sure() -> None:
    result, larger, much_larger = result_of(square((0, 8)), 0.95), square((0, 9)), square((0, 10))
    assert guard.degenerate(result, larger, {}) == {}
    assert guard.degenerate(result, much_larger, {}) == {1: guard.OUTGROWN_REASON}
    unsure = replace(result, objects=(replace(result.objects[0], confidence=0.5),))
    assert guard.degenerate(unsure, much_larger, {}) == {}


def test_an_island_that_looks_like_the_object_is_taken_back() -> None:
    propagated = square((0, 8), (16, 24))
    refined = square((0, 10), (16, 24))
    refined[20:30, 20:30] = 1  # a stranger, in part over the second object
    labels = guard.without_strangers(propagated, refined, [1, 2])
    np.testing.assert_array_equal(labels == 1, square((0, 10), (16, 24)) == 1)
    np.testing.assert_array_equal(labels == 2, propagated == 2)
    elsewhere = np.zeros_like(refined)
    elsewhere[20:30, 20:30] = 1  # propagation has lost it: this is all there is
    np.testing.assert_array_equal(guard.without_strangers(propagated, elsewhere, [1]), elsewhere)


def test_a_network_that_disagrees_with_its_mirror_image_is_noticed() -> None:
    one, two = network_of(square((0, 8)), 0.9), network_of(square((16, 24)), 0.9)
    assert guard.unsure([OTHER], one, two) == {OTHER: guard.UNSURE_REASON}
    assert guard.unsure([OTHER], one, one) == {}


def test_what_is_kept_covers_exactly_what_propagation_gave_it() -> None:
    propagated, refined = square((0, 8), (16, 24)), square((4, 12), (8, 30))
    labels = keep_propagated(propagated, refined, [1])
    np.testing.assert_array_equal(labels == 1, propagated == 1)
    assert (labels == 2).sum() == (refined == 2).sum()
    assert keep_propagated(propagated, refined, []) is refined


def test_the_guard_measures_what_it_decided_and_names_what_it_kept() -> None:
    propagated, found = square((0, 16), (20, 28)), square((4, 20), (20, 28))
    result = result_of(propagated, 0.6, objects=2)
    decided = Guard(0.9, PIXELS).decide(
        BLANK, result, network_of(found, 0.999, objects=2), WHOLE, {2: "because"}
    )
    assert decided.fallback_reasons == {2: "because"}
    assert decided.objects[0].area == (decided.labels == 1).sum() == (found == 1).sum()
    assert decided.objects[0].box == (4, 4, 20, 20)
    np.testing.assert_array_equal(decided.labels == 2, propagated == 2)


def test_the_guard_remembers_the_largest_area_that_was_drawn() -> None:
    one = Guard(0.5, PIXELS)
    for area in (100, 20):
        result = result_of(square((0, 8)))
        one.drawn(replace(result, objects=(replace(result.objects[0], area=area),)))
    assert one.drawn_areas == {1: 100.0}


def test_objects_that_left_are_not_named() -> None:
    result = result_of(square((0, 16)), 0.6)
    assert (
        Guard(0.5, PIXELS)
        .decide(BLANK, result, network_of(square((0, 16)), 0.9), WHOLE, {9: "gone"})
        .fallback_reasons
        == {}
    )


def test_the_size_of_a_frame_does_not_matter() -> None:
    image, labels = clip(1)[0]
    image, labels = image[:50, :61], labels[:50, :61]
    result = new_tracker().step(image, labels)
    network = np.zeros((2, SIZE, SIZE), np.float32)
    network[0] = 1
    assert fuse(result, network, Crop((0, 0, 61, 50), SIZE), 0.5, 4).shape == (50, 61)


def test_only_what_the_network_saw_is_decided_anew() -> None:
    (image, labels), (following, _) = clip(2)
    tracker, view = new_tracker(), Crop((8, 4, 40, 36), SIZE)
    tracker.step(image, labels)
    result = tracker.step(following)
    network = np.full((2, SIZE, SIZE), 0.5, np.float32)
    fused = fuse(result, network, view, 0.5, 4)
    np.testing.assert_array_equal(fused[4:36, 8:40], result.labels[4:36, 8:40])
    fused[4:36, 8:40] = 0
    assert not fused.any()


def test_memory_takes_the_refined_mask_of_an_object_that_propagation_lost_and_of_no_other() -> None:
    """Object 1 was lost; of object 2, memory keeps the labels of features, which differ from those of pixels."""
    before, found = square((0, 4), (16, 32)), square((0, 16), (16, 32))
    lost = result_of(before, objects=2)
    lost.labels[28:, 28:] = 0
    refined = replace(result_of(found, objects=2), fallback_reasons={})
    memory = corrected_memory(lost, refined, network_of(found, 0.9, objects=2), WHOLE, 4)
    assert memory is not None
    np.testing.assert_array_equal(memory[::4, ::4], found[::4, ::4])
    not_learned = replace(refined, fallback_reasons={1: "why"})
    assert corrected_memory(lost, not_learned, network_of(found, 0.9, objects=2), WHOLE, 4) is None
    same = network_of(before, 0.9, objects=2)
    assert corrected_memory(result_of(before, objects=2), refined, same, WHOLE, 4) is None


def test_errors_are_shown_where_they_are() -> None:
    image, truth = np.full((32, 32, 3), 200, np.uint8), square((0, 8))
    picture = draw_error(image, square((4, 12)), truth)
    assert tuple(picture[1, 1]) == MISSED and tuple(picture[10, 10]) == ADDED
    assert tuple(picture[5, 5]) == tuple(picture[30, 30]) == (66, 66, 66)


def test_a_comparison_has_a_panel_for_everything_that_is_known() -> None:
    image, labels = np.full((32, 40, 3), 200, np.uint8), np.zeros((32, 40), np.uint8)
    assert compare(image, labels, labels).shape == (32 + CAPTION_HEIGHT, 3 * 40, 3)
    assert compare(image, labels, labels, labels).shape == (32 + CAPTION_HEIGHT, 4 * 40, 3)
