"""How long work reports its progress: one protocol for tracking, refinement, evaluation and builds."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol


class Progress(Protocol):
    """Called after each step of long work."""

    def __call__(self, task: str, done: int, total: int | None, detail: str = "", /) -> None:
        """Take note of one more step.

        Args:
            task: what is being done, for example ``tracking``.
            done: steps finished.
            total: steps in all, None where nobody knows, as for a camera.
            detail: more to show beside the count, for example a loss.
        """


def no_progress(task: str, done: int, total: int | None, detail: str = "", /) -> None:
    """Show nothing: the default, so that a library user's terminal stays clean."""


def count_frames(progress: Progress, task: str, total: int | None) -> Callable[..., None]:
    """A callback for :func:`.track` and :func:`.revisit` that reports each frame to ``progress``."""
    done = 0

    def on_frame(*_: object) -> None:
        nonlocal done
        done += 1
        progress(task, done, total)

    return on_frame
