"""The recording builder against what NVIDIA ships: it has nothing that TensorRT has not."""

from __future__ import annotations

import inspect
import json
import re
import subprocess
import sys
from pathlib import Path

import fake_builder
import pytest
from engine_builds import files
from real_bindings import BARE, arguments, describe, fits, installed, public

pytestmark = pytest.mark.usefixtures("in_folder")

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


def test_nvidias_own_builder_takes_every_call(pixel_models: dict[str, Path]) -> None:
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
    command = [
        sys.executable,
        "-c",
        UNDER_THE_NAME_OF_TENSORRT,
        str(pixel_models["float16"]),
        json.dumps(asked),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=1800, check=False)
    assert done.returncode == 0, done.stderr
    first, second, third, damaged, lean = json.loads(done.stdout.splitlines()[-1])
    assert first == second == third == ["activation", "scratch", "weights"]
    assert damaged.startswith("the timing cache damaged is damaged, or of another GPU")
    assert re.match(r"tensorrt 11\.1\.0 could not build the engine: .*libnvinfer_lean\.so", lean), lean
    assert files() == ["damaged", "m.engine", "m.engine.json", "timings"]
    assert Path("damaged").read_text() == "no timings" and Path("timings").stat().st_size > 0
