"""The pretext task: colours of one frame are copied from the others, where features say they match."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from ..plugins.windowed_affinity.torch_op import windowed_affinity
from .encoder import STRIDE


def drop_colour(lab: Tensor, channel: Tensor) -> Tensor:
    """Hide the colour channel that will be asked for, so that it cannot be matched by itself.

    Args:
        lab: [B, F, 3, H, W] normalised Lab.
        channel: [B] int64, 1 (a) or 2 (b), the same for all frames of a window.

    Returns:
        [B, F, 3, H, W]: that channel 0, the other two times 1.5, which keeps the sum's expectation.

    Source: MAST (CVPR 2020), section 3.1; github.com/zlai0/MAST, ``dropout2d_lab``.
    """
    kept = 1 - functional.one_hot(channel, 3).to(lab.dtype)
    return lab * (1.5 * kept)[:, None, :, None, None]


def grid_colours(lab: Tensor, channel: Tensor) -> Tensor:
    """The hidden channel where features are centred: [B, F, 3, H, W] and [B] -> [B, F, 1, h, w]."""
    batch, frames = lab.shape[:2]
    sampled = lab[..., ::STRIDE, ::STRIDE]
    index = channel.view(batch, 1, 1, 1, 1).expand(batch, frames, 1, *sampled.shape[3:])
    return sampled.gather(2, index)


def reconstruct(query: Tensor, key: Tensor, colours: Tensor, radius: int) -> Tensor:
    """Copy the colours of each frame from all other frames of its window, in one joint softmax.

    Args:
        query: [B, F, C, h, w] features of the frames as targets.
        key: [B, F, C, h, w] features of the frames as references.
        colours: [B, F, O, h, w].
        radius: of the affinity's window, in features.

    Returns:
        [B, F, O, h, w]. Inner products are scaled by 1 / sqrt(C); unscaled ones do not converge.

    Source: arXiv 2006.12480, section 3 (joint softmax over references).
    """
    batch, frames, channels = query.shape[:3]
    others = torch.tensor(
        [[other for other in range(frames) if other != target] for target in range(frames)],
        device=query.device,
    )
    dilation = torch.ones(batch * frames, frames - 1, dtype=torch.int32, device=query.device)
    copied = windowed_affinity(
        query.flatten(0, 1),
        key[:, others].flatten(0, 1),
        colours[:, others].flatten(0, 1),
        dilation,
        radius=radius,
        scale=channels**-0.5,
    )
    return copied.view(batch, frames, *copied.shape[1:])


def huber(predicted: Tensor, target: Tensor, delta: float) -> Tensor:
    """Mean Huber loss in units of ``delta``: 0.5 * (e / delta)^2 below it, |e| / delta - 0.5 above.

    With delta 0.05 it equals MAST's smooth L1 on values times 20.
    """
    return functional.smooth_l1_loss(predicted, target, beta=delta) / delta
