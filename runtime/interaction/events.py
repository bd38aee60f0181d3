"""What a user does with mouse and keyboard."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

ENTER, BACKSPACE, ESCAPE, SPACE = "enter", "backspace", "escape", "space"


@dataclass(frozen=True)
class Pointer:
    """A mouse event.

    Attributes:
        kind: ``close`` is a press of the right button.
        x, y: pixel of the picture on the screen.
    """

    kind: Literal["press", "move", "release", "close"]
    x: int
    y: int


@dataclass(frozen=True)
class Key:
    """A key press: a lower-case character, or one of ENTER, BACKSPACE, ESCAPE, SPACE."""

    name: str


Event: TypeAlias = Pointer | Key
