"""One tracking step as a torch module, which is exported and which exports are verified against."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from ..plugins.windowed_affinity.torch_localisation import localise
from ..plugins.windowed_affinity.torch_op import windowed_affinity
from ..training.network.colour import normalise_lab, rgb_to_lab
from ..training.network.encoder import STRIDE, Encoder
from ..training.network.guided_filter import guided_upsample
from ..training.network.label_probabilities import shares, smooth_probabilities, votes
from ..training.network.upsampling import upsample


class StepGraph(nn.Module):
    """A frame and the memory in; its labels, and the key and value to write into memory, out.

    Inputs and outputs are those of :class:`maskring.runtime.model.metadata.ModelMetadata`. The module is
    stateless: the caller passes the memory with every frame. Colour conversion, normalisation, the encoder,
    the memory read and upsampling are inside, so that callers cannot get them wrong.

    Args:
        encoder: the query encoder. It also computes the keys: one pass per frame instead of two.
        radius, logit_scale, top_k: settings of the memory read.
        roi_step: step of the search for window centres in dilated slots, 0 for none.
        smoothing_radius: radius of the smoothing read
            (:func:`maskring.training.network.label_probabilities.smooth_probabilities`), 0 for none.
        confidence_exponent: how much unsure labels count less in memory
            (:func:`maskring.training.network.label_probabilities.votes`), 0 for not at all.
        guided_filter_radius: radius of the filter that fits the edges of labels to colours
            (:func:`maskring.training.network.guided_filter.guided_upsample`), 0 for none.
        dtype: type of features and label maps; colours are always computed in float32.
    """

    def __init__(
        self,
        encoder: Encoder,
        *,
        radius: int,
        logit_scale: float,
        top_k: int = 0,
        roi_step: int = 0,
        smoothing_radius: int = 0,
        confidence_exponent: int = 0,
        guided_filter_radius: int = 0,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        super().__init__()
        self.encoder = fold_batch_norms(encoder).to(dtype)
        self.radius, self.logit_scale, self.top_k, self.dtype = radius, logit_scale, top_k, dtype
        self.roi_step, self.smoothing_radius = roi_step, smoothing_radius
        self.confidence_exponent, self.guided_filter_radius = confidence_exponent, guided_filter_radius

    def forward(
        self, frame: Tensor, memory_keys: Tensor, memory_values: Tensor, memory_dilation: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Run one step; returns labels, probabilities, value and key in the shapes of ``ModelMetadata``."""
        _, height, width, _ = frame.shape
        # To float before anything else, and from float at the end: TensorRT has uint8 at inputs and outputs
        # only, and converts it to and from floats only.
        lab = normalise_lab(rgb_to_lab(frame.to(torch.float32).permute(0, 3, 1, 2) / 255.0))
        query = self.encoder(lab.to(self.dtype))
        key = self.encoder.keys(query)
        window: dict[str, Any] = {"radius": self.radius, "scale": self.logit_scale}
        windows, offsets = memory_dilation, None
        if self.roi_step:
            offsets = localise(query, memory_keys, memory_dilation, step=self.roi_step, **window)
            windows = memory_dilation.clamp(max=1)
        probabilities = windowed_affinity(
            query, memory_keys, memory_values, windows, offsets, top_k=self.top_k, **window
        )
        if self.confidence_exponent:
            probabilities = shares(probabilities)
        if self.smoothing_radius:
            probabilities = smooth_probabilities(
                probabilities,
                query,
                key,
                self.smoothing_radius,
                self.logit_scale,
                with_top_k=self.top_k > 0,
            )
        value = votes(probabilities, self.confidence_exponent)
        if self.guided_filter_radius:
            of_pixels = guided_upsample(probabilities, lab, self.guided_filter_radius)
        else:
            of_pixels = upsample(probabilities, height, width, STRIDE)
        labels = of_pixels.argmax(1).to(torch.float32).to(torch.uint8)
        return labels, probabilities, value, key


def fold_batch_norms(encoder: Encoder) -> Encoder:
    """A copy of ``encoder`` in evaluation mode, batch norms folded into the convolutions before them."""
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
