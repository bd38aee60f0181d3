"""``maskring doctor``."""

from __future__ import annotations

import typer
from rich import box
from rich.table import Table
from rich.text import Text

from .console import out, say

COLOURS = {"ok": "green", "optional": "yellow", "missing": "red"}


def doctor() -> None:
    """Show what is installed, what each backend needs, and how to install what is missing."""
    from ..doctor import examine, missing_parts

    findings = examine()
    table = Table(box=box.SIMPLE)
    for heading in ("part", "state", "found", "to fix it"):
        table.add_column(heading, overflow="fold")  # a name that is cut off is of no use
    for finding in findings:
        state = Text(finding.state, style=COLOURS[finding.state])
        table.add_row(finding.part, state, Text(finding.detail), Text(finding.remedy))
    out.print(table)
    for use, parts in missing_parts(findings).items():
        say(f"{use}: " + (f"not ready, needs {', '.join(parts)}" if parts else "ready"))
    if any(finding.state == "missing" for finding in findings):
        raise typer.Exit(1)
