"""Checkpoints: encoder weights with everything that is needed to use them, in one safetensors file."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from ..common.errors import ModelError
from ..common.filenames import require_utf8
from ..common.files import atomic_path, make_directory
from .network.encoder import Encoder, EncoderConfig, empty_encoder
from .torch_files import load_torch_file

FORMAT = "maskring-checkpoint"
FORMAT_VERSION = 1
"""Version of the file layout; a reader refuses files of another version."""

ANOTHER_FILE = "give a checkpoint written by maskring, or convert one with maskring import"
COPY_AGAIN = "copy or download the file again"

MOST_CHANNELS, MOST_BLOCKS, LARGEST_PATCH = 1 << 14, 1 << 8, 255
"""Of the encoders that files may describe."""

LARGEST = 2**31 - 1
"""Of the numbers in tracking defaults and provenance."""

SMOOTHING = 0.05
"""Scale of the read that smooths probabilities, in scales of the memory read."""

State = dict[str, Tensor]


@dataclass(frozen=True)
class AffinitySettings:
    """How the features of a checkpoint are to be compared (``windowed_affinity``'s settings).

    Attributes:
        radius: window radius, in features.
        scale: factor on inner products before the softmax.
        top_k: logits kept per pixel, 0 for all.
        localise: step of the search for window centres in dilated slots, 0 for none.
        smooth: radius of the smoothing behind the read, in features, 0 for none; both as in
            :class:`maskring.runtime.model.metadata.ModelMetadata`.
    """

    radius: int = 12
    scale: float = 0.125
    top_k: int = 0
    localise: int = 0
    smooth: int = 2


@dataclass(frozen=True)
class Provenance:
    """Where weights come from, for people.

    Attributes:
        recipe: name of the training recipe, or the work that published the weights.
        steps: optimiser steps taken.
        seed: seed of the run, None when unknown.
        data: what it was trained on.
        licence: terms of the weights.
    """

    recipe: str = ""
    steps: int = 0
    seed: int | None = None
    data: str = ""
    licence: str = ""


@dataclass(frozen=True)
class Checkpoint:
    """What a checkpoint file holds.

    Attributes:
        config: shape of the encoder.
        query: state of the query encoder, float32.
        key: state of the momentum (key) encoder, None when the file holds one encoder alone.
        tracking: defaults for tracking.
        provenance: where the weights come from.
    """

    config: EncoderConfig
    query: State
    key: State | None = None
    tracking: AffinitySettings = field(default_factory=AffinitySettings)
    provenance: Provenance = field(default_factory=Provenance)

    @property
    def digest(self) -> str:
        """Of the query encoder's weights, in hexadecimal; files that hold the same weights have the same."""
        hashed = hashlib.sha256(repr(self.config).encode())
        for name, tensor in sorted(self.query.items()):
            hashed.update(name.encode() + tensor.cpu().contiguous().numpy().tobytes())
        return hashed.hexdigest()

    def query_encoder(self) -> Encoder:
        """The query encoder with its weights, in evaluation mode."""
        return _encoder(self.config, self.query)

    def key_encoder(self) -> Encoder | None:
        """The momentum encoder with its weights, in evaluation mode; None when there is none."""
        return None if self.key is None else _encoder(self.config, self.key)


def _encoder(config: EncoderConfig, state: State) -> Encoder:
    encoder = Encoder(config)
    encoder.load_state_dict(state)
    return encoder.eval()


def save_checkpoint(path: Path, checkpoint: Checkpoint, half: bool = False) -> None:
    """Write ``checkpoint``; ``half`` stores convolution weights in half precision, half the size.

    Biases and normalisation statistics stay in float32: they are few, and variances may exceed float16.

    Raises:
        OutputError: when the file cannot be written; what stood at ``path`` is then untouched.
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
        "tracking": json.dumps(asdict(checkpoint.tracking)),
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
        ModelError: when the file is missing, not a maskring checkpoint, of another version, truncated, or
            when its tensors do not fit the encoder it describes.
    """
    if not path.is_file():
        raise ModelError(f"the checkpoint {path} does not exist", "check the path")
    require_utf8(path, ModelError, "safetensors")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            _check_format(metadata, path)
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
    except SafetensorError as error:
        raise ModelError(
            f"{path} is not a checkpoint or is truncated", f"{COPY_AGAIN}; {ANOTHER_FILE}"
        ) from error
    except OSError as error:
        raise ModelError(
            f"{path} cannot be read ({error.strerror or error})", "check its permissions"
        ) from error
    config = _config_from_json(metadata, path)
    tensors = {name: t.float() if t.is_floating_point() else t for name, t in tensors.items()}
    _check_tensors(tensors, config, str(path), COPY_AGAIN)
    return Checkpoint(
        config=config,
        query=_with_prefix(tensors, "query."),
        key=_with_prefix(tensors, "key.") or None,
        tracking=_from_json(AffinitySettings, metadata, "tracking", path),
        provenance=_from_json(Provenance, metadata, "provenance", path),
    )


def _check_format(metadata: Mapping[str, str], path: Path) -> None:
    if metadata.get("format") != FORMAT:
        raise ModelError(f"{path} is not a maskring checkpoint", ANOTHER_FILE)
    version = metadata.get("version")
    if version != str(FORMAT_VERSION):
        raise ModelError(
            f"{path} has checkpoint format {version}, this maskring reads format {FORMAT_VERSION}",
            "use the version of maskring that wrote it, or train again",
        )


Described = TypeVar("Described", AffinitySettings, Provenance)
ACCEPTED: dict[str, tuple[type, ...]] = {
    "int": (int,),
    "float": (int, float),
    "str": (str,),
    "int | None": (int, type(None)),
}


def _from_json(kind: type[Described], metadata: Mapping[str, str], entry: str, path: Path) -> Described:
    """Read one dataclass back; every field must be there with a value of its type."""
    try:
        stored: dict[str, Any] = json.loads(metadata[entry])
        if kind is AffinitySettings:  # files older than a setting do not tell it
            stored = {"localise": AffinitySettings.localise, "smooth": AffinitySettings.smooth} | stored
        if set(stored) != {item.name for item in fields(kind)}:
            raise ValueError(f"fields {sorted(stored)}")
        for item in fields(kind):
            value = stored[item.name]
            if not isinstance(value, ACCEPTED[str(item.type)]) or isinstance(value, bool):
                raise TypeError(f"{item.name} is {value!r}")
            if isinstance(value, (int, float)) and not 0 <= value <= LARGEST:
                raise ValueError(f"{item.name} is {value!r}")
        return kind(**stored)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise ModelError(f"the {entry} entry of {path} is damaged", COPY_AGAIN) from error


def _config_from_json(metadata: Mapping[str, str], path: Path) -> EncoderConfig:
    try:
        stored = json.loads(metadata["encoder"])
        return EncoderConfig(
            stem=_whole(stored["stem"], MOST_CHANNELS),
            stages=tuple(_whole(width, MOST_CHANNELS) for width in stored["stages"]),  # type: ignore[arg-type]
            blocks=tuple(_whole(depth, MOST_BLOCKS) for depth in stored["blocks"]),  # type: ignore[arg-type]
            channels=_whole(stored["channels"], MOST_CHANNELS),
            inputs=_whole(stored.get("inputs", 3), 3),
            patch=_whole(stored.get("patch", 0), LARGEST_PATCH),
            pyramid=_flag(stored.get("pyramid", False)),
        )
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise ModelError(f"the encoder entry of {path} is damaged", COPY_AGAIN) from error


def _whole(value: object, most: int) -> int:
    """``value``, if it is a whole number from 0 to ``most``: a header may not ask for a giant's memory."""
    if type(value) is not int or not 0 <= value <= most:
        raise ValueError(value)
    return value


def _flag(value: object) -> bool:
    if type(value) is not bool:
        raise ValueError(value)
    return value


def _check_tensors(tensors: State, config: EncoderConfig, origin: str, remedy: str) -> None:
    """Names, shapes and finiteness of everything, against the encoder that ``config`` describes."""
    expected = empty_encoder(config).state_dict()
    owners = ("query", "key") if any(name.startswith("key.") for name in tensors) else ("query",)
    wanted = {f"{owner}.{name}": tensor.shape for owner in owners for name, tensor in expected.items()}
    missing = [name for name in wanted if name not in tensors]
    unexpected = [name for name in tensors if name not in wanted]
    for what, names in (("lacks", missing), ("holds the unknown", unexpected)):
        if names:
            raise ModelError(f"{origin} {what} {_some(names)}", remedy)
    for name, tensor in tensors.items():
        if tensor.shape != wanted[name]:
            shapes = f"{list(tensor.shape)} instead of {list(wanted[name])}"
            raise ModelError(f"in {origin}, {name} has shape {shapes}", remedy)
        if not bool(torch.isfinite(tensor).all()):
            raise ModelError(f"in {origin}, {name} holds values that are not finite", remedy)


def _some(names: list[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _with_prefix(tensors: State, prefix: str) -> State:
    return {name.removeprefix(prefix): t for name, t in tensors.items() if name.startswith(prefix)}


def import_mast(path: Path) -> tuple[Checkpoint, list[str]]:
    """Read a checkpoint published for MAST (CVPR 2020, github.com/zlai0/MAST).

    Args:
        path: a torch file with an entry ``state_dict`` (or that mapping alone), names with or without
            ``module.`` in front. Only tensors are unpickled, never code.

    Returns:
        The checkpoint, and the names in the file that did not fit our encoder, as they stand there.
        Tracking defaults are MAST's own: radius 12, logits not scaled (it was trained so).

    Raises:
        ModelError: when the file cannot be read, is no such checkpoint, or lacks part of the encoder.
    """
    stored = _read_torch_file(path)
    config = EncoderConfig.preset("full")
    expected = empty_encoder(config).state_dict()
    state: State = {}
    leftovers = []
    for key, value in stored.items():
        name = _our_name(key)
        if name in expected and isinstance(value, Tensor) and value.shape == expected[name].shape:
            state[name] = value.detach().to(expected[name].dtype)
        else:
            leftovers.append(key)
    for name, tensor in expected.items():
        if name.endswith("num_batches_tracked"):  # torch before 0.4.1 did not count batches
            state.setdefault(name, torch.zeros_like(tensor, device="cpu"))
    missing = [name for name in expected if name not in state]
    if missing:
        unused = f"; not used: {_some(leftovers)}" if leftovers else ""
        raise ModelError(
            f"{path} lacks {len(missing)} of MAST's {len(expected)} tensors ({_some(missing)}){unused}",
            "give a checkpoint published for MAST with its ResNet-18 encoder",
        )
    # Compared without a scale and not smoothed, as its authors did.
    published = AffinitySettings(scale=1.0, smooth=0)
    return Checkpoint(config, state, tracking=published, provenance=Provenance("MAST")), leftovers


def _read_torch_file(path: Path) -> Mapping[str, Any]:
    remedy = f"give a checkpoint published for MAST (.pth, .pt), or {COPY_AGAIN}"
    if not path.is_file():
        raise ModelError(f"the checkpoint {path} does not exist", "check the path")
    try:
        stored = load_torch_file(path, "cpu")
    except Exception as error:  # the unpickler meets damaged bytes with any exception there is
        raise ModelError(
            f"{path} is not a torch checkpoint of tensors alone, or is damaged", remedy
        ) from error
    if isinstance(stored, Mapping) and isinstance(stored.get("state_dict"), Mapping):
        stored = stored["state_dict"]
    if not isinstance(stored, Mapping) or not all(isinstance(key, str) for key in stored):
        raise ModelError(f"{path} holds no state_dict", remedy)
    return stored


def _our_name(key: str) -> str:
    """MAST's name of a tensor in our encoder's terms; a name without counterpart comes back as it is."""
    while key.startswith("module."):
        key = key.removeprefix("module.")
    owner, _, rest = key.partition(".")
    if owner == "post_convolution":
        return f"head.{rest}"
    part, _, rest = rest.partition(".")
    if owner == "feature_extraction" and part == "conv1":
        return f"stem.{rest}"
    if owner == "feature_extraction" and part in ("layer1", "layer2", "layer3", "layer4"):
        return f"stages.{int(part[-1]) - 1}.{rest.replace('.left.', '.residual.')}"
    return key
