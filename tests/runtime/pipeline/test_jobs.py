"""One loop for work in this process and in others."""

from __future__ import annotations

import multiprocessing
from pathlib import Path

import pytest
from user_errors import raises_user_error
from work import act

from maskring.common.errors import OutputError, SourceError
from maskring.runtime.pipeline.jobs import HERE, WorkerLost, Workers, run_each
from maskring.runtime.pipeline.shared_folder import SharedFolder, shared_folder


@pytest.mark.parametrize("workers", [HERE, Workers(processes=2)], ids=["here", "processes"])
def test_every_item_comes_back_with_its_value_or_error(workers: Workers) -> None:
    finished = dict(run_each(["a", "fail", "b", "c"], act, workers))
    assert {key: finished[key] for key in "abc"} == {"a": "A", "b": "B", "c": "C"}
    failure = finished["fail"]
    assert isinstance(failure, SourceError)
    assert (failure.problem, failure.remedy) == ("it failed", "mend it")


def test_a_process_that_dies_takes_no_other_item_with_it() -> None:
    finished = dict(run_each(["a", "die", "b"], act, Workers(processes=2)))
    assert finished["a"] == "A" and finished["b"] == "B"
    lost = finished["die"]
    assert isinstance(lost, WorkerLost) and "-9" in lost.problem and "again" in lost.remedy


def test_a_defect_is_no_result(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ZeroDivisionError):
        list(run_each(["break"], act, HERE))
    with pytest.raises(RuntimeError):
        list(run_each(["break"], act, Workers(processes=2)))
    assert "ZeroDivisionError" in capfd.readouterr().err


def test_no_process_is_left_when_the_work_is_given_up() -> None:
    before = set(multiprocessing.active_children())
    finished = run_each(["a", "wait", "wait"], act, Workers(processes=3))
    assert next(finished) == ("a", "A")
    assert len(set(multiprocessing.active_children()) - before) >= 2
    finished.close()
    assert not set(multiprocessing.active_children()) - before


def test_work_here_reports_its_steps() -> None:
    steps = []
    list(run_each(["a", "b"], act, HERE, lambda *step: steps.append(step)))
    assert steps == [("a", 1, 1), ("b", 1, 1)]


def test_processes_share_the_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("maskring.runtime.pipeline.jobs.usable_cores", lambda: 8)
    assert Workers(processes=3).threads_each == 2
    assert Workers(processes=16).threads_each == 1
    assert Workers(processes=3, threads=5).threads_each == 5
    assert Workers(ray="local").threads_each == 1
    assert HERE.threads_each == 0


def test_a_folder_that_another_machine_does_not_see(tmp_path: Path) -> None:
    (tmp_path / "here").mkdir()
    (tmp_path / "there").mkdir()
    with shared_folder(tmp_path / "here", with_others=True) as shared:
        shared.check()
        elsewhere = SharedFolder(tmp_path / "there" / shared.token.name)
        with raises_user_error(OutputError, mentions=(tmp_path / "there", "share")):
            elsewhere.check()
    assert not list((tmp_path / "here").iterdir())
