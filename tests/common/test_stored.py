"""Values from files against type annotations."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

import pytest

from maskring.common.stored import Between, checked, from_stored

SMALL = Annotated[int, Between(1, 9)]


@dataclass
class Stored:
    count: Annotated[int, Between(1, 9)]
    names: tuple[str, ...]


@pytest.mark.parametrize(
    ("hint", "sound", "damaged"),
    [
        (int, [0, -(10**400)], [True, 1.0, "1", None, [1]]),
        (float, [0, 0.5, -3.4e38], [True, 1e39, 10**400, float("nan"), float("-inf"), "1"]),
        (str, ["", "x"], [None, 1, ["x"]]),
        (bool, [True, False], [0, 1, None]),
        (SMALL, [1, 9], [0, 10, 5.0, True]),
        (SMALL | None, [None, 9], [0, "x"]),
        (list[list[SMALL]], [[], [[]], [[1], [2, 3]]], [[1], [[0]], {}, "x", None]),
        (dict[str, SMALL], [{}, {"a": 1}], [{"a": 0}, [], [["a", 1]]]),
    ],
)
def test_types_and_ranges(hint: Any, sound: list[Any], damaged: list[Any]) -> None:
    for value in sound:
        assert checked(hint, value) == value
    for value in damaged:
        with pytest.raises(ValueError):
            checked(hint, value)


def test_lists_become_tuples_of_the_stated_length() -> None:
    assert checked(tuple[int, ...], [1, 2, 3]) == (1, 2, 3)
    assert checked(tuple[int, int], [1, 2]) == (1, 2)
    for value in ([1], [1, 2, 3], (1, 2)):
        with pytest.raises(ValueError):
            checked(tuple[int, int], value)


@pytest.mark.parametrize(
    "stored", [{"count": 1}, {"count": 1, "names": [], "x": 0}, {"count": 0, "names": []}, [], None, "count"]
)
def test_every_field_and_no_other(stored: object) -> None:
    assert from_stored(Stored, {"count": 1, "names": ["a"]}) == Stored(1, ("a",))
    with pytest.raises(ValueError):
        from_stored(Stored, stored)
