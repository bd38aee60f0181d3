"""The command ``maskring``, also ``python -m maskring``.

Only what is imported in an instant is imported before Ctrl-C and SIGTERM are in hand.
"""

from __future__ import annotations

import io
import os
import sys
from typing import NoReturn

from .common.interrupts import EXIT_INTERRUPTED, handle_interrupts


def main() -> NoReturn:
    """Carry out the command line and end the process; Ctrl-C and SIGTERM, of which service managers send one,
    end it alike: outputs are closed, the second one ends it at once.

    Raises:
        SystemExit: with the exit code.
    """
    with handle_interrupts():
        _print_any_name()
        try:
            from .cli import app

            app()
        except KeyboardInterrupt:  # before a command began, which has its own word on it
            os._exit(EXIT_INTERRUPTED)
        except SystemExit as end:
            if end.code != EXIT_INTERRUPTED:
                raise
            # All is closed. What libraries would do at the interpreter's end, they would do wherever the
            # interruption has met them.
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(EXIT_INTERRUPTED)
    raise SystemExit(0)


def _print_any_name() -> None:
    """Names of files may hold what a terminal's encoding does not: it is shown by its code."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


if __name__ == "__main__":
    main()
