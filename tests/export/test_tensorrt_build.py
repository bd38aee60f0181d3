"""``maskring build`` for full TensorRT: polygraphy's own loaders, with a recorder in the builder's place."""

from __future__ import annotations

import dataclasses
import inspect
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fake_builder
import numpy as np
import onnx
import pytest
from fake_builder import FakeBuilder, plugin_library
from pixel_model import write_pixel_model
from real_bindings import BARE, arguments, describe, fits, installed, public
from support import HEIGHT, WIDTH, moving_square
from user_errors import raises_user_error

from maskring.common.errors import ModelError, OutputError, UnavailableError
from maskring.export.engine import BuiltEngine, EngineOptions, build_engine
from maskring.models import open_tracker
from maskring.plugins import library
from maskring.runtime.model.engine_file import read_engine, read_manifest, sha256

OPEN = EngineOptions(height=(32, HEIGHT, 96), width=(32, WIDTH, 128), objects=(1, 2, 5))
CACHED = dataclasses.replace(OPEN, timing_cache=Path("timings"))


@pytest.fixture
def nvidia() -> Iterator[FakeBuilder]:
    with fake_builder.nvidia() as fake:
        yield fake


@pytest.fixture(autouse=True)
def in_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, plugin: Path) -> None:
    """Tests name files in a folder of their own, and the plugin is there."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(library.LIBRARY_VARIABLE, str(plugin))


@pytest.fixture(scope="module")
def plugin(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return plugin_library(tmp_path_factory.mktemp("plugin") / "plugin.so")


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("models")
    return {kind: write_pixel_model(folder / f"{kind}.onnx", dtype=kind) for kind in ("float32", "float16")}


def build(model: Path, options: EngineOptions = OPEN, **change: Any) -> BuiltEngine:
    return build_engine(model, Path("m.engine"), dataclasses.replace(options, **change))


def files() -> list[str]:
    return sorted(path.name for path in Path().iterdir())


# ---- what the builder is asked


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_the_plugin_takes_the_place_of_the_function_body(
    nvidia: FakeBuilder, models: dict[str, Path], plugin: Path, dtype: str
) -> None:
    built = build(models[dtype])
    assert nvidia.plugins == [library.PLUGIN] and nvidia.inlined == []
    assert nvidia.libraries == [str(plugin)]
    assert nvidia.network.get_flag(fake_builder.NetworkDefinitionCreationFlag.STRONGLY_TYPED)
    assert not built.reused and built.replaced == ""
    assert files() == ["m.engine", "m.engine.json"]


def test_the_manifest_says_all_that_decided(
    nvidia: FakeBuilder, models: dict[str, Path], plugin: Path
) -> None:
    build(models["float16"], workspace_mb=64, optimization_level=4)
    manifest = read_manifest(Path("m.engine"))
    key = manifest.key
    assert read_engine(Path("m.engine"), manifest) == Path("m.engine").read_bytes()
    assert (key.runtime, key.precision, key.tensorrt_version) == ("tensorrt", "float16", "11.1.0")
    assert key.compute_capability == ("sm86",)
    assert (key.onnx_sha256, key.plugin_sha256) == (sha256(models["float16"]), sha256(plugin))
    assert (key.workspace_mb, key.optimization_level) == (64, 4)
    assert manifest.memory == {"scratch": 4096, "activation": 8192}


def test_the_profile_covers_height_width_objects_and_slots(
    nvidia: FakeBuilder, models: dict[str, Path]
) -> None:
    build(models["float32"])
    (profile,) = nvidia.config.profiles
    assert profile.shapes == {
        "frame": [[1, 32, 32, 3], [1, HEIGHT, WIDTH, 3], [1, 96, 128, 3]],
        "memory_keys": [[1, 8, 4, 8, 8], [1, 8, 4, 12, 16], [1, 8, 4, 24, 32]],
        "memory_values": [[1, 8, 2, 8, 8], [1, 8, 3, 12, 16], [1, 8, 6, 24, 32]],
        "memory_dilation": [[1, 8]] * 3,
    }


def test_extents_that_the_profile_fixes_are_fixed_in_the_graph(
    nvidia: FakeBuilder, models: dict[str, Path]
) -> None:
    build(models["float32"], height=(HEIGHT,) * 3)
    frame = nvidia.network.get_input(0)
    assert frame.shape == (1, HEIGHT, -1, 3)
    assert nvidia.network.get_input(3).shape == (1, 8)


def test_options_reach_the_builder(nvidia: FakeBuilder, models: dict[str, Path]) -> None:
    build(models["float32"])
    flag, level = fake_builder.BuilderFlag, fake_builder.HardwareCompatibilityLevel
    plain = nvidia.config
    assert plain.flags == set() and plain.pools == {}, "float32 stays float32: no TF32"
    assert plain.builder_optimization_level == 3 and plain.hardware_compatibility_level is level.NONE
    build(
        models["float32"],
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
    build(models["float32"], hardware_compatibility="ampere-plus")
    assert nvidia.config.hardware_compatibility_level is level.AMPERE_PLUS


@pytest.mark.parametrize("version", ["10.3.0", "10.13.2", "11.1.0"])
def test_versions(version: str, models: dict[str, Path], tmp_path: Path, monkeypatch: Any) -> None:
    major = int(version.split(".")[0])
    monkeypatch.setenv(library.LIBRARY_VARIABLE, str(plugin_library(tmp_path / "own.so", major)))
    with fake_builder.nvidia(version) as nvidia:
        built = build(models["float16"])
        assert built.manifest.key.tensorrt_version == version
        assert nvidia.plugins == [library.PLUGIN]


def test_progress(nvidia: FakeBuilder, models: dict[str, Path]) -> None:
    heard: list[tuple[str, int, int]] = []
    build_engine(models["float32"], Path("m.engine"), OPEN, lambda *step: heard.append(step))
    inner = [("Tactic Selection", done, 2) for done in (0, 1, 2, 2)]
    outer = [("Building Engine", done, 3) for done in range(4)]
    expected = [outer[0], *inner, outer[1], *inner, outer[2], *inner, outer[3], outer[3]]
    assert heard == expected


def test_what_is_built_tracks_like_the_model(nvidia: FakeBuilder, models: dict[str, Path]) -> None:
    """From the command's engine to masks: the builder's fake writes what the GPU's fake executes."""
    build(models["float32"])
    masks = {}
    for path, kernel in ((Path("m.engine"), "native"), (models["float32"], "function")):
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
    models: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, plugin: Path
) -> None:
    with fake_builder.nvidia() as nvidia:
        build(models["float32"])
        written = Path("m.engine").stat().st_mtime_ns
        assert build(models["float32"]).reused and nvidia.calls["build_serialized_network"] == 1
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
            assert re.fullmatch(reason, build(models["float32"], **change).replaced)
            assert build(models["float32"], **change).reused
            build(models["float32"])  # back
        assert re.fullmatch(
            "onnx_sha256 was .* and is .*; precision was float32 and is float16",
            build(models["float16"]).replaced,
        )
        build(models["float32"])
        other = plugin_library(tmp_path / "other.so", variant="another build")
        monkeypatch.setenv(library.LIBRARY_VARIABLE, str(other))
        assert build(models["float32"]).replaced.startswith("plugin_sha256 was ")
        monkeypatch.setenv(library.LIBRARY_VARIABLE, str(plugin))
        build(models["float32"])
    with fake_builder.nvidia("11.2.0", "sm89"):
        assert build(models["float32"]).replaced == (
            "tensorrt_version was 11.1.0 and is 11.2.0; compute_capability was ('sm86',) and is ('sm89',)"
        )


def test_timings_are_kept_and_used(nvidia: FakeBuilder, models: dict[str, Path]) -> None:
    cached = dataclasses.replace(CACHED, timing_cache=Path("deep/timings"))
    build(models["float32"], cached)
    first, nvidia.timed = nvidia.timed, 0
    assert first > 10
    build(models["float32"], cached, optimization_level=1)  # another engine, of the same layers
    assert nvidia.timed == 0
    build(models["float32"], cached, objects=(1, 2, 7))
    assert nvidia.timed == first, "other shapes are timed anew"
    kind, gpu, layers = json.loads(Path("deep/timings").read_bytes())
    assert (kind, gpu, len(layers)) == ("timings", "sm86", 2 * first), "and those known are kept"
    assert [path.name for path in Path("deep").iterdir()] == ["timings"], "no lock file stays"


@pytest.mark.parametrize("content", [b"no cache", b"[]"])
def test_a_timing_cache_that_is_none_is_not_overwritten(
    nvidia: FakeBuilder, models: dict[str, Path], content: bytes
) -> None:
    Path("timings").write_bytes(content)
    with raises_user_error(ModelError, mentions=("timing cache timings", "give another")):
        build(models["float32"], CACHED)
    assert Path("timings").read_bytes() == content and files() == ["timings"]


def test_timings_of_another_gpu(models: dict[str, Path]) -> None:
    with fake_builder.nvidia(capability="sm89"):
        build(models["float32"], CACHED)
    of_sm89 = Path("timings").read_bytes()
    with (
        fake_builder.nvidia(),
        raises_user_error(ModelError, mentions=("timing cache timings", "give another")),
    ):
        build(models["float32"], CACHED)
    assert Path("timings").read_bytes() == of_sm89


# ---- what goes wrong


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (
            "parse",
            ("In node 7 with name: and operator: Conv: UNSUPPORTED_NODE: Attribute", "change"),
        ),
        ("build_serialized_network", ("Could not find any implementation", "change")),
        ("Builder", ("CUDA initialization failure with error: 35. Please check your setup", "change")),
    ],
)
def test_what_tensorrt_refuses_is_said_in_its_words(
    nvidia: FakeBuilder, models: dict[str, Path], call: str, words: tuple[str, ...]
) -> None:
    nvidia.fail(call)
    with raises_user_error(ModelError, mentions=("tensorrt 11.1.0", *words)):
        build(models["float32"], CACHED)
    assert files() == []


def test_what_an_older_tensorrt_lacks(
    models: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    library_10 = plugin_library(tmp_path / "own.so", 10)
    monkeypatch.setenv(library.LIBRARY_VARIABLE, str(library_10))
    with (
        fake_builder.nvidia("10.3.0"),
        raises_user_error(UnavailableError, mentions=("10.3.0", "same-compute-capability", "ampere-plus")),
    ):
        build(models["float32"], hardware_compatibility="same-compute-capability")
    assert files() == ["own.so"]


@pytest.mark.parametrize("version", ["8.6.1", "10.2.0", "12.0"])
def test_versions_that_are_not_supported(version: str, models: dict[str, Path]) -> None:
    with (
        fake_builder.nvidia(version),
        raises_user_error(UnavailableError, mentions=(f"TensorRT {version}", "10.3 to 11", "maskring[gpu")),
    ):
        build(models["float32"])


@pytest.mark.parametrize(
    ("module", "words"),
    [
        ("tensorrt", ("tensorrt", "pip install 'maskring[gpu]'")),
        ("polygraphy", ("polygraphy", "pip install polygraphy")),
    ],
)
def test_packages_that_are_missing(
    nvidia: FakeBuilder, models: dict[str, Path], module: str, words: tuple[str, ...]
) -> None:
    with pytest.MonkeyPatch.context() as patch, raises_user_error(UnavailableError, mentions=words):
        patch.setitem(sys.modules, module, None)
        build(models["float32"])
    assert files() == []


def test_no_gpu(nvidia: FakeBuilder, models: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fake_builder._Driver, "cuInit", lambda *_: 100)
    with raises_user_error(UnavailableError, ["GPU 0", "no CUDA-capable device is detected", "nvidia-smi"]):
        build(models["float32"])


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        ("absent", ("MASKRING_PLUGINS_LIBRARY", "other.so", "build the library")),
        ("text", ("other.so", "build the library on this machine")),
        ("major", ("TensorRT 10", "TensorRT 11", "headers")),
        ("refused", ("TensorRT 11.1.0", "read TensorRT's log")),
        ("silent", ("TensorRT 11.1.0", "read TensorRT's log")),
    ],
)
def test_plugin_libraries_that_do_not_serve(
    nvidia: FakeBuilder,
    models: dict[str, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    spoil: str,
    words: tuple[str, ...],
) -> None:
    path = tmp_path / "other.so"
    if spoil == "text":
        path.write_text("no library")
    elif spoil == "major":
        plugin_library(path, 10)
    if spoil in ("absent", "text", "major"):
        monkeypatch.setenv(library.LIBRARY_VARIABLE, str(path))
    nvidia.registers = spoil != "silent"
    if spoil == "refused":
        nvidia.fail("load_library")
    with raises_user_error(UnavailableError, mentions=words):
        build(models["float32"])
    assert not Path("m.engine").exists()


def test_one_tensorrt_per_process(
    nvidia: FakeBuilder, models: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    build(models["float32"])
    monkeypatch.setitem(sys.modules, "tensorrt_rtx", sys.modules["tensorrt"])
    rtx = dataclasses.replace(OPEN, runtime="tensorrt-rtx", compute_capabilities=("sm86",))
    with raises_user_error(UnavailableError, ["TensorRT", "process"]):
        build(models["float32"], rtx)


def test_a_folder_in_the_way_is_noticed_before_the_build(
    nvidia: FakeBuilder, models: dict[str, Path], tmp_path: Path
) -> None:
    for name in ("m.engine", "m.engine.json", "timings"):
        Path(name).mkdir()
        with raises_user_error(OutputError, mentions=(name, "give a file")):
            build(models["float32"], CACHED)
        Path(name).rmdir()
    assert nvidia.calls["build_serialized_network"] == 0


def test_a_model_whose_fixed_sizes_the_graph_does_not_keep(
    nvidia: FakeBuilder, models: dict[str, Path]
) -> None:
    model = onnx.load(models["float32"])
    model.graph.input[0].type.tensor_type.shape.dim[1].dim_value = HEIGHT + 1
    onnx.save(model, "odd.onnx")
    with raises_user_error(ModelError, mentions=("frame", "static dimension mismatch")):
        build(Path("odd.onnx"))
    assert files() == ["odd.onnx"]


# ---- interruptions


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_build_after_its_step(
    nvidia: FakeBuilder, models: dict[str, Path], number: signal.Signals
) -> None:
    """Though exceptions from callbacks never leave TensorRT."""
    before = signal.getsignal(number)
    steps = 0

    def interrupt() -> None:
        nonlocal steps
        steps += 1
        os.kill(os.getpid(), number)

    nvidia.between_steps = interrupt
    with pytest.raises(KeyboardInterrupt):
        build(models["float32"], CACHED)
    assert steps == 1 and files() == []
    assert signal.getsignal(number) is before


def test_progress_may_interrupt(nvidia: FakeBuilder, models: dict[str, Path]) -> None:
    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build_engine(models["float32"], Path("m.engine"), OPEN, interrupt)
    assert files() == []


@pytest.mark.parametrize("written", [0, 1])
def test_a_build_that_dies_while_it_writes_leaves_no_engine_that_is_taken_for_whole(
    nvidia: FakeBuilder, models: dict[str, Path], monkeypatch: pytest.MonkeyPatch, written: int
) -> None:
    """The process is gone after ``written`` of the two files have their names."""
    build(models["float32"])
    replace, replaced = Path.replace, 0

    class Dead(BaseException):
        pass

    def dying(path: Path, target: Path) -> Path:
        nonlocal replaced
        if replaced == written:
            raise Dead
        replaced += 1
        return replace(path, target)

    monkeypatch.setattr(Path, "replace", dying)
    with pytest.raises(Dead):
        build(models["float16"])
    monkeypatch.setattr(Path, "replace", replace)
    again = build(models["float16"])
    assert not again.reused
    assert "precision was float32" in again.replaced if written == 0 else "m.engine" in again.replaced
    assert read_engine(Path("m.engine"), again.manifest)


# ---- the fake against what can be installed

CLASSES = {
    kind.__name__: public(kind)
    for kind in (
        fake_builder.IProgressMonitor,
        fake_builder.IHostMemory,
        fake_builder.INetworkDefinition,
        fake_builder.IOptimizationProfile,
        fake_builder.ITimingCache,
        fake_builder.IBuilderConfig,
        fake_builder.OnnxParser,
        fake_builder.Builder,
    )
}
ATTRIBUTES = {
    "ITensor": list(fake_builder.ITensor.__slots__),
    "IBuilderConfig": [
        name
        for name in fake_builder.IBuilderConfig.__slots__
        if name not in ("pools", "profiles") and not name.startswith("_")
    ],
}
ENUMS = (
    fake_builder.NetworkDefinitionCreationFlag,
    fake_builder.BuilderFlag,
    fake_builder.MemoryPoolType,
    fake_builder.ProfilingVerbosity,
    fake_builder.DeviceType,
    fake_builder.HardwareCompatibilityLevel,
)
LATER = ["HardwareCompatibilityLevel.SAME_COMPUTE_CAPABILITY"]
"""What TensorRT 10.3 does not have; who asks for it there is told so."""

LEAN = ("IProgressMonitor", "IHostMemory", "IOptimizationProfile", "ITimingCache")
"""What a TensorRT without a builder has all the same."""


@pytest.mark.parametrize(
    "module", ["tensorrt", BARE, "tensorrt_rtx", "tensorrt_rtx_bindings", "tensorrt_lean_bindings"]
)
def test_tensorrt_has_what_the_fake_has(module: str) -> None:
    if not installed(module):
        pytest.skip(f"no {module}: pip install 'maskring[gpu]' or 'maskring[tensorrt-test]'")
    lean = "lean" in module
    classes = {kind: names for kind, names in CLASSES.items() if not lean or kind in LEAN}
    attributes = {} if lean else ATTRIBUTES
    enums = {} if lean else {kind.__name__: list(kind.__members__) for kind in ENUMS}
    wanted = {
        kind: [*classes.get(kind, []), *attributes.get(kind, []), *enums.get(kind, [])]
        for kind in {**classes, **attributes, **enums}
    }
    wanted |= {"IPluginRegistry": ["all_creators", "load_library"]}
    real = describe(module, wanted)
    missing = [f"{kind}.{name}" for kind, names in real.items() for name, doc in names.items() if doc is None]
    assert not missing or (module in ("tensorrt", BARE) and missing == LATER)
    for kind, names in classes.items():
        for name in names:
            member, doc = inspect.getattr_static(getattr(fake_builder, kind), name), real[kind][name] or ""
            if isinstance(member, property):
                assert doc == "property", f"{kind}.{name}"
            else:
                assert fits(doc, name, arguments(member)), f"{kind}.{name}: {doc}"
    registry = arguments(fake_builder._Registry.load_library)
    assert fits(real["IPluginRegistry"]["load_library"] or "", "load_library", registry)


UNDER_THE_NAME_OF_TENSORRT = """
import json, sys, warnings
from pathlib import Path
import tensorrt_rtx_bindings as nvidia
from maskring.export import engine as export
from maskring.common.errors import UserError

warnings.simplefilter("ignore")  # TensorRT-RTX calls its timing caches deprecated
nvidia.__version__ = "11.1.0"
sys.modules["tensorrt"] = nvidia
# What needs a GPU or a plugin layer: the function body is built in.
export.compute_capability = lambda: "sm86"
export.library_path = lambda: Path(sys.argv[1])
export.load_plugin = lambda trt: None
export.use_tensorrt_plugin = lambda graph: graph
sizes = {"height": (48,) * 3, "width": (32, 64, 128), "objects": (1, 1, 4)}
said = []
for more in json.loads(sys.argv[2]):
    more = {key: Path(value) if key == "timing_cache" else value for key, value in more.items()}
    try:
        options = export.EngineOptions(**sizes, **more)
        built = export.build_engine(Path(sys.argv[1]), Path("m.engine"), options)
        said.append(sorted(built.manifest.memory))
    except UserError as error:
        said.append(str(error))
print(json.dumps(said))
"""


def test_nvidias_own_builder_takes_every_call(models: dict[str, Path]) -> None:
    """TensorRT-RTX has the builder interface of TensorRT 11: under that name all but the plugin runs."""
    if not installed("tensorrt_rtx_bindings"):
        pytest.skip("no TensorRT-RTX: pip install 'maskring[rtx]'")
    Path("damaged").write_text("no timings")
    asked = [
        {"timing_cache": "timings", "optimization_level": 2, "workspace_mb": 512},
        {"timing_cache": "timings", "hardware_compatibility": "ampere-plus"},
        {"hardware_compatibility": "same-compute-capability"},
        {"timing_cache": "damaged"},
        {"version_compatible": True},
    ]
    command = [sys.executable, "-c", UNDER_THE_NAME_OF_TENSORRT, str(models["float16"]), json.dumps(asked)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=1800, check=False)
    assert done.returncode == 0, done.stderr
    first, second, third, damaged, lean = json.loads(done.stdout.splitlines()[-1])
    assert first == second == third == ["activation", "scratch", "weights"]
    assert damaged.startswith("the timing cache damaged is damaged, or of another GPU")
    assert re.match(r"tensorrt 11\.1\.0 could not build the engine: .*libnvinfer_lean\.so", lean), lean
    assert files() == ["damaged", "m.engine", "m.engine.json", "timings"]
    assert Path("damaged").read_text() == "no timings" and Path("timings").stat().st_size > 0
