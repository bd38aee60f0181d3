"""Optical flow over several frames, and where it is reliable."""

from __future__ import annotations

import cv2
import numpy as np

from maskring.training.optical_flow import flow_to_last

HEIGHT, WIDTH = 96, 128


def texture(seed: int = 0) -> np.ndarray:
    """Smooth random colours, larger than a frame."""
    noise = np.random.default_rng(seed).integers(0, 256, (HEIGHT + 64, WIDTH + 64, 3), dtype=np.uint8)
    soft = cv2.GaussianBlur(noise, (0, 0), 2.5).astype(float)
    return np.clip((soft - soft.mean()) * 8 + 128, 0, 255).astype(np.uint8)


def shifted(image: np.ndarray, x: int, y: int) -> np.ndarray:
    """The frame after a shift by (x, y)."""
    return np.ascontiguousarray(image[32 - y : 32 - y + HEIGHT, 32 - x : 32 - x + WIDTH])


def test_flow_is_chained_over_frames() -> None:
    image = texture()
    flow, reliable = flow_to_last([shifted(image, 0, 0), shifted(image, 3, 1), shifted(image, 7, 3)])
    assert flow.shape == (HEIGHT, WIDTH, 2) and reliable.shape == (HEIGHT, WIDTH)
    inner = flow[16:-16, 16:-16]
    assert np.abs(inner - (7, 3)).max(-1).mean() < 0.5
    assert reliable[16:-16, 16:-16].mean() > 0.9


def test_flow_of_large_frames_is_in_their_pixels() -> None:
    image = cv2.resize(texture(), None, fx=4, fy=4)
    one, other = (np.ascontiguousarray(image[64:-64, 64 - x : -64 - x]) for x in (0, 8))
    flow, _ = flow_to_last([one, other])
    assert np.abs(np.median(flow.reshape(-1, 2), axis=0) - (8, 0)).max() < 0.7


def test_flow_is_unreliable_where_pixels_are_covered_or_leave() -> None:
    image, cover = texture(), texture(1)
    one, other = shifted(image, 0, 0), shifted(image, 6, 0)
    other[30:70, 40:90] = cover[30:70, 40:90]
    _, reliable = flow_to_last([one, other])
    assert reliable[36:64, 44:76].mean() < 0.5 < reliable[:24, 16:-24].mean()
    assert reliable[:, -4:].mean() < 0.2
