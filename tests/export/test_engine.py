"""Engines: NVIDIA's own builder for TensorRT-RTX end to end, and a recorder in the place of TensorRT."""

from __future__ import annotations

import dataclasses
import functools
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support import kept_export, write_tiny_checkpoint
from user_errors import raises_user_error

from maskring.common.errors import ModelError, OutputError, UnavailableError, UserError
from maskring.export.engine import EngineOptions, build_engine, parse_range, profile_shapes
from maskring.runtime.model.engine_file import manifest_path, read_engine, read_manifest
from maskring.runtime.model.metadata import ModelMetadata
from maskring.runtime.tracking.memory import MemoryPolicy
from maskring.training.weights import shipped_checkpoint

RTX = EngineOptions(runtime="tensorrt-rtx", compute_capabilities=("sm86",))
OPEN = {"height": (32, 48, 96), "width": (32, 64, 128), "objects": (1, 2, 5)}
MIB = 1 << 20


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The tiny checkpoint, exported in both types with fixed and with open sizes."""
    folder = tmp_path_factory.mktemp("models")
    checkpoint = write_tiny_checkpoint(folder / "tiny.safetensors")
    exported = {}
    for dtype in ("float32", "float16"):
        for sizes in ({"height": 48, "width": 64, "num_labels": 3, "num_slots": 8}, {}):
            name = f"{dtype}-{'fixed' if sizes else 'open'}"
            exported[name] = folder / f"{name}.onnx"
            kept_export(checkpoint, exported[name], dtype=dtype, radius=2, **sizes)
    return exported


@pytest.fixture
def rtx() -> Any:
    return pytest.importorskip("tensorrt_rtx_bindings", reason="no TensorRT-RTX: pip install 'maskring[rtx]'")


@pytest.mark.parametrize("name", ["float32-fixed", "float32-open", "float16-fixed", "float16-open"])
def test_rtx_builds(rtx: Any, models: dict[str, Path], tmp_path: Path, name: str) -> None:
    heard: list[tuple[str, int, int]] = []
    out = tmp_path / "model.engine"
    options = dataclasses.replace(RTX, **(OPEN if name.endswith("open") else {}))
    built = build_engine(models[name], out, options, lambda *step: heard.append(step))
    assert not built.reused and not built.replaced
    manifest = read_manifest(out)
    assert manifest == built.manifest
    assert len(read_engine(out, manifest)) == out.stat().st_size
    assert manifest.key.precision == name.split("-")[0]
    assert manifest.key.tensorrt_version == rtx.__version__
    assert manifest.key.plugin_sha256 == ""
    assert manifest.memory["scratch"] > 0
    phase, _, steps = heard[0]
    assert (phase, steps) == ("Building engine", heard[-1][2]) and heard[-1] == (phase, steps, steps)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model.engine", "model.engine.json"]


def test_what_every_engine_is_built_with(
    rtx: Any, models: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """float32 is not rounded to TF32, and nothing is allocated in executions, which could not be captured."""
    flags = []
    build = rtx.Builder.build_serialized_network

    def spy(builder: Any, network: Any, config: Any) -> Any:
        asked = rtx.BuilderFlag.TF32, rtx.BuilderFlag.REQUIRE_USER_ALLOCATION
        flags.append([config.get_flag(flag) for flag in asked])
        return build(builder, network, config)

    monkeypatch.setattr(rtx.Builder, "build_serialized_network", spy)
    build_engine(models["float32-fixed"], tmp_path / "model.engine", RTX)
    assert flags == [[False, True]]


def test_gpus_are_known_by_every_way_nvidia_writes_them(
    rtx: Any, models: dict[str, Path], tmp_path: Path
) -> None:
    options = dataclasses.replace(RTX, compute_capabilities=("8.6", "sm_86", "SM86"))
    built = build_engine(models["float32-fixed"], tmp_path / "model.engine", options)
    assert built.manifest.key.compute_capability == ("sm86",)


@pytest.fixture(scope="module")
def shipped(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, str], Path]:
    """The shipped checkpoints, exported for 480x480 and three objects."""
    folder = tmp_path_factory.mktemp("shipped")

    @functools.cache
    def exported(name: str, dtype: str) -> Path:
        out = folder / f"{name}-{dtype}.onnx"
        sizes = {"height": 480, "width": 480, "num_labels": 4}
        return kept_export(shipped_checkpoint(name), out, radius=12, dtype=dtype, **sizes)

    return exported


@pytest.mark.parametrize(
    ("name", "dtype", "target"), [("nano", "float16", "sm86"), ("pico", "float32", "sm75")]
)
def test_a_shipped_checkpoint_builds(
    rtx: Any, shipped: Callable[[str, str], Path], tmp_path: Path, name: str, dtype: str, target: str
) -> None:
    """One for each of the two networks: float32 on Turing has its own."""
    assert_builds(shipped(name, dtype), tmp_path / "model.engine", (target,))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["pico", "nano", "full"])
@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_shipped_checkpoints_build_for_every_gpu(
    rtx: Any, shipped: Callable[[str, str], Path], tmp_path: Path, name: str, dtype: str
) -> None:
    """Each by itself and all but Turing's in one engine, with less scratch memory than 256 MiB."""
    known = [name.lower() for name in rtx.ComputeCapability.__members__ if name.startswith("SM")]
    assert {"sm75", "sm80", "sm86", "sm89", "sm120"} <= set(known)
    together = tuple(capability for capability in known if capability != "sm75")
    for targets in (*((capability,) for capability in known), together):
        assert_builds(shipped(name, dtype), tmp_path / f"{'-'.join(targets)}.engine", targets)


def assert_builds(model: Path, out: Path, targets: tuple[str, ...]) -> None:
    built = build_engine(model, out, dataclasses.replace(RTX, compute_capabilities=targets))
    assert built.manifest.key.shapes["memory_keys"][2] == [1, MemoryPolicy().num_slots, 64, 120, 120]
    assert built.manifest.key.compute_capability == targets
    assert built.manifest.memory["scratch"] < 256 * MIB, targets


def test_turing_has_a_network_of_its_own(rtx: Any, models: dict[str, Path], tmp_path: Path) -> None:
    """Without matrix products, which TensorRT-RTX refuses there in float32; alone or among others."""
    digests = []
    for targets in (("sm86",), ("sm75",), ("sm86", "sm75")):
        options = dataclasses.replace(RTX, compute_capabilities=targets)
        built = build_engine(models["float32-fixed"], tmp_path / "model.engine", options)
        digests.append(built.manifest.key.network_sha256)
    assert digests[0] != digests[1] == digests[2]


def test_an_engine_that_is_there_is_built_again_only_for_a_named_reason(
    rtx: Any, models: dict[str, Path], tmp_path: Path
) -> None:
    out = tmp_path / "model.engine"
    build_engine(models["float32-fixed"], out, RTX)
    written = out.stat().st_mtime_ns
    again = build_engine(models["float32-fixed"], out, RTX)
    assert again.reused and out.stat().st_mtime_ns == written
    reasons = {
        "compute_capability was ('sm86',) and is ('sm89',)": (models["float32-fixed"], ("sm89",)),
        "precision was float32 and is float16": (models["float16-fixed"], ("sm89",)),
    }
    for reason, (model, capabilities) in reasons.items():
        options = dataclasses.replace(RTX, compute_capabilities=capabilities)
        built = build_engine(model, out, options)
        assert not built.reused and reason in built.replaced
    stored = json.loads(manifest_path(out).read_text())
    stored["key"]["network_sha256"] = "0" * 64  # of a maskring that gave TensorRT something else
    manifest_path(out).write_text(json.dumps(stored))
    replaced = build_engine(models["float16-fixed"], out, options).replaced
    assert re.fullmatch(f"network_sha256 was {'0' * 64} and is [0-9a-f]{{64}}", replaced)
    out.write_bytes(out.read_bytes()[:-1])
    assert "does not match its manifest" in build_engine(models["float16-fixed"], out, options).replaced
    manifest_path(out).write_text("{")
    assert "is damaged" in build_engine(models["float16-fixed"], out, options).replaced


def test_what_rtx_refuses_is_said_in_its_words_and_nothing_is_written(
    rtx: Any, models: dict[str, Path], tmp_path: Path
) -> None:
    import onnx

    model = onnx.load(models["float32-fixed"])
    node = next(node for node in model.graph.node if node.op_type == "Conv")
    node.op_type = "Unheard"
    broken = tmp_path / "broken.onnx"
    onnx.save(model, broken)
    with raises_user_error(ModelError, mentions=("tensorrt-rtx", "Unheard")):
        build_engine(broken, tmp_path / "model.engine", RTX)
    assert [path.name for path in tmp_path.iterdir()] == ["broken.onnx"]


def test_ctrl_c_ends_a_build(rtx: Any, models: dict[str, Path], tmp_path: Path) -> None:
    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build_engine(models["float32-fixed"], tmp_path / "model.engine", RTX, interrupt)
    assert not list(tmp_path.iterdir())


def test_shapes_of_a_profile() -> None:
    metadata = ModelMetadata(stride=4, channels=64, radius=6, logit_scale=1.0)
    options = EngineOptions(height=(240, 480, 721), width=(320, 640, 1280), objects=(1, 3, 7))
    assert profile_shapes(metadata, options) == {
        "frame": [[1, 240, 320, 3], [1, 480, 640, 3], [1, 721, 1280, 3]],
        "memory_keys": [[1, 8, 64, 60, 80], [1, 8, 64, 120, 160], [1, 8, 64, 181, 320]],
        "memory_values": [[1, 8, 2, 60, 80], [1, 8, 4, 120, 160], [1, 8, 8, 181, 320]],
        "memory_dilation": [[1, 8]] * 3,
    }


OPEN_MODEL = ModelMetadata(stride=4, channels=64, radius=6, logit_scale=1.0)
FIXED_MODEL = dataclasses.replace(OPEN_MODEL, height=480, width=480, num_labels=4)


@pytest.mark.parametrize(
    ("metadata", "options", "words"),
    [
        (
            OPEN_MODEL,
            EngineOptions(width=(8, 8, 8)),
            ("height", "give"),
        ),
        (FIXED_MODEL, EngineOptions(height=(8, 8, 8)), ("height 480", "--height")),
        (FIXED_MODEL, EngineOptions(objects=(1, 2, 3)), ("objects 3",)),
        (
            OPEN_MODEL,
            EngineOptions(height=(8, 8, 8), width=(8, 8, 8), objects=(1, 1, 256)),
            ("--objects 256", "255"),
        ),
    ],
)
def test_sizes_that_do_not_fit(
    metadata: ModelMetadata, options: EngineOptions, words: tuple[str, ...]
) -> None:
    with raises_user_error(ModelError, mentions=words):
        profile_shapes(metadata, options)


def test_ranges() -> None:
    assert parse_range("480", "--height") == (480, 480, 480)
    assert parse_range("1:3:15", "--objects") == (1, 3, 15)
    for text in ("", "x", "0", "1:2", "3:2:4", "1:2:3:4", "-1", "1:2:y"):
        with raises_user_error(ModelError, mentions=("--width", "SMALLEST:BEST:LARGEST")):
            parse_range(text, "--width")


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"runtime": "x"}, ModelError, ("runtime x", "tensorrt or tensorrt-rtx")),
        ({"compute_capabilities": ()}, ModelError, ("--compute-capability",)),
        ({"compute_capabilities": ("sm1",)}, UnavailableError, ("sm1", "sm75")),
        ({"version_compatible": True}, ModelError, ("--version-compatible",)),
        ({"hardware_compatibility": "ampere-plus"}, ModelError, ("--hardware-compatibility",)),
        ({"timing_cache": Path("t")}, ModelError, ("--timing-cache",)),
        ({"runtime": "tensorrt"}, ModelError, ("--compute-capability", "leave it out")),
        ({"hardware_compatibility": "all"}, ModelError, ("hardware compatibility all",)),
    ],
)
def test_options_that_do_not_fit(
    rtx: Any,
    models: dict[str, Path],
    tmp_path: Path,
    change: Any,
    error: type[UserError],
    words: tuple[str, ...],
) -> None:
    with raises_user_error(error, mentions=words):
        build_engine(models["float32-fixed"], tmp_path / "m.engine", dataclasses.replace(RTX, **change))
    assert not list(tmp_path.iterdir())


def test_files_that_are_no_models(models: dict[str, Path], tmp_path: Path) -> None:
    (tmp_path / "damaged.onnx").write_bytes(models["float32-fixed"].read_bytes()[:5000])
    for name in ("absent.onnx", "damaged.onnx"):
        with raises_user_error(ModelError, mentions=(tmp_path / name,)):
            build_engine(tmp_path / name, tmp_path / "m.engine", RTX)
    with raises_user_error(OutputError, mentions=("m.trt", ".engine", ".plan")):
        build_engine(models["float32-fixed"], tmp_path / "m.trt", RTX)


def test_manifests_of_other_versions_are_refused(rtx: Any, models: dict[str, Path], tmp_path: Path) -> None:
    out = tmp_path / "m.engine"
    build_engine(models["float32-fixed"], out, RTX)
    stored = json.loads(manifest_path(out).read_text())
    manifest_path(out).write_text(json.dumps(stored | {"format_version": 1}))
    with raises_user_error(ModelError, [manifest_path(out), "format 1", "format 3", "maskring build"]):
        read_manifest(out)
    manifest_path(out).unlink()
    with raises_user_error(ModelError, [manifest_path(out)]):
        read_manifest(out)
