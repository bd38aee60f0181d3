"""NVIDIA's Python modules, where they are installed: what they say of their members, and their builder."""

from __future__ import annotations

import inspect
import json
import os
import re
import subprocess
import sys
import tempfile
from importlib.machinery import PathFinder
from pathlib import Path
from typing import Any

import pytest

DESCRIBE = """
import importlib, json, sys
trt = importlib.import_module(sys.argv[1])
def text(owner, name):
    found = getattr(owner, name, None)
    if found is None or not callable(found):
        return None if found is None else "property"
    return found.__doc__ or ""
wanted = json.loads(sys.argv[2]).items()
print(json.dumps({kind: {name: text(getattr(trt, kind), name) for name in names} for kind, names in wanted}))
"""


BUILD = """
import json, sys
import tensorrt_rtx_bindings as trt

logger = trt.Logger(trt.Logger.ERROR)
builder = trt.Builder(logger)
network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
parser = trt.OnnxParser(network, logger)
assert parser.parse(open(sys.argv[1], "rb").read()), parser.get_error(0).desc()
config = builder.create_builder_config()
config.num_compute_capabilities = 1
config.set_compute_capability(trt.ComputeCapability.SM86, 0)
profile = builder.create_optimization_profile()
for name, shape in json.loads(sys.argv[2]).items():
    profile.set_shape(name, shape, shape, shape)
config.add_optimization_profile(profile)
engine = builder.build_serialized_network(network, config)
print("engine of", engine.nbytes, "bytes")
"""


BARE = "tensorrt_bindings"
"""Full TensorRT's Python module as its package brings it; its libraries are on no package index."""

EXPORTS = """
createInferBuilder_INTERNAL createInferRefitter_INTERNAL createInferRuntime_INTERNAL
createNvOnnxParserRefitter_INTERNAL createNvOnnxParser_INTERNAL getBuilderPluginRegistry
getNvOnnxParserVersion getPluginRegistry initLibNvInferPlugins
"""


def stand_in_libraries(folder: Path) -> None:
    """What the loader needs to import :data:`BARE`: libraries of TensorRT 10 and 11 that can do nothing."""
    source = "".join(f"void *{name}(void) {{ return 0; }}\n" for name in EXPORTS.split())
    first, *others = (
        folder / f"lib{name}.so.{major}"
        for name in ("nvinfer", "nvinfer_plugin", "nvonnxparser")
        for major in (10, 11)
    )
    command = ["cc", "-shared", "-fPIC", "-x", "c", "-", "-o", str(first)]
    subprocess.run(command, input=source, text=True, check=True)
    for other in others:
        other.symlink_to(first)


def installed(module: str) -> bool:
    """Whether there is a file to import it from: another test may have given the name to something else."""
    return PathFinder.find_spec(module) is not None


def assert_rtx_builds(model: Path, shapes: dict[str, tuple[int, ...]]) -> None:
    """NVIDIA's parser and builder of TensorRT-RTX make an engine of it, open shapes being these."""
    if not installed("tensorrt_rtx_bindings"):
        pytest.skip("no TensorRT-RTX: pip install 'maskring[tensorrt-test]'")
    command = [sys.executable, "-c", BUILD, str(model), json.dumps(shapes)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=1800, check=False)
    assert done.returncode == 0 and "engine of" in done.stdout, done.stderr


def describe(module: str, wanted: dict[str, list[str]]) -> dict[str, dict[str, str | None]]:
    """Docstrings of the members ``wanted`` by class, "property" for one, None for what there is not.

    From a process of its own: two TensorRTs do not share one.
    """
    command = [sys.executable, "-c", DESCRIBE, module, json.dumps(wanted)]
    with tempfile.TemporaryDirectory() as folder:
        surroundings = dict(os.environ)
        if module == BARE:
            stand_in_libraries(Path(folder))
            surroundings["LD_LIBRARY_PATH"] = folder
        done = subprocess.run(
            command, env=surroundings, capture_output=True, text=True, timeout=1800, check=True
        )
    described: dict[str, dict[str, str | None]] = json.loads(done.stdout.splitlines()[-1])
    return described


def public(kind: type) -> list[str]:
    """What maskring may use of a class of a fake: its own methods and properties."""
    described = (property, type(lambda: None))
    names = [name for name, value in vars(kind).items() if isinstance(value, described)]
    return [name for name in names if not name.startswith("_")]


def arguments(signature_of: Any) -> list[str]:
    """Names of the arguments after ``self``."""
    return [name for name in inspect.signature(signature_of).parameters if name != "self"]


def fits(doc: str, name: str, given: list[str]) -> bool:
    """Whether one of the overloads that pybind11 lists is called rightly with ``given``, by these names."""
    for overload in re.findall(rf"\b{name}\(self: [^,)]+(?:, )?(.*?)\) -> ", doc):
        text = re.sub(r"<[^>]*>", "", overload)
        names = re.findall(r"(\w+): ", text)
        optional = re.findall(r"(\w+): [^,]*=", text)
        if names[: len(given)] == given and set(names[len(given) :]) <= set(optional):
            return True
    return False
