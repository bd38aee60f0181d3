"""The manifest of an engine (``.engine.json``): everything that its content depends on.

It prevents an engine from running with another TensorRT, GPU or plugin than it was built for.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Annotated, Any, TypeAlias

from ...common.errors import ModelError
from ...common.stored import Between, checked, from_stored
from .metadata import ModelMetadata

FORMAT_VERSION = 3
"""Raised whenever engines of the same key are built differently, so that older ones are rebuilt."""

TENSORRT, TENSORRT_RTX = "tensorrt", "tensorrt-rtx"
RUNTIMES = (TENSORRT, TENSORRT_RTX)
"""Runtimes that engines are built for; the second has no plugins."""

ANY_AMPERE, SAME_CAPABILITY = "ampere-plus", "same-compute-capability"
HARDWARE_COMPATIBILITY = (ANY_AMPERE, SAME_CAPABILITY)

ENGINE_SUFFIX = ".engine"

Size: TypeAlias = Annotated[int, Between(0, 2**63 - 1)]

Shapes: TypeAlias = dict[str, list[list[Size]]]
"""Smallest, best and largest shape of each input."""


@dataclass(frozen=True)
class EngineKey:
    """Everything that the content of an engine depends on.

    Attributes:
        runtime: one of :data:`RUNTIMES`.
        onnx_sha256: digest of the ONNX file.
        network_sha256: digest of the network that TensorRT parsed: the ONNX file with the plugin or the
            function body in place of the memory read, and with fixed extents.
        precision: ``float32`` or ``float16``, with ``+int8`` where the encoder is quantized.
        shapes: smallest, best and largest shape of each input.
        tensorrt_version: of the builder.
        compute_capability: of the GPU that it was tuned on, or of those it was compiled for, as ``sm86``.
        plugin_sha256: digest of the plugin library; empty when the function body was built in.
        optimization_level: of the builder; None for its default.
        workspace_mb: limit of scratch memory during the build, in MiB; None for all of the GPU's.
        version_compatible: runs on later TensorRT of the same major version.
        hardware_compatibility: one of :data:`HARDWARE_COMPATIBILITY`; empty for this model of GPU alone.
    """

    runtime: str
    onnx_sha256: str
    network_sha256: str
    precision: str
    shapes: Shapes
    tensorrt_version: str
    compute_capability: tuple[str, ...]
    plugin_sha256: str = ""
    optimization_level: Size | None = None
    workspace_mb: Size | None = None
    version_compatible: bool = False
    hardware_compatibility: str = ""

    def differences(self, other: EngineKey) -> list[str]:
        """What differs in ``other``, one phrase for each attribute or input shape."""
        ours, theirs = ({f.name: getattr(key, f.name) for f in fields(self)} for key in (self, other))
        for values in (ours, theirs):
            shapes = values.pop("shapes")
            values.update({f"the shape of {name}": shape for name, shape in shapes.items()})
        changed = [name for name in dict.fromkeys([*ours, *theirs]) if ours.get(name) != theirs.get(name)]
        if len(changed) > 1:  # the network's digest differs because something else does
            changed = [name for name in changed if name != "network_sha256"]
        return [f"{name} was {ours.get(name)} and is {theirs.get(name)}" for name in changed]


@dataclass(frozen=True)
class EngineManifest:
    """The JSON file in the engine's folder.

    Attributes:
        key: what the engine's content depends on.
        metadata: of the step graph it was built from.
        engine_sha256: digest of the engine file.
        memory: bytes by kind as the builder logged them: ``scratch``, ``activation``, ``weights``.
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
        """Check that the engine was built for this TensorRT, GPU and plugin.

        Args:
            tensorrt_version: of the TensorRT that would run it.
            compute_capability: of the GPU, as ``sm86``.
            plugin_sha256: digest of the plugin library, empty when none is used.

        Raises:
            ModelError: names what differs.
        """
        key, wrong = self.key, []
        if not _same_version(key, tensorrt_version):
            wrong.append(f"{key.runtime} {key.tensorrt_version} (here: {tensorrt_version})")
        if not _same_gpu(key, compute_capability):
            built = ", ".join(key.compute_capability)
            wrong.append(f"GPUs with compute capability {built} (here: {compute_capability})")
        if key.plugin_sha256 != plugin_sha256:
            here = plugin_sha256[:12] or "none"
            wrong.append(f"plugin library {key.plugin_sha256[:12] or 'none'} (here: {here})")
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


MAX_MANIFEST_BYTES = 1 << 22
"""Real manifests have a few thousand bytes."""


def read_manifest(engine: Path) -> EngineManifest:
    """Read the manifest of an engine.

    Raises:
        ModelError: when the engine or its manifest is missing, damaged or of another version.
    """
    path = manifest_path(engine)
    if not engine.is_file():
        raise ModelError(f"the engine {engine} does not exist", "check the path")
    try:
        if path.stat().st_size > MAX_MANIFEST_BYTES:
            raise ValueError("larger than any manifest")
        stored = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ModelError(
            f"the manifest {path} of the engine does not exist",
            f"copy it together with the engine, or {BUILD_AGAIN}",
        ) from error
    except (OSError, ValueError, RecursionError) as error:
        raise ModelError(f"{path} is damaged", BUILD_AGAIN) from error
    return _manifest(stored, path)


def read_engine(engine: Path, manifest: EngineManifest) -> bytes:
    """Read an engine and check it against its manifest.

    Raises:
        ModelError: when the file cannot be read, or its digest is not that of the manifest.
    """
    try:
        content = engine.read_bytes()
    except OSError as error:
        raise ModelError(
            f"the engine {engine} cannot be read ({error.strerror})", "check the path"
        ) from error
    if hashlib.sha256(content).hexdigest() != manifest.engine_sha256:
        raise ModelError(
            f"the engine {engine} does not match its manifest {manifest_path(engine)}", BUILD_AGAIN
        )
    return content


def _manifest(stored: Any, path: Path) -> EngineManifest:
    try:
        version = stored["format_version"]
        if version != FORMAT_VERSION:
            raise ModelError(
                f"{path} has format {version}, and this maskring reads format {FORMAT_VERSION}", BUILD_AGAIN
            )
        return EngineManifest(
            key=_checked_key(from_stored(EngineKey, stored["key"])),
            metadata=ModelMetadata.from_json(json.dumps(stored["metadata"]), str(path)),
            engine_sha256=checked(str, stored["engine_sha256"]),
            memory=checked(dict[str, Size], stored["memory"]),
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ModelError(f"{path} is damaged", BUILD_AGAIN) from error


def _checked_key(key: EngineKey) -> EngineKey:
    """``key``, or a ValueError when an attribute has not the form that :class:`EngineKey` describes."""
    sound = (
        key.runtime in RUNTIMES
        and key.hardware_compatibility in ("", *HARDWARE_COMPATIBILITY)
        and re.fullmatch(r"[0-9]{1,4}\.[0-9]{1,4}(\.[0-9a-z.+]*)?", key.tensorrt_version)
        and all(re.fullmatch("sm[0-9]{2,3}a?", name) for name in key.compute_capability)
        and all(len(bounds) == 3 for bounds in key.shapes.values())
    )
    if not sound:
        raise ValueError(f"not a key: {key}")
    return key
