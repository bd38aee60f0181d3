"""Errors that a user can fix: one sentence that says what is wrong and what to do about it.

The command line prints the sentence and exits with code 2; library users catch :class:`UserError`. Any other
exception that escapes is a defect of maskring.
"""

from __future__ import annotations

MAX_LENGTH = 1000
"""Characters of a problem or a remedy."""


def one_line(text: str) -> str:
    """Text without control characters, at most :data:`MAX_LENGTH` long, so that it is safe to print.

    Text may quote a file, and a file that moves a terminal's cursor could forge what maskring prints.
    """
    if len(text) > MAX_LENGTH:
        text = f"{text[: MAX_LENGTH // 2]} ... {text[-MAX_LENGTH // 2 :]}"
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


class UserError(Exception):
    """Something that the user can fix. Its text is ``problem; remedy.``, made safe by :func:`one_line`.

    Args:
        problem: what is wrong with which input, without a full stop.
        remedy: what to do about it, in the imperative, without a full stop.
    """

    def __init__(self, problem: str, remedy: str) -> None:
        self.problem, self.remedy = one_line(problem), one_line(remedy)
        super().__init__(f"{self.problem}; {self.remedy}.")

    def __reduce__(self) -> tuple[type[UserError], tuple[str, str]]:
        """So that the error crosses from process to process."""
        return type(self), (self.problem, self.remedy)


class SourceError(UserError):
    """A video, image folder or camera cannot be read, or its frames change size."""


class MaskError(UserError):
    """A mask is missing, empty, of the wrong size, or has more objects than the model can follow."""


class ModelError(UserError):
    """A checkpoint, ONNX file or engine is foreign, of another version, damaged, or unfit for its use."""


class OutputError(UserError):
    """A result cannot be written: no permission, a full disk, or something else in its place."""


class UnavailableError(UserError):
    """A package, library or device is missing."""


class TrainingError(UserError):
    """A training recipe is invalid, or a run cannot continue."""
