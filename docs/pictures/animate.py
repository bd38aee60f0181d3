"""Write the animation at the top of the README: ``python docs/pictures/animate.py --help``."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

import maskring
from maskring.runtime.video.synthetic import FRAME_RATE, render_clip

WIDTH = 480
"""Pixels; frames are scaled to it."""


def rendered_frames() -> tuple[NDArray[np.uint8], Iterator[NDArray[np.uint8]], float]:
    """First mask, frames and frame rate of the demo's rendered clip."""
    clip = render_clip(360, 640)
    first, mask = next(clip)
    return mask, chain([first], (frame for frame, _ in clip)), FRAME_RATE


def video_frames(video: Path, mask: Path) -> tuple[NDArray[np.uint8], Iterator[NDArray[np.uint8]], float]:
    """First mask, frames and frame rate of a video."""
    source = maskring.open_source(video)
    return maskring.read_mask(mask), (frame.image for frame in source), source.fps


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--video", type=Path, help="default: the rendered clip of `maskring demo`")
    parser.add_argument("--mask", type=Path, help="mask of the first frame of --video")
    parser.add_argument("--model", default="nano")
    parser.add_argument("--every", type=int, default=2, help="take every n-th frame")
    parser.add_argument("--frames", type=int, default=80, help="length of the animation, in frames")
    parser.add_argument("--quality", type=int, default=60, help="of WebP, 0 to 100")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name("overlay.webp"))
    options = parser.parse_args()
    if options.video is None:
        mask, frames, rate = rendered_frames()
    else:
        mask, frames, rate = video_frames(options.video, options.mask)
    pictures = []
    with maskring.open_tracker(Path(options.model)) as tracker:
        for index, frame in enumerate(frames):
            labels = tracker.step(frame, mask if index == 0 else None).labels
            if index % options.every == 0:
                overlay = maskring.draw_overlay(frame, labels)
                height = round(overlay.shape[0] * WIDTH / overlay.shape[1])
                scaled = cv2.resize(overlay, (WIDTH, height), interpolation=cv2.INTER_AREA)
                pictures.append(Image.fromarray(scaled))
            if len(pictures) == options.frames:
                break
    pictures[0].save(
        options.out,
        save_all=True,
        append_images=pictures[1:],
        duration=round(1000 * options.every / rate),
        loop=0,
        quality=options.quality,
        method=6,
    )
    print(f"{options.out}: {len(pictures)} frames, {options.out.stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
