"""Inputs for a model without a tracker, in memory and as files for other tools."""

from __future__ import annotations

import shlex
from dataclasses import replace
from pathlib import Path

import numpy as np

from ...common.errors import UnavailableError
from ...common.files import atomic_path, make_directory
from ...common.types import Array, Image, Labels
from ...plugins.library import library_path
from ..backends.onnxrt.tensors import HostTensors
from ..model.engine_file import ENGINE_SUFFIX, TENSORRT_RTX, read_manifest
from ..model.metadata import ModelMetadata
from ..model.step_graph import load_step_graph
from ..model.tensor_names import INPUTS, VALUES

NUM_SLOTS = 5
"""Frames in memory when a model of any number of slots is run: what the default policy reads."""

NEEDS_POLYGRAPHY = "run pip install 'maskring[profile]'"


def middle_object(frame: Image) -> Labels:
    """[H, W] mask of one object: the frame's middle ninth."""
    height, width = frame.shape[:2]
    mask = np.zeros((height, width), np.uint8)
    mask[height // 3 : -(-2 * height // 3), width // 3 : -(-2 * width // 3)] = 1
    return mask


def read_metadata(model: Path) -> ModelMetadata:
    """Metadata of a model; open sizes of an engine are those that it was optimized for.

    Raises:
        ModelError: when the file is missing or damaged.
    """
    if model.suffix != ENGINE_SUFFIX:
        return load_step_graph(model)[1]
    manifest = read_manifest(model)
    _, num_slots, num_labels, _, _ = manifest.key.shapes[VALUES][1]
    return replace(manifest.metadata, num_slots=num_slots, num_labels=num_labels)


def model_inputs(metadata: ModelMetadata, frame: Image) -> dict[str, Array]:
    """Inputs of one run of the bare model by name: ``frame``, and memory full of random features."""
    num_slots, num_labels = metadata.num_slots or NUM_SLOTS, metadata.num_labels or 2
    height, width = frame.shape[:2]
    tensors = HostTensors.zeros(metadata, height, width, num_slots, num_labels)
    generator = np.random.default_rng(0)
    tensors.frame[0] = frame
    tensors.keys[:] = generator.standard_normal(tensors.keys.shape, np.float32)
    tensors.values[:, :, 0] = 1
    tensors.dilation[:] = 1
    return tensors.inputs()


def write_inputs(model: Path, frame: Image, folder: Path) -> dict[str, str]:
    """Write the inputs of a run as files for other tools, and give command lines that use them.

    ``inputs.json`` is for polygraphy, ``NAME.bin`` for trtexec.

    Raises:
        UnavailableError: when polygraphy is not installed.
        OutputError: when the files cannot be written.

    Returns:
        Command lines by tool.
    """
    try:
        from polygraphy.json import save_json
    except ImportError as error:
        raise UnavailableError("polygraphy is not installed", NEEDS_POLYGRAPHY) from error
    make_directory(folder)
    feeds = model_inputs(read_metadata(model), frame)
    with atomic_path(folder / "inputs.json") as partial:
        save_json([feeds], str(partial))
    for name, array in feeds.items():
        with atomic_path(folder / f"{name}.bin") as partial:
            array.tofile(partial)
    return _commands(model, feeds, folder)


def _commands(model: Path, feeds: dict[str, Array], folder: Path) -> dict[str, str]:
    shapes = ",".join(f"{name}:{'x'.join(map(str, array.shape))}" for name, array in feeds.items())
    files = ",".join(f"{name}:{folder / name}.bin" for name in INPUTS)
    q = shlex.quote
    inputs = f"--load-inputs {q(str(folder / 'inputs.json'))}"
    timing = f"--shapes={q(shapes)} --loadInputs={q(files)} --warmUp=500 --iterations=100 --dumpProfile"
    if model.suffix != ENGINE_SUFFIX:
        return {
            "polygraphy": f"polygraphy run {q(str(model))} --onnxrt {inputs}",
            "trtexec": f"trtexec --onnx={q(str(model))} --stronglyTyped {timing}",
        }
    key = read_manifest(model).key
    run_engine = f"polygraphy run {q(str(model))} --trt --model-type engine {inputs}"
    if key.runtime == TENSORRT_RTX:
        return {
            "polygraphy": f"POLYGRAPHY_USE_TENSORRT_RTX=1 {run_engine}",
            "tensorrt_rtx": f"tensorrt_rtx --loadEngine={q(str(model))} {timing}",
        }
    plugin = q(str(library_path())) if key.plugin_sha256 else ""
    return {
        "polygraphy": run_engine + (f" --plugins {plugin}" if plugin else ""),
        "trtexec": f"trtexec --loadEngine={q(str(model))} {timing}"
        + (f" --dynamicPlugins={plugin}" if plugin else ""),
    }
