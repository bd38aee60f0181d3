"""Import of the checkpoints that MAST published."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..common.errors import ModelError
from .checkpoint import COPY_AGAIN, AffinitySettings, Checkpoint, Provenance, State, abbreviated
from .network.encoder import EncoderConfig, empty_encoder
from .torch_files import load_torch_file

PUBLISHED_SETTINGS = AffinitySettings(radius=12, logit_scale=1.0, top_k=0, roi_step=0, smoothing_radius=0)
"""MAST was trained with logits that are not scaled, and does not smooth."""


def import_mast(path: Path) -> tuple[Checkpoint, list[str]]:
    """Read a checkpoint published for MAST (CVPR 2020, github.com/zlai0/MAST).

    Args:
        path: a torch file with an entry ``state_dict`` (or only that mapping), names with or without
            ``module.`` in front. Only tensors are unpickled, never code.

    Returns:
        The checkpoint, and those names in the file that our encoder has no place for.

    Raises:
        ModelError: when the file cannot be read, is no such checkpoint, or lacks part of the encoder.
    """
    stored = _read_state_dict(path)
    config = EncoderConfig.preset("full")
    template = empty_encoder(config).state_dict()
    state: State = {}
    leftovers = []
    for key, value in stored.items():
        name = _encoder_name(key)
        if name in template and isinstance(value, Tensor) and value.shape == template[name].shape:
            state[name] = value.detach().to(template[name].dtype)
        else:
            leftovers.append(key)
    for name, tensor in template.items():
        if name.endswith("num_batches_tracked"):  # torch before 0.4.1 did not count batches
            state.setdefault(name, torch.zeros_like(tensor, device="cpu"))
    missing = [name for name in template if name not in state]
    if missing:
        unused = f"; not used: {abbreviated(leftovers)}" if leftovers else ""
        raise ModelError(
            f"{path} lacks {len(missing)} of MAST's {len(template)} tensors ({abbreviated(missing)}){unused}",
            "give a checkpoint published for MAST with its ResNet-18 encoder",
        )
    return Checkpoint(config, state, tracking=PUBLISHED_SETTINGS, provenance=Provenance("MAST")), leftovers


def _read_state_dict(path: Path) -> Mapping[str, Any]:
    remedy = f"give a checkpoint published for MAST (.pth, .pt), or {COPY_AGAIN}"
    if not path.is_file():
        raise ModelError(f"the checkpoint {path} does not exist", "check the path")
    try:
        stored = load_torch_file(path, "cpu")
    except Exception as error:  # on damaged bytes the unpickler raises any exception there is
        raise ModelError(
            f"{path} is damaged, or is not a torch checkpoint that holds tensors only", remedy
        ) from error
    if isinstance(stored, Mapping) and isinstance(stored.get("state_dict"), Mapping):
        stored = stored["state_dict"]
    if not isinstance(stored, Mapping) or not all(isinstance(key, str) for key in stored):
        raise ModelError(f"{path} holds no state_dict", remedy)
    return stored


def _encoder_name(key: str) -> str:
    """Our name for MAST's tensor ``key``; a name without counterpart comes back unchanged."""
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
