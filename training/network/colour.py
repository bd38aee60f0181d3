"""sRGB to Lab as OpenCV computes it, in operations that every ONNX runtime and TensorRT support.

OpenCV's ``COLOR_RGB2LAB`` on float images does not use the textbook formula: it interpolates trilinearly, in
integers, between the colours of a lattice with 33 points per side, and differs visibly from the formula. Networks
of this family are trained on OpenCV's values, so this module does the same interpolation. It needs no power
function at run time.
"""

from __future__ import annotations

import cv2
import numpy as np
import torch
from torch import Tensor

from ...common.types import Image

_LATTICE = 33  # lattice points per colour channel, 32 cells between them
_FRACTION = 16  # steps of the interpolation inside a cell
_UNIT = 1 << 14  # fixed point of the inputs and of the lattice
_WEIGHT = _FRACTION**3  # sum of the eight weights of a cell's corners
_SPAN = (100.0, 256.0, 256.0)  # what _UNIT means in L, a and b
_SHIFT = (0.0, -128.0, -128.0)

LAB_MEAN = (50.0, 0.0, 0.0)
LAB_STD = (50.0, 127.0, 127.0)


def _lattice_colours() -> Tensor:
    """[33, 33, 33, 3] int32: fixed-point Lab at the lattice points, indexed by blue, green, red.

    They come from OpenCV itself, which is exact at its lattice points: other arithmetic than its softfloat rounds
    some of them differently.
    """
    level = np.linspace(0.0, 1.0, _LATTICE, dtype=np.float32)
    blue, green, red = np.meshgrid(level, level, level, indexing="ij")
    rgb = np.stack([red, green, blue], axis=-1).reshape(_LATTICE, -1, 3)
    lab = cv2.cvtColor(rgb, cv2.COLOR_RGB2LAB).astype(np.float64)
    fixed = np.rint((lab - _SHIFT) / _SPAN * _UNIT).astype(np.int32)
    return torch.from_numpy(fixed.reshape(_LATTICE, _LATTICE, _LATTICE, 3))


# Computed at import: inside a traced function it would consist of symbols.
_COLOURS = _lattice_colours()


def _cell_corners(colours: Tensor) -> Tensor:
    """[33 ** 3, 24]: L, a and b of the eight corners of each cell, so that one gather reads them all.

    It is eight times as large as the lattice, and every graph optimiser folds it into a constant, so it is not stored.
    """
    padded = torch.cat([colours, colours[-1:]], 0)
    padded = torch.cat([padded, padded[:, -1:]], 1)
    padded = torch.cat([padded, padded[:, :, -1:]], 2)
    n = _LATTICE
    corners = [
        padded[blue : blue + n, green : green + n, red : red + n]
        for blue in (0, 1)
        for green in (0, 1)
        for red in (0, 1)
    ]
    return torch.stack(corners, -1).reshape(n**3, 3 * 8)


def rgb_to_lab(rgb: Tensor) -> Tensor:
    """CIE Lab (D65) of sRGB colours, equal to OpenCV's float conversion.

    Args:
        rgb: [B, 3, H, W] float32 in 0..1; clipped to that range, as in OpenCV.

    Returns:
        [B, 3, H, W] float32: L in 0..100, a and b in about -127..127. Not differentiable.

    Source: OpenCV, ``modules/imgproc/src/color_lab.cpp`` (``RGB2Lab_f``, ``trilinearInterpolate``).
    """
    levels = torch.round(rgb.clamp(0.0, 1.0) * _UNIT).to(torch.int32)
    # 32 cells of 16 steps each; integers are never negative here, so truncation is the floor.
    levels = torch.div(levels, _UNIT // (32 * _FRACTION), rounding_mode="trunc")
    cell = torch.div(levels, _FRACTION, rounding_mode="trunc")
    red, green, blue = (levels - cell * _FRACTION).unbind(1)
    index = cell[:, 0] + _LATTICE * cell[:, 1] + _LATTICE**2 * cell[:, 2]

    by_blue = (_FRACTION - blue, blue)
    by_green = (_FRACTION - green, green)
    by_red = (_FRACTION - red, red)
    weights = torch.stack([b * g * r for b in by_blue for g in by_green for r in by_red], -1)

    table = _cell_corners(_COLOURS.to(rgb.device))
    corners = table.index_select(0, index.flatten()).reshape(*index.shape, 3, 8)
    mixed = (corners * weights.unsqueeze(-2)).sum(-1, dtype=torch.int32)
    fixed = torch.div(mixed + _WEIGHT // 2, _WEIGHT, rounding_mode="trunc").permute(0, 3, 1, 2)
    span = torch.tensor(_SPAN, device=rgb.device).view(1, 3, 1, 1)
    shift = torch.tensor(_SHIFT, device=rgb.device).view(1, 3, 1, 1)
    return fixed.to(torch.float32) * (span / _UNIT) + shift


def normalise_lab(lab: Tensor) -> Tensor:
    """Normalise Lab [B, 3, H, W] for the encoder, to about -1..1 in every channel (MAST's constants)."""
    mean = torch.tensor(LAB_MEAN, device=lab.device).view(1, 3, 1, 1)
    std = torch.tensor(LAB_STD, device=lab.device).view(1, 3, 1, 1)
    return (lab - mean) / std


def lab_image(frame: Image) -> Tensor:
    """[H, W, 3] uint8 RGB -> [1, 3, H, W] normalised Lab."""
    image = torch.from_numpy(np.ascontiguousarray(frame)).permute(2, 0, 1)[None].float() / 255
    return normalise_lab(rgb_to_lab(image))
