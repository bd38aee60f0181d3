"""Profile models on the same frames, and write the profiles as JSON and HTML."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from ...common.errors import SourceError
from ...common.files import atomic_path, directory
from ...common.types import Image
from .html import profile_page
from .inputs import write_inputs
from .report import Profile
from .stages import profile_model


@dataclass(frozen=True)
class ProfileOptions:
    """What to measure, see :func:`.profile_model`; without a ``source``, a rendered clip is tracked."""

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
    """Profile each model on the same frames; write JSON, HTML and the inputs to ``out``.

    Raises:
        UserError: when a model or the source cannot be used, or ``out`` cannot be written.
    """
    with directory(out):
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
    from ..video.open_source import open_source, without_credentials
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
        raise SourceError(f"{without_credentials(options.source)} has no frames", "give another video")
    return first, chain([first], images)
