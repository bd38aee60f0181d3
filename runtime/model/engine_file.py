"""What stands beside an engine: everything that decided its content, so that a wrong engine is never run."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from ...common.errors import ModelError
from .metadata import ModelMetadata

FORMAT_VERSION = 3
"""Changed, too, when engines of the same key are built in another way: older ones are named and replaced."""

TENSORRT, TENSORRT_RTX = "tensorrt", "tensorrt-rtx"
RUNTIMES = (TENSORRT, TENSORRT_RTX)
"""Runtimes that an engine can be for; the second takes no plugin."""

ANY_AMPERE, SAME_CAPABILITY = "ampere-plus", "same-compute-capability"
HARDWARE_COMPATIBILITY = (ANY_AMPERE, SAME_CAPABILITY)

ENGINE_SUFFIX = ".engine"
"""By which trackers know engines."""

Shapes = dict[str, list[list[int]]]


@dataclass(frozen=True)
class EngineKey:
    """Everything that decides what an engine computes and where it runs.

    Attributes:
        runtime: one of :data:`RUNTIMES`.
        onnx_sha256: digest of the ONNX file.
        network_sha256: digest of what TensorRT's parser was given: the file, its memory read bound to the
            plugin or in the body that the GPUs need, and extents that the profile fixes.
        precision: ``float32`` or ``float16``, with ``+int8`` where the encoder is quantized.
        shapes: of each input the smallest, the best and the largest one that the engine takes.
        tensorrt_version: of the builder.
        compute_capability: of the GPU that it was timed on, or those it was compiled for, as ``sm86``.
        plugin_sha256: digest of the plugin library; empty where the function body was built in.
        optimization_level: of the builder; None for its default.
        workspace_mb: limit of scratch memory while tactics are chosen; None for all of the GPU's.
        version_compatible: runs on later TensorRT of the same major version.
        hardware_compatibility: one of :data:`HARDWARE_COMPATIBILITY`; empty = this model of GPU alone.
    """

    runtime: str
    onnx_sha256: str
    network_sha256: str
    precision: str
    shapes: Shapes
    tensorrt_version: str
    compute_capability: tuple[str, ...]
    plugin_sha256: str = ""
    optimization_level: int | None = None
    workspace_mb: int | None = None
    version_compatible: bool = False
    hardware_compatibility: str = ""

    def differences(self, other: EngineKey) -> list[str]:
        """Sentences' parts that name what is not the same in ``other``, of shapes those that differ alone."""
        ours, theirs = ({f.name: getattr(key, f.name) for f in fields(self)} for key in (self, other))
        for values in (ours, theirs):
            shapes = values.pop("shapes")
            values.update({f"the shape of {name}": shape for name, shape in shapes.items()})
        changed = [name for name in dict.fromkeys([*ours, *theirs]) if ours.get(name) != theirs.get(name)]
        if len(changed) > 1:  # it follows from the others
            changed = [name for name in changed if name != "network_sha256"]
        return [f"{name} was {ours.get(name)} and is {theirs.get(name)}" for name in changed]


@dataclass(frozen=True)
class EngineManifest:
    """The JSON file beside an engine.

    Attributes:
        key: what decided its content.
        metadata: of the step graph it was built from.
        engine_sha256: digest of the engine file.
        memory: bytes that the builder's log speaks of: ``scratch``, ``activation``, ``weights``.
    """

    key: EngineKey
    metadata: ModelMetadata
    engine_sha256: str
    memory: dict[str, int]

    def to_json(self) -> str:
        """The manifest as JSON for people and programs."""
        metadata = json.loads(self.metadata.to_json())  # keys as exported models have them
        stored = {"format_version": FORMAT_VERSION, **asdict(self), "metadata": metadata}
        return json.dumps(stored, indent=2) + "\n"

    def check_runs_on(self, tensorrt_version: str, compute_capability: str, plugin_sha256: str) -> None:
        """Check that what is here is what the engine was built for.

        Args:
            tensorrt_version: of the TensorRT that would run it.
            compute_capability: of the GPU, as ``sm86``.
            plugin_sha256: digest of the plugin library, empty where none is used.

        Raises:
            ModelError: naming what differs.
        """
        key, wrong = self.key, []
        if not _same_version(key, tensorrt_version):
            wrong.append(f"{key.runtime} {key.tensorrt_version}, here is {tensorrt_version}")
        if not _same_gpu(key, compute_capability):
            built = ", ".join(key.compute_capability)
            wrong.append(f"GPUs with compute capability {built}, here is {compute_capability}")
        if key.plugin_sha256 != plugin_sha256:
            here = plugin_sha256[:12] or "none"
            wrong.append(f"plugin library {key.plugin_sha256[:12] or 'none'}, here is {here}")
        if wrong:
            raise ModelError(f"the engine was built for {' and for '.join(wrong)}", BUILD_AGAIN)


BUILD_AGAIN = "build it again on this machine: maskring build MODEL.onnx --out MODEL.engine"


def _same_version(key: EngineKey, running: str) -> bool:
    built = key.tensorrt_version.split(".")
    here = running.split(".")
    if not key.version_compatible:
        return built == here
    return built[0] == here[0] and [int(part) for part in here[:2]] >= [int(part) for part in built[:2]]


def _same_gpu(key: EngineKey, running: str) -> bool:
    if key.hardware_compatibility == ANY_AMPERE:
        return int(running.removeprefix("sm")) >= 80
    return running in key.compute_capability


def manifest_path(engine: Path) -> Path:
    """``model.engine`` -> ``model.engine.json``."""
    return engine.with_name(engine.name + ".json")


def sha256(path: Path) -> str:
    """Digest of a file's bytes, in hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


LARGEST_MANIFEST = 1 << 22
"""Bytes; those that are written have some thousand."""


def read_manifest(engine: Path) -> EngineManifest:
    """Read what stands beside an engine.

    Raises:
        ModelError: when the engine or the file beside it is missing or damaged, or not of this version.
    """
    path = manifest_path(engine)
    if not engine.is_file():
        raise ModelError(f"the engine {engine} does not exist", "check the path")
    try:
        if path.stat().st_size > LARGEST_MANIFEST:
            raise ValueError("nothing that was written is as large")
        stored = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ModelError(
            f"{path}, which says what {engine} was built for, does not exist",
            f"copy it together with the engine, or {BUILD_AGAIN}",
        ) from error
    except (OSError, ValueError, RecursionError) as error:
        raise ModelError(f"{path} is damaged", BUILD_AGAIN) from error
    return _manifest(stored, path)


def read_engine(engine: Path, manifest: EngineManifest) -> bytes:
    """The engine's bytes, once they are known to be those that were built.

    Raises:
        ModelError: when the file cannot be read or is not the one that the manifest speaks of.
    """
    try:
        content = engine.read_bytes()
    except OSError as error:
        raise ModelError(
            f"the engine {engine} cannot be read ({error.strerror})", "check the path"
        ) from error
    if hashlib.sha256(content).hexdigest() != manifest.engine_sha256:
        raise ModelError(f"{engine} is not the engine that {manifest_path(engine)} describes", BUILD_AGAIN)
    return content


def _manifest(stored: Any, path: Path) -> EngineManifest:
    try:
        version = stored["format_version"]
        if version != FORMAT_VERSION:
            raise ModelError(
                f"{path} has format {version}, this maskring reads format {FORMAT_VERSION}", BUILD_AGAIN
            )
        key = dict(stored["key"])
        if not (_plausible(key) and _is_text(stored["engine_sha256"]) and _sizes(stored["memory"])):
            raise ValueError("a value of another type than was written")
        key["compute_capability"] = tuple(key["compute_capability"])
        return EngineManifest(
            key=EngineKey(**key),
            metadata=ModelMetadata.from_json(json.dumps(stored["metadata"]), str(path)),
            engine_sha256=stored["engine_sha256"],
            memory=stored["memory"],
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ModelError(f"{path} is damaged", BUILD_AGAIN) from error


def _plausible(key: dict[str, Any]) -> bool:
    """Whether every value has the type and form that its attribute of :class:`EngineKey` promises."""
    built_for = key["compute_capability"]
    return (
        key["runtime"] in RUNTIMES
        and all(
            _is_text(key[name]) for name in ("onnx_sha256", "network_sha256", "precision", "plugin_sha256")
        )
        and _is_text(key["tensorrt_version"])
        and re.fullmatch(r"[0-9]{1,4}\.[0-9]{1,4}(\.[0-9a-z.+]*)?", key["tensorrt_version"]) is not None
        and isinstance(built_for, list)
        and all(_is_text(name) and re.fullmatch("sm[0-9]{2,3}a?", name) for name in built_for)
        and isinstance(key["shapes"], dict)
        and all(map(_is_range, key["shapes"].values()))
        and all(key[name] is None or _is_size(key[name]) for name in ("optimization_level", "workspace_mb"))
        and isinstance(key["version_compatible"], bool)
        and key["hardware_compatibility"] in ("", *HARDWARE_COMPATIBILITY)
    )


def _is_text(value: object) -> bool:
    return isinstance(value, str)


def _is_size(value: object) -> bool:
    return type(value) is int and 0 <= value < 2**63


def _is_range(shapes: object) -> bool:
    """Smallest, best and largest shape."""
    return isinstance(shapes, list) and len(shapes) == 3 and all(map(_is_shape, shapes))


def _is_shape(shape: object) -> bool:
    return isinstance(shape, list) and all(map(_is_size, shape))


def _sizes(memory: object) -> bool:
    return isinstance(memory, dict) and all(map(_is_size, memory.values()))
