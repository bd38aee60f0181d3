"""Coverage-guided attacks on the parsers of maskring's own formats.

``python -m trust.fuzz --seconds 60 --corpus FOLDER [FORMAT...]`` attacks each format in a process of its own:
atheris (libFuzzer) mutates files so that they reach code not reached before. Anything but a value or a
``UserError`` of one line is a defect; its input is kept as ``FOLDER/FORMAT/crash-*``, and replayed by
``python -m trust.fuzz --corpus FOLDER FORMAT --replay FILE``. What is worth keeping for all becomes a test.

Checksums and lengths around a format would stop nearly all mutations, so they are made anew: what is mutated
is what they protect. Damage of checksums themselves is the business of
``media.py``, ``model_files.py`` and ``training_files.py``.
"""

from __future__ import annotations

import argparse
import importlib
import json
import re
import struct
import subprocess
import sys
import tempfile
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

MOST_MB, SECONDS_PER_INPUT, LONGEST = 2560, 20, 1 << 16
"""Resident memory (torch alone takes some hundreds), time and bytes of an input."""

LONGEST_MESSAGE = 4000

ROOT = Path(__file__).resolve().parents[3]

MEMORY = Path("/dev/shm")
"""Where it is there, files that are written for every input are not sent to a disk."""

WORDS = (
    "NaN",
    "-Infinity",
    "1e400",
    "null",
    "true",
    "[[",
    "]]",
    "{}",
    "\\\\u0000",
    "\\\\ud800",
    "0x1",
    "inf",
    "\\x1b[",
)
"""Beside those of the first inputs, for the mutations to use."""

Read = Callable[[bytes], object]


@dataclass(frozen=True)
class Format:
    """A format of maskring's own.

    Attributes:
        prepare: given a folder to work in, returns inputs to begin with, and what reads one.
        modules: whose coverage guides.
    """

    prepare: Callable[[Path], tuple[list[bytes], Read]]
    modules: tuple[str, ...]


def masks(folder: Path) -> tuple[list[bytes], Read]:
    """PNG chunks; their checksums are made anew."""
    import cv2
    import numpy as np
    from png_chunks import SIGNATURE, write_chunks
    from support import moving_square

    from maskring.runtime.video.masks import encode_mask, read_mask

    mask = moving_square(0)[1][::4, ::4].copy()
    colours = np.repeat(mask[..., None] * 200, 4, 2)
    pictures = [mask * 255, mask.astype(np.uint16) * 999, colours, colours[..., :3]]
    path = folder / "mask.png"

    def read(data: bytes) -> object:
        chunks, at = [], len(SIGNATURE)
        while at + 12 <= len(data) and len(chunks) < 100:
            (length,) = struct.unpack_from(">I", data, at)
            chunks.append((data[at + 4 : at + 8], data[at + 8 : at + 8 + length]))
            at += 12 + length
        path.write_bytes(write_chunks(chunks))
        return read_mask(path, allow_empty=len(data) % 2 == 0)

    return [encode_mask(mask), *(cv2.imencode(".png", each)[1].tobytes() for each in pictures)], read


def metadata(folder: Path) -> tuple[list[bytes], Read]:
    from maskring.runtime.model.metadata import ModelMetadata

    sound = [ModelMetadata(4, 64, 12, 0.125), ModelMetadata(4, 8, 3, 1.0, 5, 2, 9, 48, 64, 3, "float16")]

    def read(data: bytes) -> object:
        return ModelMetadata.from_json(data.decode("utf-8", "replace"), "model.onnx").to_json()

    return [each.to_json().encode() for each in sound], read


def manifests(folder: Path) -> tuple[list[bytes], Read]:
    """The file beside an engine, compared with a machine."""
    from maskring.runtime.model.engine_file import (
        EngineKey,
        EngineManifest,
        manifest_path,
        read_manifest,
    )
    from maskring.runtime.model.metadata import ModelMetadata

    engine = folder / "model.engine"
    engine.write_bytes(b"engine")
    shapes = {"frame": [[1, 2], [1, 2], [1, 2]]}
    key = EngineKey("tensorrt", "0" * 64, "0" * 64, "float16", shapes, "10.3.0", ("sm87",))
    manifest = EngineManifest(key, ModelMetadata(4, 64, 12, 0.125), "0" * 64, {"scratch": 1})
    other = json.loads(manifest.to_json())
    other["key"] |= {"version_compatible": True, "hardware_compatibility": "ampere-plus"}

    def read(data: bytes) -> object:
        manifest_path(engine).write_bytes(data)
        found = read_manifest(engine)
        found.key.differences(key)
        return found.check_runs_on("10.3.0", "sm87", "")

    return [manifest.to_json().encode(), json.dumps(other).encode()], read


def recipes(folder: Path) -> tuple[list[bytes], Read]:
    import maskring.training.recipe as module

    path = folder / "recipe.toml"
    shipped = Path(module.__file__).parent / "recipes"

    def read(data: bytes) -> object:
        path.write_bytes(data)
        return module.load_recipe(str(path)).to_json()

    return [(shipped / f"{name}.toml").read_bytes() for name in module.recipe_names()], read


def checkpoints(folder: Path) -> tuple[list[bytes], Read]:
    """The header of a checkpoint, in front of sound weights."""
    from support import write_tiny_checkpoint

    from maskring.training.checkpoint import load_checkpoint

    path = folder / "checkpoint.safetensors"
    sound = write_tiny_checkpoint(path).read_bytes()
    return _headed(path, sound, lambda: load_checkpoint(path).query_encoder())


def refiners(folder: Path) -> tuple[list[bytes], Read]:
    """The header of an adapted U-Net, in front of sound weights."""
    from maskring.runtime.refinement.network.checkpoint import load_predictor, save_predictor
    from maskring.runtime.refinement.network.predictor import Predictor

    path = folder / "refiner.safetensors"
    predictor = Predictor.untrained(8, seed=0)
    predictor.follow([1, 2], seed=0)
    save_predictor(path, predictor)
    return _headed(path, path.read_bytes(), lambda: load_predictor(path))


def _headed(path: Path, sound: bytes, load: Callable[[], object]) -> tuple[list[bytes], Read]:
    """Inputs are the entries of safetensors' ``__metadata__``, one a line, or the whole header."""
    (length,) = struct.unpack_from("<Q", sound)
    header, weights = json.loads(sound[8 : 8 + length]), sound[8 + length :]
    about = header["__metadata__"]
    names = sorted(about)

    def read(data: bytes) -> object:
        packed = data
        if not data.startswith(b"{"):
            lines = data.decode("utf-8", "replace").split("\n")
            packed = json.dumps({**header, "__metadata__": dict(zip(names, lines, strict=False))}).encode()
        path.write_bytes(struct.pack("<Q", len(packed)) + packed + weights)
        return load()

    return ["\n".join(about[name] for name in names).encode(), json.dumps(header).encode()], read


def segments(folder: Path) -> tuple[list[bytes], Read]:
    """Cached frames; their checksum is made anew."""
    from maskring.training.frame_cache import HEAD, MAGIC, FrameCache, Segment

    cache = FrameCache(folder, 1 << 20)
    sound = [Segment((b"first", b"", b"third"), (0, 2)).to_bytes(), Segment((), ()).to_bytes()]

    def read(data: bytes) -> object:
        (folder / "key.frames").write_bytes(HEAD.pack(MAGIC, zlib.crc32(data)) + data)
        return cache.load("key")

    return [each[HEAD.size :] for each in sound], read


FORMATS = {
    "masks": Format(masks, ("maskring.runtime.video.masks", "PIL.PngImagePlugin")),
    "metadata": Format(metadata, ("maskring.runtime.model.metadata",)),
    "manifests": Format(manifests, ("maskring.runtime.model.engine_file", "maskring.runtime.model.metadata")),
    "recipes": Format(recipes, ("maskring.training.recipe", "tomllib")),
    "checkpoints": Format(
        checkpoints, ("maskring.training.checkpoint_header", "maskring.training.network.encoder")
    ),
    "refiners": Format(refiners, ("maskring.runtime.refinement.network.checkpoint",)),
    "segments": Format(segments, ("maskring.training.frame_cache",)),
}


def attack(read: Read, data: bytes) -> None:
    """Read one input.

    Raises:
        AssertionError: when the refusal is not one sentence.
        BaseException: whatever else the reader lets through.
    """
    from maskring.common.errors import UserError

    try:
        read(data)
    except UserError as error:
        text = str(error)
        assert text.isprintable() and text.endswith(".") and len(text) < LONGEST_MESSAGE, text[:300]


def expose(folder: Path) -> None:
    """Let maskring be imported as plain files, and JSON be read by Python code: both can be instrumented."""
    (folder / "maskring").mkdir()
    packages = [ROOT / name for name in ("common", "plugins", "runtime", "training", "export")]
    for path in (*(ROOT / "src" / "maskring").iterdir(), *packages):
        (folder / "maskring" / path.name).symlink_to(path)
    sys.meta_path[:] = [finder for finder in sys.meta_path if "ScikitBuild" not in type(finder).__name__]
    sys.path.insert(0, str(folder))
    for module in [module for module in sys.modules if module.partition(".")[0] == "json"]:
        del sys.modules[module]
    sys.modules["_json"] = None  # type: ignore[assignment]


def dictionary(path: Path, seeds: Sequence[bytes]) -> str:
    """The option for libFuzzer that names a file of the formats' words."""
    words = {word for seed in seeds for word in re.findall(rb"[A-Za-z_]{3,30}", seed[:20_000])}
    known = [*WORDS, *sorted(word.decode() for word in words)[:400]]
    path.write_text("".join(f'"{word}"\n' for word in known))
    return f"-dict={path}"


def fuzz(name: str, corpus: Path, seconds: int, folder: Path) -> None:
    """Attack one format in this process, working in a new folder; never returns."""
    import atheris

    chosen = FORMATS[name]
    expose(folder)
    with atheris.instrument_imports(include=["json", *chosen.modules]):
        for module in ("json", *chosen.modules):
            importlib.import_module(module)
    corpus.mkdir(parents=True, exist_ok=True)
    seeds, read = chosen.prepare(folder)
    for number, seed in enumerate(seeds):
        (corpus / f"seed-{number}").write_bytes(seed)
    limits = [f"-max_total_time={seconds}", f"-rss_limit_mb={MOST_MB}", f"-timeout={SECONDS_PER_INPUT}"]
    where = [dictionary(folder / "words", seeds), f"-artifact_prefix={corpus}/", str(corpus)]
    atheris.Setup(
        [sys.argv[0], *limits, f"-max_len={LONGEST}", "-print_final_stats=1", *where],
        lambda data: attack(read, data),
    )
    atheris.Fuzz()


def fuzz_all(names: Sequence[str], corpus: Path, seconds: int) -> int:
    """Attack formats one after the other; returns how many gave in."""
    failed = 0
    for name in names:
        command = [
            sys.executable,
            "-m",
            "trust.fuzz",
            name,
            "--seconds",
            str(seconds),
            "--corpus",
            str(corpus),
        ]
        with tempfile.TemporaryDirectory(dir=MEMORY if MEMORY.is_dir() else None) as folder:
            alone = [*command, "--alone", folder]
            done = subprocess.run(alone, stderr=subprocess.PIPE, text=True, errors="replace", check=False)
        stats = dict(line[6:].split(": ") for line in done.stderr.splitlines() if line.startswith("stat::"))
        covered = [line for line in done.stderr.splitlines() if " cov: " in line]
        coverage = covered[-1].split(" cov: ")[1].split()[0] if covered else "?"
        runs, peak = (stats.get(key, "?").strip() for key in ("number_of_executed_units", "peak_rss_mb"))
        verdict = "ok" if done.returncode == 0 else f"FAILED ({done.returncode})"
        print(f"{name}: {runs} inputs, {coverage} edges, peak {peak} MB: {verdict}", flush=True)
        if done.returncode != 0:
            failed += 1
            print(done.stderr[-4000:], flush=True)
    return failed


def main() -> None:
    parser = argparse.ArgumentParser(prog="trust.fuzz")
    parser.add_argument("formats", nargs="*", metavar="FORMAT", default=list(FORMATS))
    parser.add_argument("--seconds", type=int, default=60)
    parser.add_argument("--corpus", type=Path, required=True)
    parser.add_argument("--alone", type=Path, metavar="FOLDER")
    parser.add_argument("--replay", type=Path)
    chosen = parser.parse_args()
    if chosen.replay is not None:
        with tempfile.TemporaryDirectory() as folder:
            attack(FORMATS[chosen.formats[0]].prepare(Path(folder))[1], chosen.replay.read_bytes())
    elif chosen.alone is not None:
        name = chosen.formats[0]
        fuzz(name, (chosen.corpus / name).resolve(), chosen.seconds, chosen.alone)
    else:
        raise SystemExit(1 if fuzz_all(chosen.formats, chosen.corpus, chosen.seconds) else 0)


if __name__ == "__main__":
    main()
