"""Draws the pictures of the docs: ``python docs/pictures/draw.py``.

The weights and labels in ``op_read`` are computed, by the definition of the op, on a small scene. The slots
in ``op_ring`` come from the tracker's own ring.
"""

from __future__ import annotations

import sys
from pathlib import Path

import matplotlib

matplotlib.use("svg")

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import FancyBboxPatch, Rectangle
from numpy.typing import NDArray

from maskring.runtime.tracking.memory import MemoryPolicy, MemoryRing

SIZE, RADIUS, SCALE = 16, 3, 12.0
LEFTS = (3, 4, 6)
"""Left edge of the object in two remembered frames and in the current one."""

PIXEL = (7, 10)
"""Row and column of the current pixel whose window is drawn."""

INK, OBJECT, WINDOW = "#333333", "#c62828", "#1565c0"


def frame(left: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Features [SIZE, SIZE, 3] and label [SIZE, SIZE] of an object at column LEFT."""
    features = np.random.default_rng(0).uniform(0.0, 0.45, (SIZE, SIZE, 3))
    label = np.zeros((SIZE, SIZE))
    label[5:11, left : left + 6] = 1
    features[label > 0] = np.random.default_rng(1).uniform(0.55, 1.0, (36, 3))
    return features, label


def window(row: int, column: int) -> tuple[slice, slice]:
    """The part of a window that lies inside the frame."""
    rows = slice(max(0, row - RADIUS), min(SIZE, row + RADIUS + 1))
    return rows, slice(max(0, column - RADIUS), min(SIZE, column + RADIUS + 1))


def weights(
    query: NDArray[np.float64], keys: list[NDArray[np.float64]], row: int, column: int
) -> list[NDArray[np.float64]]:
    """One softmax over the windows of all frames; per frame [SIZE, SIZE], 0 outside the window."""
    inside = window(row, column)
    # Minus the squared distance is an inner product too, of features with their length beside them.
    logits = [-SCALE * ((key[inside] - query[row, column]) ** 2).sum(-1) for key in keys]
    highest = max(part.max() for part in logits)
    raised = [np.exp(part - highest) for part in logits]
    total = sum(part.sum() for part in raised)
    spread = [np.zeros((SIZE, SIZE)) for _ in keys]
    for whole, part in zip(spread, raised, strict=True):
        whole[inside] = part / total
    return spread


def read(
    query: NDArray[np.float64], keys: list[NDArray[np.float64]], values: list[NDArray[np.float64]]
) -> NDArray[np.float64]:
    """The op for one label, [SIZE, SIZE]."""
    out = np.zeros((SIZE, SIZE))
    for row in range(SIZE):
        for column in range(SIZE):
            parts = weights(query, keys, row, column)
            out[row, column] = sum((part * value).sum() for part, value in zip(parts, values, strict=True))
    return out


def grid(axes: Axes, picture: NDArray[np.float64], title: str, top: float = 1.0) -> None:
    axes.imshow(picture, cmap="Reds", vmin=0, vmax=top) if picture.ndim == 2 else axes.imshow(picture)
    axes.set_title(title, fontsize=10, color=INK)
    axes.set_xticks([])
    axes.set_yticks([])


def outline(axes: Axes, colour: str = WINDOW) -> None:
    rows, columns = window(*PIXEL)
    corner = columns.start - 0.5, rows.start - 0.5
    size = columns.stop - columns.start, rows.stop - rows.start
    axes.add_patch(Rectangle(corner, *size, fill=False, edgecolor=colour, linewidth=2))


def draw_read(path: Path) -> None:
    """Frames, windows, weights, labels, and what is read."""
    (old, old_label), (new, new_label), (now, truth) = (frame(left) for left in LEFTS)
    spread = weights(now, [old, new], *PIXEL)
    _, axes = plt.subplots(2, 4, figsize=(9, 4.8), layout="constrained")
    grid(axes[0, 0], now, "current frame: one pixel")
    axes[0, 0].plot(PIXEL[1], PIXEL[0], "s", color=WINDOW, markersize=7, fillstyle="none", markeredgewidth=2)
    top = max(part.max() for part in spread)
    for column, (features, part, name) in enumerate(
        [(old, spread[0], "t-3"), (new, spread[1], "t-1")], start=1
    ):
        grid(axes[0, column], features, f"frame {name}: its window")
        outline(axes[0, column])
        grid(axes[1, column], part, f"weights in {name}", top)
        outline(axes[1, column])
    grid(axes[1, 0], new_label, "labels of t-1")
    outline(axes[1, 0])
    grid(axes[0, 3], read(now, [old, new], [old_label, new_label]), "label read, every pixel")
    grid(axes[1, 3], truth, "truth")
    save(path)


def draw_ring(path: Path) -> None:
    """Which slot holds which frame, and which are read, while time goes by: asked of the ring itself."""
    ring, frames = MemoryRing(MemoryPolicy()), 12
    held: dict[int, int] = {}
    _, axes = plt.subplots(figsize=(9, 3.6), layout="constrained")
    for now in range(frames):
        read_now, slot = ring.plan(frame_in_radii=10.0)
        ring.commit()
        held[slot] = now
        for row, number in held.items():
            colour = "#ffcc80" if row == slot else "#90caf9" if read_now[row] else "#eeeeee"
            axes.add_patch(Rectangle((now - 0.45, row - 0.42), 0.9, 0.84, facecolor=colour, edgecolor=INK))
            axes.text(now, row, str(number), ha="center", va="center", fontsize=9, color=INK)
    axes.set_xlim(-0.6, frames - 0.4)
    axes.set_ylim(ring.num_slots - 0.4, -0.6)
    axes.set_xticks(range(frames), [f"t={now}" for now in range(frames)])
    axes.set_yticks(range(ring.num_slots), [f"slot {row}" for row in range(ring.num_slots)])
    axes.set_title("frame held by each slot: blue is read, orange is written, grey is not read", fontsize=10)
    axes.tick_params(length=0, labelsize=9)
    for side in axes.spines.values():
        side.set_visible(False)
    save(path)


def box(axes: Axes, x: float, y: float, text: str, colour: str = "#eeeeee", width: float = 1.7) -> None:
    """A rounded box with its centre at (x, y)."""
    corner = x - width / 2, y - 0.3
    shape = "round,pad=0,rounding_size=0.08"
    axes.add_patch(FancyBboxPatch(corner, width, 0.6, boxstyle=shape, facecolor=colour, edgecolor=INK))
    axes.text(x, y, text, ha="center", va="center", fontsize=9, color=INK)


def arrow(axes: Axes, start: tuple[float, float], end: tuple[float, float], label: str = "") -> None:
    style = {"arrowstyle": "-|>", "color": INK, "shrinkA": 0, "shrinkB": 0}
    axes.annotate("", xy=end, xytext=start, arrowprops=style)
    middle = (start[0] + end[0]) / 2, (start[1] + end[1]) / 2
    axes.text(middle[0], middle[1] + 0.08, label, ha="center", va="bottom", fontsize=7.5, color=INK)


def diagram(width: float, height: float) -> Axes:
    """Axes without ticks that measure in boxes."""
    _, axes = plt.subplots(figsize=(9, 9 * height / width), layout="constrained")
    axes.set_xlim(0, width)
    axes.set_ylim(0, height)
    axes.set_axis_off()
    return axes


def draw_step_graph(path: Path) -> None:
    """What one exported file computes for one frame."""
    axes = diagram(12.4, 3.7)
    row, memory = 2.2, 0.6
    box(axes, 1.0, row, "frame\nuint8 RGB", "#ffffff")
    box(axes, 3.2, row, "Lab, scaled")
    box(axes, 5.3, row, "encoder")
    box(axes, 7.4, row, "memory read\n(windowed affinity)", "#90caf9", 1.9)
    box(axes, 9.5, row, "smoothing read", "#90caf9")
    box(axes, 11.4, row, "upsample,\nargmax", width=1.5)
    for left, right in ((1.85, 2.35), (4.05, 4.45), (6.15, 6.45), (8.35, 8.65), (10.35, 10.65)):
        arrow(axes, (left, row), (right, row))
    box(axes, 7.4, memory, "memory: keys, values,\ndilation of each slot", "#ffcc80", 2.4)
    arrow(axes, (7.4, 0.9), (7.4, 1.9))
    box(axes, 5.3, 3.35, "key", "#ffffff", 1.2)
    arrow(axes, (5.3, 2.5), (5.3, 3.05))
    box(axes, 9.5, 3.35, "probabilities, value", "#ffffff", 2.0)
    arrow(axes, (9.5, 2.5), (9.5, 3.05))
    box(axes, 11.4, 3.35, "labels", "#ffffff", 1.2)
    arrow(axes, (11.4, 2.5), (11.4, 3.05))
    axes.text(
        2.2,
        0.6,
        "white: inputs and outputs\nblue: maskring::WindowedAffinity\norange: the ring, outside the file",
        ha="center",
        va="center",
        fontsize=8,
        color=INK,
    )
    save(path)


def draw_packages(path: Path) -> None:
    """The packages in their order, and a frame's way through ``runtime``."""
    axes = diagram(12.4, 3.4)
    names = ("common", "plugins", "runtime", "training", "export", "maskring")
    for index, name in enumerate(names):
        box(axes, 1.2 + 2 * index, 2.9, name, "#90caf9" if name == "runtime" else "#eeeeee")
        if index:
            arrow(axes, (0.35 + 2 * index, 2.9), (0.05 + 2 * index, 2.9))
    axes.text(6.2, 2.35, "an arrow points to what may be imported", ha="center", fontsize=8, color=INK)
    steps = (
        ("video", "open_source"),
        ("pipeline", "loop"),
        ("tracking", "tracker, ring"),
        ("backends", "step graph"),
        ("tracking", "result"),
        ("video", "sinks"),
    )
    for index, (package, part) in enumerate(steps):
        box(axes, 1.2 + 2 * index, 1.3, f"{package}\n{part}", "#e3f2fd")
        if index:
            arrow(axes, (0.05 + 2 * index, 1.3), (0.35 + 2 * index, 1.3))
    labels = ("frame", "frame, mask", "frame, slots", "labels, probabilities", "labels, objects")
    for index, label in enumerate(labels):
        axes.text(2.2 + 2 * index, 0.8, label, ha="center", va="top", fontsize=8, color=INK)
    axes.text(6.2, 0.2, "one frame's way through runtime", ha="center", fontsize=8, color=INK)
    save(path)


def save(path: Path) -> None:
    plt.savefig(path, metadata={"Date": None, "Creator": None})
    plt.close()


def main(folder: Path) -> None:
    """Write all pictures into a folder."""
    plt.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "maskring", "font.family": "sans-serif"})
    draw_read(folder / "op_read.svg")
    draw_ring(folder / "op_ring.svg")
    draw_step_graph(folder / "step_graph.svg")
    draw_packages(folder / "packages.svg")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent)
