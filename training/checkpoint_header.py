"""The header of a checkpoint: everything but its weights. Reading it needs no torch."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias, TypeVar

from safetensors import SafetensorError, safe_open

from ..common.errors import ModelError
from ..common.files import check_utf8
from ..common.stored import Between, from_stored
from ..runtime.model.metadata import with_current_names

FORMAT = "maskring-checkpoint"
FORMAT_VERSION = 2
"""Version of the files that are written. :func:`tracking_settings` reads format 1 of maskring 0.1.0, too."""

READABLE_VERSIONS = ("1", "2")

NOT_OURS = "give a checkpoint written by maskring, or convert one with maskring import"
COPY_AGAIN = "copy or download the file again"

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
        confidence_exponent: how much less memory weighs unsure labels, 0 for all alike.
        guided_filter_radius: radius of the filter that fits edges to colours, in features, 0 for none; this,
            ``roi_step``, ``smoothing_radius`` and ``confidence_exponent`` as in
            :class:`maskring.runtime.model.metadata.ModelMetadata`.
    """

    radius: Setting = 12
    logit_scale: Annotated[float, Between(0, 2**31 - 1)] = 0.125
    top_k: Setting = 0
    roi_step: Setting = 0
    smoothing_radius: Setting = 2
    confidence_exponent: Setting = 0
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


@contextmanager
def open_checkpoint(path: Path, framework: Literal["pt", "numpy"]) -> Iterator[tuple[Any, dict[str, str]]]:
    """A checkpoint file that safetensors has opened, and its metadata.

    Args:
        path: the file.
        framework: whose tensors the file gives.

    Raises:
        ModelError: when the file is missing, truncated, not a maskring checkpoint or of a later format; also for
            errors of safetensors inside the block.
    """
    if not path.is_file():
        raise ModelError(f"the checkpoint {path} does not exist", "check the path")
    check_utf8(path, ModelError, "safetensors")
    try:
        with safe_open(path, framework=framework) as file:
            metadata = file.metadata() or {}
            _check_format(metadata, path)
            yield file, metadata
    except SafetensorError as error:
        raise ModelError(
            f"{path} is not a checkpoint or is truncated", f"{COPY_AGAIN}; {NOT_OURS}"
        ) from error
    except OSError as error:
        raise ModelError(
            f"{path} cannot be read ({error.strerror or error})", "check its permissions"
        ) from error


def read_provenance(path: Path) -> Provenance:
    """Where the weights of a checkpoint come from.

    Raises:
        ModelError: as :func:`open_checkpoint`, and when the entry is damaged.
    """
    with open_checkpoint(path, "numpy") as (_, metadata):
        return provenance(metadata, path)


def provenance(metadata: Mapping[str, str], path: Path) -> Provenance:
    """The provenance in the metadata of a checkpoint."""
    return parsed(Provenance, json_entry(metadata, "provenance", path), "provenance", path)


def tracking_settings(metadata: Mapping[str, str], path: Path) -> AffinitySettings:
    """The tracking settings in the metadata of a checkpoint.

    Format 2 states every setting. Format 1 may lack two, and maskring 0.1.0 tracked such files without a
    search and with a smoothing radius of 2; so they mean the same here. Old names of settings are read in
    both.
    """
    stored = json_entry(metadata, "tracking", path)
    try:
        stored = with_current_names(stored)
    except (ValueError, AttributeError) as error:
        raise _damaged("tracking", path) from error
    if metadata["version"] == "1":
        stored = {"roi_step": 0, "smoothing_radius": 2} | stored
    return parsed(AffinitySettings, stored, "tracking", path)


def json_entry(metadata: Mapping[str, str], entry: str, path: Path) -> Any:
    """The document that an entry of the metadata holds."""
    try:
        return json.loads(metadata[entry])
    except (ValueError, KeyError, RecursionError) as error:
        raise _damaged(entry, path) from error


def parsed(kind: type[Parsed], stored: object, entry: str, path: Path) -> Parsed:
    """A document as a value of ``kind``."""
    try:
        return from_stored(kind, stored)
    except ValueError as error:
        raise _damaged(entry, path) from error


def _check_format(metadata: Mapping[str, str], path: Path) -> None:
    if metadata.get("format") != FORMAT:
        raise ModelError(f"{path} is not a maskring checkpoint", NOT_OURS)
    version = metadata.get("version")
    if version not in READABLE_VERSIONS:
        raise ModelError(
            f"{path} has checkpoint format {version}, this maskring reads formats up to {FORMAT_VERSION}",
            "use the version of maskring that wrote it, or train again",
        )


def _damaged(entry: str, path: Path) -> ModelError:
    return ModelError(f"the {entry} entry of {path} is damaged", COPY_AGAIN)
