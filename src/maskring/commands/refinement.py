"""Options of refinement, which ``track`` and ``evaluate`` share."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .options import finite

if TYPE_CHECKING:
    from ..runtime.refinement.session import Refinement

MAX_SIZE = 1 << 12
"""Pixels of a side of the U-Net's input."""

PANEL = "Refinement"
"""Panel of the help that holds the options of refinement."""


class ModeChoice(str, Enum):
    """When masks are refined: never, after the whole video was tracked, or while it is tracked."""

    off = "off"
    offline = "offline"
    online = "online"


Mode = Annotated[
    ModeChoice,
    typer.Option(
        help="offline: track, adapt a U-Net to the video, then track again and redraw the masks. "
        "online: adapt while tracking.",
        rich_help_panel=PANEL,
    ),
]
Iterations = Annotated[
    int, typer.Option(min=1, help="Offline: optimiser steps per video.", rich_help_panel=PANEL)
]
Steps = Annotated[
    int,
    typer.Option(
        min=0,
        help="Online: optimiser steps within each frame, reproducible; 0 = adapt in the background.",
        rich_help_panel=PANEL,
    ),
]
Size = Annotated[
    int,
    typer.Option(min=32, max=MAX_SIZE, help="Side of the U-Net's square input.", rich_help_panel=PANEL),
]
Budget = Annotated[
    float,
    typer.Option(
        min=0.01,
        max=1,
        callback=finite,
        help="Online: fraction of the time that adaptation may use.",
        rich_help_panel=PANEL,
    ),
]
Feedback = Annotated[
    bool,
    typer.Option(
        "--refine-feedback",
        help="Online: write refined masks of lost objects to memory.",
        rich_help_panel=PANEL,
    ),
]
Start = Annotated[
    Path | None,
    typer.Option(help="Start from this adapted U-Net (see --save-refiner).", rich_help_panel=PANEL),
]
Save = Annotated[
    Path | None, typer.Option(help="Write the adapted U-Net to this file.", rich_help_panel=PANEL)
]
RefinerFile = Annotated[Path, typer.Argument(help="A U-Net written by track --save-refiner.")]
ExportSize = Annotated[int, typer.Option(max=MAX_SIZE, help="Side of its square input.")]


def chosen_refinement(
    mode: ModeChoice,
    *,
    iterations: int,
    steps: int,
    size: int,
    feedback: bool,
    start: Path | None,
    budget: float = 1.0,
) -> Refinement:
    """What the options of refinement say.

    Raises:
        UserError: when an option was given that the mode does not use.
    """
    from ..runtime.refinement.session import Refinement
    from ..runtime.refinement.settings import RefinementSettings

    settings = RefinementSettings(size=size, iterations=iterations, budget=budget, feedback=feedback)
    return Refinement(mode.value, settings, steps, start)
