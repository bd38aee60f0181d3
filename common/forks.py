"""Objects of the parent in a forked process, where the parent's threads do not exist.

Native libraries wait for their threads when an object is released, which hangs in a forked process. So objects
that own threads are told of the fork: they keep what must not be released, and refuse to be used.
"""

from __future__ import annotations

import ctypes
import os
import weakref
from typing import Any, Protocol

from .errors import UnavailableError


class Forkable(Protocol):
    """An object that owns threads or native handles."""

    def after_fork(self) -> None:
        """Called in a forked process. Afterwards, closing and releasing the object do nothing."""


_owners: weakref.WeakSet[Any] = weakref.WeakSet()


def tell_of_forks(owner: Forkable) -> None:
    """Call :meth:`Forkable.after_fork` in every process that is forked while ``owner`` exists."""
    _owners.add(owner)


def never_release(resource: object) -> None:
    """Keep an object to the end of this process, and its destructor from running when the process ends."""
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(resource))


def forked_error(what: str) -> UnavailableError:
    """The error of an object that a forked process tries to use; ``what`` names it."""
    return UnavailableError(
        f"{what} was opened before this process was forked, and its threads exist in the parent alone",
        "open it in the process that uses it, or start processes with multiprocessing's method spawn",
    )


def _after_fork() -> None:
    for owner in list(_owners):
        owner.after_fork()


if hasattr(os, "register_at_fork"):  # Windows has no fork
    os.register_at_fork(after_in_child=_after_fork)
