"""What files can say that is well formed and yet a trap: each once ended in a traceback, a hang or worse."""

from __future__ import annotations

import json
import struct
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import onnx
import pytest
from PIL import Image
from support import moving_square, write_tiny_checkpoint
from user_errors import raises_user_error

from maskring.common.errors import MaskError, ModelError, SourceError, TrainingError

if TYPE_CHECKING:
    from maskring.training.trainer import Trainer

DEEP = "[" * 100_000


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
ENCODER = {"stem": 8, "stages": [8, 8, 8, 8], "blocks": [1, 1, 1, 1], "channels": 8}


@pytest.mark.parametrize(
    "entries",
    [
        {"encoder": DEEP},
        {"tracking": DEEP},
        {"tracking": json.dumps("text")},
        {"encoder": json.dumps(ENCODER | {"stem": float("inf")})},
        {"encoder": json.dumps(ENCODER | {"blocks": [1, 1, 1, 10**18]})},
        {"encoder": json.dumps(ENCODER | {"channels": 10**18})},
        {"encoder": json.dumps(ENCODER | {"patch": 10**9 + 1, "channels": 64})},
        {"encoder": json.dumps(ENCODER | {"stem": "8"})},
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


@pytest.mark.parametrize(
    "text",
    [
        "steps = " + "9" * 5000,
        "steps = " + DEEP,
        "learning_rate = inf",
        "learning_rate = 1" + "0" * 400,
        "clip_norm = nan",
        "distortion = nan",
        "delta = inf",
        "steps = 100000000000000000000",
        "steps = 0x" + "f" * 6000,
        "encoder = 0x" + "f" * 6000,
        "encoder = [0x" + "f" * 6000 + "]",
        "learning_rate = -0x" + "f" * 6000,
        "radius = 4294967296",
    ],
)
def test_recipe(text: str) -> None:
    from maskring.training.recipe import parse_recipe

    with pytest.raises(TrainingError):
        parse_recipe(text, "mine")


@pytest.mark.parametrize("content", [b"\0", b"\xff\xfe", b"steps = '\xff'"])
def test_recipe_file(tmp_path: Path, content: bytes) -> None:
    from maskring.training.recipe import load_recipe

    (tmp_path / "recipe.toml").write_bytes(content)
    with raises_user_error(TrainingError, mentions=("recipe",)):
        load_recipe(str(tmp_path / "recipe.toml"))


def test_recipe_of_a_name_too_long() -> None:
    from maskring.training.recipe import load_recipe

    with raises_user_error(TrainingError, mentions=("xxx",)):
        load_recipe("x" * 5000)


@pytest.mark.parametrize(
    "body", [b"", b"\1", struct.pack("<I", 2**31), struct.pack("<II", 1, 9) + b"\0short"]
)
def test_cached_frames(tmp_path: Path, body: bytes) -> None:
    """The checksum fits, the content does not."""
    from maskring.training.frame_cache import HEAD, MAGIC, FrameCache

    (tmp_path / "key.frames").write_bytes(HEAD.pack(MAGIC, zlib.crc32(body)) + body)
    assert FrameCache(tmp_path, 1 << 20).load("key") is None
    assert not (tmp_path / "key.frames").exists()


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


@pytest.mark.parametrize("name", ["x" * 300, "..", "/", "/etc", "a/../../b", ".", "a\0b"])
def test_names_in_split_lists(tmp_path: Path, name: str) -> None:
    """A sequence's name becomes a folder of results: it must not lead anywhere else."""
    from maskring.runtime.evaluation.datasets import load_split

    for folder in ("JPEGImages", "Annotations", "ImageSets"):
        (tmp_path / folder / "a").mkdir(parents=True)
    (tmp_path / "ImageSets" / "val.txt").write_text(f"{name}\n")
    with raises_user_error(SourceError, mentions=("val.txt",)):
        load_split(tmp_path, "val")


def giant_images() -> dict[str, bytes]:
    """Some kilobytes that claim to be 30000 x 30000 pixels."""
    tiny = np.zeros((8, 8, 3), np.uint8)
    png = bytearray(cv2.imencode(".png", tiny)[1].tobytes())
    png[16:24] = struct.pack(">II", 30000, 30000)
    png[29:33] = struct.pack(">I", zlib.crc32(png[12:29]))
    jpeg = bytearray(cv2.imencode(".jpg", tiny)[1].tobytes())
    at = jpeg.index(b"\xff\xc0")
    jpeg[at + 5 : at + 9] = struct.pack(">HH", 30000, 30000)
    bmp = bytearray(cv2.imencode(".bmp", tiny)[1].tobytes())
    bmp[18:26] = struct.pack("<ii", 30000, -30000)
    tiff = bytearray(cv2.imencode(".tif", tiny)[1].tobytes())
    for tag in (256, 257):  # width, height: kind, count, value
        at = tiff.index(struct.pack("<HH", tag, 3))
        tiff[at : at + 12] = struct.pack("<HHII", tag, 4, 1, 30000)
    return {"png": bytes(png), "jpg": bytes(jpeg), "bmp": bytes(bmp), "tif": bytes(tiff)}


@pytest.mark.parametrize("suffix", ["png", "jpg", "bmp", "tif"])
def test_giant_image(tmp_path: Path, suffix: str) -> None:
    """As a frame to track, and to learn from."""
    from maskring.runtime.video.images import read_image

    path = tmp_path / f"giant.{suffix}"
    path.write_bytes(giant_images()[suffix])
    with raises_user_error(SourceError, mentions=(path.name, "30000")):
        read_image(path)


def test_giant_video(tmp_path: Path) -> None:
    """A few bytes of GIF that FFmpeg would unpack to gigabytes."""
    from maskring.runtime.video.open_source import open_source
    from maskring.training.clips import read_frames

    image = Image.fromarray(moving_square(0)[0])
    image.save(tmp_path / "clip.gif")
    content = bytearray((tmp_path / "clip.gif").read_bytes())
    struct.pack_into("<HH", content, 6, 16000, 16000)
    (tmp_path / "clip.gif").write_bytes(content)
    with raises_user_error(SourceError, mentions=("clip.gif", "megapixels")):
        open_source(tmp_path / "clip.gif")
    assert list(read_frames(tmp_path / "clip.gif", 0, 1)) == []


def test_half_a_jpeg(tmp_path: Path) -> None:
    """The decoder fills what is missing with grey: a frame that was half copied would be tracked."""
    from maskring.runtime.video.images import read_image

    path = tmp_path / "half.jpg"
    data = cv2.imencode(".jpg", moving_square(0)[0])[1].tobytes()
    path.write_bytes(data + b"\0" * 16)  # some cameras pad
    read_image(path)
    path.write_bytes(data[: len(data) // 2])
    with raises_user_error(SourceError, mentions=("half.jpg",)):
        read_image(path)


def test_video_that_claims_two_billion_frames(tmp_path: Path) -> None:
    from maskring.runtime.video.open_source import open_source

    path = tmp_path / "clip.avi"
    writer = cv2.VideoWriter(str(path), cv2.CAP_FFMPEG, cv2.VideoWriter.fourcc(*"MJPG"), 24.0, (64, 48))
    for index in range(6):
        writer.write(moving_square(index)[0])
    writer.release()
    data = bytearray(path.read_bytes())
    for at in (data.index(b"avih") + 8 + 16, data.index(b"strh") + 8 + 32):
        data[at : at + 4] = struct.pack("<I", 2**31 - 1)
    path.write_bytes(data)
    with open_source(path) as source:
        assert source.length is not None and source.length > 10**8
        assert sum(1 for _ in source) == 6
        assert source.undecodable > 10**8


def saved_state(path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], Trainer]:
    """Save a tiny trainer's state; returns what resumes it."""
    import torch

    from maskring.training import trainer as module
    from maskring.training.distributed import DistributedContext
    from maskring.training.network.encoder import EncoderConfig
    from maskring.training.recipe import Recipe
    from maskring.training.trainer import Trainer

    config = EncoderConfig(stem=8, stages=(8, 8, 8, 8), blocks=(1, 1, 1, 1), channels=8)
    monkeypatch.setattr(module, "PRESETS", {**module.PRESETS, "nano": config})
    recipe, world = Recipe("tiny", encoder="nano"), DistributedContext(0, 1, torch.device("cpu"))
    Trainer(recipe, world).save(path)
    return lambda: Trainer.resume(recipe, world, path)


def test_training_state_with_one_bit_flipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """torch reads such a file without a word."""
    import torch

    path = tmp_path / "state.pt"
    resume = saved_state(path, monkeypatch)
    sound, weights = path.read_bytes(), list(resume().query.state_dict().values())
    seen = 0
    for place in range(10, len(sound), len(sound) // 40):
        flipped = bytearray(sound)
        flipped[place] ^= 16
        path.write_bytes(flipped)
        try:
            restored = resume()
        except TrainingError:
            seen += 1
            continue
        # It hit a date or the padding between tensors.
        assert all(map(torch.equal, weights, restored.query.state_dict().values())), place
    assert seen > 10


def test_training_state_whose_tensors_are_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Torch would hand out memory that nobody wrote."""
    import torch

    path = tmp_path / "state.pt"
    resume = saved_state(path, monkeypatch)
    weights = list(resume().query.state_dict().values())
    data = bytearray(path.read_bytes())
    with zipfile.ZipFile(path) as archive:
        entry = archive.start_dir
        for listed in archive.infolist():
            assert data[entry : entry + 4] == b"PK\1\2"
            data[entry + 38] |= 0x10  # MS-DOS's attribute of folders
            entry += 46 + len(listed.filename) + len(listed.extra) + len(listed.comment)
    path.write_bytes(data)
    assert all(map(torch.equal, weights, resume().query.state_dict().values()))


def test_training_state_that_is_compressed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Torch compresses nothing: whoever does may have packed a bomb."""
    path = tmp_path / "state.pt"
    resume = saved_state(path, monkeypatch)
    with zipfile.ZipFile(path) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in entries.items():
            archive.writestr(name, content)
    with raises_user_error(TrainingError, mentions=(path,)):
        resume()


@pytest.mark.parametrize("broken", ["query", "optimiser", "step", "palette"])
def test_training_state_of_other_content(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, broken: str
) -> None:
    import torch

    path = tmp_path / "state.pt"
    resume = saved_state(path, monkeypatch)
    state = torch.load(path, weights_only=True)
    state[broken] = {"a": 1} if broken != "step" else "ten"
    torch.save(state, path)
    with raises_user_error(TrainingError, mentions=(path,)):
        resume()


def test_training_log_that_is_no_text(tmp_path: Path) -> None:
    from maskring.training.run_log import RunLog

    (tmp_path / "log.jsonl").write_bytes(b'{"step": 1}\n\xff\xfe\n{"st')
    RunLog(tmp_path, 1, tensorboard=False).close()
    assert (tmp_path / "log.jsonl").read_bytes() == b'{"step": 1}\n'


def test_mask_of_a_name_too_long(tmp_path: Path) -> None:
    from maskring.runtime.video.masks import read_mask

    with pytest.raises(MaskError):
        read_mask(tmp_path / ("x" * 300 + ".png"))


def test_metadata_of_every_type_is_an_object() -> None:
    from maskring.runtime.model.metadata import ModelMetadata

    sound = asdict(ModelMetadata(stride=4, channels=64, radius=12, logit_scale=0.125))
    assert ModelMetadata.from_json(json.dumps(sound), "m").channels == 64
    for text in (DEEP, "[]", "null", '"x"', "1" * 5000, json.dumps([["format_version", 1]])):
        with pytest.raises(ModelError):
            ModelMetadata.from_json(text, "m")
