"""Checkpoints: encoder weights and every setting needed to use them, in one safetensors file."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any, TypeAlias, TypeVar

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from ..common.errors import ModelError
from ..common.files import atomic_path, check_utf8, make_directory
from ..common.stored import Between, from_stored
from ..runtime.model.metadata import with_current_names, without_unused
from .network.encoder import Encoder, EncoderConfig, empty_encoder

FORMAT = "maskring-checkpoint"
FORMAT_VERSION = 2
"""Version of the files that are written. :func:`_tracking_settings` reads format 1 of maskring 0.1.0, too."""

READABLE_VERSIONS = ("1", "2")

NOT_OURS = "give a checkpoint written by maskring, or convert one with maskring import"
COPY_AGAIN = "copy or download the file again"

State = dict[str, Tensor]
Parsed = TypeVar("Parsed")

Setting: TypeAlias = Annotated[int, Between(0, 2**31 - 1)]


@dataclass(frozen=True)
class AffinitySettings:
    """How tracking compares the features of a checkpoint (settings of ``windowed_affinity``).

    Attributes:
        radius: window radius, in features.
        logit_scale: factor on inner products before the softmax.
        top_k: logits kept per pixel, 0 for all.
        roi_step: step of the search for window centres in dilated slots, 0 for none.
        smoothing_radius: radius of the smoothing read, in features, 0 for none.
        guided_filter_radius: radius of the filter that fits edges to colours, in features, 0 for none; this,
            ``roi_step`` and ``smoothing_radius`` as in :class:`maskring.runtime.model.metadata.ModelMetadata`.
    """

    radius: Setting = 12
    logit_scale: Annotated[float, Between(0, 2**31 - 1)] = 0.125
    top_k: Setting = 0
    roi_step: Setting = 0
    smoothing_radius: Setting = 2
    guided_filter_radius: Setting = 0


@dataclass(frozen=True)
class Provenance:
    """Where weights come from, for people.

    Attributes:
        recipe: name of the training recipe, or of the work that published the weights.
        steps: optimiser steps taken.
        seed: seed of the run, None when unknown.
        data: what the weights were trained on.
        licence: terms of the weights.
    """

    recipe: str = ""
    steps: Setting = 0
    seed: Setting | None = None
    data: str = ""
    licence: str = ""


@dataclass(frozen=True)
class Checkpoint:
    """What a checkpoint file holds.

    Attributes:
        config: shape of the encoder.
        query: state of the query encoder, float32.
        key: state of the momentum (key) encoder, None when there is none.
        tracking: settings that tracking uses unless the user overrides them.
        provenance: where the weights come from.
    """

    config: EncoderConfig
    query: State
    key: State | None = None
    tracking: AffinitySettings = field(default_factory=AffinitySettings)
    provenance: Provenance = field(default_factory=Provenance)

    @property
    def digest(self) -> str:
        """SHA-256 of the query encoder's shape and weights, in hexadecimal."""
        hashed = hashlib.sha256(repr(self.config).encode())
        for name, tensor in sorted(self.query.items()):
            hashed.update(name.encode() + tensor.cpu().contiguous().numpy().tobytes())
        return hashed.hexdigest()

    def query_encoder(self) -> Encoder:
        """The query encoder with its weights, in evaluation mode."""
        encoder = Encoder(self.config)
        encoder.load_state_dict(self.query)
        return encoder.eval()


def save_checkpoint(path: Path, checkpoint: Checkpoint, half: bool = False) -> None:
    """Write ``checkpoint`` to ``path``.

    Args:
        path: the ``.safetensors`` to write; missing folders are made.
        checkpoint: what to write.
        half: store convolution weights in float16, which halves the file. Biases and normalisation statistics
            stay in float32: they are few, and variances may exceed float16.

    Raises:
        OutputError: when the file cannot be written; an existing file is then untouched.
        ModelError: when the weights do not fit the configuration or are not finite.
    """
    tensors = {f"query.{name}": tensor for name, tensor in checkpoint.query.items()}
    tensors |= {f"key.{name}": tensor for name, tensor in (checkpoint.key or {}).items()}
    _check_tensors(tensors, checkpoint.config, "the checkpoint to be written", "train or import it again")
    stored = {name: _storable(tensor, half) for name, tensor in tensors.items()}
    metadata = {
        "format": FORMAT,
        "version": str(FORMAT_VERSION),
        "encoder": json.dumps(asdict(checkpoint.config)),
        "tracking": json.dumps(without_unused(asdict(checkpoint.tracking))),
        "provenance": json.dumps(asdict(checkpoint.provenance)),
    }
    make_directory(path.parent)
    with atomic_path(path, flush=True) as partial:
        partial.write_bytes(save(stored, metadata))


def _storable(tensor: Tensor, half: bool) -> Tensor:
    tensor = tensor.detach().cpu().contiguous()
    return tensor.half() if half and tensor.dim() > 1 else tensor


def load_checkpoint(path: Path) -> Checkpoint:
    """Read and validate a checkpoint; weights come back in float32.

    Raises:
        ModelError: when the file is missing, truncated, not a maskring checkpoint or of a later format, or
        when
            its tensors do not fit the encoder that it describes.
    """
    if not path.is_file():
        raise ModelError(f"the checkpoint {path} does not exist", "check the path")
    check_utf8(path, ModelError, "safetensors")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            _check_format(metadata, path)
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
    except SafetensorError as error:
        raise ModelError(
            f"{path} is not a checkpoint or is truncated", f"{COPY_AGAIN}; {NOT_OURS}"
        ) from error
    except OSError as error:
        raise ModelError(
            f"{path} cannot be read ({error.strerror or error})", "check its permissions"
        ) from error
    config = _encoder_config(metadata, path)
    tensors = {name: t.float() if t.is_floating_point() else t for name, t in tensors.items()}
    _check_tensors(tensors, config, str(path), COPY_AGAIN)
    return Checkpoint(
        config=config,
        query=_with_prefix(tensors, "query."),
        key=_with_prefix(tensors, "key.") or None,
        tracking=_tracking_settings(metadata, path),
        provenance=_parsed(Provenance, _json_entry(metadata, "provenance", path), "provenance", path),
    )


def _check_format(metadata: Mapping[str, str], path: Path) -> None:
    if metadata.get("format") != FORMAT:
        raise ModelError(f"{path} is not a maskring checkpoint", NOT_OURS)
    version = metadata.get("version")
    if version not in READABLE_VERSIONS:
        raise ModelError(
            f"{path} has checkpoint format {version}, this maskring reads formats up to {FORMAT_VERSION}",
            "use the version of maskring that wrote it, or train again",
        )


def _tracking_settings(metadata: Mapping[str, str], path: Path) -> AffinitySettings:
    """The tracking settings of a checkpoint.

    Format 2 states every setting. Format 1 may lack two, and maskring 0.1.0 tracked such files without a
    search and with a smoothing radius of 2; so they mean the same here. Old names of settings are read in
    both.
    """
    stored = _json_entry(metadata, "tracking", path)
    try:
        stored = with_current_names(stored)
    except (ValueError, AttributeError) as error:
        raise _damaged("tracking", path) from error
    if metadata["version"] == "1":
        stored = {"roi_step": 0, "smoothing_radius": 2} | stored
    return _parsed(AffinitySettings, stored, "tracking", path)


def _json_entry(metadata: Mapping[str, str], entry: str, path: Path) -> Any:
    try:
        return json.loads(metadata[entry])
    except (ValueError, KeyError, RecursionError) as error:
        raise _damaged(entry, path) from error


def _damaged(entry: str, path: Path) -> ModelError:
    return ModelError(f"the {entry} entry of {path} is damaged", COPY_AGAIN)


def _parsed(kind: type[Parsed], stored: object, entry: str, path: Path) -> Parsed:
    try:
        return from_stored(kind, stored)
    except ValueError as error:
        raise _damaged(entry, path) from error


def _encoder_config(metadata: Mapping[str, str], path: Path) -> EncoderConfig:
    """The encoder of a checkpoint; files of older versions lack the later settings."""
    stored = _json_entry(metadata, "encoder", path)
    if isinstance(stored, dict):
        stored = {"inputs": 3, "patch": 0, "pyramid": False} | stored
    return _parsed(EncoderConfig, stored, "encoder", path)


def _check_tensors(tensors: State, config: EncoderConfig, origin: str, remedy: str) -> None:
    """Check names, shapes and finiteness of all tensors against the encoder that ``config`` describes."""
    template = empty_encoder(config).state_dict()
    owners = ("query", "key") if any(name.startswith("key.") for name in tensors) else ("query",)
    shapes = {f"{owner}.{name}": tensor.shape for owner in owners for name, tensor in template.items()}
    missing = [name for name in shapes if name not in tensors]
    unexpected = [name for name in tensors if name not in shapes]
    for what, names in (("lacks", missing), ("holds the unknown", unexpected)):
        if names:
            raise ModelError(f"{origin} {what} {abbreviated(names)}", remedy)
    for name, tensor in tensors.items():
        if tensor.shape != shapes[name]:
            both = f"{list(tensor.shape)} instead of {list(shapes[name])}"
            raise ModelError(f"in {origin}, {name} has shape {both}", remedy)
        if not bool(torch.isfinite(tensor).all()):
            raise ModelError(f"in {origin}, {name} holds values that are not finite", remedy)


def abbreviated(names: list[str]) -> str:
    """The first three of ``names``, and how many more there are."""
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _with_prefix(tensors: State, prefix: str) -> State:
    return {name.removeprefix(prefix): t for name, t in tensors.items() if name.startswith(prefix)}
