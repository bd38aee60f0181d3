"""The TensorRT plugin: its virtual functions one by one, its build, the object inside NVIDIA's own libraries.

``tensorrt_cpp/plugin_tests.cpp`` calls the plugin as TensorRT does, under AddressSanitizer, with kernels that
compute nothing. The tests that need NVIDIA's headers look for them in ``TENSORRT_ROOT``.
"""

from __future__ import annotations

import ctypes.util
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest
from affinity_cases import TOLERANCE, Case, expected_of, inputs_of
from cuda_on_cpu.fibers import emulator
from cuda_on_cpu.kernel_cases import ROWS, Row, cases_of
from onnx import TensorProto, helper

import maskring.plugins
from maskring.common.errors import UnavailableError
from maskring.plugins import library
from maskring.plugins.windowed_affinity import onnx_bindings, onnx_function, onnx_op

REPOSITORY = Path(__file__).resolve().parents[2]
SOURCES = REPOSITORY / "plugins" / "windowed_affinity"
TEST_SOURCES = REPOSITORY / "tests" / "tools" / "tensorrt_cpp"
SANITIZERS = ("-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-O0", "-g")
WARNINGS = ("-Wall", "-Wextra", *(["-Werror"] if emulator.WERROR else []))
ARCHITECTURE = "87"


def cases(name: str) -> list[str]:
    """Names of the tests in a C++ file."""
    return re.findall(r"^TEST\((\w+)\)", (TEST_SOURCES / name).read_text(), re.MULTILINE)


def run(*command: str | Path, **more: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, check=False, capture_output=True, text=True, timeout=1800, **more)


@pytest.fixture(scope="session")
def tensorrt_root() -> Path:
    named = os.environ.get("TENSORRT_ROOT")
    if not named:
        pytest.skip(
            "no TensorRT headers: set TENSORRT_ROOT to the folder that holds include/NvInferRuntime.h"
        )
    return Path(named).resolve()


# ---- every virtual function, called directly


def build_with_plugin(
    program: Path, headers: Path, tests: list[str], flags: Sequence[str], objects: Sequence[Path] = ()
) -> None:
    """Compile the plugin with files of ``tensorrt_cpp``, a double of the CUDA runtime and object files."""
    compiler = emulator.compiler_for(flags)
    if compiler is None:
        pytest.skip(emulator.lacks(flags))
    command = [compiler, "-std=c++20", "-pthread", *WARNINGS, "-Wno-missing-field-initializers", *flags]
    command += ['-DMASKRING_VERSION="0"', f"-I{SOURCES}", f"-isystem{headers}"]
    command += [f"-isystem{folder}" for folder in emulator.cuda_headers()]
    files = [
        *(TEST_SOURCES / name for name in (*tests, "cuda_double.cpp")),
        *(SOURCES / "tensorrt").glob("*.cpp"),
    ]
    built = run(*command, *files, *objects, "-o", program)
    assert built.returncode == 0, built.stderr


@pytest.fixture(scope="session", params=["double", "NVIDIA"])
def plugin_tests(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The program of the C++ tests, built against our double of TensorRT's interface or the real headers."""
    if not emulator.cuda_headers():
        pytest.skip("no CUDA headers: pip install 'maskring[cuda]'")
    double = TEST_SOURCES / "tensorrt_double"
    headers = double if request.param == "double" else request.getfixturevalue("tensorrt_root") / "include"
    program = tmp_path_factory.mktemp("plugin") / "plugin_tests"
    build_with_plugin(program, headers, ["plugin_tests.cpp", "launch_double.cpp"], SANITIZERS)
    return program


@pytest.mark.parametrize("case", cases("plugin_tests.cpp"))
def test_virtual_functions(plugin_tests: Path, case: str) -> None:
    done = run(plugin_tests, case)
    assert done.returncode == 0, done.stderr


# ---- from the creator to the values


@pytest.fixture(scope="module")
def plugin_values(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The program that runs problems through the plugin, with the real kernels executed as C++."""
    if not emulator.cuda_headers():
        pytest.skip("no CUDA headers: pip install 'maskring[cuda]'")
    program = tmp_path_factory.mktemp("values") / "plugin_values"
    headers = TEST_SOURCES / "tensorrt_double"
    build_with_plugin(program, headers, ["plugin_values.cpp"], ["-O1"], emulator.objects())
    return program


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_every_row_computes_what_the_reference_does(plugin_values: Path, row: Row) -> None:
    tried = cases_of(row)[:3]
    results = emulator.run(plugin_values, row.name, [inputs_of(case) for case in tried]).results
    for case, result in zip(tried, results, strict=True):
        assert np.abs(result - expected_of(case)).max() <= TOLERANCE[case.dtype], case


@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("offsets", [None, 4])
def test_without_a_given_row_the_plugin_chooses(plugin_values: Path, dtype: str, offsets: int | None) -> None:
    case = Case(
        "chosen",
        height=13,
        width=17,
        radius=6,
        dilation=((1, 2, 0),),
        channels=64,
        offsets=offsets,
        dtype=dtype,
    )
    (result,) = emulator.run(plugin_values, None, [inputs_of(case)]).results
    assert np.abs(result - expected_of(case)).max() <= TOLERANCE[dtype]


# ---- a program that opens the library and calls nothing in it


@pytest.fixture(scope="module")
def opened_libraries(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A ``libnvinfer`` that is only a plugin registry, and the plugin library."""
    if not emulator.cuda_headers():
        pytest.skip("no CUDA headers: pip install 'maskring[cuda]'")
    folder, double = tmp_path_factory.mktemp("opened"), TEST_SOURCES / "tensorrt_double"
    shared = ("-shared", "-fPIC")
    build_with_plugin(folder / library.LIBRARY_NAME, double, ["launch_double.cpp"], shared)
    name = "libnvinfer.so.11"
    command = ["g++", "-std=c++20", *WARNINGS, *shared, f"-Wl,-soname,{name}", f"-isystem{double}"]
    command += [f"-isystem{headers}" for headers in emulator.cuda_headers()]
    built = run(*command, TEST_SOURCES / "nvinfer_double.cpp", "-o", folder / name)
    assert built.returncode == 0, built.stderr
    return folder / name, folder / library.LIBRARY_NAME


def opened(libraries: Sequence[Path], **variables: str) -> subprocess.CompletedProcess[str]:
    """A process that opens libraries one after the other, as Triton does its TensorRT backend and plugins."""
    script = f"import ctypes\nfor path in {[str(path) for path in libraries]}: ctypes.CDLL(path)"
    done = run(sys.executable, "-c", script, env=os.environ | variables)
    assert done.returncode == 0, done.stderr
    return done


def test_opened_by_triton_the_library_registers_itself_if_asked(opened_libraries: tuple[Path, Path]) -> None:
    done = opened(opened_libraries, MASKRING_PRELOAD="1")
    assert done.stdout.split() == list(library.PLUGIN) and not done.stderr
    assert opened(opened_libraries).stdout == "", "who uses the registry would find the name taken"
    _, plugin = opened_libraries
    alone = opened([plugin], MASKRING_PRELOAD="1")
    assert "MASKRING_PRELOAD" in alone.stderr and "; build the library with the headers" in alone.stderr


# ---- the build


def configured(build: Path, preset: str, *options: str, tensorrt: str = "") -> str:
    """What CMake says about a preset."""
    environment = os.environ | {"TENSORRT_ROOT": tensorrt}
    command = [
        "cmake",
        "--preset",
        preset,
        "-B",
        str(build),
        f"-DPython_EXECUTABLE={sys.executable}",
        f"-DMASKRING_WERROR={emulator.WERROR}",
        *options,
    ]
    done = run(*command, cwd=REPOSITORY, env=environment)
    assert done.returncode == 0, done.stderr
    return done.stdout


def lines_about(part: str, output: str) -> list[str]:
    return [line.removeprefix("-- ") for line in output.splitlines() if line.startswith(f"-- {part}: ")]


def test_what_is_not_wanted_is_skipped_with_one_line(tmp_path: Path) -> None:
    output = configured(tmp_path, "cpu")
    assert lines_about("CUDA kernels", output) == ["CUDA kernels: skipped, MASKRING_CUDA is OFF"]
    assert lines_about("TensorRT plugin", output) == ["TensorRT plugin: skipped, MASKRING_TENSORRT is OFF"]


def test_what_cannot_be_built_is_skipped_with_one_line(tmp_path: Path) -> None:
    headers = tmp_path / "tensorrt" / "include"
    headers.mkdir(parents=True)
    (headers / "NvInferRuntime.h").touch()
    version = "#define NV_TENSORRT_MAJOR 10 //!< major\n#define NV_TENSORRT_MINOR 2 //!< minor\n"
    (headers / "NvInferVersion.h").write_text(version)
    output = configured(tmp_path / "build", "all", tensorrt=str(headers.parent))
    (line,) = lines_about("TensorRT plugin", output)
    if "skipped" in lines_about("CUDA kernels", output)[0]:
        assert line.startswith("TensorRT plugin: skipped") and "CUDA kernels" in line
    else:
        assert line.startswith("TensorRT plugin: skipped")
        assert str(headers) in line and "TensorRT 10.2" in line and "10.3 or newer" in line


def test_version_of_every_kind_of_header_is_read(tmp_path: Path, tensorrt_root: Path) -> None:
    (line,) = lines_about("TensorRT plugin", configured(tmp_path, "all", tensorrt=str(tensorrt_root)))
    text = (tensorrt_root / "include" / "NvInferVersion.h").read_text()
    major, minor = (re.findall(rf"define \w+_{part}\w* +(\d+)", text)[0] for part in ("MAJOR", "MINOR"))
    assert line == f"TensorRT plugin: for TensorRT {major}.{minor} ({tensorrt_root / 'include'})"


@pytest.fixture(scope="session")
def built_library(tensorrt_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The plugin library with the real kernels, for one architecture."""
    build = tmp_path_factory.mktemp("cmake")
    output = configured(
        build, "all", f"-DMASKRING_CUDA_ARCHITECTURES={ARCHITECTURE}", tensorrt=str(tensorrt_root)
    )
    for line in lines_about("CUDA kernels", output):
        if "skipped" in line:
            pytest.skip(line)
    done = run("cmake", "--build", build, "--target", "maskring_plugins")
    assert done.returncode == 0, done.stderr
    return build / "plugins" / library.LIBRARY_NAME


def test_the_library_exports_what_tensorrt_looks_up_and_nothing_else(built_library: Path) -> None:
    if shutil.which("nm") is None:
        pytest.skip("no nm (binutils)")
    symbols = {
        line.split()[-1] for line in run("nm", "-D", "--defined-only", built_library).stdout.splitlines()
    }
    assert symbols == {"getCreators", "setLoggerFinder", "maskring_tensorrt_major"}
    needed = run("ldd", built_library).stdout
    assert "nvinfer" not in needed and "cudart" not in needed


# ---- maskring.plugins.library_path() and load()


def tiny_library(folder: Path, source: str) -> Path:
    path = folder / library.LIBRARY_NAME
    done = run("g++", "-shared", "-fPIC", "-x", "c++", "-", "-o", path, input=source)
    assert done.returncode == 0, done.stderr
    return path


class FakeRegistry:
    """A plugin registry that lists a creator for each library it loaded."""

    def __init__(self, loads: bool = True) -> None:
        self.all_creators: list[SimpleNamespace] = [SimpleNamespace(name="Other")]
        self.loaded: list[str] = []
        self.loads = loads

    def load_library(self, path: str) -> object | None:
        self.loaded.append(path)
        if not self.loads:
            return None
        name, version, namespace = library.PLUGIN
        creator = SimpleNamespace(name=name, plugin_version=version, plugin_namespace=namespace)
        self.all_creators.append(creator)
        return object()


def fake_tensorrt(registry: FakeRegistry, version: str = "11.1.0") -> ModuleType:
    module = ModuleType("tensorrt")
    module.__dict__.update(get_plugin_registry=lambda: registry, __version__=version)
    return module


@pytest.fixture
def library_for_11(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tiny_library(tmp_path, 'extern "C" int maskring_tensorrt_major() { return 11; }')
    monkeypatch.setenv(library.LIBRARY_VARIABLE, str(path))
    return path


def test_the_library_is_found_beside_the_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(library.LIBRARY_VARIABLE, raising=False)
    empty, installed = tmp_path / "sources", tmp_path / "installed"
    empty.mkdir()
    installed.mkdir()
    monkeypatch.setattr(maskring.plugins, "__path__", [str(empty), str(installed)])
    with pytest.raises(UnavailableError, match=r"TensorRT plugin.*; .*TENSORRT_ROOT"):
        library.library_path()
    (installed / library.LIBRARY_NAME).touch()
    assert library.library_path() == (installed / library.LIBRARY_NAME).resolve()


def test_the_variable_names_another_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = tmp_path / "other.so"
    monkeypatch.setenv(library.LIBRARY_VARIABLE, str(other))
    with pytest.raises(UnavailableError, match=r"MASKRING_PLUGINS_LIBRARY.*other\.so.*; .*unset"):
        library.library_path()
    other.touch()
    assert library.library_path() == other.resolve()


@pytest.mark.parametrize("version", ["11.0.0", "11.4.0.106", "1.5.0.114", "1.7.1"])
def test_load_registers_once(library_for_11: Path, version: str) -> None:
    registry = FakeRegistry()
    trt = fake_tensorrt(registry, version)
    assert library.load(trt) == library.load(trt) == library_for_11.resolve()
    assert registry.loaded == [str(library_for_11.resolve())]


@pytest.mark.parametrize(
    ("version", "running"), [("10.3.0", 10), ("10.16.1.11", 10), ("12.0", 12), ("1.4.0.76", 10)]
)
def test_load_refuses_another_major_version(library_for_11: Path, version: str, running: int) -> None:
    registry = FakeRegistry()
    with pytest.raises(
        UnavailableError, match=rf"TensorRT 11.*TensorRT {running}.*; build it with the headers"
    ):
        library.load(fake_tensorrt(registry, version))
    assert not registry.loaded


def test_load_says_that_tensorrt_refused(library_for_11: Path) -> None:
    with pytest.raises(UnavailableError, match=r"TensorRT 11\.1\.0.*; .*TensorRT's log"):
        library.load(fake_tensorrt(FakeRegistry(loads=False)))


def test_load_refuses_what_is_no_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trt = fake_tensorrt(FakeRegistry())
    path = tmp_path / "text.so"
    path.write_text("not a library")
    monkeypatch.setenv(library.LIBRARY_VARIABLE, str(path))
    with pytest.raises(UnavailableError, match=r"text\.so.*; build the library on this machine"):
        library.load(trt)
    monkeypatch.setenv(library.LIBRARY_VARIABLE, str(tiny_library(tmp_path, "int other() { return 0; }")))
    with pytest.raises(UnavailableError, match=f"{library.LIBRARY_NAME}.*; check MASKRING_PLUGINS_LIBRARY"):
        library.load(trt)


def test_load_takes_the_first_tensorrt_that_is_installed(
    library_for_11: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("tensorrt", "tensorrt_lean", "tensorrt_rtx"):
        monkeypatch.setitem(sys.modules, name, None)  # import fails
    with pytest.raises(UnavailableError, match=r"tensorrt, .*; pip install 'maskring\[gpu\]'"):
        library.load()
    lean, rtx = FakeRegistry(), FakeRegistry()
    monkeypatch.setitem(sys.modules, "tensorrt_lean", fake_tensorrt(lean))
    monkeypatch.setitem(sys.modules, "tensorrt_rtx", fake_tensorrt(rtx))
    library.load()
    assert lean.loaded and not rtx.loaded


# ---- inside NVIDIA's libraries


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


# ---- the ONNX node


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
