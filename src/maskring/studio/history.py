"""Undo and redo: what the files of a project held before each change."""

from __future__ import annotations

from dataclasses import dataclass

from ..common.errors import UserError
from .project import Files, Project

MAX_CHANGES = 200


@dataclass(frozen=True)
class Change:
    """One change: what it was, and the content that brings the other state back."""

    name: str
    files: Files


class History:
    """The changes of a project since the server opened it."""

    def __init__(self, project: Project) -> None:
        self._project = project
        self._done: list[Change] = []
        self._undone: list[Change] = []

    @property
    def names(self) -> tuple[str | None, str | None]:
        """What undo and redo would do; None for nothing."""
        return tuple(stack[-1].name if stack else None for stack in (self._done, self._undone))  # type: ignore[return-value]

    def change(self, name: str, files: Files) -> None:
        """Write files and remember what was there.

        Raises:
            OutputError: when they cannot be written.
        """
        self.remember(name, self._project.swap(files))

    def remember(self, name: str, before: Files) -> None:
        """Remember a change that is written already."""
        self._done = [*self._done[1 - MAX_CHANGES :], Change(name, before)]
        self._undone.clear()

    def undo(self) -> Files:
        """Take the latest change back; returns the files that it restored.

        Raises:
            UserError: when there is none.
        """
        return self._step(self._done, self._undone, "undo")

    def redo(self) -> Files:
        """Make the latest undone change again; returns the files that it wrote.

        Raises:
            UserError: when there is none.
        """
        return self._step(self._undone, self._done, "redo")

    def _step(self, source: list[Change], target: list[Change], verb: str) -> Files:
        if not source:
            raise UserError(f"there is nothing to {verb}", "change something first")
        change = source[-1]
        target.append(Change(change.name, self._project.swap(change.files)))
        source.pop()
        return change.files
