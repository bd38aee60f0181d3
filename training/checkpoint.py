"""Checkpoints: encoder weights and every setting needed to use them, in one safetensors file."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from safetensors.torch import save
from torch import Tensor

from ..common.errors import ModelError
from ..common.files import atomic_path, make_directory
from ..runtime.model.metadata import without_unused
from .checkpoint_header import COPY_AGAIN as COPY_AGAIN
from .checkpoint_header import (
    FORMAT,
    FORMAT_VERSION,
    json_entry,
    open_checkpoint,
    parsed,
    provenance,
    tracking_settings,
)
from .checkpoint_header import AffinitySettings as AffinitySettings
from .checkpoint_header import Provenance as Provenance
from .network.encoder import Encoder, EncoderConfig, empty_encoder

State = dict[str, Tensor]


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
        ModelError: when the file is missing, truncated, not a maskring checkpoint or of a later format, or when
            its tensors do not fit the encoder that it describes.
    """
    with open_checkpoint(path, "pt") as (file, metadata):
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
    config = _encoder_config(metadata, path)
    tensors = {name: t.float() if t.is_floating_point() else t for name, t in tensors.items()}
    _check_tensors(tensors, config, str(path), COPY_AGAIN)
    return Checkpoint(
        config=config,
        query=_with_prefix(tensors, "query."),
        key=_with_prefix(tensors, "key.") or None,
        tracking=tracking_settings(metadata, path),
        provenance=provenance(metadata, path),
    )


def _encoder_config(metadata: Mapping[str, str], path: Path) -> EncoderConfig:
    """The encoder of a checkpoint; files of older versions lack the later settings."""
    stored = json_entry(metadata, "encoder", path)
    if isinstance(stored, dict):
        stored = {"inputs": 3, "patch": 0, "pyramid": False} | stored
    return parsed(EncoderConfig, stored, "encoder", path)


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
