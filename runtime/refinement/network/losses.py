"""Cross-entropy and Dice with a weight per pixel."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def weighted_cross_entropy(logits: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    """Mean over pixels, [B].

    Args:
        logits: [B, O, H, W].
        target: [B, O, H, W] shares of the labels, summing to 1 over O.
        weight: [B, H, W], 0 to 1; the mean is over all pixels, so an unsure frame counts less.
    """
    return (-(target * F.log_softmax(logits, 1)).sum(1) * weight).mean((1, 2))


def weighted_dice(logits: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    """1 - Dice coefficient, mean over the objects (not background), [B]; arguments as above.

    An object that is neither predicted nor in the target costs nothing.
    """
    predicted, wanted, weight = logits.softmax(1)[:, 1:], target[:, 1:], weight[:, None]
    common = (weight * predicted * wanted).sum((2, 3))
    total = (weight * (predicted + wanted)).sum((2, 3))
    return (1 - (2 * common + 1) / (total + 1)).mean(1)
