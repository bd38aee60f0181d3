"""Options that say how many processes and machines share a command's work."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..common.errors import UserError
from .options import DeviceChoice

if TYPE_CHECKING:
    from ..runtime.pipeline.jobs import Workers

PANEL = "Many processes, many machines"

MAX_PROCESSES = 1 << 10
"""Processes on one machine."""

NumProcesses = Annotated[
    int,
    typer.Option(
        "--processes",
        min=1,
        max=MAX_PROCESSES,
        help="Videos at a time on this machine.",
        rich_help_panel=PANEL,
    ),
]
Ray = Annotated[
    str | None,
    typer.Option(
        "--ray",
        metavar="ADDRESS",
        help="Work on a Ray cluster: HOST:PORT, auto, or local to start one on this machine.",
        rich_help_panel=PANEL,
    ),
]


def chosen_workers(
    processes: int, ray: str | None, threads: int, device: DeviceChoice, model: Path
) -> Workers:
    """What the options say.

    Args:
        processes, ray, threads, device: the options.
        model: an exported model or an engine.

    Raises:
        UserError: when both ways were chosen.
    """
    from .. import __version__
    from ..runtime.model.engine_file import ENGINE_SUFFIX
    from ..runtime.pipeline.jobs import Workers

    if ray is not None and processes > 1:
        raise UserError(
            "--processes and --ray exclude each other", "leave --processes out: Ray starts one task per core"
        )
    gpus = 1.0 if device is DeviceChoice.cuda or model.suffix == ENGINE_SUFFIX else 0.0
    return Workers(processes, ray, threads, gpus, __version__)
