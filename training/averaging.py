"""Slow copies of the encoder, without gradient: the key encoder, and the running mean of weights."""

from __future__ import annotations

import copy

import torch

from .network.encoder import Encoder


def momentum_copy(query: Encoder) -> Encoder:
    """A copy of ``query``, equal at first, that no gradient reaches."""
    key = copy.deepcopy(query)
    return key.requires_grad_(False)


@torch.no_grad()
def follow(key: Encoder, query: Encoder, momentum: float) -> None:
    """key = momentum * key + (1 - momentum) * query, parameter by parameter.

    Normalisation statistics are not touched: the key encoder gathers its own from what it sees.

    Source: MoCo (CVPR 2020), section 3.2; used for references by arXiv 2006.12480.
    """
    for slow, fast in zip(key.parameters(), query.parameters(), strict=True):
        slow.lerp_(fast, 1.0 - momentum)


@torch.no_grad()
def running_mean(average: Encoder, query: Encoder, decay: float, step: int) -> None:
    """Let ``average`` follow ``query`` after step number ``step`` (from 0), quickly at first.

    Normalisation statistics are copied: they are running means already.
    """
    follow(average, query, min(decay, (1 + step) / (10 + step)))
    for slow, fast in zip(average.buffers(), query.buffers(), strict=True):
        slow.copy_(fast)
