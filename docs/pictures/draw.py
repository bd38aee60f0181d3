"""Draws the pictures of ``docs/op_in_pictures.md``: ``python docs/pictures/draw.py``.

The weights and labels in them are computed, by the definition of the op, on a small scene.
"""

from __future__ import annotations

import sys
from pathlib import Path

import matplotlib

matplotlib.use("svg")

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle
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
        read_now, slot = ring.plan(windows=10.0)
        ring.commit()
        held[slot] = now
        for row, number in held.items():
            colour = "#ffcc80" if row == slot else "#90caf9" if read_now[row] else "#eeeeee"
            axes.add_patch(Rectangle((now - 0.45, row - 0.42), 0.9, 0.84, facecolor=colour, edgecolor=INK))
            axes.text(now, row, str(number), ha="center", va="center", fontsize=9, color=INK)
    axes.set_xlim(-0.6, frames - 0.4)
    axes.set_ylim(ring.slots - 0.4, -0.6)
    axes.set_xticks(range(frames), [f"t={now}" for now in range(frames)])
    axes.set_yticks(range(ring.slots), [f"slot {row}" for row in range(ring.slots)])
    axes.set_title("frame held by each slot: blue is read, orange is written, grey is not read", fontsize=10)
    axes.tick_params(length=0, labelsize=9)
    for side in axes.spines.values():
        side.set_visible(False)
    save(path)


def save(path: Path) -> None:
    plt.savefig(path, metadata={"Date": None, "Creator": None})
    plt.close()


def main(folder: Path) -> None:
    """Write all pictures into a folder."""
    plt.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "maskring", "font.family": "sans-serif"})
    draw_read(folder / "op_read.svg")
    draw_ring(folder / "op_ring.svg")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent)
