"""Results for supervision, as its own annotators and measures take them."""

from __future__ import annotations

import sys

import numpy as np
import pytest
import supervision
from user_errors import raises_user_error

from maskring.common.errors import UnavailableError
from maskring.runtime.tracking.result import ObjectState, Result, Timings


def result(labels: np.ndarray, *objects: ObjectState) -> Result:
    return Result(labels, np.zeros((1 + len(objects), 3, 4), np.float32), objects, Timings(0, 0, 0), 0)


@pytest.fixture
def three() -> Result:
    """Two visible objects around one that is not to be seen."""
    labels = np.zeros((12, 16), np.uint8)
    labels[2:6, 3:9], labels[3, 4], labels[8:, 14:] = 2, 0, 200
    return result(
        labels,
        ObjectState(2, 23, (3, 2, 9, 6), 0.75),
        ObjectState(7, 0, None, None),
        ObjectState(200, 8, (14, 8, 16, 12), None),
    )


def test_masks_boxes_and_ids(three: Result) -> None:
    detections = three.to_supervision()
    assert isinstance(detections, supervision.Detections) and len(detections) == 2
    assert detections.tracker_id.tolist() == [2, 200]
    assert detections.area.tolist() == [23, 8]
    assert detections.box_area.tolist() == [24, 8]
    for mask, number in zip(detections.mask, detections.tracker_id, strict=True):
        np.testing.assert_array_equal(mask, three.labels == number)
    assert detections.confidence[0] == 0.75 and np.isnan(detections.confidence[1])
    np.testing.assert_array_equal(
        detections.xyxy, supervision.mask_to_xyxy(detections.mask) + np.array([0, 0, 1, 1])
    )


def test_annotators_and_filters_take_them(three: Result) -> None:
    detections = three.to_supervision()
    annotator = supervision.MaskAnnotator(color_lookup=supervision.ColorLookup.TRACK)
    painted = annotator.annotate(np.zeros((12, 16, 3), np.uint8), detections)
    np.testing.assert_array_equal(painted.any(axis=2), three.labels > 0)
    assert detections[detections.tracker_id == 200].area.tolist() == [8]


def test_nothing_is_to_be_seen() -> None:
    empty = result(np.zeros((12, 16), np.uint8), ObjectState(1, 0, None, None)).to_supervision()
    assert len(empty) == 0 and empty == supervision.Detections.empty()


def test_without_supervision(three: Result, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "supervision", None)
    with raises_user_error(UnavailableError, mentions=("pip install supervision",)):
        three.to_supervision()
