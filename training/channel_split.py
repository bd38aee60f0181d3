"""Free channels in the features of a trained encoder: the variance fits into fewer channels than there are."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import nn

from .network.encoder import NORM_CHANNELS, Encoder


def reset_channels(encoder: Encoder, channels: int) -> None:
    """Start the last ``channels`` features anew: random weights of the network, no raw colours.

    Does nothing to an encoder without a patch.
    """
    if encoder.patch is None:
        return
    with torch.no_grad():
        for layer in filter(None, (encoder.patch, encoder.lateral)):
            layer.weight[-channels:] = 0
        weights = torch.empty_like(encoder.head.weight[-channels:])
        encoder.head.weight[-channels:] = nn.init.kaiming_uniform_(weights, a=5**0.5)
        if encoder.head.bias is not None:
            encoder.head.bias[-channels:] = 0


@torch.no_grad()
def free_channels(encoder: Encoder, frames: Iterable[torch.Tensor], channels: int) -> float:
    """Reset the last ``channels`` features and change the distances between features as little as possible.

    First rotates features to their principal axes, largest variance first. All layers that end in features
    are linear, so the rotation goes into their weights and no distance changes. Then resets the last channels
    (:func:`reset_channels`). Of pico's 62 channels, the first 31 axes hold 99 % of the variance.

    Args:
        encoder: with a patch, so that its features are compared by distance.
        frames: [1, 3, H, W] normalised Lab each, on which the variance is measured.
        channels: number of channels to reset.

    Returns:
        The share of the variance that the remaining channels hold.

    Raises:
        ValueError: when the encoder has no patch.
    """
    if encoder.patch is None:
        raise ValueError("only features that are compared by distance can be rotated")
    encoder.eval()
    points = torch.cat([encoder(frame)[0, :-NORM_CHANNELS].flatten(1).T.float() for frame in frames])
    variance, axes = torch.linalg.eigh(torch.cov(points.T))  # ascending
    rotation = axes.flip(1).T
    for layer in filter(None, (encoder.head, encoder.lateral, encoder.patch)):
        layer.weight.copy_((rotation @ layer.weight.flatten(1)).view_as(layer.weight))
    if encoder.head.bias is not None:
        encoder.head.bias.copy_(rotation @ encoder.head.bias)
    reset_channels(encoder, channels)
    encoder.train()
    return float(variance[channels:].sum() / variance.sum())
