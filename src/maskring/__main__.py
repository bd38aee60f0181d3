"""The command ``maskring``, also ``python -m maskring``.

The handlers of Ctrl-C, SIGTERM and SIGHUP are installed before anything that takes time to import.
"""

from __future__ import annotations

import io
import os
import sys
import warnings
from typing import NoReturn, TextIO

from .common.errors import one_line
from .common.interrupts import EXIT_INTERRUPTED, handle_interrupts
from .common.libraries import explain_imports_alone


def main() -> NoReturn:
    """Run the command line and exit. Ctrl-C, SIGTERM and SIGHUP close all outputs; a second one exits at once.

    Raises:
        SystemExit: with the exit code.
    """
    with handle_interrupts():
        _print_any_name()
        warnings.showwarning = _print_warning
        explain_imports_alone("cv2", "onnxruntime")
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


def _print_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    """Print a warning as one sentence, without the line of source that gave it."""
    print(f"note: {one_line(str(message))}", file=sys.stderr)


if __name__ == "__main__":
    main()
