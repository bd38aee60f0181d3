"""The command line: the list of commands. Each one is a function in :mod:`maskring.commands`."""

from __future__ import annotations

from typing import Annotated

import typer

from . import __version__
from .commands.build import build
from .commands.console import report_errors, say
from .commands.convert import convert
from .commands.demo import demo
from .commands.doctor import doctor
from .commands.evaluate import evaluate
from .commands.export import export
from .commands.export_refiner import export_refiner
from .commands.import_mast import import_mast
from .commands.label import label
from .commands.profile import profile
from .commands.quantize import quantize
from .commands.score import score
from .commands.studio import studio
from .commands.track import track
from .commands.train import train
from .commands.verify import verify

DESCRIPTION = (
    "Follow objects through video, pixel by pixel: outline them in one frame, maskring does the rest."
)

TRACK, TRAIN, DEPLOY, MACHINE = "Track", "Train", "Deploy", "This machine"
"""Panels of ``maskring --help``."""

COMMANDS = (
    ("demo", TRACK, demo),
    ("track", TRACK, track),
    ("studio", TRACK, studio),
    ("label", TRACK, label),
    ("evaluate", TRACK, evaluate),
    ("score", TRACK, score),
    ("convert", TRACK, convert),
    ("train", TRAIN, train),
    ("import", TRAIN, import_mast),
    ("export", DEPLOY, export),
    ("export-refiner", DEPLOY, export_refiner),
    ("build", DEPLOY, build),
    ("quantize", DEPLOY, quantize),
    ("verify", DEPLOY, verify),
    ("profile", DEPLOY, profile),
    ("doctor", MACHINE, doctor),
)
"""Name, panel and function of each command, in the order of ``maskring --help``."""

app = typer.Typer(
    name="maskring", help=DESCRIPTION, no_args_is_help=True, add_completion=False, rich_markup_mode="rich"
)
for _name, _panel, _function in COMMANDS:
    app.command(_name, rich_help_panel=_panel)(report_errors(_function))


def _print_version(value: bool) -> None:
    if value:
        say(f"maskring {__version__}")
        raise typer.Exit


@app.callback(help=DESCRIPTION)
def root(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit."),
    ] = False,
) -> None:
    """Options that come before a command."""
