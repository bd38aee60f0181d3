"""``maskring profile``: frames for the tracker, the profiles, and where they are written."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ...common.errors import SourceError
from ...common.files import atomic_path, make_directory
from .html import profile_page
from .stages import Profile, profile_model, write_inputs

Image = NDArray[np.uint8]


@dataclass(frozen=True)
class ProfileOptions:
    """What to measure: see :func:`.profile_model`; without a ``source``, on a rendered clip."""

    source: str | None
    height: int
    width: int
    iterations: int
    warm_up: int
    threads: int
    runner_iterations: int


def profile_models(
    executables: list[Path], options: ProfileOptions, out: Path, budget: float | None
) -> tuple[list[Profile], dict[str, str]]:
    """Profile each executable model on the same frames; write JSON, HTML and the inputs to ``out``.

    Raises:
        UserError: when a model or the source cannot be used, or ``out`` cannot be written.
    """
    make_directory(out)
    profiles = []
    for executable in executables:
        first, frames = _frames(options)
        profiles.append(
            profile_model(
                executable,
                frames,
                iterations=options.iterations,
                warm_up=options.warm_up,
                threads=options.threads,
                runner_iterations=options.runner_iterations,
            )
        )
    commands = write_inputs(executables[0], first, out / "inputs")
    with atomic_path(out / "profile.json") as partial:
        document = {"profiles": [profile.to_json() for profile in profiles], "commands": commands}
        partial.write_text(json.dumps(document, indent=2, allow_nan=False) + "\n", encoding="utf-8")
    with atomic_path(out / "profile.html") as partial:
        partial.write_text(profile_page(profiles, commands, budget), "utf-8", "backslashreplace")
    return profiles, commands


def _frames(options: ProfileOptions) -> tuple[Image, Iterator[Image]]:
    """The first frame, and all frames from that one on."""
    from ..video.open_source import open_source
    from ..video.synthetic import render_clip

    def of_source(source: str) -> Iterator[Image]:
        with open_source(source) as stream:
            for frame in stream:
                yield frame.image

    if options.source is None:
        clip = [image for image, _ in render_clip(options.height, options.width)]
        count = options.warm_up + options.iterations
        return clip[0], (clip[index % len(clip)] for index in range(count))
    images = of_source(options.source)
    first = next(images, None)
    if first is None:
        raise SourceError(f"{options.source} holds no frame", "give another video")
    return first, chain([first], images)
