"""Checks what an error tells the user, whatever its wording: its kind, the input it names, the remedy.

    with raises_user_error(SourceError, mentions=("clip.mp4", "--size")):
        open_source("clip.mp4")

Mention what the user has to see: the file, the value, the option or command that helps. Leave the rest of the
sentence out, so that a better one does not break the test.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import pytest

from maskring.common.errors import UserError

E = TypeVar("E", bound=UserError)

SENTENCE = re.compile(r"[^\n]+; [^\n]+\.")
"""A problem, a semicolon and a remedy on one line."""


@contextmanager
def raises_user_error(
    kind: type[E], mentions: Iterable[object] = (), omits: Iterable[object] = ()
) -> Iterator[pytest.ExceptionInfo[E]]:
    """Expect an error of exactly this class, in one line, that names every one of ``mentions``.

    Args:
        kind: class of the error; a subclass does not pass for it.
        mentions: texts or paths that the message must contain, in any order and case.
        omits: texts that it must not contain.

    Raises:
        AssertionError: when the block raises no such error, or the message lacks or has what it should not.
    """
    with pytest.raises(kind) as caught:
        yield caught
    assert caught.type is kind, f"{caught.type.__name__} instead of {kind.__name__}: {caught.value}"
    assert_sentence(str(caught.value), mentions, omits)
    del caught  # the error's traceback holds this frame: with it, what the error refers to would stay alive


def assert_sentence(message: str, mentions: Iterable[object] = (), omits: Iterable[object] = ()) -> None:
    """Check that a message is one line, ``problem; remedy.``, with all ``mentions`` and none of ``omits``."""
    assert SENTENCE.fullmatch(message), f"not one line of problem and remedy: {message!r}"
    text = message.lower()
    missing = [word for word in _words(mentions) if word.lower() not in text]
    assert not missing, f"{missing} not mentioned in: {message}"
    present = [word for word in _words(omits) if word.lower() in text]
    assert not present, f"{present} mentioned in: {message}"


def assert_command_error(
    code: int, stderr: str, mentions: Iterable[object] = (), omits: Iterable[object] = ()
) -> None:
    """Check that a command ended with exit code 2 and only ``error: `` and such a sentence on stderr."""
    assert code == 2, f"exit code {code}: {stderr}"
    start, sentence = stderr[:7], stderr[7:].strip()
    assert start == "error: ", stderr
    assert_sentence(sentence, mentions, omits)


def _words(words: Iterable[object]) -> list[str]:
    assert not isinstance(words, str), f"give a tuple: ({words!r},)"
    return [str(word) for word in words]
