"""One time step of tracking as a torch module: what is exported, and the judge of what was exported."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from ..plugins.windowed_affinity.torch_localisation import localise
from ..plugins.windowed_affinity.torch_op import windowed_affinity
from ..training.checkpoint import SMOOTHING
from ..training.network.colour import normalise_lab, rgb_to_lab
from ..training.network.encoder import STRIDE, Encoder
from ..training.network.upsampling import upsample


class StepGraph(nn.Module):
    """From a frame and the memory to labels and to what memory keeps of the frame.

    Inputs and outputs are those of :class:`maskring.runtime.model.metadata.ModelMetadata`. Stateless: memory comes in
    with every call. Colour conversion, normalisation, the encoder, the memory read and the way back to pixels
    are all inside, so that nothing is left to get wrong around it.

    Args:
        encoder: the query encoder; keys are its features too, which costs one pass per frame instead of two.
        radius, scale, top_k: settings of the memory read.
        localise: step of the search for window centres in dilated slots, 0 for none.
        smooth: radius of the smoothing that follows the read (:func:`smoothed`), 0 for none.
        dtype: type of features and label maps; colours are computed in float32 whatever it is.
    """

    def __init__(
        self,
        encoder: Encoder,
        *,
        radius: int,
        scale: float,
        top_k: int = 0,
        localise: int = 0,
        smooth: int = 0,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        super().__init__()
        self.encoder = fold_batch_norms(encoder).to(dtype)
        self.radius, self.scale, self.top_k, self.dtype = radius, scale, top_k, dtype
        self.localise, self.smooth = localise, smooth

    def forward(
        self, frame: Tensor, memory_keys: Tensor, memory_values: Tensor, memory_dilation: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Run one step; see the class for shapes. Returns labels, probabilities, value, key."""
        _, height, width, _ = frame.shape
        # To float before anything else, and from float at the end: TensorRT knows uint8 at inputs and outputs
        # alone, and converts it to and from floats alone.
        lab = normalise_lab(rgb_to_lab(frame.to(torch.float32).permute(0, 3, 1, 2) / 255.0))
        query = self.encoder(lab.to(self.dtype))
        key = self.encoder.keys(query)
        window: dict[str, Any] = {"radius": self.radius, "scale": self.scale}
        windows, offsets = memory_dilation, None
        if self.localise:
            offsets = localise(query, memory_keys, memory_dilation, step=self.localise, **window)
            windows = memory_dilation.clamp(max=1)
        probabilities = windowed_affinity(
            query, memory_keys, memory_values, windows, offsets, top_k=self.top_k, **window
        )
        if self.smooth:
            probabilities = smoothed(
                probabilities, query, key, self.smooth, self.scale, one_body=self.top_k > 0
            )
        value = one_hot_argmax(probabilities)
        labels = upsample(probabilities, height, width, STRIDE).argmax(1).to(torch.float32).to(torch.uint8)
        return labels, probabilities, value, key


def fold_batch_norms(encoder: Encoder) -> Encoder:
    """A copy of ``encoder`` for evaluation, each batch norm folded into the convolution before it."""
    folded = copy.deepcopy(encoder).eval()
    for module in list(folded.modules()):
        if not isinstance(module, nn.Sequential):
            continue
        for index in range(1, len(module)):
            convolution, norm = module[index - 1], module[index]
            if isinstance(convolution, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
                module[index - 1] = fuse_conv_bn_eval(convolution, norm)
                module[index] = nn.Identity()
    return folded


def smoothed(
    probabilities: Tensor,
    query: Tensor,
    key: Tensor,
    radius: int,
    scale: float,
    *,
    one_body: bool = False,
) -> Tensor:
    """Probabilities [B, O, h, w] averaged with those of similar features nearby, in the frame itself.

    The frame is read as if it were memory: one slot, its key, the probabilities as labels. What single
    features were told wrongly by chance is outvoted by those around them that look alike.

    Args:
        query, key: of the frame, [B, C, h, w].
        radius: of the window, in features.
        scale: of the memory read; here its :data:`~maskring.training.checkpoint.SMOOTHING` part counts, since
            neighbours in one frame are much alike.
        one_body: keep all logits by number, so that a file whose memory read keeps the largest ones alone
            holds one function body for both.
    """
    one_slot = torch.ones(len(query), 1, dtype=torch.int32, device=query.device)
    return windowed_affinity(
        query,
        key[:, None],
        probabilities[:, None],
        one_slot,
        radius=radius,
        scale=SMOOTHING * scale,
        top_k=(2 * radius + 1) ** 2 if one_body else 0,
    )


def one_hot_argmax(probabilities: Tensor) -> Tensor:
    """[B, O, h, w] -> the same shape, 1 where a label wins; background where nothing was read (all 0)."""
    winner = probabilities.argmax(1, keepdim=True)
    channel = torch.arange(probabilities.shape[1], device=winner.device).view(1, -1, 1, 1)
    return (winner == channel).to(probabilities.dtype)
