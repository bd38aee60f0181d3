"""Whether a process on another machine sees the folder that its results go to."""

from __future__ import annotations

import os
import secrets
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from ...common.errors import OutputError
from ...common.files import output_error, remove_abandoned


@dataclass(frozen=True)
class SharedFolder:
    """A folder that holds a file with a unique name.

    Attributes:
        token: that file; None where no other machine works.
    """

    token: Path | None

    def check(self) -> None:
        """Make sure that this process sees the folder, and not another one of the same path.

        Raises:
            OutputError: when it does not.
        """
        if self.token is not None and not self.token.is_file():
            raise OutputError(
                f"{socket.gethostname()} does not see the folder {self.token.parent} of the machine that runs "
                "the command",
                "choose one on a file system that all nodes share, or an address on object storage",
            )


@contextmanager
def shared_folder(folder: Path, *, with_others: bool) -> Iterator[SharedFolder]:
    """Mark a folder for the duration of the block.

    Args:
        folder: receives the results.
        with_others: other machines may work, too. Without, the folder needs no mark.

    Raises:
        OutputError: when the folder cannot be written to.
    """
    remove_abandoned(folder)
    if not with_others:
        yield SharedFolder(None)
        return
    token = folder / f".shared.{os.getpid()}-{secrets.token_hex(4)}.partial"
    try:
        token.touch()
    except OSError as error:
        raise output_error(token, error) from error
    try:
        yield SharedFolder(token)
    finally:
        token.unlink(missing_ok=True)
