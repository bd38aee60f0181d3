"""Attacks on readers of images, videos and masks, and of datasets made of them."""

from __future__ import annotations

import random
from pathlib import Path

import cv2
import numpy as np
from support import moving_square, write_davis, write_video
from trust.damage import Attack, attack_files, damaged_bytes


def masks(folder: Path) -> Attack:
    from png_chunks import read_chunks, write_chunks

    from maskring.runtime.video.masks import read_mask, write_mask

    path = folder / "mask.png"
    mask = moving_square(0)[1]
    write_mask(path, mask)
    originals = [path.read_bytes(), cv2.imencode(".png", mask)[1].tobytes()]
    colours = np.repeat(mask[..., None] * 200, 4, 2)
    originals += [cv2.imencode(".png", colours[..., :channels])[1].tobytes() for channels in (3, 4)]

    def attack(rng: random.Random) -> None:
        data = rng.choice(originals)
        if rng.random() < 0.5:  # damage that the checksums do not show
            chunks = read_chunks(data)[:-1]
            at = rng.randrange(len(chunks))
            chunks[at] = (chunks[at][0], damaged_bytes(chunks[at][1], rng))
            data = write_chunks(chunks)
        else:
            data = damaged_bytes(data, rng)
        path.write_bytes(data)
        read_mask(path, allow_empty=rng.random() < 0.5)

    return attack


def images(folder: Path) -> Attack:
    from maskring.runtime.video.images import read_image
    from maskring.runtime.video.opencv import silence_opencv

    silence_opencv()
    frame = moving_square(0)[0]
    originals = [cv2.imencode(suffix, frame)[1].tobytes() for suffix in (".png", ".jpg", ".bmp", ".webp")]
    return attack_files(folder / "frame.png", originals, read_image)


def datasets(folder: Path) -> Attack:
    """Split lists and annotation folders in DAVIS layout."""
    from maskring.runtime.evaluation.annotations import Annotations
    from maskring.runtime.evaluation.datasets import load_split

    write_davis(folder, {"a": 3, "b": 3})
    lists = folder / "ImageSets" / "2017"
    annotation = folder / "Annotations" / "480p" / "a" / "00001.png"
    sound = annotation.read_bytes()
    lines = [*b"a b a/../b / ..".split(), b"", b"\0", b"x" * 300, b"x" * 5000, b"\xff\xfe", "ä".encode()]

    def attack(rng: random.Random) -> None:
        chosen = [rng.choice(lines[:2]), *(rng.choice(lines) for _ in range(rng.randrange(3)))]
        text = b"\n".join(chosen)
        (lists / "val.txt").write_bytes(text if rng.random() < 0.8 else damaged_bytes(text, rng))
        annotation.write_bytes(damaged_bytes(sound, rng) if rng.random() < 0.5 else sound)
        for sequence in load_split(folder, "val"):
            annotations = Annotations.of(sequence)
            annotations.introduced(annotations.start)

    return attack


def videos(folder: Path) -> Attack:
    from maskring.runtime.video.open_source import open_source
    from maskring.runtime.video.opencv import silence_opencv

    silence_opencv()
    originals = []
    for suffix, codec in ((".mp4", "mp4v"), (".avi", "MJPG"), (".mkv", "mp4v")):
        originals.append(write_video(folder / f"sound{suffix}", 6, codec=codec).read_bytes())

    def read(path: Path) -> None:
        with open_source(path) as source:
            for count, _ in enumerate(source):
                assert count < 2000, "frames without end"

    return attack_files(folder / "clip.mp4", originals, read)
