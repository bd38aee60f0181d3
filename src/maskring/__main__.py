"""The command ``maskring``, also ``python -m maskring``.

The handlers of Ctrl-C, SIGTERM and SIGHUP are installed before anything that takes time to import.
"""

from __future__ import annotations

import io
import os
import sys
from typing import NoReturn

from .common.interrupts import EXIT_INTERRUPTED, handle_interrupts


def main() -> NoReturn:
    """Run the command line and exit. Ctrl-C, SIGTERM and SIGHUP close all outputs; a second one exits at once.

    Raises:
        SystemExit: with the exit code.
    """
    with handle_interrupts():
        _print_any_name()
        try:
            from .cli import app

            app()
        except KeyboardInterrupt:  # before a command could report it
            os._exit(EXIT_INTERRUPTED)
        except SystemExit as end:
            if end.code != EXIT_INTERRUPTED:
                raise
            # All outputs are closed. Exit handlers of native libraries may crash after an interruption.
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(EXIT_INTERRUPTED)
    raise SystemExit(0)


def _print_any_name() -> None:
    """File names may hold characters that the terminal's encoding lacks; print those as escapes."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


if __name__ == "__main__":
    main()
