"""Studio's page, used by name and by keyboard."""

from __future__ import annotations

from typing import Any

from support import HEIGHT, WIDTH


def button(page: Any, name: str) -> Any:
    return page.get_by_role("button", name=name, exact=True)


def revision(page: Any) -> str:
    """Changes with the mask that is shown; empty for none."""
    return str(page.locator("#stage").get_attribute("data-revision"))


def draw(page: Any, tool: str, *points: tuple[int, int]) -> None:
    """Draw with the keyboard's crosshair, which begins in the middle of the frame or where it was left."""
    button(page, tool).click()
    before = revision(page)
    view = page.locator("#view")
    view.focus()
    page.keyboard.press("ArrowRight")  # shows the crosshair, and its place below
    for point in points:
        move_to(page, point)
        page.keyboard.press("Enter")
    if tool == "Polygon":
        move_to(page, points[0])
        page.keyboard.press("Enter")
    page.wait_for_selector(f'#stage[aria-busy="false"]:not([data-revision="{before}"])')


def move_to(page: Any, point: tuple[int, int]) -> None:
    words = page.locator("#readout").inner_text().split()
    for axis, (now, wanted) in enumerate(zip((int(words[1]), int(words[3])), point, strict=True)):
        key = (("ArrowRight", "ArrowLeft"), ("ArrowDown", "ArrowUp"))[axis][wanted < now]
        for _ in range(abs(wanted - now)):
            page.keyboard.press(key)


def place(page: Any, x: int, y: int, size: tuple[int, int] = (WIDTH, HEIGHT)) -> tuple[float, float]:
    """Where the middle of a frame's pixel is in the window, while the whole frame is shown."""
    view = page.locator("#view").bounding_box()
    scale = min(view["width"] / size[0], view["height"] / size[1])
    left = view["x"] + (view["width"] - size[0] * scale) / 2
    top = view["y"] + (view["height"] - size[1] * scale) / 2
    return left + (x + 0.5) * scale, top + (y + 0.5) * scale


def drag(page: Any, start: tuple[int, int], end: tuple[int, int], steps: int = 4) -> None:
    """Drag the mouse from one pixel of the frame to another."""
    page.mouse.move(*place(page, *start))
    page.mouse.down()
    page.mouse.move(*place(page, *end), steps=steps)
    page.mouse.up()
