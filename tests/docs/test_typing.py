"""A user's script passes ``mypy --strict``, and the types that it gets are not Any."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

SCRIPT = """
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from typing_extensions import assert_type

import maskring

if TYPE_CHECKING:
    from supervision import Detections


def follow(video: Path, first: Path, out: Path) -> list[int]:
    mask = maskring.read_mask(first)
    assert_type(mask, NDArray[np.uint8])
    areas: list[int] = []
    with (
        maskring.open_source(str(video)) as source,
        maskring.open_tracker("pico", threads=2) as tracker,
        maskring.MaskFolderSink(out / "masks") as sink,
    ):
        for frame in source:
            result = tracker.step(frame.image, mask if frame.index == 0 else None)
            sink.write(frame, result)
            for one in result.objects:
                assert_type(one.box, tuple[int, int, int, int] | None)
                areas.append(one.area)
            detections: Detections = result.to_supervision()
            areas.append(len(detections))
        tracker.reset()
        tracker.step(Image.new("RGB", (64, 48)), Image.new("L", (64, 48), 1))
    return areas


def steer() -> None:
    try:
        summary = maskring.track([], maskring.open_tracker(), [], maskring.Edits({}))
        print(summary.frames + 1)
    except maskring.UserError as error:
        print(error.problem.upper(), error.remedy.upper())
"""


def checked(script: str, folder: Path) -> subprocess.CompletedProcess[str]:
    package = folder / "path" / "maskring"
    package.mkdir(parents=True, exist_ok=True)
    for source in [
        *(ROOT / "src/maskring").iterdir(),
        *(ROOT / name for name in ("common", "plugins", "runtime", "training", "export")),
    ]:
        if not (package / source.name).exists():
            (package / source.name).symlink_to(source)
    (folder / "script.py").write_text(script)
    # As if installed: mypy reports no errors in packages that it only follows.
    options = ["--strict", "--follow-imports=silent", "--config-file=", "--cache-dir", str(folder / "cache")]
    return subprocess.run(
        [sys.executable, "-m", "mypy", *options, "script.py"],
        cwd=folder,
        env=os.environ | {"MYPYPATH": "path"},
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_package_says_that_it_is_typed() -> None:
    assert (ROOT / "src/maskring/py.typed").is_file()


@pytest.mark.slow  # mypy reads the package and NumPy: a minute
def test_a_users_script(tmp_path: Path) -> None:
    done = checked(SCRIPT, tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    wrong = checked(SCRIPT.replace("one.area)", "one.are)").replace("threads=2", "threads='2'"), tmp_path)
    assert wrong.returncode == 1 and wrong.stdout.count("error:") == 2, wrong.stdout
