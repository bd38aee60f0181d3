"""The encoder: a ResNet without max-pooling that computes a feature vector for every fourth pixel."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import chain
from typing import Annotated, TypeAlias

import torch
from torch import Tensor, nn

from ...common.stored import Between
from .upsampling import upsample_like

STRIDE = 4
"""Pixels per feature in both directions; feature (i, j) is centred on pixel (4 * i, 4 * j)."""

STAGE_STRIDES = (1, 2, 1, 1)
PYRAMID_STRIDES = (1, 2, 2, 1)
"""Strides of a pyramid: its last two stages have a quarter of the positions, with twice the receptive field."""

NORM_CHANNELS = 2
"""The last channels of features that are compared by distance; they hold the vectors' lengths."""

NORM_STEP = 64.0
"""The first of them holds multiples of this, the second the remainder, so that float16 suffices for both."""

PATCH_GAIN = 2.7
"""Scale of the untrained projection. At a logit scale of 1, a patch whose colours differ by 0.034 in normalised Lab
(root mean square) then weighs 1 / e of an equal one. Raw patches track best near this value (bench/davis.py)."""


Channels: TypeAlias = Annotated[int, Between(1, 1 << 14)]
Depth: TypeAlias = Annotated[int, Between(1, 1 << 8)]
"""Limits on the encoder that a file may describe, so that a damaged header cannot exhaust memory."""


@dataclass(frozen=True)
class EncoderConfig:
    """Widths and depths of an :class:`Encoder`.

    Attributes:
        stem: channels after the 7x7 convolution.
        stages: channels of the four stages.
        blocks: residual blocks in each stage.
        channels: C, depth of the features.
        inputs: number of Lab channels that are read: 3, or 1 for the lightness only.
        patch: odd side, in pixels, of the patch of raw colours whose projection is added to the network's
            output; such features are compared by distance (:meth:`Encoder.keys`). 0 = no patch.
        pyramid: the last two stages work at stride 8, for less than half the cost; the output of the head is
            interpolated and added to a projection of the second stage, at stride 4.
    """

    stem: Channels
    stages: tuple[Channels, Channels, Channels, Channels]
    blocks: tuple[Depth, Depth, Depth, Depth] = (2, 2, 2, 2)
    channels: Channels = 64
    inputs: int = 3
    patch: Annotated[int, Between(0, 255)] = 0
    pyramid: bool = False

    def __post_init__(self) -> None:
        if len(self.stages) != len(STAGE_STRIDES) or len(self.blocks) != len(STAGE_STRIDES):
            raise ValueError(f"an encoder has {len(STAGE_STRIDES)} stages, not {self.stages} / {self.blocks}")
        if min(self.stem, self.channels, *self.stages, *self.blocks) < 1:
            raise ValueError(f"widths and depths of an encoder must be at least 1: {self}")
        if self.inputs not in (1, 3):
            raise ValueError(f"an encoder reads 1 or 3 channels, not {self.inputs}")
        if self.patch and (self.patch % 2 == 0 or self.patch < 0 or self.channels <= NORM_CHANNELS):
            raise ValueError(f"a patch has an odd side, and needs more than {NORM_CHANNELS} channels: {self}")

    @classmethod
    def preset(cls, name: str) -> EncoderConfig:
        """One of :data:`PRESETS`.

        ``full``: the ResNet-18 of MAST (CVPR 2020). ``nano``: half its width, for CPUs and small boards.
        ``full-patch``, ``nano-patch``: the same with a patch of raw colours. ``full-pyramid``,
        ``nano-pyramid``: these with the last stages at stride 8.

        Raises:
            ValueError: when there is no preset of that name.
        """
        if name not in PRESETS:
            raise ValueError(f"no encoder preset {name!r}; there are {', '.join(PRESETS)}")
        return PRESETS[name]

    @property
    def preset_name(self) -> str | None:
        """Its name in :data:`PRESETS`, None when it is not one of them."""
        return next((name for name, preset in PRESETS.items() if preset == self), None)


PRESETS = {
    "full": EncoderConfig(stem=64, stages=(64, 128, 256, 256)),
    "nano": EncoderConfig(stem=32, stages=(32, 64, 128, 128)),
    "full-patch": EncoderConfig(stem=64, stages=(64, 128, 256, 256), patch=9),
    "nano-patch": EncoderConfig(stem=32, stages=(32, 64, 128, 128), patch=9),
    "full-pyramid": EncoderConfig(stem=64, stages=(64, 128, 256, 256), patch=9, pyramid=True),
    "nano-pyramid": EncoderConfig(
        stem=32, stages=(32, 64, 128, 128), blocks=(1, 2, 2, 2), patch=9, pyramid=True
    ),
}


def _convolution(inputs: int, outputs: int, size: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, size, stride, padding=size // 2, bias=False)


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut, which is a 1x1 convolution if the shape changes."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.residual = nn.Sequential(
            _convolution(inputs, outputs, 3, stride),
            nn.BatchNorm2d(outputs),
            nn.ReLU(inplace=True),
            _convolution(outputs, outputs, 3),
            nn.BatchNorm2d(outputs),
        )
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Sequential(_convolution(inputs, outputs, 1, stride), nn.BatchNorm2d(outputs))
        self.activation = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        """[B, inputs, h, w] -> [B, outputs, h / stride, w / stride], rounded up."""
        summed: Tensor = self.activation(self.residual(x) + self.shortcut(x))
        return summed


class Encoder(nn.Module):
    """Computes features of frames.

    Source: the network of MAST (CVPR 2020, github.com/zlai0/MAST, ``models/submodule.py``): ResNet-18 with
    output stride 4 and no max-pooling, then a 3x3 convolution with bias.
    """

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.config = config
        self.stem = nn.Sequential(
            _convolution(config.inputs, config.stem, 7, stride=2),
            nn.BatchNorm2d(config.stem),
            nn.ReLU(inplace=True),
        )
        widths = (config.stem, *config.stages)
        self.stages = nn.Sequential(
            *(
                _stage(widths[index], widths[index + 1], config.blocks[index], stride)
                for index, stride in enumerate(PYRAMID_STRIDES if config.pyramid else STAGE_STRIDES)
            )
        )
        own = config.channels - (NORM_CHANNELS if config.patch else 0)
        self.head = nn.Conv2d(config.stages[-1], own, 3, padding=1)
        self.lateral = _convolution(config.stages[1], own, 1) if config.pyramid else None
        self.patch: nn.Conv2d | None = None
        if config.patch:
            self.patch = _convolution(config.inputs, own, config.patch, STRIDE)
            self.patch.weight.data = PATCH_GAIN * lowest_frequencies(own, config.inputs, config.patch)
            # Zero at first, so that training starts from what raw colours can do.
            for layer in filter(None, (self.head, self.lateral)):
                for parameter in layer.parameters():
                    nn.init.zeros_(parameter)
        for module in chain(self.stem.modules(), self.stages.modules()):
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, lab: Tensor) -> Tensor:
        """Features of a batch of frames.

        Args:
            lab: [B, 3, H, W] normalised Lab (:func:`.colour.normalise_lab`), any H and W.

        Returns:
            [B, C, ceil(H / 4), ceil(W / 4)]; feature (i, j) is centred on pixel (4 * i, 4 * j).
        """
        channels = lab[:, : self.config.inputs]
        features = self._network(channels)
        if self.patch is None:
            return features
        features = features + self.patch(channels)
        ones = torch.ones_like(features[:, :NORM_CHANNELS])
        return torch.cat([features, ones], dim=1)

    def _network(self, channels: Tensor) -> Tensor:
        fine = self.stages[:2](self.stem(channels))
        features: Tensor = self.head(self.stages[2:](fine))
        if self.lateral is not None:
            features = upsample_like(features, fine, factor=2) + self.lateral(fine)
        return features

    def keys(self, features: Tensor) -> Tensor:
        """The same features as memory keys, [B, C, h, w] -> [B, C, h, w].

        With a patch, features are compared by distance: the inner product of q = (x, 1, 1) and the key
        k = (y, coarse, fine), where coarse + fine = -|y|^2 / 2, is -|x - y|^2 / 2 plus a term of q only, which
        a softmax over keys cancels. Without a patch, keys are the features themselves.
        """
        if self.patch is None:
            return features
        return distance_keys(features[:, :-NORM_CHANNELS])


def distance_keys(points: Tensor) -> Tensor:
    """Memory keys [B, C + 2, h, w] of points [B, C, h, w] that are compared by distance; see :meth:`Encoder.keys`."""
    norm = -0.5 * points.float().square().sum(1, keepdim=True)
    coarse = (norm / NORM_STEP).round() * NORM_STEP
    return torch.cat([points, coarse.to(points.dtype), (norm - coarse).to(points.dtype)], dim=1)


def _stage(inputs: int, outputs: int, blocks: int, stride: int) -> nn.Sequential:
    first = ResidualBlock(inputs, outputs, stride)
    return nn.Sequential(first, *(ResidualBlock(outputs, outputs, 1) for _ in range(blocks - 1)))


def lowest_frequencies(count: int, inputs: int, side: int) -> Tensor:
    """The first filters of a cosine transform, orthonormal, which hold most of the energy of natural patches.

    Returns:
        [count, inputs, side, side], evenly divided among the inputs, each from the lowest frequency on.
    """
    place = torch.arange(side, dtype=torch.float32) + 0.5
    waves = [torch.cos(math.pi * place * n / side) * math.sqrt((1 + (n > 0)) / side) for n in range(side)]
    order = sorted(
        ((u, v) for u in range(side) for v in range(side)), key=lambda uv: (uv[0] ** 2 + uv[1] ** 2, uv)
    )
    filters = torch.zeros(count, inputs, side, side)
    for index in range(min(count, inputs * side**2)):
        u, v = order[index // inputs]
        filters[index, index % inputs] = torch.outer(waves[u], waves[v])
    return filters


def empty_encoder(config: EncoderConfig) -> Encoder:
    """An encoder on the meta device: names, shapes and types of its tensors without storage."""
    with torch.device("meta"):
        return Encoder(config)
