"""``maskring build`` for full TensorRT: polygraphy's own loaders, with a recorder in the builder's place."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path
from typing import Any

import fake_builder
import numpy as np
import pytest
from engine_builds import CACHED, OPEN, build, files
from fake_builder import FakeBuilder, plugin_library
from support import HEIGHT, WIDTH, moving_square
from user_errors import raises_user_error

from maskring.common.errors import ModelError
from maskring.export.engine import build_engine
from maskring.models import open_tracker
from maskring.plugins import library
from maskring.runtime.model.engine_file import read_engine, read_manifest, sha256

pytestmark = pytest.mark.usefixtures("in_folder")

# ---- what the builder is asked


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_the_plugin_takes_the_place_of_the_function_body(
    nvidia: FakeBuilder, pixel_models: dict[str, Path], plugin: Path, dtype: str
) -> None:
    built = build(pixel_models[dtype])
    assert nvidia.plugins == [library.PLUGIN] and nvidia.inlined == []
    assert nvidia.libraries == [str(plugin)]
    assert nvidia.network.get_flag(fake_builder.NetworkDefinitionCreationFlag.STRONGLY_TYPED)
    assert not built.reused and built.replaced == ""
    assert files() == ["m.engine", "m.engine.json"]


def test_the_manifest_says_all_that_decided(
    nvidia: FakeBuilder, pixel_models: dict[str, Path], plugin: Path
) -> None:
    build(pixel_models["float16"], workspace_mb=64, optimization_level=4)
    manifest = read_manifest(Path("m.engine"))
    key = manifest.key
    assert read_engine(Path("m.engine"), manifest) == Path("m.engine").read_bytes()
    assert (key.runtime, key.precision, key.tensorrt_version) == ("tensorrt", "float16", "11.1.0")
    assert key.compute_capability == ("sm86",)
    assert (key.onnx_sha256, key.plugin_sha256) == (sha256(pixel_models["float16"]), sha256(plugin))
    assert (key.workspace_mb, key.optimization_level) == (64, 4)
    assert manifest.memory == {"scratch": 4096, "activation": 8192}


def test_the_profile_covers_height_width_objects_and_slots(
    nvidia: FakeBuilder, pixel_models: dict[str, Path]
) -> None:
    build(pixel_models["float32"])
    (profile,) = nvidia.config.profiles
    assert profile.shapes == {
        "frame": [[1, 32, 32, 3], [1, HEIGHT, WIDTH, 3], [1, 96, 128, 3]],
        "memory_keys": [[1, 8, 4, 8, 8], [1, 8, 4, 12, 16], [1, 8, 4, 24, 32]],
        "memory_values": [[1, 8, 2, 8, 8], [1, 8, 3, 12, 16], [1, 8, 6, 24, 32]],
        "memory_dilation": [[1, 8]] * 3,
    }


def test_extents_that_the_profile_fixes_are_fixed_in_the_graph(
    nvidia: FakeBuilder, pixel_models: dict[str, Path]
) -> None:
    build(pixel_models["float32"], height=(HEIGHT,) * 3)
    frame = nvidia.network.get_input(0)
    assert frame.shape == (1, HEIGHT, -1, 3)
    assert nvidia.network.get_input(3).shape == (1, 8)


def test_options_reach_the_builder(nvidia: FakeBuilder, pixel_models: dict[str, Path]) -> None:
    build(pixel_models["float32"])
    flag, level = fake_builder.BuilderFlag, fake_builder.HardwareCompatibilityLevel
    plain = nvidia.config
    assert plain.flags == set() and plain.pools == {}, "float32 stays float32: no TF32"
    assert plain.builder_optimization_level == 3 and plain.hardware_compatibility_level is level.NONE
    build(
        pixel_models["float32"],
        optimization_level=5,
        workspace_mb=256,
        version_compatible=True,
        hardware_compatibility="same-compute-capability",
    )
    asked = nvidia.config
    assert asked.flags == {flag.VERSION_COMPATIBLE}
    assert asked.pools == {fake_builder.MemoryPoolType.WORKSPACE: 256 << 20}
    assert asked.builder_optimization_level == 5
    assert asked.hardware_compatibility_level is level.SAME_COMPUTE_CAPABILITY
    build(pixel_models["float32"], hardware_compatibility="ampere-plus")
    assert nvidia.config.hardware_compatibility_level is level.AMPERE_PLUS


@pytest.mark.parametrize("version", ["10.3.0", "10.13.2", "11.1.0"])
def test_versions(version: str, pixel_models: dict[str, Path], tmp_path: Path, monkeypatch: Any) -> None:
    major = int(version.split(".")[0])
    monkeypatch.setenv(library.LIBRARY_VARIABLE, str(plugin_library(tmp_path / "own.so", major)))
    with fake_builder.nvidia(version) as nvidia:
        built = build(pixel_models["float16"])
        assert built.manifest.key.tensorrt_version == version
        assert nvidia.plugins == [library.PLUGIN]


def test_progress(nvidia: FakeBuilder, pixel_models: dict[str, Path]) -> None:
    heard: list[tuple[str, int, int]] = []
    build_engine(pixel_models["float32"], Path("m.engine"), OPEN, lambda *step: heard.append(step))
    inner = [("Tactic Selection", done, 2) for done in (0, 1, 2, 2)]
    outer = [("Building Engine", done, 3) for done in range(4)]
    expected = [outer[0], *inner, outer[1], *inner, outer[2], *inner, outer[3], outer[3]]
    assert heard == expected


def test_what_is_built_tracks_like_the_model(nvidia: FakeBuilder, pixel_models: dict[str, Path]) -> None:
    """From the command's engine to masks: the builder's fake writes what the GPU's fake executes."""
    build(pixel_models["float32"])
    masks = {}
    for path, kernel in ((Path("m.engine"), "native"), (pixel_models["float32"], "function")):
        with open_tracker(path, kernel=kernel, threads=1) as tracker:
            frames = [moving_square(index) for index in range(4)]
            masks[path] = [
                tracker.step(frame, mask if index == 0 else None).labels
                for index, (frame, mask) in enumerate(frames)
            ]
    ours, theirs = masks.values()
    np.testing.assert_array_equal(ours, theirs)


# ---- the cache


def test_an_engine_that_is_there_is_built_again_only_for_a_named_reason(
    pixel_models: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, plugin: Path
) -> None:
    with fake_builder.nvidia() as nvidia:
        build(pixel_models["float32"])
        written = Path("m.engine").stat().st_mtime_ns
        assert build(pixel_models["float32"]).reused and nvidia.calls["build_serialized_network"] == 1
        assert Path("m.engine").stat().st_mtime_ns == written
        reasons: list[tuple[str, dict[str, Any]]] = [
            (
                r"the shape of memory_values was (\S+, ){14}\S+ and is (\S+, ){14}\S+",
                {"objects": (1, 2, 6)},
            ),
            ("optimization_level was None and is 2", {"optimization_level": 2}),
            ("workspace_mb was None and is 9", {"workspace_mb": 9}),
            ("version_compatible was False and is True", {"version_compatible": True}),
            ("hardware_compatibility was  and is ampere-plus", {"hardware_compatibility": "ampere-plus"}),
        ]
        for reason, change in reasons:
            assert re.fullmatch(reason, build(pixel_models["float32"], **change).replaced)
            assert build(pixel_models["float32"], **change).reused
            build(pixel_models["float32"])  # back
        assert re.fullmatch(
            "onnx_sha256 was .* and is .*; precision was float32 and is float16",
            build(pixel_models["float16"]).replaced,
        )
        build(pixel_models["float32"])
        other = plugin_library(tmp_path / "other.so", variant="another build")
        monkeypatch.setenv(library.LIBRARY_VARIABLE, str(other))
        assert build(pixel_models["float32"]).replaced.startswith("plugin_sha256 was ")
        monkeypatch.setenv(library.LIBRARY_VARIABLE, str(plugin))
        build(pixel_models["float32"])
    with fake_builder.nvidia("11.2.0", "sm89"):
        assert build(pixel_models["float32"]).replaced == (
            "tensorrt_version was 11.1.0 and is 11.2.0; compute_capability was ('sm86',) and is ('sm89',)"
        )


def test_timings_are_kept_and_used(nvidia: FakeBuilder, pixel_models: dict[str, Path]) -> None:
    cached = dataclasses.replace(CACHED, timing_cache=Path("deep/timings"))
    build(pixel_models["float32"], cached)
    first, nvidia.timed = nvidia.timed, 0
    assert first > 10
    build(pixel_models["float32"], cached, optimization_level=1)  # another engine, of the same layers
    assert nvidia.timed == 0
    build(pixel_models["float32"], cached, objects=(1, 2, 7))
    assert nvidia.timed == first, "other shapes are timed anew"
    kind, gpu, layers = json.loads(Path("deep/timings").read_bytes())
    assert (kind, gpu, len(layers)) == ("timings", "sm86", 2 * first), "and those known are kept"
    assert [path.name for path in Path("deep").iterdir()] == ["timings"], "no lock file stays"


@pytest.mark.parametrize("content", [b"no cache", b"[]"])
def test_a_timing_cache_that_is_none_is_not_overwritten(
    nvidia: FakeBuilder, pixel_models: dict[str, Path], content: bytes
) -> None:
    Path("timings").write_bytes(content)
    with raises_user_error(ModelError, mentions=("timing cache timings", "give another")):
        build(pixel_models["float32"], CACHED)
    assert Path("timings").read_bytes() == content and files() == ["timings"]


def test_timings_of_another_gpu(pixel_models: dict[str, Path]) -> None:
    with fake_builder.nvidia(capability="sm89"):
        build(pixel_models["float32"], CACHED)
    of_sm89 = Path("timings").read_bytes()
    with (
        fake_builder.nvidia(),
        raises_user_error(ModelError, mentions=("timing cache timings", "give another")),
    ):
        build(pixel_models["float32"], CACHED)
    assert Path("timings").read_bytes() == of_sm89
