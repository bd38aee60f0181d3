"""Every reader of files that maskring has, with a sound file of its kind to damage."""

from __future__ import annotations

import json
import random
import struct
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from support import HEIGHT, WIDTH, moving_square, write_tiny_checkpoint
from trust.damage import STRANGE_VALUES, as_json, damaged_bytes, damaged_document

Attack = Callable[[random.Random], None]


@dataclass(frozen=True)
class Target:
    """A reader under attack.

    Attributes:
        prepare: given a folder to work in, returns the attack: one damaged file, read.
        most_mb: by which the peak of resident memory may grow, whatever the file says.
    """

    prepare: Callable[[Path], Attack]
    most_mb: int = 300


def _files(path: Path, originals: list[bytes], read: Callable[[Path], object]) -> Attack:
    """Byte damage to one of several sound files, written to ``path``."""

    def attack(rng: random.Random) -> None:
        path.write_bytes(damaged_bytes(rng.choice(originals), rng))
        read(path)

    return attack


def masks(folder: Path) -> Attack:
    from png_chunks import read_chunks, write_chunks

    from maskring.runtime.video.masks import read_mask, write_mask

    path = folder / "mask.png"
    mask = moving_square(0)[1]
    write_mask(path, mask)
    originals = [path.read_bytes(), cv2.imencode(".png", mask)[1].tobytes()]
    colours = np.repeat(mask[..., None] * 200, 4, 2)
    originals += [cv2.imencode(".png", colours[..., :channels])[1].tobytes() for channels in (3, 4)]

    def attack(rng: random.Random) -> None:
        data = rng.choice(originals)
        if rng.random() < 0.5:  # damage that the checksums do not show
            chunks = read_chunks(data)[:-1]
            at = rng.randrange(len(chunks))
            chunks[at] = (chunks[at][0], damaged_bytes(chunks[at][1], rng))
            data = write_chunks(chunks)
        else:
            data = damaged_bytes(data, rng)
        path.write_bytes(data)
        read_mask(path, allow_empty=rng.random() < 0.5)

    return attack


def images(folder: Path) -> Attack:
    from maskring.runtime.video.images import read_image
    from maskring.runtime.video.opencv import silence_opencv

    silence_opencv()
    frame = moving_square(0)[0]
    originals = [cv2.imencode(suffix, frame)[1].tobytes() for suffix in (".png", ".jpg", ".bmp", ".webp")]
    return _files(folder / "frame.png", originals, read_image)


def metadata(folder: Path) -> Attack:
    from maskring.runtime.model.metadata import ModelMetadata

    sound = ModelMetadata(stride=4, channels=64, radius=12, logit_scale=0.125)
    document, text = asdict(sound), sound.to_json()

    def attack(rng: random.Random) -> None:
        if rng.random() < 0.7:
            damaged = as_json(damaged_document(document, rng), rng)
        else:
            damaged = damaged_bytes(text.encode(), rng).decode("utf-8", "surrogateescape")
        ModelMetadata.from_json(damaged, "model.onnx")

    return attack


def models(folder: Path) -> Attack:
    """Damaged exported models, opened and run on two frames where they open."""
    from maskring.export.onnx_export import export_onnx
    from maskring.runtime.backends import open_backend
    from maskring.runtime.tracking.tracker import Tracker

    model = folder / "sound.onnx"
    if not model.exists():
        export_onnx(write_tiny_checkpoint(folder / "tiny.safetensors"), model, radius=2)
    sound, path = model.read_bytes(), folder / "damaged.onnx"
    frame, mask = moving_square(0)

    def attack(rng: random.Random) -> None:
        wound = rng.choice((_damaged_metadata, _damaged_graph, damaged_bytes))
        path.write_bytes(wound(sound, rng))
        kernel = "native" if rng.random() < 0.8 else "function"
        tracker = Tracker(open_backend(path, kernel=kernel, threads=1))  # type: ignore[arg-type]
        with tracker:
            tracker.step(frame, mask)
            tracker.step(frame)

    return attack


def _damaged_metadata(data: bytes, rng: random.Random) -> bytes:
    import onnx

    model = onnx.load_model_from_string(data)
    entry = next(entry for entry in model.metadata_props if entry.key == "maskring")
    damaged = as_json(damaged_document(json.loads(entry.value), rng), rng)
    entry.value = damaged.encode("utf-8", "replace").decode()
    return bytes(model.SerializeToString())


def _damaged_graph(data: bytes, rng: random.Random) -> bytes:
    """A file that is sound as a file: names, attributes, operators and shapes are not."""
    import onnx

    model = onnx.load_model_from_string(data)
    for _ in range(rng.choice((1, 2, 4))):
        nodes = list(model.graph.node)
        reads = [node for node in nodes if node.op_type == "WindowedAffinity"] or nodes
        node = rng.choice(reads if rng.random() < 0.4 else nodes)
        kind = rng.randrange(6)
        if kind == 0 and node.attribute:
            attribute = rng.choice(node.attribute)
            attribute.i = rng.choice((0, -1, 1, 2**31 - 1, 2**31, 2**62))
            attribute.f = rng.choice((0.0, -1.0, float("nan"), float("inf"), 1e38))
        elif kind == 1 and node.attribute:
            del node.attribute[rng.randrange(len(node.attribute))]
        elif kind == 2 and node.input:
            node.input[rng.randrange(len(node.input))] = rng.choice((*rng.choice(nodes).output, "", "frame"))
        elif kind == 3:
            node.op_type = rng.choice(nodes).op_type
        elif kind == 4 and model.graph.initializer:
            weight = rng.choice(model.graph.initializer)
            if weight.dims:
                weight.dims[rng.randrange(len(weight.dims))] = rng.choice((0, 1, 3, -1, 2**40))
        else:
            value = rng.choice([*model.graph.input, *model.graph.output])
            dimensions = value.type.tensor_type.shape.dim
            if dimensions:
                rng.choice(dimensions).dim_value = rng.choice((0, 1, 2, 7, 2**40))
    return bytes(model.SerializeToString())


def _safetensors(
    data: bytes, rng: random.Random, entries: tuple[str, ...] = ("encoder", "tracking", "provenance")
) -> bytes:
    """Byte damage, or a damaged header that the file's own parser accepts."""
    if rng.random() < 0.5:
        return damaged_bytes(data, rng)
    (length,) = struct.unpack_from("<Q", data)
    header = json.loads(data[8 : 8 + length])
    about = header["__metadata__"]
    entry = rng.choice(entries)
    if rng.random() < 0.8:
        about[entry] = as_json(damaged_document(json.loads(about[entry]), rng), rng)
    else:
        header = damaged_document(header, rng)
    packed = json.dumps(header).encode()
    return struct.pack("<Q", len(packed)) + packed + data[8 + length :]


def checkpoints(folder: Path) -> Attack:
    from maskring.training.checkpoint import load_checkpoint

    sound = write_tiny_checkpoint(folder / "tiny.safetensors").read_bytes()
    path = folder / "damaged.safetensors"

    def attack(rng: random.Random) -> None:
        path.write_bytes(_safetensors(sound, rng))
        load_checkpoint(path).query_encoder()

    return attack


def refiners(folder: Path) -> Attack:
    from maskring.runtime.refinement.network.checkpoint import load_predictor, save_predictor
    from maskring.runtime.refinement.network.predictor import Predictor

    path = folder / "refiner.safetensors"
    predictor = Predictor.untrained(8, seed=0)
    predictor.follow([1, 2], seed=0)
    save_predictor(path, predictor)
    sound = path.read_bytes()

    def attack(rng: random.Random) -> None:
        path.write_bytes(_safetensors(sound, rng, ("unet",)))
        load_predictor(path)

    return attack


def recipes(folder: Path) -> Attack:
    import maskring.training.recipe as module
    from maskring.training.recipe import load_recipe, recipe_names

    path = folder / "recipe.toml"
    shipped = Path(module.__file__).parent / "recipes"
    texts = [(shipped / f"{name}.toml").read_bytes() for name in recipe_names()]
    settings = list(asdict(load_recipe("nano")).items())

    def attack(rng: random.Random) -> None:
        if rng.random() < 0.5:
            path.write_bytes(damaged_bytes(rng.choice(texts), rng))
        else:
            lines = [f"{name} = {_toml(value, rng)}" for name, value in rng.sample(settings, 3)]
            path.write_text("\n".join(lines), "utf-8", "replace")
        load_recipe(str(path))

    return attack


def _toml(value: Any, rng: random.Random) -> str:
    wound = rng.random()
    if wound < 0.1:
        return "[" * 5000 + "]" * 5000
    if wound < 0.3:
        return rng.choice(("nan", "inf", "-inf", "1e400", "9" * 5000, "1979-05-27", "{a.b.c = 1}"))
    chosen = rng.choice(STRANGE_VALUES) if wound < 0.8 else value
    return "1" if chosen is None else json.dumps(chosen, ensure_ascii=False)


def pickles(folder: Path) -> Attack:
    """Torch files: published checkpoints and saved training states."""
    import torch

    from maskring.training.mast_import import import_mast
    from maskring.training.network.encoder import Encoder, EncoderConfig

    path = folder / "mast.pth"
    config = EncoderConfig(stem=8, stages=(8, 8, 8, 8), blocks=(1, 1, 1, 1), channels=8)
    torch.manual_seed(0)
    originals = []
    for legacy in (False, True):
        weights = {"state_dict": Encoder(config).state_dict()}
        torch.save(weights, path, _use_new_zipfile_serialization=not legacy)
        originals.append(path.read_bytes())
    return _files(path, originals, import_mast)


def states(folder: Path) -> Attack:
    """The state of an interrupted training run; a damaged one is never taken for a sound one."""
    import torch

    from maskring.common.errors import TrainingError
    from maskring.training import trainer as module
    from maskring.training.distributed import DistributedContext
    from maskring.training.network.encoder import EncoderConfig
    from maskring.training.recipe import Recipe
    from maskring.training.trainer import Trainer

    config = EncoderConfig(stem=8, stages=(8, 8, 8, 8), blocks=(1, 1, 1, 1), channels=8)
    module.PRESETS = {**module.PRESETS, "nano": config}
    recipe = Recipe("tiny", encoder="nano", ema=0.5)
    world = DistributedContext(0, 1, torch.device("cpu"))
    path = folder / "state.pt"
    Trainer(recipe, world).save(path)
    sound = path.read_bytes()

    def attack(rng: random.Random) -> None:
        data = damaged_bytes(sound, rng)
        path.write_bytes(data)
        try:
            resumed = Trainer.resume(recipe, world, path)
        except TrainingError:
            return
        fresh = Trainer(recipe, world)
        same = all(
            torch.equal(mine, its)
            for mine, its in zip(*(t.query.state_dict().values() for t in (fresh, resumed)), strict=True)
        )
        assert same and resumed.step == 0, "a damaged state was taken for a sound one"

    return attack


def manifests(folder: Path) -> Attack:
    from trust import fuzz

    (text, *_), read = fuzz.manifests(folder)

    def attack(rng: random.Random) -> None:
        if rng.random() < 0.8:
            read(as_json(damaged_document(json.loads(text), rng), rng).encode("utf-8", "replace"))
        else:
            read(damaged_bytes(text, rng))

    return attack


def datasets(folder: Path) -> Attack:
    """Split lists and annotation folders in DAVIS layout."""
    from maskring.runtime.evaluation.annotations import Annotations
    from maskring.runtime.evaluation.datasets import load_split
    from maskring.runtime.video.masks import write_mask

    names = ["a", "b"]
    for name in names:
        for kind in ("JPEGImages", "Annotations"):
            (folder / kind / "480p" / name).mkdir(parents=True, exist_ok=True)
        for index in range(3):
            image, mask = moving_square(index)
            cv2.imwrite(str(folder / "JPEGImages" / "480p" / name / f"{index:05d}.jpg"), image)
            write_mask(folder / "Annotations" / "480p" / name / f"{index:05d}.png", mask)
    lists = folder / "ImageSets" / "2017"
    lists.mkdir(parents=True, exist_ok=True)
    annotation = folder / "Annotations" / "480p" / "a" / "00001.png"
    sound = annotation.read_bytes()
    lines = [
        b"a",
        b"b",
        b"",
        b"a/../b",
        b"/",
        b"..",
        b"\0",
        b"x" * 300,
        b"x" * 5000,
        b"\xff\xfe",
        "ä".encode(),
    ]

    def attack(rng: random.Random) -> None:
        chosen = [rng.choice(lines[:2]), *(rng.choice(lines) for _ in range(rng.randrange(3)))]
        text = b"\n".join(chosen)
        (lists / "val.txt").write_bytes(text if rng.random() < 0.8 else damaged_bytes(text, rng))
        annotation.write_bytes(damaged_bytes(sound, rng) if rng.random() < 0.5 else sound)
        for sequence in load_split(folder, "val"):
            annotations = Annotations.of(sequence)
            annotations.introduced(annotations.start)

    return attack


def segments(folder: Path) -> Attack:
    """Cached frames, with checksums that fit as often as not."""
    import zlib

    from maskring.training.frame_cache import HEAD, MAGIC, FrameCache, Segment

    sound = Segment((b"first", b"second", b"third"), (0, 2)).to_bytes()
    cache = FrameCache(folder, 1 << 20)

    def attack(rng: random.Random) -> None:
        data = damaged_bytes(sound, rng)
        if rng.random() < 0.5:
            body = data[HEAD.size :]
            data = HEAD.pack(MAGIC, zlib.crc32(body)) + body
        (folder / "key.frames").write_bytes(data)
        segment = cache.load("key")
        assert segment is None or segment.size <= len(data), "frames that are not in the file"

    return attack


def videos(folder: Path) -> Attack:
    from maskring.runtime.video.open_source import open_source
    from maskring.runtime.video.opencv import silence_opencv

    silence_opencv()
    originals = []
    for suffix, codec in ((".mp4", "mp4v"), (".avi", "MJPG"), (".mkv", "mp4v")):
        path = folder / f"sound{suffix}"
        writer = cv2.VideoWriter(
            str(path), cv2.CAP_FFMPEG, cv2.VideoWriter.fourcc(*codec), 24.0, (WIDTH, HEIGHT)
        )
        for index in range(6):
            writer.write(moving_square(index)[0])
        writer.release()
        originals.append(path.read_bytes())

    def read(path: Path) -> None:
        with open_source(path) as source:
            for count, _ in enumerate(source):
                assert count < 2000, "frames without end"

    return _files(folder / "clip.mp4", originals, read)


TARGETS = {
    "masks": Target(masks, most_mb=1200),  # 2^27 pixels, as colours, and then as indices
    "images": Target(images, most_mb=1200),
    "metadata": Target(metadata),
    "models": Target(models, most_mb=600),
    "checkpoints": Target(checkpoints),
    "refiners": Target(refiners, most_mb=600),
    "recipes": Target(recipes),
    "pickles": Target(pickles),
    "states": Target(states),
    "manifests": Target(manifests),
    "datasets": Target(datasets),
    "segments": Target(segments),
    "videos": Target(videos, most_mb=600),
}
