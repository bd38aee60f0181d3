"""A U-Net together with the objects that its outputs stand for."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ....common.types import Image
from .unet import UNet

ABSENT = -1e4
"""Logit of an object that is not followed in a frame."""

Probabilities = NDArray[np.float32]


@dataclass
class Predictor:
    """Finds objects in a frame by their appearance alone.

    Attributes:
        unet: output 0 is the background.
        ids: object ids of the outputs 1, 2, ...
    """

    unet: UNet
    ids: list[int] = field(default_factory=list)

    @classmethod
    def untrained(cls, width: int, seed: int) -> Predictor:
        """A U-Net with seeded random weights, which knows no object; on the GPU where there is one."""
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            unet = UNet(1, width)
        return cls(_placed(unet))

    @property
    def device(self) -> torch.device:
        """Where the U-Net's weights are."""
        return next(self.unet.parameters()).device

    def follow(self, ids: Sequence[int], seed: int) -> bool:
        """Make outputs for objects that have none yet; says whether there were any."""
        new = [object_id for object_id in dict.fromkeys(ids) if object_id not in self.ids]
        if new:
            self.ids += new
            with torch.random.fork_rng():
                torch.manual_seed(seed + len(self.ids))
                self.unet.grow(len(self.ids) + 1)
        return bool(new)

    def logits(self, images: Tensor, followed: Sequence[Sequence[int]]) -> Tensor:
        """Logits [B, 1 + len(self.ids), S, S].

        Args:
            images: [B, 3, S, S] in 0..1.
            followed: per frame, the objects that are followed in it; all others are ruled out.
        """
        absent = [[False, *(known not in ids for known in self.ids)] for ids in followed]
        mask = torch.tensor(absent, device=self.device)[:, :, None, None]
        images = images.to(self.device).contiguous(memory_format=torch.channels_last)
        logits: Tensor = self.unet(images)
        return logits.masked_fill(mask, ABSENT)

    def predict(self, image: Image, ids: Sequence[int], *, mirrored: bool = False) -> Probabilities:
        """Probabilities [1 + len(ids), S, S] of background and ``ids``; 0 for objects it does not know.

        Args:
            image: [S, S, 3] uint8 RGB.
            ids: objects that are followed in it.
            mirrored: show the frame to the U-Net mirrored, and mirror back what it says.
        """
        frame = as_tensor(image)[None]
        with torch.inference_mode():
            found = self.logits(frame.flip(3) if mirrored else frame, [ids]).softmax(1)[0]
            found = (found.flip(2) if mirrored else found).float().cpu()
        channels = [0, *(1 + self.ids.index(known) if known in self.ids else -1 for known in ids)]
        probabilities = np.zeros((len(channels), *found.shape[1:]), np.float32)
        for own, channel in enumerate(channels):
            if channel >= 0:
                probabilities[own] = found[channel].numpy()
        return probabilities

    def weights(self) -> NDArray[np.float32]:
        """All weights in one vector, a copy."""
        return np.concatenate([tensor.detach().float().cpu().ravel().numpy() for tensor in self._tensors()])

    def adopt(self, ids: Sequence[int], weights: NDArray[np.float32]) -> None:
        """Take the objects and the weights (:meth:`weights`) of another predictor of the same width."""
        self.follow(ids, seed=0)
        self.ids = list(ids)
        start = 0
        with torch.no_grad():
            for tensor in self._tensors():
                flat = torch.from_numpy(weights[start : start + tensor.numel()])
                tensor.copy_(flat.view(tensor.shape))
                start += tensor.numel()

    def _tensors(self) -> list[Tensor]:
        return list(self.unet.state_dict().values())


@contextmanager
def one_thread() -> Iterator[None]:
    """torch computes in the calling thread alone, as long as this lasts."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def as_tensor(image: Image) -> Tensor:
    """[S, S, 3] uint8 to [3, S, S] in 0..1."""
    return torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1).float() / 255


def _placed(unet: UNet) -> UNet:
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    placed: UNet = unet.to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    return placed
