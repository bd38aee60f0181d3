"""Settings of refinement."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass

from ...common.errors import UserError

SMALLEST_SIZE = 32
"""Pixels; below this the coarsest level of the U-Net is smaller than one pixel."""

DEFAULT_SIZE = 320
"""Pixels of a side of the U-Net's square input."""

DEFAULT_ITERATIONS = 1000
"""Optimiser steps per video, offline."""


@dataclass(frozen=True, kw_only=True)
class RefinementSettings:
    """Settings of both modes.

    arXiv 2006.12480 states 480x480 pixels of the whole frame and about 200 iterations; the defaults here see
    objects at least as large in fewer pixels, and take twice the iterations of half the work each, which
    measured better at equal time (docs/refinement.md).

    Attributes:
        size: what the U-Net is shown is scaled to ``size`` x ``size`` pixels (paper: 480, the whole frame).
            Time grows with its square.
        margin: the U-Net is shown the box around the propagated objects, this many times as wide and high;
            0 for the whole frame (paper). Small objects are learned faster so, and what is elsewhere cannot
            mislead.
        iterations: optimiser steps per video, offline (paper: 200). Online there is no end to them but the
            stream's.
        learning_rate: of Adam; falls along a cosine offline, is constant online. The paper states none.
        cross_entropy, dice: weights of the two losses (paper: both, weights not stated).
        true_mask: weight of the loss on masks the user gave, relative to that on all propagated masks.
        pseudo_frames: propagated frames per optimiser step, beside one with a true mask.
        width: channels of the U-Net's finest level, a multiple of 8.
        buffer: frames kept for adaptation; memory is bounded by it (5 bytes per pixel of the U-Net's input).
        trust: share of the U-Net in the final decision offline, 0 to 1; the rest is propagation's.
        online_trust: the same online, where the U-Net has learned from fewer frames.
        budget: online, the share of time that the worker may spend adapting, 0 to 1.
        feedback: online, memory takes the refined mask of an object that propagation has lost.
        seed: of weights, sampling and augmentation.

    Raises:
        UserError: on construction, when a value makes no sense.
    """

    size: int = DEFAULT_SIZE
    margin: float = 2.0
    iterations: int = DEFAULT_ITERATIONS
    learning_rate: float = 1e-3
    cross_entropy: float = 1.0
    dice: float = 1.0
    true_mask: float = 1.0
    pseudo_frames: int = 1
    width: int = 16
    buffer: int = 128
    trust: float = 0.6
    online_trust: float = 0.6
    budget: float = 1.0
    feedback: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            if not math.isfinite(value):
                raise UserError(f"refinement has {name}={value}", "give it a finite number")
        if self.size < SMALLEST_SIZE:
            raise UserError(
                f"refinement at {self.size} pixels is too coarse", f"give {SMALLEST_SIZE} or more"
            )
        if min(self.iterations, self.pseudo_frames) < 0 or self.buffer < 2:
            raise UserError(
                f"refinement has iterations={self.iterations}, pseudo_frames={self.pseudo_frames}, "
                f"buffer={self.buffer}",
                "give iterations and pseudo_frames of 0 or more, and a buffer of 2 frames or more",
            )
        if self.margin and self.margin < 1:
            raise UserError(
                f"refinement has margin={self.margin}", "give 1 or more, or 0 for the whole frame"
            )
        if self.width < 8 or self.width % 8:
            raise UserError(f"the U-Net's width is {self.width}", "give a multiple of 8")
        if self.learning_rate <= 0 or min(self.cross_entropy, self.dice, self.true_mask) < 0:
            raise UserError(
                "refinement has a learning rate that is not positive, or a negative loss weight",
                "give learning_rate > 0 and cross_entropy, dice, true_mask >= 0",
            )
        if self.cross_entropy == self.dice == 0:
            raise UserError("refinement has no loss", "give cross_entropy or dice a positive weight")
        if not (0 <= self.trust <= 1 and 0 <= self.online_trust <= 1 and 0 < self.budget <= 1):
            raise UserError(
                f"refinement has trust={self.trust}, online_trust={self.online_trust}, budget={self.budget}",
                "give both trusts from 0 to 1 and a budget above 0, up to 1",
            )
