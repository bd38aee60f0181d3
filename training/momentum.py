"""The key encoder: a slow copy of the query encoder, without gradient."""

from __future__ import annotations

import copy

import torch

from .encoder import Encoder


def momentum_copy(query: Encoder) -> Encoder:
    """A key encoder that starts equal to ``query``."""
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
