"""Averages of the encoder over training steps: the momentum key encoder and the running mean of weights."""

from __future__ import annotations

import copy

import torch

from .network.encoder import Encoder


def frozen_copy(query: Encoder) -> Encoder:
    """A copy of ``query`` that receives no gradient."""
    return copy.deepcopy(query).requires_grad_(False)


@torch.no_grad()
def ema_update(average: Encoder, query: Encoder, decay: float) -> None:
    """average = decay * average + (1 - decay) * query, parameter by parameter.

    Normalisation statistics are not touched: the key encoder gathers its own from the frames it sees.

    Source: MoCo (CVPR 2020), section 3.2; used for references by arXiv 2006.12480.
    """
    for slow, fast in zip(average.parameters(), query.parameters(), strict=True):
        slow.lerp_(fast, 1.0 - decay)


@torch.no_grad()
def update_running_mean(average: Encoder, query: Encoder, decay: float, step: int) -> None:
    """Update the running mean of weights after step number ``step`` (from 0), with less decay at first.

    Normalisation statistics are copied: they are running means already.
    """
    ema_update(average, query, min(decay, (1 + step) / (10 + step)))
    for slow, fast in zip(average.buffers(), query.buffers(), strict=True):
        slow.copy_(fast)
