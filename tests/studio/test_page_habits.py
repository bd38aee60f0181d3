"""Studio's page as hurried users meet it: who types ahead, clicks where others drag, zooms, goes back, is offline."""

from __future__ import annotations

import urllib.parse
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from studio_page import button, drag, place, revision
from studio_server import FRAMES, Studio
from support import moving_square, write_frames

from maskring.runtime.video.masks import read_mask

pytestmark = pytest.mark.slow

BOX = (6, 10), (35, 39)


def opened(page: Any, studio: Studio) -> Any:
    page.goto(studio.address)
    page.wait_for_selector("#stage[data-frame]")
    return page


def drawn(studio: Studio, frame: int = 0) -> np.ndarray:
    """What is drawn on a frame of the clip ``square``."""
    return read_mask(studio.folder / "clips" / "square.maskring" / "drawn" / f"{frame:06d}.png")


def wait_for_mask(page: Any, before: str = "") -> None:
    page.wait_for_selector(f'#stage[aria-busy="false"]:not([data-revision="{before}"])')


def state(studio: Studio) -> Any:
    return studio.ask(f"clip/{studio.clip()}/state").json


def test_what_is_pressed_after_a_stroke_waits_for_its_mask(studio: Studio, page: Any) -> None:
    opened(page, studio)
    page.keyboard.press("b")
    drag(page, *BOX, steps=1)
    page.keyboard.press("f")
    page.keyboard.press("f")  # meant once
    page.get_by_text(f"Tracked {FRAMES} frames.").last.wait_for()
    assert page.locator(".toast.bad").count() == 0
    page.keyboard.press("d")
    drag(page, (50, 40), (52, 42))
    page.keyboard.press("Control+z")
    page.wait_for_selector('#stage[aria-busy="false"]')
    page.wait_for_function("document.querySelector('#undo').dataset.tip.includes('track')")
    assert list(state(studio)["drawn"]) == ["0"]  # the stroke was taken back, not the run


def test_a_stroke_is_the_chosen_objects_when_it_was_drawn(studio: Studio, page: Any) -> None:
    opened(page, studio)
    for _ in range(2):
        page.keyboard.press("n")
    page.get_by_label("Name of Object 2").wait_for()
    page.keyboard.press("1")
    page.keyboard.press("d")
    page.route("**/stroke", lambda route: (page.wait_for_timeout(50), route.continue_()))
    drag(page, (10, 10), (14, 14))
    page.keyboard.press("2")
    drag(page, (40, 40), (44, 44))
    page.keyboard.press("ArrowRight")
    page.wait_for_selector('#stage[aria-busy="false"][data-frame="1"]')
    assert state(studio)["drawn"] == {"0": [1, 2]}
    mask = drawn(studio)
    assert mask[12, 12] == 1 and mask[42, 42] == 2


def test_keys_work_after_the_mouse(studio: Studio, page: Any) -> None:
    opened(page, studio)
    button(page, "Box").click()
    drag(page, *BOX)
    wait_for_mask(page)
    page.keyboard.press("Space")  # plays, and does not press Box again
    button(page, "Pause").or_(page.locator(f'#stage[data-frame="{FRAMES - 1}"]')).first.wait_for()
    page.wait_for_selector(f'#stage[data-frame="{FRAMES - 1}"]')
    page.get_by_label("Name of Object 1").click()
    drag(page, (2, 2), (3, 3))
    page.keyboard.press("Home")
    page.wait_for_selector('#stage[data-frame="0"]')
    page.get_by_label("Opacity of objects").click()
    page.keyboard.press("ArrowRight")
    page.wait_for_selector('#stage[data-frame="1"]')


def test_space_twice_plays_once(studio: Studio, page: Any) -> None:
    opened(page, studio)
    loops = page.evaluate(
        """async () => {
          const { play, pause } = await import("./page/player.js");
          const { app } = await import("./page/app.js");
          app.state.frames.fps = 5;
          const first = play();
          pause();
          const second = play();
          let ended = false;
          first.then(() => (ended = true));
          await new Promise((done) => setTimeout(done, 500));
          const running = Boolean(app.playing);
          pause();
          await second;
          return [ended, running];
        }"""
    )
    assert loops == [True, True]


def test_clicks_instead_of_drags(studio: Studio, page: Any) -> None:
    opened(page, studio)
    button(page, "Box").click()
    for corner in BOX:
        page.mouse.click(*place(page, *corner))
    wait_for_mask(page)
    clicked = drawn(studio)
    assert clicked.any()
    before = revision(page)
    page.mouse.click(*place(page, 2, 2))
    page.keyboard.press("Escape")  # not a corner after all
    drag(page, *BOX)
    wait_for_mask(page, before)
    np.testing.assert_array_equal(drawn(studio), clicked)


def test_enter_closes_a_polygon_that_was_clicked(studio: Studio, page: Any) -> None:
    opened(page, studio)
    button(page, "Polygon").click()
    for corner in ((12, 16), (27, 16), (27, 31), (60, 2)):
        page.mouse.click(*place(page, *corner))
    page.keyboard.press("Backspace")
    page.mouse.click(*place(page, 12, 31))
    page.keyboard.press("Enter")
    wait_for_mask(page)
    np.testing.assert_array_equal(drawn(studio), moving_square(0)[1])


def test_two_fingers_zoom_and_one_draws(studio: Studio, browser: Any) -> None:
    context = browser.new_context(has_touch=True, viewport={"width": 1000, "height": 700})
    page = opened(context.new_page(), studio)
    button(page, "Brush").tap()
    touch = context.new_cdp_session(page)

    def send(kind: str, *points: tuple[int, int]) -> None:
        places = [place_at[point] for point in points]
        touch.send(
            "Input.dispatchTouchEvent",
            {"type": kind, "touchPoints": [{"x": x, "y": y, "id": i} for i, (x, y) in enumerate(places)]},
        )

    place_at = {point: place(page, *point) for point in ((20, 20), (24, 24), (44, 24), (54, 24), (30, 30))}
    send("touchStart", (24, 24))
    send("touchMove", (30, 30))
    send("touchEnd")
    wait_for_mask(page)
    before, mask = revision(page), drawn(studio)
    assert mask[24, 24] and mask[30, 30]
    scale = page.evaluate("import('./page/app.js').then(({ app }) => app.stage.scale)")
    send("touchStart", (24, 24))
    send("touchStart", (24, 24), (44, 24))
    send("touchMove", (24, 24), (54, 24))
    send("touchEnd")
    assert page.evaluate("import('./page/app.js').then(({ app }) => app.stage.scale)") > 1.2 * scale
    assert revision(page) == before
    context.close()


def test_a_reload_comes_back_to_the_frame_and_so_does_a_restart(
    page: Any, frames: Path, model: Path, tmp_path: Path
) -> None:
    studio = Studio(frames, model, tmp_path / "cache")
    opened(page, studio)
    page.keyboard.press("n")
    page.get_by_label("Name of Object 1").wait_for()
    with page.expect_response("**/see"):
        page.get_by_label("Frame number").fill("5")
    page.wait_for_selector('#stage[data-frame="5"]')
    page.reload()
    page.wait_for_selector('#stage[data-frame="5"]')
    studio.kill()
    again = Studio(frames, model, tmp_path / "cache")
    page.goto(again.address)
    page.wait_for_selector('#stage[data-frame="5"]')
    again.stop()


def test_back_and_forward_go_through_the_clips(page: Any, model: Path, tmp_path: Path) -> None:
    for name in ("one", "two"):
        write_frames(tmp_path / "footage" / name, 3)
    studio = Studio(tmp_path / "footage", model, tmp_path / "cache")
    page.goto(studio.address)
    page.get_by_role("dialog").get_by_role("button", name="one").click()
    page.get_by_role("button", name="Open", exact=True).filter(has_text="one").click()
    page.get_by_role("dialog").get_by_role("button", name="two").click()
    page.get_by_role("button", name="Open", exact=True).filter(has_text="two").wait_for()
    page.go_back()
    page.get_by_role("button", name="Open", exact=True).filter(has_text="one").wait_for()
    page.go_forward()
    page.get_by_role("button", name="Open", exact=True).filter(has_text="two").wait_for()
    studio.stop()


def test_the_zip_is_fetched_by_the_tab_that_asked(studio: Studio, page: Any) -> None:
    opened(page, studio)
    other = page.context.new_page()
    downloads: list[str] = []
    other.on("download", lambda download: downloads.append(download.url))
    opened(other, studio)
    button(page, "Box").click()
    drag(page, *BOX)
    with page.expect_download():
        button(page, "Export").click()
        button(page, "Export").and_(page.locator(":disabled")).wait_for()  # it cannot be asked for twice
    button(other, "Export").and_(other.locator(":enabled")).wait_for()
    other.wait_for_timeout(200)
    assert not downloads


@pytest.mark.parametrize(("width", "height"), [(320, 480), (700, 560), (3840, 2160)])
def test_every_control_can_be_reached_in_a_window_of_any_size(
    studio: Studio, browser: Any, width: int, height: int
) -> None:
    """A page that is zoomed to 400 % is as narrow as a phone."""
    context = browser.new_context(viewport={"width": width, "height": height})
    page = opened(context.new_page(), studio)
    button(page, "Box").click()
    page.locator("#view").scroll_into_view_if_needed()
    drag(page, *BOX)
    wait_for_mask(page)
    for control in page.locator("button:visible, input:visible").all():
        control.scroll_into_view_if_needed()
        if control.is_enabled():
            control.click(trial=True, timeout=60_000)
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    button(page, "Track forward").click()
    page.get_by_text(f"Tracked {FRAMES} frames.").last.wait_for()
    context.close()


def test_a_zoomed_page_is_drawn_on_where_it_is_pressed(studio: Studio, page: Any) -> None:
    opened(page, studio)
    page.evaluate("document.documentElement.style.zoom = 0.6")
    button(page, "Polygon").click()
    for corner in ((12, 16), (27, 16), (27, 31), (12, 31), (12, 16)):
        page.mouse.click(*place(page, *corner))
    wait_for_mask(page)
    np.testing.assert_array_equal(drawn(studio), moving_square(0)[1])
    line = page.locator("#timeline").bounding_box()
    page.mouse.click(line["x"] + 0.99 * line["width"], line["y"] + 10)
    page.wait_for_selector(f'#stage[data-frame="{FRAMES - 1}"]')


def test_a_held_key_on_a_slow_connection(studio: Studio, page: Any) -> None:
    """The page says that the frame is on its way, and shows the one where the key was let go."""
    opened(page, studio)
    line = page.context.new_cdp_session(page)
    line.send("Network.enable")
    slow = {"offline": False, "latency": 400, "downloadThroughput": 50_000, "uploadThroughput": 50_000}
    line.send("Network.emulateNetworkConditions", slow)
    for _ in range(3):
        page.keyboard.press("Home")
        for _ in range(FRAMES):
            page.keyboard.press("ArrowRight")
    page.get_by_text(f"Loading frame {FRAMES - 1}").wait_for()
    page.wait_for_selector(f'#stage[data-frame="{FRAMES - 1}"]:not([data-waiting])')


def test_another_server_in_the_place_of_a_lost_one_is_named(
    page: Any, frames: Path, model: Path, tmp_path: Path
) -> None:
    studio = Studio(frames, model, tmp_path / "cache")
    opened(page, studio)
    port = str(urllib.parse.urlparse(studio.address).port)
    studio.kill()
    page.get_by_text("The server does not answer").wait_for()
    page.get_by_text("No connection").wait_for()
    again = Studio(frames, model, tmp_path / "cache", "--port", port)
    page.get_by_text("Another maskring studio answers here now").wait_for()
    assert page.get_by_text("The server does not answer").count() == 0
    again.stop()


def test_a_name_that_is_being_typed_survives_the_news(studio: Studio, page: Any) -> None:
    opened(page, studio)
    page.keyboard.press("n")
    name = page.get_by_label("Name of Object 1")
    name.fill("half a na")
    studio.ask(f"clip/{studio.clip()}/add_object", {})  # another tab
    page.get_by_label("Name of Object 2").wait_for()
    page.keyboard.type("me")
    page.keyboard.press("Enter")
    page.get_by_label("Name of half a name").wait_for()
    page.get_by_label("Name of half a name").fill("no")
    page.keyboard.press("Escape")
    assert page.get_by_label("Name of half a name").input_value() == "half a name"
    page.get_by_role("button", name="Hide half a name").press("Enter")
    page.get_by_role("button", name="Show half a name").wait_for()
    assert page.evaluate("document.activeElement.getAttribute('aria-label')") == "Show half a name"


def test_an_eraser_before_there_is_anything(studio: Studio, page: Any) -> None:
    opened(page, studio)
    button(page, "Eraser").click()
    drag(page, (10, 10), (20, 20))
    page.locator(".toast.bad").wait_for()
    assert state(studio)["objects"] == [] and state(studio)["masks"] == {}


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_people_who_do_not_see_it_or_use_no_mouse_can_work(studio: Studio, browser: Any, scheme: str) -> None:
    """As far as axe-core can tell: names, roles, contrast, what the keyboard reaches."""
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe is not installed").Axe()
    rules = {"runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]}

    def check(page: Any) -> None:
        found = axe.run(page, options=rules)
        assert found.violations_count == 0, found.generate_report()

    context = browser.new_context(viewport={"width": 1280, "height": 800}, color_scheme=scheme)
    page = opened(context.new_page(), studio)
    check(page)
    button(page, "Box").click()
    drag(page, *BOX)
    wait_for_mask(page)
    button(page, "Track forward").click()
    page.get_by_text(f"Tracked {FRAMES} frames.").last.wait_for()
    button(page, "Next doubtful frame").click()
    page.locator("#doubts [aria-current=true]").wait_for()
    check(page)
    for key in ("?", "o"):
        page.keyboard.press(key)
        page.get_by_role("dialog").wait_for()
        check(page)
        page.keyboard.press("Escape")
    context.close()


def test_large_frames_are_not_kept_by_the_gigabyte(studio: Studio, page: Any) -> None:
    page.goto(studio.address)
    kept = page.evaluate(
        """async () => {
          const { Pictures } = await import("./page/pictures.js");
          const pictures = new Pictures("clip");
          return [[854, 480], [3840, 2160], [7680, 4320]].map((size) => {
            pictures.setSize(...size);
            return [4 * size[0] * size[1] * pictures.frames.limit, pictures.frames.limit, pictures.ahead];
          });
        }"""
    )
    assert [bytes_kept < 3e8 for bytes_kept, _, _ in kept[:2]] == [True, True]
    assert all(0 < ahead < limit - 2 for _, limit, ahead in kept)
