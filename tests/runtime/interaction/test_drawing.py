"""Drawing the first mask: clicks and keys in, labels and a picture out. No display is needed."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from maskring.runtime.interaction.drawing import Drawing, DrawingOutcome, Tool
from maskring.runtime.interaction.events import Key, Pointer
from maskring.runtime.interaction.grabcut import GRABCUT_PIXELS, cut_from_box
from maskring.runtime.interaction.view import View
from maskring.runtime.video.palette import PALETTE

HEIGHT, WIDTH = 60, 80
SQUARE = (slice(20, 40), slice(30, 50))


def picture_of_a_square() -> np.ndarray:
    """A bright square on a textured ground, [HEIGHT, WIDTH, 3]."""
    image = np.random.default_rng(0).integers(0, 90, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    image[SQUARE] += 160
    return image


def new_drawing(**options: object) -> Drawing:
    empty = np.zeros((HEIGHT, WIDTH), np.uint8)
    return Drawing(picture_of_a_square(), options.pop("tracked", empty), **options)  # type: ignore[arg-type]


def click(drawing: Drawing, *points: tuple[int, int]) -> None:
    """Press at pixels (x, y) of the frame, as a user does on the screen."""
    for point in points:
        drawing.handle(Pointer("press", *drawing.view.to_screen(point)))
        drawing.handle(Pointer("release", *drawing.view.to_screen(point)))


def drag(drawing: Drawing, start: tuple[int, int], end: tuple[int, int]) -> None:
    drawing.handle(Pointer("press", *drawing.view.to_screen(start)))
    drawing.handle(Pointer("move", *drawing.view.to_screen(end)))
    drawing.handle(Pointer("release", *drawing.view.to_screen(end)))


def press(drawing: Drawing, *names: str) -> None:
    for name in names:
        drawing.handle(Key(name))


def rectangle(left: int, top: int, right: int, bottom: int) -> list[tuple[int, int]]:
    return [(left, top), (right, top), (right, bottom), (left, bottom)]


def expected(**rectangles: tuple[int, int, int, int]) -> np.ndarray:
    labels = np.zeros((HEIGHT, WIDTH), np.uint8)
    for name, (left, top, right, bottom) in rectangles.items():
        labels[top : bottom + 1, left : right + 1] = int(name[1:])
    return labels


def test_a_polygon_becomes_the_first_object() -> None:
    drawing = new_drawing()
    click(drawing, *rectangle(30, 20, 49, 39))
    press(drawing, "enter")
    assert drawing.outcome is DrawingOutcome.DONE
    np.testing.assert_array_equal(drawing.mask, expected(o1=(30, 20, 49, 39)))


def test_the_first_corner_and_the_right_button_close_a_polygon() -> None:
    for close in ("first corner", "right button"):
        drawing = new_drawing()
        click(drawing, *rectangle(10, 10, 20, 20))
        assert not drawing.mask.any()
        if close == "first corner":
            click(drawing, (10, 10))
        else:
            drawing.handle(Pointer("close", 0, 0))
        np.testing.assert_array_equal(drawing.mask, expected(o1=(10, 10, 20, 20)))
        assert drawing.outcome is DrawingOutcome.DRAWING


def test_a_box_finds_the_object_in_it() -> None:
    drawing = new_drawing(tool=Tool.BOX)
    drag(drawing, (54, 44), (25, 16))  # from corner to corner in any direction
    truth = np.zeros((HEIGHT, WIDTH), bool)
    truth[SQUARE] = True
    found = drawing.mask == 1
    assert (found & truth).sum() / (found | truth).sum() > 0.95


def test_the_same_box_finds_the_same_object_at_any_size() -> None:
    image = picture_of_a_square().repeat(12, 0).repeat(12, 1)
    box = (25 * 12, 16 * 12, 55 * 12, 45 * 12)
    first, second = cut_from_box(image, box), cut_from_box(image, box)
    assert first is not None and second is not None and first.shape == image.shape[:2]
    np.testing.assert_array_equal(first, second)
    truth = np.zeros(image.shape[:2], bool)
    truth[20 * 12 : 40 * 12, 30 * 12 : 50 * 12] = True
    assert (first & truth).sum() / (first | truth).sum() > 0.95


def test_grabcut_sees_no_more_pixels_than_it_can_cut_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []
    cut = cv2.grabCut

    def watched(image: np.ndarray, *rest: object) -> object:
        seen.append(image.shape[0] * image.shape[1])
        return cut(image, *rest)  # type: ignore[call-overload]

    monkeypatch.setattr(cv2, "grabCut", watched)
    large = picture_of_a_square().repeat(16, 0).repeat(16, 1)
    cut_from_box(large, (25 * 16, 16 * 16, 55 * 16, 45 * 16))
    cut_from_box(picture_of_a_square(), (25, 16, 55, 45))
    assert seen[0] <= 1.01 * GRABCUT_PIXELS and seen[1] <= HEIGHT * WIDTH


@pytest.mark.parametrize("box", [(0, 0, WIDTH, HEIGHT), (10, 10, 13, 30)])
def test_a_box_that_says_nothing_finds_nothing(box: tuple[int, int, int, int]) -> None:
    assert cut_from_box(picture_of_a_square(), box) is None
    drawing = new_drawing(tool=Tool.BOX)
    drag(drawing, box[:2], (box[2] - 1, box[3] - 1))
    assert not drawing.mask.any()
    assert drawing.message.startswith("No object was found")


@pytest.mark.parametrize(
    "box", [(0, 0, 20, HEIGHT), (0, 0, WIDTH, 30), (40, 20, WIDTH, HEIGHT), (0, 0, WIDTH, HEIGHT - 1)]
)
def test_boxes_at_the_border_do_no_harm(box: tuple[int, int, int, int]) -> None:
    """Whether these boxes show an object is GrabCut's to say; what it finds lies inside."""
    inside = cut_from_box(picture_of_a_square(), box)
    assert inside is not None
    x0, y0, x1, y1 = box
    assert inside[y0:y1, x0:x1].any()
    inside[y0:y1, x0:x1] = False
    assert not inside.any()


def test_an_object_is_found_though_its_colour_is_seen_elsewhere() -> None:
    """That the middle of the box belongs to the object decides; by colour alone nothing would stand out."""
    rng = np.random.default_rng(0)
    image = rng.normal((90, 110, 90), 8, (120, 160, 3))
    y, x = np.ogrid[:120, :160]
    truth = np.hypot((y - 60) / 26, (x - 80) / 30) < 1
    for place in (truth, np.s_[10:25]):
        image[place] += (25, -8, -12)
    found = cut_from_box(np.clip(image, 0, 255).astype(np.uint8), (44, 28, 122, 94))
    assert found is not None and (found & truth).sum() / (found | truth).sum() > 0.95


def test_in_a_frame_of_one_colour_nothing_outside_the_box_is_found() -> None:
    inside = cut_from_box(np.full((HEIGHT, WIDTH, 3), 70, np.uint8), (10, 10, 40, 40))
    assert inside is not None and inside[10:40, 10:40].any()
    inside[10:40, 10:40] = False
    assert not inside.any()


def test_later_objects_lie_on_top_and_shapes_of_one_object_join() -> None:
    drawing = new_drawing()
    click(drawing, *rectangle(10, 10, 30, 30))
    press(drawing, "n")
    click(drawing, *rectangle(20, 20, 40, 40))
    press(drawing, "1")
    click(drawing, *rectangle(50, 50, 60, 55))
    press(drawing, "enter")
    wanted = expected(o1=(10, 10, 30, 30)) | expected(o1=(50, 50, 60, 55))
    wanted[20:41, 20:41] = 2
    np.testing.assert_array_equal(drawing.mask, wanted)


def test_backspace_takes_back_corners_then_shapes() -> None:
    drawing = new_drawing()
    click(drawing, *rectangle(10, 10, 30, 30))
    press(drawing, "n")
    click(drawing, (1, 1), (9, 1), (70, 50), (9, 9))
    press(drawing, "backspace", "backspace")
    click(drawing, (9, 9))
    press(drawing, "n")
    assert set(np.unique(drawing.mask)) == {0, 1, 2}
    assert not drawing.mask[50, 70]
    press(drawing, "backspace")
    assert drawing.object_id == 2
    np.testing.assert_array_equal(drawing.mask, expected(o1=(10, 10, 30, 30)))


def test_redo_clears_one_object_alone() -> None:
    drawing = new_drawing()
    click(drawing, *rectangle(10, 10, 20, 20))
    press(drawing, "n")
    click(drawing, *rectangle(40, 40, 50, 50))
    press(drawing, "1", "r")
    np.testing.assert_array_equal(drawing.mask, expected(o2=(40, 40, 50, 50)))


def test_new_objects_get_numbers_that_are_free() -> None:
    drawing = new_drawing(tracked_ids=frozenset({1, 2, 4}), started=True, object_id=3)
    click(drawing, *rectangle(10, 10, 20, 20))
    press(drawing, "n")
    assert drawing.object_id == 5


def test_all_numbers_taken() -> None:
    drawing = new_drawing(tracked_ids=frozenset(range(1, 256)), started=True)
    press(drawing, "n")
    assert "255 objects" in drawing.message


def test_drawing_ends_only_with_something_to_follow() -> None:
    drawing = new_drawing()
    press(drawing, "enter")
    assert drawing.outcome is DrawingOutcome.DRAWING and drawing.message == "Nothing is drawn yet."
    click(drawing, (10, 10), (20, 10))
    press(drawing, "enter")
    assert drawing.outcome is DrawingOutcome.DRAWING and drawing.message == "A polygon needs three corners."


@pytest.mark.parametrize(
    ("key", "before", "later"),
    [
        ("q", DrawingOutcome.QUIT, DrawingOutcome.QUIT),
        ("escape", DrawingOutcome.QUIT, DrawingOutcome.CANCELLED),
        ("s", DrawingOutcome.SKIPPED, DrawingOutcome.DRAWING),
    ],
)
def test_other_ends(key: str, before: DrawingOutcome, later: DrawingOutcome) -> None:
    for started, outcome in ((False, before), (True, later)):
        drawing = new_drawing(started=started)
        press(drawing, key)
        assert drawing.outcome is outcome


def test_tracked_objects_can_be_dropped() -> None:
    drawing = new_drawing(tracked_ids=frozenset({1, 2}), started=True, object_id=2)
    press(drawing, "x", "enter")
    assert drawing.outcome is DrawingOutcome.DONE and drawing.dropped == {2} and not drawing.mask.any()


def test_unknown_keys_do_nothing() -> None:
    drawing = new_drawing()
    click(drawing, *rectangle(10, 10, 20, 20)[:3])
    before = drawing.picture()
    press(drawing, "z", "0", "", "\x00", "ÿ", "space")
    np.testing.assert_array_equal(drawing.picture(), before)


@pytest.mark.parametrize(("height", "width"), [(144, 176), (480, 854), (2160, 3840), (1920, 1080), (1, 1)])
def test_screen_and_frame_agree(height: int, width: int) -> None:
    view = View(height, width)
    assert view.size[0] <= 720 and view.size[1] <= 1280
    for point in [(0, 0), (width - 1, height - 1), (width // 2, height // 3)]:
        difference = np.abs(np.subtract(view.to_frame(*view.to_screen(point)), point))
        assert difference.max() <= (0 if view.scale >= 1 else 0.5 / view.scale + 1)
    assert view.to_frame(-50, 10**6) == (0, height - 1)


def test_the_picture_shows_frame_objects_outline_and_keys() -> None:
    drawing = new_drawing(tracked=expected(o3=(60, 5, 70, 15)), tracked_ids=frozenset({3}), started=True)
    click(drawing, *rectangle(30, 20, 49, 39))
    drawing.handle(Pointer("close", 0, 0))
    picture = drawing.picture()
    view = drawing.view
    for point, object_id in [((40, 30), 1), ((65, 10), 3)]:
        x, y = view.to_screen(point)
        tint = (drawing.image[point[1], point[0]].astype(int) + PALETTE[object_id]) / 2
        assert np.abs(picture[y, x] - tint).max() < 40  # resized: neighbours show through
    assert picture.shape[0] > view.size[0] and picture[view.size[0] :].max() > 200, "help is written below"
    click(drawing, (5, 50), (25, 50))
    outlined = drawing.picture()
    x, y = view.to_screen((15, 50))
    assert not np.array_equal(outlined[y, x], picture[y, x])


def test_what_is_redrawn_or_dropped_is_not_shown_at_its_old_place() -> None:
    followed = expected(o1=(60, 5, 70, 15))
    drawing = new_drawing(tracked=followed, tracked_ids=frozenset({1}), started=True)
    x, y = drawing.view.to_screen((65, 10))
    shown = drawing.picture()[y, x]
    click(drawing, *rectangle(30, 20, 49, 39))
    press(drawing, "2")
    assert not np.array_equal(drawing.picture()[y, x], shown)
    dropped = new_drawing(tracked=followed, tracked_ids=frozenset({1}), started=True)
    press(dropped, "x")
    assert not np.array_equal(dropped.picture()[y, x], shown)


def test_help_fits_narrow_frames() -> None:
    picture = View(300, 20).picture(np.zeros((300, 20, 3), np.uint8), ("word " * 60,))
    assert picture.shape[1] == 640
    assert not picture[:, -2:].any(), "no text runs out of the picture"
