"""The one family of errors a user may meet: one sentence that says what is wrong and what to do about it.

The command line prints the sentence and exits with code 2; a library user catches :class:`UserError`.
Anything else that escapes is a defect of maskring.
"""

from __future__ import annotations

LONGEST = 1000
"""Characters of a problem or a remedy."""


def one_line(text: str) -> str:
    """Text that may hold a file's own words, as it may be shown: no control characters, and no longer than
    :data:`LONGEST`. A file that could move the cursor of a terminal could forge what maskring says.
    """
    if len(text) > LONGEST:
        text = f"{text[: LONGEST // 2]} ... {text[-LONGEST // 2 :]}"
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


class UserError(Exception):
    """Something the user can mend.

    Args:
        problem: what is wrong with which input, without a final full stop; shown as :func:`one_line`.
        remedy: what to do about it, as an imperative, without a final full stop; likewise.
    """

    def __init__(self, problem: str, remedy: str) -> None:
        self.problem, self.remedy = one_line(problem), one_line(remedy)
        super().__init__(f"{self.problem}; {self.remedy}.")


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
