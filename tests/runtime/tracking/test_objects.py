"""Object ids and label channels, and the state of objects in a frame."""

from __future__ import annotations

import numpy as np
import pytest
from user_errors import raises_user_error

from maskring.common.errors import MaskError
from maskring.runtime.tracking.objects import ObjectTable, ids_in, remeasure
from maskring.runtime.tracking.result import ObjectState


def mask_of(*ids: int) -> np.ndarray:
    return np.array([[0, *ids]], np.uint8)


def test_new_objects_take_the_lowest_free_channels_by_ascending_id() -> None:
    table = ObjectTable().with_objects_of(mask_of(200, 7), 256)
    assert (table.channel(7), table.channel(200), table.num_labels) == (1, 2, 3)
    table = table.without(7).with_objects_of(mask_of(9, 8), 256)
    assert [(one, table.channel(one)) for one in table.ids] == [(8, 1), (9, 3), (200, 2)]


def test_a_table_does_not_change() -> None:
    table = ObjectTable().with_objects_of(mask_of(1), 256)
    table.with_objects_of(mask_of(2), 256), table.without(1)
    assert table.ids == [1]


def test_masks_that_a_table_does_not_take() -> None:
    with raises_user_error(MaskError, mentions=("1 to 255",)):
        ObjectTable().with_objects_of(mask_of(0), 256)
    with raises_user_error(MaskError, mentions=(3, 2, "--objects 3")):
        ObjectTable().with_objects_of(mask_of(1, 2, 3), 3)
    assert ObjectTable().with_objects_of(mask_of(1, 2), 3).ids == [1, 2]
    with raises_user_error(MaskError, mentions=("object 4", "1, 2")):
        ObjectTable({1: 1, 2: 2}).channel(4)


def test_ids_and_channels_both_ways() -> None:
    table = ObjectTable({5: 2, 3: 4})
    assert table.to_channels(mask_of(3, 5, 9)).tolist() == [[0, 4, 2, 0]]
    probabilities = np.arange(5, dtype=np.float32).reshape(5, 1, 1)
    ids, of_objects = table.to_ids(np.array([[0, 1, 2, 4]], np.uint8), probabilities)
    assert ids.tolist() == [[0, 0, 5, 3]]
    assert of_objects.ravel().tolist() == [0, 4, 2]  # background, 3, 5


def test_measure_reports_objects_by_ascending_id() -> None:
    labels = np.zeros((4, 8), np.uint8)
    labels[0:2, 0:3], labels[0, 4:6] = 2, 1
    probabilities = np.array([[[0.1, 0.2]], [[0.1, 0.7]], [[0.8, 0.1]]], np.float32)
    states = ObjectTable({9: 1, 4: 2, 6: 3}).measure(labels, probabilities, 4)
    assert [(state.id, state.area, state.box) for state in states] == [
        (4, 6, (0, 0, 3, 2)),
        (6, 0, None),
        (9, 2, (4, 0, 6, 1)),
    ]
    assert [state.confidence for state in states] == [pytest.approx(0.8), None, pytest.approx(0.7)]


def test_remeasured_objects_keep_id_and_confidence() -> None:
    states = (ObjectState(3, 1, (0, 0, 1, 1), 0.25), ObjectState(200, 9, (1, 1, 2, 2), None))
    labels = np.zeros((5, 6), np.uint8)
    labels[1:3, 2:6], labels[4, 0] = 200, 77  # 77 is no object of the frame
    assert remeasure(states, labels) == (
        ObjectState(3, 0, None, 0.25),
        ObjectState(200, 8, (2, 1, 6, 3), None),
    )


def test_ids_of_a_mask() -> None:
    assert ids_in(mask_of(255, 3, 3)) == [3, 255]
    assert ids_in(mask_of(0)) == []
