"""The one exception of this package."""

from __future__ import annotations


class PtxError(Exception):
    """A kernel that does what PTX leaves undefined, or PTX that this interpreter does not know.

    ``kind`` names the class of the fault, so that a test can ask for the fault it planted: ``syntax``,
    ``unsupported``, ``bounds``, ``alignment``, ``uninitialised``, ``read-only``, ``race``, ``in-flight``,
    ``barrier``, ``convergence``, ``trap``, ``launch``, ``endless``.
    """

    def __init__(self, kind: str, problem: str) -> None:
        super().__init__(problem)
        self.kind = kind
        self.problem = problem

    def at(self, place: str) -> PtxError:
        """The same fault, with the instruction that showed it."""
        return PtxError(self.kind, f"{self.problem}\n  at {place}")
