"""Latency of Studio's live page, in a real browser, from a camera that speaks RTSP on loopback.

The frames of a sequence go to and fro at the camera's rate. Prints what the page shows after some seconds without an
object, and after as many with one whose box, from the annotation, was drawn on a frozen frame. `--picture` writes the
picture of docs/studio.md.

    python bench/studio_live.py --davis ROOT --sequence car-turn --size 240
"""

from __future__ import annotations

import argparse
import itertools
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from playwright.sync_api import sync_playwright
from studio import draw_box

from maskring.runtime.video.folders import frames_in
from maskring.runtime.video.images import read_image
from maskring.runtime.video.masks import read_mask

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "tools"))

from rtsp_server import rtsp_camera


def to_and_fro(count: int) -> list[int]:
    """Indices of frames, there and back."""
    return [*range(count), *range(count - 2, 0, -1)]


def paced(frames: list[np.ndarray], fps: float) -> Iterator[np.ndarray]:
    """The frames to and fro, without end, at the pace of a clock."""
    begun = time.monotonic()
    for number, index in enumerate(itertools.cycle(to_and_fro(len(frames)))):
        time.sleep(max(0.0, begun + number / fps - time.monotonic()))
        yield frames[index]


def box_around(truth: np.ndarray) -> str:
    """The tight box of an object with three pixels to spare, as X0,Y0,X1,Y1."""
    rows, columns = np.nonzero(truth)
    return f"{columns.min() - 3},{rows.min() - 3},{columns.max() + 4},{rows.max() + 4}"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--davis", type=Path, required=True)
    parser.add_argument("--sequence", default="car-turn")
    parser.add_argument("--model", default="pico")
    parser.add_argument("--size", default="480", help="shorter side of the frames that the tracker sees")
    parser.add_argument("--threads", default="0")
    parser.add_argument("--count", type=int, default=40, help="frames of the sequence")
    parser.add_argument("--fps", type=float, default=25.0, help="of the camera")
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--picture", type=Path)
    chosen = parser.parse_args()
    folders = (chosen.davis / kind / "480p" / chosen.sequence for kind in ("JPEGImages", "Annotations"))
    images, annotations = (frames_in(folder)[: chosen.count] for folder in folders)
    frames = [read_image(path) for path in images]
    height, width = (side // 16 * 16 for side in frames[0].shape[:2])
    frames = [np.ascontiguousarray(frame[:height, :width]) for frame in frames]
    with rtsp_camera(paced(frames, chosen.fps) for _ in itertools.count()) as address:
        command = [
            sys.executable,
            "-m",
            "maskring",
            "studio",
            address,
            "--no-browser",
            "--model",
            chosen.model,
        ]
        command += ["--size", chosen.size, "--threads", chosen.threads]
        server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        try:
            assert server.stdout is not None
            watch(server.stdout.readline().split()[-1], chosen, (height, width), annotations)
        finally:
            server.terminate()
            server.wait()


def watch(address: str, chosen: argparse.Namespace, size: tuple[int, int], annotations: list[Path]) -> None:
    """Open the page, wait, draw, wait."""
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1280, "height": 760})
        page.set_default_timeout(600_000)
        page.goto(address)
        page.wait_for_selector("#stage[data-frame]")
        page.wait_for_timeout(1000 * chosen.seconds)
        print(f"nothing tracked: {page.inner_text('#figures')}", flush=True)
        page.get_by_role("button", name="Freeze").click()
        page.get_by_text("Frozen at frame").wait_for()
        way = to_and_fro(len(annotations))
        truth = read_mask(annotations[way[int(page.get_attribute("#stage", "data-frame") or 0) % len(way)]])
        box = box_around(truth[: size[0], : size[1]] > 0)
        print(f"box to mask on the screen: {draw_box(page, size, box):.0f} ms", flush=True)
        begun = time.monotonic()
        page.get_by_role("button", name="Go on").click()
        page.wait_for_selector("#objects li:not([data-waiting]) input[type=text]")
        print(f"from Go on to the object in the newest frame: {time.monotonic() - begun:.1f} s", flush=True)
        page.wait_for_timeout(1000 * chosen.seconds)
        print(f"one object: {page.inner_text('#figures')}", flush=True)
        if chosen.picture:
            page.mouse.move(10, 400)
            page.screenshot(path=chosen.picture)
        browser.close()


if __name__ == "__main__":
    main()
