"""Profiles: what is measured, what is written, what other tools make of the files, and what is refused."""

from __future__ import annotations

import dataclasses
import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import fake_device
import numpy as np
import pytest
from fake_device import FakeGpu, write_engine
from pixel_model import write_pixel_model
from real_bindings import installed
from support import moving_square
from typer.testing import CliRunner
from user_errors import raises_user_error

from maskring.cli import app
from maskring.common.errors import SourceError, UnavailableError
from maskring.export.engine import EngineOptions
from maskring.plugins import library
from maskring.runtime.backends.trt.backend import TensorRTBackend
from maskring.runtime.profiling import run
from maskring.runtime.profiling.inputs import write_inputs
from maskring.runtime.profiling.polygraphy_runs import time_engine
from maskring.runtime.profiling.report import Latency, Profile, budget_ms
from maskring.runtime.profiling.stages import STAGES, profile_model
from maskring.runtime.tracking.tracker import Tracker

FRAMES = [moving_square(index)[0] for index in range(6)]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_pixel_model(tmp_path_factory.mktemp("profiling") / "pixel.onnx")


@pytest.fixture(scope="module")
def profile(model: Path) -> Profile:
    return profile_model(model, FRAMES, iterations=4, warm_up=2, threads=1, runner_iterations=2)


def test_latency_statistics() -> None:
    latency = Latency.of([0.001, 0.003, 0.002])
    assert (latency.p50, latency.max, latency.mean) == (2.0, 3.0, 2.0)
    assert latency.jitter == pytest.approx(1.5)
    assert latency.p99 == pytest.approx(2.98)
    assert Latency.of([0.5]).jitter == 0


def test_stages_add_up_to_frames(profile: Profile) -> None:
    assert tuple(profile.stages) == STAGES
    assert len(profile.frames) == profile.iterations == 4
    assert sum(stage.mean for stage in profile.stages.values()) == pytest.approx(profile.total.mean)
    assert profile.stages["step"].p50 > 0 and profile.stages["upload"].p50 > 0


def test_layers_are_those_of_the_model(profile: Profile) -> None:
    kinds = {layer.kind for layer in profile.layers}
    assert "ReduceSum" in kinds and not kinds & {"Resize", "ArgMax"}, (
        "behind it maskring computes, not the graph"
    )
    ours = {layer.name: layer.milliseconds for layer in profile.layers if layer.kind == "maskring"}
    assert {"memory read", "labels"} <= set(ours) and min(ours.values()) > 0
    assert sum(ours.values()) < profile.stages["step"].mean
    times = [layer.milliseconds for layer in profile.layers]
    assert times == sorted(times, reverse=True)


def test_runner_and_memory(profile: Profile) -> None:
    assert profile.runner is not None and profile.runner.p50 > 0
    assert profile.peak_memory_mb > 10
    assert "clock governor" in profile.machine


def test_a_source_that_ends_early_is_named(model: Path) -> None:
    with raises_user_error(SourceError, mentions=("6 of 12 frames", "--iterations")):
        profile_model(model, FRAMES, iterations=10, warm_up=2, runner_iterations=0)


def test_a_profile_that_fails_leaves_no_folder(model: Path, tmp_path: Path) -> None:
    options = run.ProfileOptions(str(tmp_path / "none.mp4"), 48, 64, 4, 2, 1, 0)
    with raises_user_error(SourceError, mentions=("none.mp4",)):
        run.profile_models([model], options, tmp_path / "new" / "profile", None)
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(("text", "expected"), [("33ms", 33.0), ("0.5s", 500.0), (" 20 ", 20.0)])
def test_budgets(text: str, expected: float) -> None:
    assert budget_ms(text) == expected


@pytest.mark.parametrize("text", ["", "0ms", "-3ms", "33fps", "fast"])
def test_budgets_that_are_none(text: str) -> None:
    with raises_user_error(SourceError, mentions=("33ms",)):
        budget_ms(text)


def test_commands_work_with_polygraphy(model: Path, tmp_path: Path) -> None:
    commands = write_inputs(model, FRAMES[0], tmp_path)
    tool, *arguments = shlex.split(commands["polygraphy"])
    assert tool == "polygraphy"
    done = subprocess.run(
        [Path(sys.executable).with_name(tool), *arguments],
        check=False,
        capture_output=True,
        text=True,
        timeout=1800,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "PASSED" in done.stdout
    named = re.findall(r"(\w+):(\S+?\.bin)", commands["trtexec"])
    sizes = dict(re.findall(r"(\w+):([\dx]+)", commands["trtexec"].split("--loadInputs")[0]))
    itemsize = {"frame": 1}
    for name, file in named:
        elements = int(np.prod([int(side) for side in sizes[name].split("x")]))
        assert Path(file).stat().st_size == elements * itemsize.get(name, 4)
    assert len(named) == 4


# --- engines, on the fake GPU


@pytest.fixture(scope="module")
def engine(model: Path) -> Path:
    sizes = EngineOptions(height=(48,) * 3, width=(64,) * 3, objects=(1, 2, 4))
    return write_engine(model, model.with_suffix(".engine"), sizes)


def test_engines_need_tensorrt(engine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    with raises_user_error(UnavailableError, mentions=("maskring[gpu]",)):
        time_engine(engine, {}, 1)


TIME_RTX = """
import sys
from pathlib import Path
import numpy as np
from maskring.export.engine import EngineOptions, build_engine
from maskring.runtime.profiling.polygraphy_runs import time_engine

model, engine = map(Path, sys.argv[1:])
sizes = {"height": (48,) * 3, "width": (64,) * 3, "objects": (1,) * 3}
built = build_engine(model, engine, EngineOptions("tensorrt-rtx", compute_capabilities=("sm86",), **sizes))
types = {"frame": np.uint8, "memory_dilation": np.int32}
shapes = {name: best for name, (_, best, _) in built.manifest.key.shapes.items()}
try:
    print(time_engine(engine, {n: np.zeros(s, types.get(n, np.float32)) for n, s in shapes.items()}, 1))
except Exception as error:
    print(repr(error))
"""


def test_polygraphy_takes_engines_of_rtx_to_nvidias_runtime(model: Path, tmp_path: Path) -> None:
    """By the name that polygraphy knows the module by. Without such a GPU, NVIDIA's runtime refuses there."""
    if not installed("tensorrt_rtx_bindings"):
        pytest.skip("no TensorRT-RTX: pip install 'maskring[tensorrt-test]'")
    command = [sys.executable, "-c", TIME_RTX, str(model), str(tmp_path / "rtx.engine")]
    done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=1800)
    said = done.stdout.splitlines()[-1]
    assert said.startswith("Latency") or re.match(
        r"UnavailableError.*polygraphy could not run .*rtx\.engine: Could not deserialize .*--runner-it", said
    ), said


def test_stages_and_layers_of_an_engine(engine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gpu = FakeGpu()
    fake_device.install(monkeypatch, gpu)
    profile = profile_model(engine, FRAMES, iterations=4, warm_up=2, threads=1, runner_iterations=0)
    assert profile.stages["step"].p50 > 0 and profile.stages["upload"].p50 > 0
    assert [(layer.name, layer.milliseconds) for layer in profile.layers] == [
        ("memory read", 3.0),
        ("encoder", 2.0),
        ("argmax", 0.5),
    ]
    assert profile.machine["GPU"] == "fake GPU (sm86)" and profile.machine["runtime"] == "tensorrt 11.1.0"
    assert profile.machine["CUDA graphs"] == "6 captured"
    tensors = 2 * 48 * 64 * 3 + 48 * 64 + 8 * 4 + (8 + 1) * 4 * 12 * 16 * 4 + (8 + 2) * 2 * 12 * 16 * 4
    assert profile.machine["memory on the GPU"] == f"{tensors / 1e6:.1f} MB, plus the engine's own"
    assert gpu.executions == 6 + 1 + 3  # frames, the warm-up, the runs in which layers are timed
    assert not +gpu.alive


def test_a_gpu_that_fails_while_layers_are_timed(engine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gpu = FakeGpu()
    fake_device.install(monkeypatch, gpu)
    backend = TensorRTBackend(engine)
    with Tracker(backend) as tracker:
        tracker.step(FRAMES[0], moving_square(0)[1])
        gpu.fail("Stream.synchronize", after=1)
        with raises_user_error(UnavailableError, mentions=("GPU", "layers")):
            backend.layer_times()
    assert not +gpu.alive


def test_command_profiles_an_engine_beside_its_model(
    model: Path, engine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_device.install(monkeypatch, FakeGpu())
    code, text = command(model, tmp_path, "--compare", str(engine))
    assert code == 0, text
    assert "fake GPU (sm86)" in (tmp_path / "profile.html").read_text(), "of the second one, too"
    code, text = command(engine, tmp_path, "--compare", str(model))
    assert code == 0, text
    written = json.loads((tmp_path / "profile.json").read_text())
    assert [Path(profile["model"]).suffix for profile in written["profiles"]] == [".engine", ".onnx"]
    commands = written["commands"]
    assert f"polygraphy run {engine} --trt --model-type engine --load-inputs" in commands["polygraphy"]
    assert f"trtexec --loadEngine={engine} --shapes=frame:1x48x64x3," in commands["trtexec"]
    assert "lugins" not in "".join(commands.values())


def test_commands_for_an_engine_name_its_plugin(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plugin = tmp_path / "lib.so"
    plugin.touch()
    monkeypatch.setenv(library.LIBRARY_VARIABLE, str(plugin))
    sizes = EngineOptions(height=(48,) * 3, width=(64,) * 3)
    engine = write_engine(model, tmp_path / "model.engine", sizes, plugin_sha256="a" * 64)
    commands = write_inputs(engine, FRAMES[0], tmp_path)
    assert commands["polygraphy"].endswith(f" --plugins {plugin}")
    assert commands["trtexec"].endswith(f" --dynamicPlugins={plugin}")


def test_commands_for_an_rtx_engine_are_those_of_its_tools(model: Path, tmp_path: Path) -> None:
    sizes = EngineOptions(runtime="tensorrt-rtx", height=(48,) * 3, width=(64,) * 3)
    commands = write_inputs(write_engine(model, tmp_path / "rtx.engine", sizes), FRAMES[0], tmp_path)
    assert commands["polygraphy"].startswith("POLYGRAPHY_USE_TENSORRT_RTX=1 polygraphy run ")
    assert commands["tensorrt_rtx"].startswith(f"tensorrt_rtx --loadEngine={tmp_path}/rtx.engine --shapes=")
    assert "trtexec" not in commands


def command(model: Path, out: Path, *more: str) -> tuple[int, str]:
    small = ["--height", "48", "--width", "64", "--iterations", "3", "--warm-up", "1", "--threads", "1"]
    done = CliRunner().invoke(
        app, ["profile", str(model), "--out", str(out), *small, "--runner-iterations", "0", *more]
    )
    return done.exit_code, done.output


def test_command_compares_and_writes_a_page_that_stands_alone(model: Path, tmp_path: Path) -> None:
    code, text = command(model, tmp_path, "--compare", str(model), "--budget", "60s")
    assert code == 0, text
    assert "polygraphy run" in text and "trtexec" in text
    page = (tmp_path / "profile.html").read_text()
    assert page.count("<svg") == 2 and page.count("<polyline") == 5
    assert not re.search(r"(src|href)=|https?://|<script", page)
    assert "within the budget" in page
    written = json.loads((tmp_path / "profile.json").read_text())
    assert len(written["profiles"]) == 2 and set(written["profiles"][0]["stages"]) == set(STAGES)


def test_budget_decides_the_exit_code(model: Path, tmp_path: Path) -> None:
    code, text = command(model, tmp_path, "--budget", "0.0001ms")
    assert code == 1 and "budget of 0.0001 ms" in text
    assert command(model, tmp_path, "--budget", "soon")[0] == 2


@pytest.mark.parametrize(("p99", "code"), [(34.0, 1), (33.0, 0)])
def test_the_budget_limits_the_p99(
    model: Path, profile: Profile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, p99: float, code: int
) -> None:
    """Not the median, nor the slowest frame."""
    total = Latency(p50=20.0, p90=25.0, p99=p99, max=90.0, mean=21.0, jitter=1.0)
    monkeypatch.setattr(run, "profile_model", lambda *_, **__: dataclasses.replace(profile, total=total))
    assert command(model, tmp_path, "--budget", "33ms")[0] == code
    verdict = "over the budget" if code else "within the budget"
    assert verdict in (tmp_path / "profile.html").read_text()
