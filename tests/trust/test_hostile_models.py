"""Models, manifests and checkpoints that are well formed and yet a trap: each once ended in a traceback or worse."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import onnx
import pytest
from support import TINY_ENCODER, moving_square, write_tiny_checkpoint
from trust.damage import DEEP
from user_errors import raises_user_error

from maskring.common.errors import ModelError, TrainingError

if TYPE_CHECKING:
    pass


def rewritten_checkpoint(path: Path, **entries: str) -> Path:
    """A tiny checkpoint whose header says something else."""
    data = write_tiny_checkpoint(path).read_bytes()
    (length,) = struct.unpack_from("<Q", data)
    header = json.loads(data[8 : 8 + length])
    header["__metadata__"] |= entries
    packed = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(packed)) + packed + data[8 + length :])
    return path


TRACKING = {"radius": 12, "logit_scale": 0.125, "top_k": 0, "roi_step": 0, "smoothing_radius": 2}


@pytest.mark.parametrize(
    "entries",
    [
        {"encoder": DEEP},
        {"tracking": DEEP},
        {"tracking": json.dumps("text")},
        {"encoder": json.dumps(TINY_ENCODER | {"stem": float("inf")})},
        {"encoder": json.dumps(TINY_ENCODER | {"blocks": [1, 1, 1, 10**18]})},
        {"encoder": json.dumps(TINY_ENCODER | {"channels": 10**18})},
        {"encoder": json.dumps(TINY_ENCODER | {"patch": 10**9 + 1, "channels": 64})},
        {"encoder": json.dumps(TINY_ENCODER | {"stem": "8"})},
        {"tracking": json.dumps(TRACKING | {"radius": -5})},
        {"tracking": json.dumps(TRACKING | {"radius": 10**18})},
        {"tracking": json.dumps(TRACKING | {"logit_scale": float("nan")})},
        {"tracking": json.dumps(TRACKING | {"radius": True})},
    ],
)
def test_checkpoint_header(tmp_path: Path, entries: dict[str, str]) -> None:
    from maskring.training.checkpoint import load_checkpoint

    with raises_user_error(ModelError, mentions=("tiny.safetensors",)):
        load_checkpoint(rewritten_checkpoint(tmp_path / "tiny.safetensors", **entries))


REDRAW = "1\x1b[2J\x1b[1;1H\r\nall is well\u202e"
"""Words of a file that would clear the terminal and speak in maskring's place."""


def test_words_of_files_do_not_steer_the_terminal(tmp_path: Path) -> None:
    from maskring.models import provenance
    from maskring.training.checkpoint import load_checkpoint
    from maskring.training.recipe import parse_recipe

    path = rewritten_checkpoint(tmp_path / "tiny.safetensors", version=REDRAW)
    with raises_user_error(ModelError, mentions=("tiny.safetensors", "all is well")) as refused:
        load_checkpoint(path)
    assert str(refused.value).isprintable()
    with raises_user_error(TrainingError, mentions=("all is well",)) as refused_recipe:
        parse_recipe(f"{json.dumps(REDRAW)} = 1", "mine")
    assert str(refused_recipe.value).isprintable()
    said = json.dumps({"recipe": REDRAW, "steps": 1, "seed": 1, "data": REDRAW, "licence": ""})
    assert provenance(rewritten_checkpoint(path, provenance=said)).isprintable()


def test_words_of_files_that_never_end(tmp_path: Path) -> None:
    from maskring.training.checkpoint import load_checkpoint

    path = rewritten_checkpoint(tmp_path / "tiny.safetensors", version="9" * 10**6)
    with raises_user_error(ModelError, mentions=("tiny.safetensors", "version")) as refused:
        load_checkpoint(path)
    assert len(str(refused.value)) < 2500


def test_refiner_header(tmp_path: Path) -> None:
    from maskring.runtime.refinement.network.checkpoint import load_predictor, save_predictor
    from maskring.runtime.refinement.network.predictor import Predictor

    path = tmp_path / "refiner.safetensors"
    predictor = Predictor.untrained(8, seed=0)
    predictor.follow([1], seed=0)
    save_predictor(path, predictor)
    data = path.read_bytes()
    (length,) = struct.unpack_from("<Q", data)
    header = json.loads(data[8 : 8 + length])
    header["__metadata__"]["unet"] = DEEP
    packed = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(packed)) + packed + data[8 + length :])
    with raises_user_error(ModelError, mentions=(path,)):
        load_predictor(path)


def manifest_text(**changes: Any) -> str:
    from maskring.runtime.model.engine_file import EngineKey, EngineManifest
    from maskring.runtime.model.metadata import ModelMetadata

    shapes = {"frame": [[1], [1], [1]]}
    key = EngineKey("tensorrt", "0" * 64, "0" * 64, "float16", shapes, "10.3.0", ("sm87",))
    metadata = ModelMetadata(stride=4, channels=64, radius=12, logit_scale=0.125)
    stored = json.loads(EngineManifest(key, metadata, "0" * 64, {"scratch": 1}).to_json())
    for name, value in changes.items():
        holder = stored["key"] if name in stored["key"] else stored
        holder[name] = value
    return json.dumps(stored)


@pytest.mark.parametrize(
    "changes",
    [
        {"tensorrt_version": 10},
        {"tensorrt_version": "x.y"},
        {"tensorrt_version": "10.3a"},
        {"compute_capability": [{}]},
        {"compute_capability": "sm87"},
        {"compute_capability": ["87"]},
        {"plugin_sha256": True},
        {"memory": {"scratch": float("inf")}},
        {"memory": {"scratch": "many"}},
        {"shapes": {"frame": [[1]]}},
        {"shapes": {"frame": "abc"}},
        {"runtime": "another"},
        {"hardware_compatibility": "all"},
        {"optimization_level": "5"},
        {"version_compatible": "no"},
        {"engine_sha256": None},
    ],
)
def test_manifest(tmp_path: Path, changes: dict[str, Any]) -> None:
    from maskring.runtime.model.engine_file import manifest_path, read_manifest

    engine = tmp_path / "model.engine"
    engine.write_bytes(b"engine")
    manifest_path(engine).write_text(manifest_text())
    read_manifest(engine)
    manifest_path(engine).write_text(manifest_text(**changes))
    with raises_user_error(ModelError, mentions=(manifest_path(engine).name,)):
        read_manifest(engine)


def test_manifest_of_gigabytes(tmp_path: Path) -> None:
    """Refused before it is read: the file has no content, and fills no disk."""
    from maskring.runtime.model.engine_file import manifest_path, read_manifest

    engine = tmp_path / "model.engine"
    engine.write_bytes(b"engine")
    with manifest_path(engine).open("wb") as file:
        file.truncate(1 << 40)
    with raises_user_error(ModelError, mentions=(manifest_path(engine).name,)):
        read_manifest(engine)


@pytest.fixture(scope="module")
def model(exported: Path) -> onnx.ModelProto:
    return onnx.load(exported)


def step_through(model: onnx.ModelProto, path: Path) -> None:
    from maskring.runtime.backends import open_backend
    from maskring.runtime.tracking.tracker import Tracker

    path.write_bytes(model.SerializeToString())
    frame, mask = moving_square(0)
    with Tracker(open_backend(path, threads=1)) as tracker:
        tracker.step(frame, mask)


def read_of(model: onnx.ModelProto) -> onnx.NodeProto:
    return next(node for node in model.graph.node if node.op_type == "WindowedAffinity")


def set_attribute(name: str, value: Any) -> Callable[[onnx.ModelProto], None]:
    def change(model: onnx.ModelProto) -> None:
        read = read_of(model)
        for attribute in [attribute for attribute in read.attribute if attribute.name == name]:
            read.attribute.remove(attribute)
        if value is not None:
            read.attribute.append(onnx.helper.make_attribute(name, value))

    return change


def set_metadata(**changes: Any) -> Callable[[onnx.ModelProto], None]:
    def change(model: onnx.ModelProto) -> None:
        entry = next(entry for entry in model.metadata_props if entry.key == "maskring")
        entry.value = json.dumps(json.loads(entry.value) | changes)

    return change


@pytest.mark.parametrize(
    "change",
    [
        set_attribute("radius", None),
        set_attribute("scale", None),
        set_attribute("radius", -1),
        set_attribute("radius", 2**31),
        set_attribute("radius", 2.5),
        set_attribute("radius", "two"),
        set_attribute("radius", [1, 2]),
        set_attribute("scale", -1.0),
        set_attribute("scale", float("nan")),
        set_attribute("scale", float("inf")),
        set_attribute("top_k", -1),
        set_attribute("top_k", 2**40),
        set_metadata(channels=10**18),
        set_metadata(channels=9),
        set_metadata(stride=10**18),
        set_metadata(slots=10**18),
        set_metadata(short_term=[10**18]),
        set_metadata(long_term=list(range(10**5))),
    ],
)
def test_step_graph(
    model: onnx.ModelProto, tmp_path: Path, change: Callable[[onnx.ModelProto], None]
) -> None:
    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    step_through(changed, tmp_path / "sound.onnx")
    change(changed)
    with pytest.raises(ModelError):
        step_through(changed, tmp_path / "hostile.onnx")


def test_names_that_are_no_text(
    model: onnx.ModelProto, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """onnxruntime hands the name of an unknown operator back, and it is no UTF-8."""
    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    next(node for node in changed.graph.node if node.op_type == "Conv").op_type = "Convolved"
    path = tmp_path / "hostile.onnx"
    path.write_bytes(changed.SerializeToString().replace(b"Convolved", b"Convolv\xf4d"))
    from maskring.runtime.backends import open_backend

    with pytest.raises(ModelError):
        open_backend(path, threads=1)
    assert capfd.readouterr() == ("", "")


def test_metadata_of_every_type_is_an_object() -> None:
    from maskring.runtime.model.metadata import ModelMetadata

    sound = asdict(ModelMetadata(stride=4, channels=64, radius=12, logit_scale=0.125))
    assert ModelMetadata.from_json(json.dumps(sound), "m").channels == 64
    for text in (DEEP, "[]", "null", '"x"', "1" * 5000, json.dumps([["format_version", 1]])):
        with pytest.raises(ModelError):
            ModelMetadata.from_json(text, "m")
