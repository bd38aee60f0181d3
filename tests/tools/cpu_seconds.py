"""``pytest -p cpu_seconds``: which tests take the most processor time, their child processes included.

On a machine that other programs use, ``--durations`` measures those as well; this does not.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

SHOWN = 40
SPENT: dict[str, float] = {}
"""Of the phase of a test that runs in this process, by the test's name."""


@contextmanager
def measured(name: str) -> Iterator[None]:
    before = sum(os.times()[:4])
    yield
    SPENT[name] = sum(os.times()[:4]) - before


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> Generator[None, Any, Any]:
    with measured(item.nodeid):
        return (yield)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, Any, Any]:
    with measured(item.nodeid):
        return (yield)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_teardown(item: pytest.Item) -> Generator[None, Any, Any]:
    with measured(item.nodeid):
        return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    report.user_properties = [("cpu_seconds", SPENT.pop(item.nodeid, 0.0))]
    return report


def pytest_terminal_summary(terminalreporter: Any) -> None:
    by_test, by_file = Counter[str](), Counter[str]()
    for reports in terminalreporter.stats.values():
        for report in reports:
            seconds = dict(getattr(report, "user_properties", ())).get("cpu_seconds", 0.0)
            by_test[getattr(report, "nodeid", "")] += seconds
            by_file[getattr(report, "nodeid", "").partition("::")[0]] += seconds
    terminalreporter.section(f"CPU seconds: {sum(by_file.values()):.0f}")
    for counter in (by_file, by_test):
        for name, seconds in counter.most_common(SHOWN):
            terminalreporter.write_line(f"{seconds:8.1f}  {name}")
        terminalreporter.write_line("")
