"""Studio in a real browser: outline, follow, correct, export, and what can go wrong on the way."""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from studio_page import button, draw, move_to, revision
from studio_server import FRAMES, Studio
from support import moving_square, write_frames, write_video
from typer.testing import CliRunner

from maskring.cli import app
from maskring.runtime.video.masks import read_mask, write_mask


def opened(page: Any, studio: Studio) -> Any:
    """The page, once it shows a frame."""
    page.goto(studio.address)
    page.wait_for_selector("#stage[data-frame]")
    return page


def go_to(page: Any, frame: int) -> None:
    number = page.get_by_label("Frame number")
    number.fill(str(frame))
    number.press("Enter")
    page.wait_for_selector(f'#stage[data-frame="{frame}"]')


def track(page: Any, name: str = "Track forward", frames: int = FRAMES) -> None:
    button(page, name).click()
    page.get_by_text(f"Tracked {frames} frames.").last.wait_for()
    page.wait_for_selector("#stop:disabled")


def exported(page: Any) -> dict[str, bytes]:
    """Files of the zip, by name."""
    with page.expect_download() as download:
        button(page, "Export").click()
    with zipfile.ZipFile(io.BytesIO(Path(download.value.path()).read_bytes())) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def masks_of_command(words: list[Any], out: Path) -> dict[str, bytes]:
    """What ``maskring track`` writes, named as in the zip."""
    done = CliRunner().invoke(app, ["track", *map(str, words), "--out", str(out), "--no-overlay"])
    assert done.exit_code == 0, done.output
    return {f"masks/{path.name}": path.read_bytes() for path in (out / "masks").iterdir()}


def masks_in(files: dict[str, bytes]) -> dict[str, bytes]:
    return {name: data for name, data in files.items() if name.startswith("masks/")}


def test_outline_follow_correct_export(
    studio: Studio, page: Any, frames: Path, model: Path, tmp_path: Path
) -> None:
    opened(page, studio)
    draw(page, "Box", (6, 10), (35, 39))
    track(page)
    assert page.locator("#stage").get_attribute("data-frame") == str(FRAMES - 1)
    first = exported(page)
    command = [frames, "--box", "6,10,36,40", "--model", model]
    assert masks_in(first) == masks_of_command(command, tmp_path / "first")
    assert {"overlay.mp4", "objects.jsonl", "objects.json", "coco.json", "cvat.xml"} < first.keys()
    with av.open(io.BytesIO(first["overlay.mp4"])) as overlay:
        assert overlay.streams.video[0].codec_context.name == "h264"
    folders = {"yolo-seg/labels", "davis/Annotations/480p/square", "youtube-vos/Annotations/square"}
    assert folders < {name.rpartition("/")[0] for name in first}

    coco = json.loads(first["coco.json"])
    assert [category["name"] for category in coco["categories"]] == ["Object 1"]
    assert len(coco["images"]) == FRAMES
    assert coco["info"]["description"].startswith("square,")

    go_to(page, 3)
    button(page, "Eraser").click()
    draw(page, "Eraser", (20, 20), (24, 24))
    track(page, frames=FRAMES - 3)
    drawn = frames.with_name("square.maskring") / "drawn" / "000003.png"
    command += ["--add", f"3={drawn}"]
    corrected = exported(page)
    assert masks_in(corrected) == masks_of_command(command, tmp_path / "second")
    assert corrected["masks/00002.png"] == first["masks/00002.png"]
    assert corrected["masks/00003.png"] != first["masks/00003.png"]


def test_what_is_shown_of_a_run_takes_a_small_share_of_the_time(studio: Studio, page: Any) -> None:
    """By a clock that the test moves on."""
    page.goto(studio.address)
    told = page.evaluate(
        """async () => {
          const { Pace } = await import("./page/pace.js");
          const told = [];
          for (const cost of [10, 1000]) {
            let time = 0;
            const shown = [], rests = [];
            const rest = async (milliseconds) => {
              rests.push(milliseconds);
              if (rests.length === 1) pace.ask(), pace.ask();
              time += milliseconds;
            };
            const painted = async () => { time += cost; };
            const pace = new Pace(async () => { shown.push(time); time += cost; }, { now: () => time, rest, painted });
            pace.ask(), pace.ask();
            await pace.running;
            told.push({ shown, rests });
          }
          return told;
        }"""
    )
    quick, slow = told
    assert len(quick["shown"]) == len(slow["shown"]) == 2  # of four times that it was asked for
    assert all(20 / (20 + rest) <= 0.05 for rest in quick["rests"])
    assert all(rest <= 2000 for rest in slow["rests"])  # the page moves on a slow machine too


@pytest.mark.slow
def test_every_control_has_a_name(studio: Studio, page: Any) -> None:
    opened(page, studio)
    names = ["Track forward", "Track backward", "Next doubtful frame"]
    tools = ["Open", "Box", "Polygon", "Scribble", "Brush", "Eraser", "Undo", "Redo", "Stop", "Export"]
    for name in [*names, *tools]:
        assert button(page, name).count() == 1
    for control in page.locator("button, input, canvas[tabindex], [role=slider]").all():
        assert control.get_attribute("aria-label") or control.inner_text().strip(), control.evaluate(
            "e => e.outerHTML"
        )


@pytest.mark.slow
def test_the_mouse_draws_where_it_points(studio: Studio, page: Any, frames: Path) -> None:
    opened(page, studio)
    button(page, "Polygon").click()
    box = page.locator("#view").bounding_box()
    scale = min(box["width"] / 64, box["height"] / 48)
    left, top = box["x"] + (box["width"] - 64 * scale) / 2, box["y"] + (box["height"] - 48 * scale) / 2
    for x, y in ((12, 16), (27, 16), (27, 31), (12, 31), (12, 16)):
        page.mouse.click(left + (x + 0.5) * scale, top + (y + 0.5) * scale)
    page.wait_for_selector('#stage:not([data-revision=""])')
    drawn = read_mask(frames.with_name("square.maskring") / "drawn" / "000000.png")
    np.testing.assert_array_equal(drawn, moving_square(0)[1])


@pytest.mark.slow
def test_a_scribble_and_both_directions(studio: Studio, page: Any) -> None:
    opened(page, studio)
    go_to(page, 4)
    draw(page, "Scribble", (24, 24), (30, 26))
    track(page, "Track backward", 5)
    assert page.locator("#stage").get_attribute("data-frame") == "0"
    go_to(page, 4)
    track(page, frames=FRAMES - 4)
    masks = {int(name[6:11]): data for name, data in masks_in(exported(page)).items()}
    assert sorted(masks) == list(range(FRAMES))
    for index in (0, 4, FRAMES - 1):
        Path(studio.folder / "mask.png").write_bytes(masks[index])
        found, truth = read_mask(studio.folder / "mask.png") > 0, moving_square(index)[1] > 0
        assert (found & truth).sum() / (found | truth).sum() > 0.6


@pytest.mark.slow
def test_undo_and_redo(studio: Studio, page: Any) -> None:
    opened(page, studio)
    draw(page, "Box", (6, 10), (35, 39))
    page.keyboard.press("Control+z")
    page.wait_for_selector('#stage[data-revision=""]')
    page.keyboard.press("Control+Shift+z")
    page.wait_for_selector('#stage:not([data-revision=""])')
    track(page)
    button(page, "Undo").click()
    page.wait_for_selector('#stage[data-revision=""]')  # the last frame's mask came from the run
    assert len(studio.ask(f"clip/{studio.clip()}/state").json["masks"]) == 1


@pytest.mark.slow
def test_reload_and_restart_in_the_middle(page: Any, frames: Path, model: Path, tmp_path: Path) -> None:
    studio = Studio(frames, model, tmp_path / "cache")
    opened(page, studio)
    draw(page, "Box", (6, 10), (35, 39))
    page.reload()
    page.wait_for_selector('#stage[data-frame="0"]:not([data-revision=""])')
    button(page, "Track forward").click()
    studio.kill()
    page.get_by_text("The server does not answer").first.wait_for()
    again = Studio(frames, model, tmp_path / "cache")
    opened(page, again)
    page.wait_for_selector('#stage[data-frame="0"]:not([data-revision=""])')
    track(page)
    masks = masks_in(exported(page))
    assert masks == masks_of_command([frames, "--box", "6,10,36,40", "--model", model], tmp_path / "out")
    code, _ = again.stop()
    assert code == 0


@pytest.mark.slow
def test_two_tabs_show_the_same(studio: Studio, page: Any) -> None:
    opened(page, studio)
    other = page.context.new_page()
    opened(other, studio)
    draw(page, "Polygon", (12, 16), (27, 16), (27, 31))
    other.wait_for_selector('#stage:not([data-revision=""])')
    draw(other, "Polygon", (40, 4), (50, 4), (50, 10))
    page.wait_for_selector(f'#stage[data-revision="{revision(other)}"]')
    track(other)
    button(page, "Export").and_(page.locator(":enabled")).wait_for()


@pytest.mark.slow
def test_a_video_and_its_neighbours(page: Any, model: Path, tmp_path: Path) -> None:
    folder = tmp_path / "footage"
    write_frames(folder / "square", FRAMES)
    write_video(folder / "clip.mp4", FRAMES)
    (folder / "broken.mp4").write_bytes(b"no video")
    studio = Studio(folder, model, tmp_path / "cache")
    page.goto(studio.address)
    page.get_by_role("dialog").get_by_role("button", name="broken.mp4").click()
    page.locator(".toast.bad", has_text="broken.mp4").wait_for()
    button(page, "Open").click()
    page.get_by_role("dialog").get_by_role("button", name="clip.mp4").click()
    page.wait_for_selector("#stage[data-frame='0']")
    draw(page, "Box", (6, 10), (35, 39))
    track(page)
    command = [folder / "clip.mp4", "--box", "6,10,36,40", "--model", model]
    assert masks_in(exported(page)) == masks_of_command(command, tmp_path / "out")
    studio.stop()


@pytest.mark.slow
def test_masks_are_imported(studio: Studio, page: Any, tmp_path: Path) -> None:
    opened(page, studio)
    write_mask(tmp_path / "first.png", moving_square(0)[1])
    page.get_by_label("Masks to import").set_input_files(tmp_path / "first.png")
    page.wait_for_selector('#stage:not([data-revision=""])')
    (tmp_path / "note.txt").write_text("no mask")
    page.get_by_label("Masks to import").set_input_files(tmp_path / "note.txt")
    page.locator(".toast.bad", has_text="not a PNG").wait_for()


@pytest.mark.slow
def test_an_exported_zip_goes_on_elsewhere(studio: Studio, page: Any, model: Path, tmp_path: Path) -> None:
    opened(page, studio)
    draw(page, "Polygon", (12, 16), (27, 16), (27, 31), (12, 31))
    name = page.get_by_label("Name of Object 1")
    name.fill("cup")
    name.press("Enter")
    track(page)
    with page.expect_download() as download:
        button(page, "Export").click()
    download.value.save_as(tmp_path / "work.zip")
    frames = write_frames(tmp_path / "elsewhere" / "other", FRAMES)
    elsewhere = Studio(frames, model, tmp_path / "cache")
    opened(page, elsewhere)
    page.get_by_label("Masks to import").set_input_files(tmp_path / "work.zip")
    page.wait_for_selector('#stage:not([data-revision=""])')
    page.get_by_label("Name of cup").wait_for()
    with zipfile.ZipFile(tmp_path / "work.zip") as archive:
        before = {name: archive.read(name) for name in archive.namelist()}
    assert masks_in(exported(page)) == masks_in(before)
    go_to(page, 5)
    track(page, frames=FRAMES - 5)
    elsewhere.stop()


@pytest.mark.slow
def test_keyboard_alone(studio: Studio, page: Any) -> None:
    opened(page, studio)
    page.keyboard.press("b")
    while page.evaluate("document.activeElement.id") != "view":
        page.keyboard.press("Tab")
    for _ in range(8):
        page.keyboard.press("+")
    page.keyboard.press("ArrowRight")
    for point in ((6, 10), (35, 39)):
        move_to(page, point)
        page.keyboard.press("Enter")
    page.wait_for_selector('#stage[aria-busy="false"]:not([data-revision=""])')
    page.keyboard.press("f")
    page.get_by_text(f"Tracked {FRAMES} frames.").last.wait_for()
    page.keyboard.press("Home")
    page.wait_for_selector("#stage[data-frame='0']")
    page.keyboard.press("a")
    page.wait_for_selector("#accept[aria-pressed='true']")
    with page.expect_download():
        page.keyboard.press("x")
    page.keyboard.press("Delete")
    page.get_by_text("None yet").wait_for()


@pytest.mark.slow
def test_a_wrong_token_shows_one_sentence(studio: Studio, page: Any) -> None:
    response = page.goto(studio.address.rstrip("/") + "x/")
    assert response.status == 403
    assert "token" in page.inner_text("body")
