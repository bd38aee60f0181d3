"""Adapted U-Nets on disk: to refine the next video from there, or to be exported."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from ....common.errors import ModelError
from ....common.files import atomic_path, check_utf8, make_directory
from ....common.stored import Between, from_stored
from .predictor import Predictor

FORMAT = "maskring-refiner"
FORMAT_VERSION = 1
REMEDY = "give a file that maskring track --save-refiner wrote"


@dataclass(frozen=True)
class _Description:
    """Width of the U-Net, and the ids of its objects."""

    width: Annotated[int, Between(8, 512)]
    ids: tuple[Annotated[int, Between(1, 255)], ...]


def save_predictor(path: Path, predictor: Predictor) -> None:
    """Write an adapted U-Net; the file appears only when it is whole.

    Raises:
        OutputError: when it cannot be written.
    """
    state = {name: tensor.detach().cpu().contiguous() for name, tensor in predictor.unet.state_dict().items()}
    metadata = {
        "format": FORMAT,
        "version": str(FORMAT_VERSION),
        "unet": json.dumps({"width": predictor.unet.width, "ids": predictor.ids}),
    }
    make_directory(path.parent)
    with atomic_path(path, flush=True) as partial:
        partial.write_bytes(save(state, metadata))


def load_predictor(path: Path) -> Predictor:
    """Read an adapted U-Net.

    Raises:
        ModelError: when the file is missing, damaged, of another kind or version.
    """
    if not path.is_file():
        raise ModelError(f"the refiner {path} does not exist", "check the path")
    check_utf8(path, ModelError, "safetensors")
    try:
        with safe_open(path, framework="pt") as file:
            description = _described(path, file.metadata() or {})
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
    except (SafetensorError, OSError) as error:
        raise ModelError(f"{path} cannot be read as a refiner ({error})", REMEDY) from error
    predictor = Predictor.untrained(description.width, seed=0)
    predictor.follow(list(description.ids), seed=0)
    try:
        predictor.unet.load_state_dict(state)
    except RuntimeError as error:
        raise ModelError(f"the weights in {path} do not fit the U-Net it describes", REMEDY) from error
    if not all(bool(torch.isfinite(tensor).all()) for tensor in state.values()):
        raise ModelError(f"the weights in {path} are not finite", REMEDY)
    return predictor


def _described(path: Path, metadata: dict[str, str]) -> _Description:
    if metadata.get("format") != FORMAT:
        raise ModelError(f"{path} is not a refiner", REMEDY)
    if metadata.get("version") != str(FORMAT_VERSION):
        raise ModelError(
            f"{path} has version {metadata.get('version')} of the refiner format, known is {FORMAT_VERSION}",
            "update maskring, or adapt again",
        )
    try:
        description = from_stored(_Description, json.loads(metadata["unet"]))
        if description.width % 8 or len(set(description.ids)) != len(description.ids):
            raise ValueError(description)
    except (ValueError, KeyError, RecursionError) as error:
        raise ModelError(f"the description of the U-Net in {path} is damaged", REMEDY) from error
    return description
