"""The best row on one half of the sequences is reported on the other."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

BENCH = Path(__file__).parents[2] / "bench"


def load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"bench_{name}", BENCH / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


halves = load("halves")

ROWS = {
    "flatters A": {"a": 90.0, "b": 10.0, "c": 80.0, "d": 20.0},
    "flatters B": {"a": 30.0, "b": 70.0, "c": 40.0, "d": 60.0},
    "poor": {"a": 1.0, "b": 1.0, "c": 1.0, "d": 1.0},
}


def test_sequences_are_dealt_alternately_whatever_their_order() -> None:
    assert halves.halves(["d", "b", "a", "c", "e"]) == (("a", "c", "e"), ("b", "d"))


def test_the_best_of_one_half_is_reported_by_its_score_on_the_other() -> None:
    on_a, on_b = halves.choose(ROWS)
    assert (on_a.name, on_a.score_there, on_a.held_out_score) == ("flatters A", 85.0, 15.0)
    assert (on_b.name, on_b.score_there, on_b.held_out_score) == ("flatters B", 65.0, 35.0)
    assert on_a.reported_on == on_b.chosen_on == ("b", "d")


def test_table_shows_both_halves_and_the_mean_of_what_was_held_out() -> None:
    text = halves.held_out_table(ROWS)
    assert "| flatters A | 85.0 | 15.0 | 50.0 |" in text
    assert "Chosen on A: flatters A (85.0 there), 15.0 on B." in text
    assert "Held out, both ways: 25.0." in text


def test_a_single_row_leaves_no_choice() -> None:
    text = halves.held_out_table({"alone": ROWS["poor"]})
    assert "| alone | 1.0 | 1.0 | 1.0 |" in text
    assert "Chosen" not in text


def test_a_single_sequence_leaves_no_choice() -> None:
    assert "Chosen" not in halves.held_out_table({"one": {"a": 1.0}, "other": {"a": 2.0}})


@pytest.mark.parametrize("rows", [{}, {"one": {"a": 1.0}}, {"x": {"a": 1.0, "b": 1.0}, "y": {"a": 1.0}}])
def test_rows_of_different_sequences_are_refused(rows: dict[str, dict[str, float]]) -> None:
    with pytest.raises(ValueError, match=r"no rows|same sequences"):
        halves.choose(rows)
