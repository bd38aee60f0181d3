"""The checks of error messages can fail."""

from __future__ import annotations

import pytest
from user_errors import assert_command_error, assert_sentence, raises_user_error

from maskring.common.errors import MaskError, SourceError, UserError

CLIP = SourceError("clip.mp4 holds no frame", "give a video that plays, or use --size")


def test_kind_and_mentions() -> None:
    with raises_user_error(SourceError, mentions=("CLIP.mp4", "--size"), omits=("--mask",)) as caught:
        raise CLIP
    assert caught.value is CLIP


@pytest.mark.parametrize(
    ("kind", "mentions", "omits"),
    [
        pytest.param(MaskError, (), (), id="another kind"),
        pytest.param(UserError, (), (), id="a subclass"),
        pytest.param(SourceError, ("clip.mp4", "--mask"), (), id="lacks a word"),
        pytest.param(SourceError, (), ("plays",), id="has a word too many"),
    ],
)
def test_what_does_not_pass(kind: type[UserError], mentions: tuple[str, ...], omits: tuple[str, ...]) -> None:
    with pytest.raises((AssertionError, SourceError)), raises_user_error(kind, mentions, omits):
        raise CLIP


def test_nothing_raised_does_not_pass() -> None:
    with pytest.raises(pytest.fail.Exception), raises_user_error(SourceError):
        pass


@pytest.mark.parametrize("message", ["no remedy.", "two; lines\nof it.", "no stop; at the end"])
def test_other_shapes_are_no_sentence(message: str) -> None:
    with pytest.raises(AssertionError):
        assert_sentence(message)


def test_commands() -> None:
    assert_command_error(2, "error: clip.mp4 is damaged; give another.\n", ("clip.mp4", "give another"))


@pytest.mark.parametrize(
    ("code", "stderr"),
    [
        pytest.param(1, "error: clip.mp4 is damaged; give another.", id="another exit code"),
        pytest.param(2, "clip.mp4 is damaged; give another.", id="does not say that it is an error"),
        pytest.param(2, "Traceback\nerror: clip.mp4 is damaged; give another.", id="says more"),
        pytest.param(2, "error: a file is damaged; give another.", id="lacks a word"),
    ],
)
def test_commands_that_do_not_pass(code: int, stderr: str) -> None:
    with pytest.raises(AssertionError):
        assert_command_error(code, stderr, ("clip.mp4",))
