"""ROI localisation with the native CPU kernel, for a runtime without torch."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from .cpu_op import windowed_affinity


def localise(
    query: NDArray[Any],
    keys: NDArray[Any],
    dilation: NDArray[np.int32],
    *,
    radius: int,
    scale: float,
    step: int = 1,
    threads: int = 0,
) -> NDArray[np.int32] | None:
    """Find window centres by a coarse search; arguments and result as ``torch_localisation.localise``.

    Returns:
        [B, N, 2, H, W] offsets; None if no slot is searched, that is, if all would be 0.
    """
    images = np.argwhere(dilation > 1)
    if not len(images):
        return None
    batches, slots = images.T
    height, width = query.shape[-2:]
    coarse_keys = np.stack([keys[b, n, :, ::step, ::step] for b, n in images])[:, None]
    grid = coarse_keys.shape[-2:]
    own = np.indices(grid).astype(query.dtype)
    centres = windowed_affinity(
        np.ascontiguousarray(query[batches][..., ::step, ::step]),
        coarse_keys,
        np.ascontiguousarray(np.broadcast_to(own, (len(images), 1, *own.shape))),
        np.maximum(dilation[batches, slots] // step, 1).astype(np.int32)[:, None],
        radius=radius,
        scale=scale,
        threads=threads,
    )
    shifts = np.rint((centres - own) * query.dtype.type(step)).astype(np.int32)
    offsets = np.zeros((*dilation.shape, 2, height, width), np.int32)
    squares = shifts.repeat(step, axis=-2).repeat(step, axis=-1)
    offsets[batches, slots] = squares[..., :height, :width]
    return offsets
