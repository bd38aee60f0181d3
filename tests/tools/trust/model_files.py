"""Attacks on readers of models, checkpoints and the manifests of engines."""

from __future__ import annotations

import json
import random
import struct
from dataclasses import asdict
from pathlib import Path

from support import TINY_ENCODER, export_tiny_model, moving_square, write_tiny_checkpoint
from trust.damage import Attack, as_json, attack_files, damaged_bytes, damaged_document


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
    from maskring.runtime.backends import open_backend
    from maskring.runtime.tracking.tracker import Tracker

    model = folder / "sound.onnx"
    if not model.exists():
        export_tiny_model(folder).rename(model)
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


def pickles(folder: Path) -> Attack:
    """Torch files: published checkpoints and saved training states."""
    import torch

    from maskring.training.mast_import import import_mast
    from maskring.training.network.encoder import Encoder, EncoderConfig

    path = folder / "mast.pth"
    config = EncoderConfig(**TINY_ENCODER)
    torch.manual_seed(0)
    originals = []
    for legacy in (False, True):
        weights = {"state_dict": Encoder(config).state_dict()}
        torch.save(weights, path, _use_new_zipfile_serialization=not legacy)
        originals.append(path.read_bytes())
    return attack_files(path, originals, import_mast)


def manifests(folder: Path) -> Attack:
    from trust import fuzz

    (text, *_), read = fuzz.manifests(folder)

    def attack(rng: random.Random) -> None:
        if rng.random() < 0.8:
            read(as_json(damaged_document(json.loads(text), rng), rng).encode("utf-8", "replace"))
        else:
            read(damaged_bytes(text, rng))

    return attack
