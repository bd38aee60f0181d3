"""The one exception of this package."""

from __future__ import annotations


class PtxError(Exception):
    """The kernel has undefined behaviour, or uses PTX that this interpreter does not support.

    ``kind`` names the class of the fault, so that a test can ask for the fault it planted: ``syntax``,
    ``unsupported``, ``bounds``, ``alignment``, ``uninitialised``, ``read-only``, ``race``, ``in-flight``,
    ``barrier``, ``convergence``, ``trap``, ``launch``, ``endless``.
    """

    def __init__(self, kind: str, problem: str) -> None:
        super().__init__(problem)
        self.kind = kind
        self.problem = problem

    def at(self, place: str) -> PtxError:
        """The same error, with the instruction that caused it."""
        return PtxError(self.kind, f"{self.problem}\n  at {place}")
