"""Write the animation at the top of the README: ``python docs/pictures/animate.py --help``.

The one in the repository shows butterfly.mp4 (CC0), from ``assets/videos`` of github.com/flutter/assets-for-api-docs::

    python docs/pictures/animate.py butterfly.mp4 --first 48 --last 210 --every 2 --box 196,36,468,359
"""

from __future__ import annotations

import argparse
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

import maskring

TRACKED_WIDTH, SHOWN_WIDTH = 640, 480
"""Pixels; frames are scaled to the first before they are tracked, and to the second for the animation."""


def scaled(image: NDArray[np.uint8], width: int) -> NDArray[np.uint8]:
    height = round(image.shape[0] * width / image.shape[1])
    return np.asarray(cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA), np.uint8)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("video", type=Path)
    parser.add_argument("--box", required=True, help="X0,Y0,X1,Y1 around the object in the first frame")
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--last", type=int)
    parser.add_argument("--every", type=int, default=1, help="track every n-th frame")
    parser.add_argument("--model", default="pico")
    parser.add_argument("--quality", type=int, default=60, help="of WebP, 0 to 100")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name("overlay.webp"))
    options = parser.parse_args()
    x0, y0, x1, y1 = map(int, options.box.split(","))
    pictures = []
    with (
        maskring.open_source(options.video, first=options.first, last=options.last) as source,
        maskring.open_tracker(Path(options.model)) as tracker,
    ):
        rate = source.fps / options.every
        for frame in source:
            if (frame.index - options.first) % options.every:
                continue
            image = scaled(frame.image, TRACKED_WIDTH)
            mask = None if pictures else maskring.masks_from_boxes(image, [(x0, y0, x1, y1)])
            overlay = maskring.draw_overlay(image, tracker.step(image, mask).labels)
            pictures.append(Image.fromarray(scaled(overlay, SHOWN_WIDTH)))
    pictures[0].save(
        options.out,
        save_all=True,
        append_images=pictures[1:],
        duration=round(1000 / rate),
        loop=0,
        quality=options.quality,
        method=6,
    )
    print(f"{options.out}: {len(pictures)} frames, {options.out.stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
