"""Lab is OpenCV's, to 1e-3, eagerly and as ONNX."""

from __future__ import annotations

import cv2
import numpy as np
import onnxruntime
import torch
from torch import Tensor

from maskring.training.network.colour import LAB_MEAN, LAB_STD, normalise_lab, rgb_to_lab


def opencv_lab(rgb: np.ndarray) -> np.ndarray:
    """[H, W, 3] float32 -> [H, W, 3]."""
    return np.asarray(cv2.cvtColor(rgb, cv2.COLOR_RGB2LAB))


def ours(rgb: np.ndarray) -> np.ndarray:
    return rgb_to_lab(torch.from_numpy(rgb).permute(2, 0, 1)[None])[0].permute(1, 2, 0).numpy()


def dense_colours() -> np.ndarray:
    """Every third level and all dark ones, where Lab is steepest: [n, n * n, 3] uint8."""
    levels = np.unique(np.r_[np.arange(0, 256, 3), np.arange(16), 254, 255]).astype(np.uint8)
    grid = np.stack(np.meshgrid(levels, levels, levels, indexing="ij"), -1)
    return grid.reshape(len(levels), -1, 3)


def test_dense_grid_of_byte_colours_matches_opencv() -> None:
    rgb = dense_colours().astype(np.float32) / 255
    assert np.abs(ours(rgb) - opencv_lab(rgb)).max() < 1e-3


def test_float_colours_match_opencv_and_are_clipped_like_there() -> None:
    rgb = np.random.default_rng(0).uniform(-0.1, 1.1, (300, 300, 3)).astype(np.float32)
    assert np.abs(ours(rgb) - opencv_lab(rgb)).max() < 1e-3


def test_normalisation_uses_the_constants_of_mast() -> None:
    lab = torch.tensor([0.0, 0.0, 127.0]).view(1, 3, 1, 1)
    assert (LAB_MEAN, LAB_STD) == ((50.0, 0.0, 0.0), (50.0, 127.0, 127.0))
    assert normalise_lab(lab).flatten().tolist() == [-1.0, 0.0, 1.0]


class FromBytes(torch.nn.Module):
    def forward(self, frame: Tensor) -> Tensor:
        return normalise_lab(rgb_to_lab(frame.permute(0, 3, 1, 2).float() / 255))


def test_exported_lab_is_the_same() -> None:
    frame = torch.from_numpy(np.random.default_rng(1).integers(0, 256, (1, 30, 44, 3), dtype=np.uint8))
    size = {1: torch.export.Dim("height"), 2: torch.export.Dim("width")}
    program = torch.onnx.export(
        FromBytes().eval(), (frame[:, :20, :20],), dynamo=True, dynamic_shapes=(size,), verbose=False
    )
    assert program is not None
    session = onnxruntime.InferenceSession(
        program.model_proto.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    exported = session.run(None, {session.get_inputs()[0].name: frame.numpy()})[0]
    assert np.abs(exported - FromBytes()(frame).numpy()).max() < 1e-5
