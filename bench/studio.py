"""How long Studio lets its user wait, in a real browser.

Prints the time from a box to its mask on the screen, from a jump to a tracked frame to its overlay, and the time that
a frame takes in Studio and in `maskring track`, by turns. `--pictures` also writes the pictures of docs/studio.md.

    python bench/studio.py --frames DAVIS/JPEGImages/480p/dog-agility --box 385,165,600,330 --model pico
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import psutil
from playwright.sync_api import sync_playwright

from maskring.runtime.video.folders import frames_in
from maskring.runtime.video.images import read_image

OBSERVE = """() => {
  const stage = document.querySelector("#stage"), before = stage.dataset.revision;
  let released = null;
  document.addEventListener("pointerup", () => (released = performance.now()), { capture: true, once: true });
  window.masked = new Promise((done) => new MutationObserver((_, observer) => {
    if (released === null || !stage.dataset.revision || stage.dataset.revision === before) return;
    observer.disconnect();
    requestAnimationFrame(() => requestAnimationFrame(() => done(performance.now() - released)));
  }).observe(stage, { attributes: true, attributeFilter: ["data-revision"] }));
}"""

JUMP = """(frame) => new Promise((done) => {
  const stage = document.querySelector("#stage"), input = document.querySelector("#frame"), begun = performance.now();
  new MutationObserver((_, observer) => {
    if (stage.dataset.frame !== String(frame)) return;
    observer.disconnect();
    requestAnimationFrame(() => requestAnimationFrame(() => done(performance.now() - begun)));
  }).observe(stage, { attributes: true });
  input.value = frame;
  input.dispatchEvent(new Event("change"));
})"""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--frames", type=Path, required=True, help="a folder of frames")
    parser.add_argument("--box", required=True, help="X0,Y0,X1,Y1 around an object of the first frame")
    parser.add_argument("--model", default="pico")
    parser.add_argument("--threads", default="0")
    parser.add_argument("--count", type=int, default=30, help="frames to track")
    parser.add_argument("--turns", type=int, default=2)
    parser.add_argument("--pictures", type=Path, help="folder for the pictures of the documentation")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        clip = Path(name) / chosen.frames.name
        clip.mkdir()
        paths = frames_in(chosen.frames)[: chosen.count]
        if len(paths) < 4:
            parser.error(f"{len(paths)} frames are too few: --frames and --count must give at least 4")
        chosen.count = len(paths)  # a folder may hold fewer
        for path in paths:
            shutil.copy(path, clip)
        measure(clip, chosen)


def measure(clip: Path, chosen: argparse.Namespace) -> None:
    """Run Studio and `maskring track` by turns."""
    maskring = [sys.executable, "-m", "maskring"]
    height, width = read_image(frames_in(clip)[0]).shape[:2]
    size = height, width
    settings = ["--model", chosen.model, "--threads", chosen.threads]
    server = subprocess.Popen(
        [*maskring, "studio", str(clip), "--no-browser", *settings], stdout=subprocess.PIPE, text=True
    )
    assert server.stdout is not None
    address = server.stdout.readline().split()[-1]
    try:
        with sync_playwright() as driver:
            browser = driver.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
            page = browser.new_page(viewport={"width": 1280, "height": 760})
            page.set_default_timeout(3_600_000)
            page.goto(address)
            page.wait_for_selector("#stage[data-frame]")
            print(f"box to mask on the screen: {draw_box(page, size, chosen.box):.0f} ms", flush=True)
            compare(page, psutil.Process(server.pid), (maskring, settings, clip, chosen.box), chosen)
            jumps = [page.evaluate(JUMP, 1 + (7 * n) % (chosen.count - 1)) for n in range(12)]
            print(
                f"jump to a tracked frame: median {statistics.median(jumps):.0f} ms, longest {max(jumps):.0f} ms"
            )
            if chosen.pictures:
                take_pictures(page, chosen.pictures, chosen.count)
            browser.close()
    finally:
        server.terminate()
        server.wait()


def compare(
    page: Any,
    server: psutil.Process,
    command: tuple[list[str], list[str], Path, str],
    chosen: argparse.Namespace,
) -> None:
    """Track in Studio and by the command, by turns."""
    studio_run(page, server, chosen.count, chosen.count)  # so that every frame has a mask
    pairs = []
    for turn in range(chosen.turns):
        ours = per_frame(lambda frames: studio_run(page, server, chosen.count, frames), chosen.count)
        theirs = per_frame(lambda frames: command_run(*command, frames), chosen.count)
        pairs.append((ours, theirs))
        print(
            f"turn {turn + 1}: a frame takes {ours.wall:.0f} ms in Studio, {theirs.wall:.0f} ms in track; "
            f"processor time {ours.processor:.0f} and {theirs.processor:.0f} ms",
            flush=True,
        )
    for what, name in (("wall", "time"), ("processor", "processor time")):
        more = statistics.median(getattr(one, what) / getattr(other, what) for one, other in pairs) - 1
        print(f"tracking in Studio takes {100 * more:+.1f} % {name}", flush=True)


def draw_box(page: Any, size: tuple[int, int], box: str) -> float:
    """Drag a box on frames of (H, W) pixels; milliseconds from the release of the button to the mask."""
    x0, y0, x1, y1 = (int(edge) for edge in box.split(","))
    height, width = size
    page.get_by_role("button", name="Box", exact=True).click()
    view = page.locator("#view").bounding_box()
    scale = min(view["width"] / width, view["height"] / height)
    left = view["x"] + (view["width"] - width * scale) / 2
    top = view["y"] + (view["height"] - height * scale) / 2
    page.evaluate(OBSERVE)
    page.mouse.move(left + (x0 + 0.5) * scale, top + (y0 + 0.5) * scale)
    page.mouse.down()
    page.mouse.move(left + (x1 - 0.5) * scale, top + (y1 - 0.5) * scale, steps=4)
    page.mouse.up()
    return float(page.evaluate("masked"))


class Times(NamedTuple):
    """Seconds of a run: by the clock, and of all processors together, the page's left out."""

    wall: float
    processor: float


def per_frame(run: Callable[[int], Times], count: int) -> Times:
    """Milliseconds per frame: a run of all frames less one of two, so that opening the model does not count."""
    short, long = run(2), run(count)
    parts = ((1000 * (more - less)) / (count - 2) for less, more in zip(short, long, strict=True))
    return Times(*parts)


def studio_run(page: Any, server: psutil.Process, count: int, frames: int) -> Times:
    """Track the last ``frames`` frames forward."""
    page.evaluate("document.querySelectorAll('.toast').forEach(toast => toast.remove())")
    page.evaluate(JUMP, count - frames)
    before, begun = server.cpu_times(), time.perf_counter()
    page.get_by_role("button", name="Track forward").click()
    page.get_by_text(f"Tracked {frames} frames.").last.wait_for()
    wall, after = time.perf_counter() - begun, server.cpu_times()
    return Times(wall, after.user + after.system - before.user - before.system)


def command_run(maskring: list[str], settings: list[str], clip: Path, box: str, frames: int) -> Times:
    """The same by `maskring track` from the first frame on, without the overlay video."""
    with tempfile.TemporaryDirectory() as out:
        command = [*maskring, "track", str(clip), "--box", box, "--to", str(frames - 1), *settings]
        before, begun = os.times(), time.perf_counter()
        subprocess.run([*command, "--no-overlay", "--out", out], check=True, capture_output=True)
        wall, after = time.perf_counter() - begun, os.times()
    both = (after.children_user, before.children_user), (after.children_system, before.children_system)
    return Times(wall, sum(later - earlier for later, earlier in both))


def take_pictures(page: Any, folder: Path, count: int) -> None:
    """The page after tracking, light, and at a correction, dark."""
    page.evaluate("document.querySelectorAll('.toast').forEach(toast => toast.remove())")
    page.evaluate(JUMP, count // 2)
    page.mouse.move(10, 300)
    page.wait_for_timeout(800)
    page.screenshot(path=folder / "studio_light.png")
    page.emulate_media(color_scheme="dark")
    page.get_by_role("button", name="Brush", exact=True).click()
    page.mouse.move(600, 300)
    page.wait_for_timeout(800)
    page.screenshot(path=folder / "studio_dark.png")


if __name__ == "__main__":
    main()
