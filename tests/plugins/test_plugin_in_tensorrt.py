"""The plugin inside NVIDIA's own libraries: registries, the object in Python, and the parser of TensorRT-RTX."""

from __future__ import annotations

import ctypes.util
import importlib.util
import os
import re
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest
from cuda_on_cpu.fibers import emulator
from onnx import TensorProto, helper
from plugin_builds import TEST_SOURCES, WARNINGS, cases, run

import maskring.plugins
from maskring.plugins import library
from maskring.plugins.windowed_affinity import onnx_bindings, onnx_function, onnx_op


@pytest.fixture(scope="session")
def matching_library(built_library: Path, tensorrt_root: Path) -> Path:
    """The library, where it was built with the headers that the libraries from PyPI fit."""
    if not re.search(r"_MAJOR\w* +11\b", (tensorrt_root / "include" / "NvInferVersion.h").read_text()):
        pytest.skip("TENSORRT_ROOT holds headers before TensorRT 11, and the libraries from PyPI are 11")
    return built_library


def in_python(program: str, plugins: Path) -> subprocess.CompletedProcess[str]:
    """A fresh interpreter: two TensorRT libraries in one process get into each other's way."""
    environment = os.environ | {library.LIBRARY_VARIABLE: str(plugins)}
    return run(sys.executable, "-c", textwrap.dedent(program), env=environment)


def test_lean_registry_lists_the_plugin(matching_library: Path) -> None:
    pytest.importorskip(
        "tensorrt_lean_bindings", reason="no TensorRT lean: pip install 'maskring[tensorrt-test]'"
    )
    done = in_python(
        """
        import tensorrt_lean_bindings as trt
        import maskring.plugins
        print(maskring.plugins.load(trt))
        assert maskring.plugins.load(trt) == maskring.plugins.library_path()
        creator = trt.get_plugin_registry().get_creator("WindowedAffinity", "1", "maskring")
        print([field.name for field in creator.field_names])
        """,
        matching_library,
    )
    assert done.stdout.splitlines() == [str(matching_library), "['radius', 'scale', 'top_k']"], done.stderr


REFUSALS: dict[str, tuple[str, ...]] = {
    "refuses_a_radius": ("radius", "smaller radius"),
    "refuses_a_type": ("query is int8", "cast it to float32 or float16"),
    "refuses_a_rank": ("query has 3 dimensions", "[B, C, H, W]"),
    "refuses_channels": ("channels", "zero channels"),
    "refuses_labels": ("labels", "track fewer objects"),
    "refuses_to_run_without_a_device": ("CUDA device", "nvidia-smi"),
}


@pytest.fixture(scope="session")
def registry_tests(tensorrt_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The program that asks the plugin in the registry of an NVIDIA library."""
    program = tmp_path_factory.mktemp("registry") / "registry_tests"
    command = ["g++", "-std=c++20", "-O0", *WARNINGS, "-Wno-missing-field-initializers"]
    command += [f"-isystem{folder}" for folder in (tensorrt_root / "include", *emulator.cuda_headers())]
    built = run(*command, TEST_SOURCES / "registry_tests.cpp", "-o", program, "-ldl")
    assert built.returncode == 0, built.stderr
    return program


@pytest.mark.parametrize("case", cases("registry_tests.cpp"))
@pytest.mark.parametrize(
    ("package", "name"),
    [("tensorrt_lean_libs", "libnvinfer_lean.so.*"), ("tensorrt_rtx_libs", "libtensorrt_rtx.so.*")],
    ids=["lean", "rtx"],
)
def test_plugin_in_a_registry_of_nvidia(
    registry_tests: Path, matching_library: Path, package: str, name: str, case: str
) -> None:
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        pytest.skip(f"no {package}: pip install 'maskring[tensorrt-test]'")
    if case == "refuses_to_run_without_a_device" and ctypes.util.find_library("cuda"):
        pytest.skip("there is an NVIDIA driver")
    (tensorrt,) = Path(next(iter(spec.submodule_search_locations))).glob(name)
    done = run(registry_tests, tensorrt, matching_library, case)
    assert done.returncode == 0, done.stderr
    assert all(part in done.stderr for part in REFUSALS.get(case, ()))
    assert ("maskring::WindowedAffinity: " in done.stderr) == (case in REFUSALS)


@pytest.fixture(scope="module")
def rtx(matching_library: Path) -> Iterator[SimpleNamespace]:
    """TensorRT-RTX with the plugin in its registry: the module, the creator, and what was logged."""
    trt = pytest.importorskip(
        "tensorrt_rtx_bindings", reason="no TensorRT-RTX: pip install 'maskring[tensorrt-test]'"
    )
    logged: list[str] = []

    class Logger(trt.ILogger):  # type: ignore[misc, name-defined, unused-ignore]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)

        def log(self, severity: Any, message: str) -> None:
            if severity <= trt.ILogger.WARNING:
                logged.append(message)

    logger = Logger()
    builder = trt.Builder(logger)  # from here on TensorRT knows the logger
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(library.LIBRARY_VARIABLE, str(matching_library))
        maskring.plugins.load(trt)
    creator = trt.get_plugin_registry().get_creator(*library.PLUGIN)
    yield SimpleNamespace(trt=trt, creator=creator, logged=logged, keep=(logger, builder))


FIELDS = {"radius": np.array([12], np.int32), "scale": np.array([0.125], np.float32)}


def create(rtx: SimpleNamespace, fields: dict[str, Any] = FIELDS) -> Any:
    """The plugin object for these attributes, None where it was refused."""
    rtx.logged.clear()
    kind = rtx.trt.PluginFieldType
    kinds = {"int32": kind.INT32, "int64": kind.INT64, "float32": kind.FLOAT32, "bytes8": kind.CHAR}
    made = [rtx.trt.PluginField(name, value, kinds[value.dtype.name]) for name, value in fields.items()]
    return rtx.creator.create_plugin("read", rtx.trt.PluginFieldCollection(made), rtx.trt.TensorRTPhase.BUILD)


def capability(rtx: SimpleNamespace, plugin: Any, name: str) -> Any:
    return plugin.get_capability_interface(getattr(rtx.trt.PluginCapabilityType, name))


def test_rtx_creates_the_plugin_in_python(rtx: SimpleNamespace) -> None:
    # The bindings show properties of C++ plugins; their methods are there for documentation only.
    plugin = create(rtx)
    core, build = capability(rtx, plugin, "CORE"), capability(rtx, plugin, "BUILD")
    assert (core.plugin_name, core.plugin_version, core.plugin_namespace) == library.PLUGIN
    assert build.num_outputs == 1
    assert build.metadata_string.startswith("radius=12 scale=0.125 top_k=0 kernels=")
    assert build.timing_cache_id.startswith("radius=12 kernels=")
    assert not rtx.logged


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"radius": np.array([17], np.int32)}, "radius"),
        ({"radius": np.array([12], np.float32)}, "attribute radius"),
        ({"scale": np.array([np.inf], np.float32)}, "scale is inf"),
        ({"top_k": np.array([10], np.int32)}, "top_k is 10"),
        ({"colour": np.array([1], np.int32)}, "attribute colour"),
    ],
    ids=["large radius", "real radius", "scale", "top_k", "unknown"],
)
def test_rtx_logs_why_an_attribute_is_refused(
    rtx: SimpleNamespace, change: dict[str, Any], named: str
) -> None:
    assert create(rtx, FIELDS | change) is None
    (line,) = (line for line in rtx.logged if line.startswith("maskring::WindowedAffinity: "))
    assert named in line and "; " in line


def model_of_one_node() -> onnx.ModelProto:
    describe = helper.make_tensor_value_info
    float32, size = TensorProto.FLOAT, ("H", "W")
    inputs = [
        describe("query", float32, [1, 64, *size]),
        describe("keys", float32, [1, 5, 64, *size]),
        describe("values", float32, [1, 5, "O", *size]),
        describe("dilation", TensorProto.INT32, [1, 5]),
    ]
    node = helper.make_node(
        onnx_op.OP_TYPE,
        [i.name for i in inputs],
        ["out"],
        domain=onnx_op.DOMAIN,
        radius=12,
        scale=0.125,
        top_k=0,
    )
    graph = helper.make_graph([node], "read", inputs, [describe("out", float32, [1, "O", *size])])
    opsets = [helper.make_opsetid("", onnx_function.BODY_OPSET), helper.make_opsetid(onnx_op.DOMAIN, 1)]
    return helper.make_model(graph, opset_imports=opsets, functions=[onnx_function.function_body()])


def test_bound_nodes_name_the_plugin_and_lose_their_body() -> None:
    model = model_of_one_node()
    bound = onnx_bindings.use_tensorrt_plugin(
        onnx_bindings.use_tensorrt_plugin(model)
    )  # twice is as good as once
    attributes = {a.name: helper.get_attribute_value(a) for a in bound.graph.node[0].attribute}
    assert len(bound.graph.node[0].attribute) == 5
    assert (attributes["radius"], attributes["scale"], attributes["top_k"]) == (12, 0.125, 0)
    name, version, namespace = library.PLUGIN
    assert (bound.graph.node[0].op_type, attributes["plugin_version"], attributes["plugin_namespace"]) == (
        name,
        version.encode(),
        namespace.encode(),
    )
    assert not bound.functions and model.functions and len(model.graph.node[0].attribute) == 3


def test_rtx_parser_creates_the_plugin_from_the_node(matching_library: Path, tmp_path: Path) -> None:
    pytest.importorskip(
        "tensorrt_rtx_bindings", reason="no TensorRT-RTX: pip install 'maskring[tensorrt-test]'"
    )
    path = tmp_path / "bound.onnx"
    onnx.save(onnx_bindings.use_tensorrt_plugin(model_of_one_node()), path)
    # TensorRT-RTX has no plugin layer: it ends the process when the parser adds the plugin it has created.
    done = in_python(
        f"""
        import tensorrt_rtx_bindings as trt
        import maskring.plugins
        logger = trt.Logger(trt.Logger.INFO)
        network = trt.Builder(logger).create_network(0)
        maskring.plugins.load(trt)
        trt.OnnxParser(network, logger).parse_from_file({str(path)!r})
        """,
        matching_library,
    )
    assert (
        "Searching for plugin: WindowedAffinity, plugin_version: 1, plugin_namespace: maskring"
        in done.stderr + done.stdout
    )
    assert "Successfully created plugin: WindowedAffinity" in done.stderr + done.stdout
