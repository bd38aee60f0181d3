"""The figures are those of vos-benchmark."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from evaluation_runs import run, vos_benchmark


def test_equals_vos_benchmark_on_the_same_folders(mixed: Path) -> None:
    evaluation, out, _ = run(mixed)
    for result in evaluation.sequences:
        j, f = vos_benchmark(mixed / "Annotations/480p", out, result.name)
        assert {key: score.j.mean for key, score in result.objects.items()} == pytest.approx(j, abs=1e-9)
        assert {key: score.f.mean for key, score in result.objects.items()} == pytest.approx(f, abs=1e-9)
    assert set(evaluation.sequences[0].objects) == {1, 2, 3}
    assert set(evaluation.sequences[1].objects) == {255}


GLOBAL = """
import sys
from vos_benchmark.benchmark import benchmark
jf, j, f, _ = benchmark([sys.argv[1]], [sys.argv[2]], num_processes=1, verbose=False)
print(repr([float(jf[0]), float(j[0]), float(f[0])]))
"""


def test_global_figures_equal_those_of_vos_benchmark(mixed: Path) -> None:
    """Its entry point forks, so it runs in a process of its own."""
    evaluation, out, _ = run(mixed)
    command = [sys.executable, "-c", GLOBAL, str(mixed / "Annotations/480p"), str(out)]
    printed = subprocess.run(command, capture_output=True, text=True, check=True, timeout=1800).stdout
    assert evaluation.score is not None
    ours = [evaluation.score.jf, evaluation.score.j.mean, evaluation.score.f.mean]
    assert ours == pytest.approx(json.loads(printed), abs=1e-9)


def test_equals_vos_benchmark_on_real_folders(shared_data: Path, tmp_path: Path) -> None:
    """Two real sequences, one of DAVIS-2016 form and one with seven objects; the first mask repeated."""
    root = tmp_path / "davis"
    (root / "ImageSets/2017").mkdir(parents=True)
    (root / "ImageSets/2017/val.txt").write_text("rollerblade\nschoolgirls\n")
    for kind in ("JPEGImages", "Annotations"):
        (root / kind).symlink_to(shared_data / "davis_dev" / kind)
    evaluation, out, _ = run(root)
    assert [len(result.objects) for result in evaluation.sequences] == [1, 7]
    for result in evaluation.sequences:
        j, f = vos_benchmark(root / "Annotations/480p", out, result.name)
        assert {key: score.j.mean for key, score in result.objects.items()} == pytest.approx(j, abs=1e-9)
        assert {key: score.f.mean for key, score in result.objects.items()} == pytest.approx(f, abs=1e-9)
