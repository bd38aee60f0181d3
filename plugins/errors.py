"""The one family of errors a user may meet: one sentence that says what is wrong and what to do about it.

The command line prints the sentence and exits with code 2; a library user catches :class:`UserError`.
Anything else that escapes is a defect of maskring.
"""

from __future__ import annotations


class UserError(Exception):
    """Something the user can mend.

    Args:
        problem: what is wrong with which input, without a final full stop.
        remedy: what to do about it, as an imperative, without a final full stop.
    """

    def __init__(self, problem: str, remedy: str) -> None:
        super().__init__(f"{problem}; {remedy}.")
        self.problem = problem
        self.remedy = remedy


class SourceError(UserError):
    """A video, image folder or camera cannot be read, or changed its size on the way."""


class MaskError(UserError):
    """A mask is missing, empty, of the wrong size, or names more objects than the model can follow."""


class ModelError(UserError):
    """A checkpoint, ONNX file or engine is not ours, of another version, damaged, or does not fit its use."""


class OutputError(UserError):
    """A result cannot be written: no permission, disk full, path taken by something else."""


class UnavailableError(UserError):
    """A package, library or device that the request needs is not there."""


class TrainingError(UserError):
    """A training recipe is not valid, or a run cannot go on."""
