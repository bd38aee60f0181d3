"""How long Studio lets its user wait, in a real browser.

Prints the time from a box to its mask on the screen, from a jump to a tracked frame to its overlay, and frames per
second of tracking beside `maskring track` on the same frames, by turns. `--pictures` also writes the pictures of
docs/studio.md.

    python bench/studio.py --frames DAVIS/JPEGImages/480p/dog-agility --box 385,165,600,330 --model pico
"""

from __future__ import annotations

import argparse
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from playwright.sync_api import sync_playwright

from maskring.runtime.video.folders import frames_in
from maskring.runtime.video.images import read_image

OBSERVE = """() => {
  const stage = document.querySelector("#stage");
  window.settled = [];
  new MutationObserver(() => settled.push([performance.now(), stage.dataset.frame, stage.dataset.revision]))
    .observe(stage, { attributes: true, attributeFilter: ["data-revision"] });
  document.addEventListener("pointerup", () => (window.released = performance.now()), true);
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
        for path in frames_in(chosen.frames)[: chosen.count]:
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
            pairs = []
            for turn in range(chosen.turns):
                pairs.append(
                    (studio_fps(page, chosen.count), command_fps(maskring, settings, clip, chosen.box))
                )
                print(
                    f"turn {turn + 1}: Studio {pairs[-1][0]:.2f} fps, track {pairs[-1][1]:.2f} fps",
                    flush=True,
                )
            slower = statistics.median(track / studio for studio, track in pairs) - 1
            print(f"tracking in Studio takes {100 * slower:+.1f} % time", flush=True)
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


def draw_box(page: Any, size: tuple[int, int], box: str) -> float:
    """Drag a box on frames of (H, W) pixels; milliseconds from the release of the button to the mask."""
    x0, y0, x1, y1 = (int(edge) for edge in box.split(","))
    height, width = size
    page.get_by_role("button", name="Box", exact=True).click()
    view = page.locator("#view").bounding_box()
    scale = min((view["width"] - 24) / width, (view["height"] - 24) / height)
    left = view["x"] + (view["width"] - width * scale) / 2
    top = view["y"] + (view["height"] - height * scale) / 2
    page.evaluate(OBSERVE)
    page.mouse.move(left + (x0 + 0.5) * scale, top + (y0 + 0.5) * scale)
    page.mouse.down()
    page.mouse.move(left + (x1 - 0.5) * scale, top + (y1 - 0.5) * scale, steps=4)
    page.mouse.up()
    page.wait_for_selector('#stage:not([data-revision=""])')
    return float(page.evaluate("settled[0][0] - released"))


def studio_fps(page: Any, count: int) -> float:
    """Track forward from the first frame; frames per second once the model is open."""
    page.evaluate("document.querySelectorAll('.toast').forEach(toast => toast.remove())")
    page.keyboard.press("Home")
    page.wait_for_selector("#stage[data-frame='0']")
    page.get_by_role("button", name="Track forward").click()
    text = page.get_by_text(f"Tracked {count} frames.").last.inner_text()
    return float(re.findall(r"([\d.]+) fps", text)[0])


def command_fps(maskring: list[str], settings: list[str], clip: Path, box: str) -> float:
    """The same by `maskring track`, without the overlay video."""
    with tempfile.TemporaryDirectory() as out:
        command = [*maskring, "track", str(clip), "--box", box, *settings, "--no-overlay", "--out", out]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
    return float(re.findall(r"([\d.]+) fps", done.stdout)[0])


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
