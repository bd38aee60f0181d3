"""Verification of ``maskring verify`` on a video or on the rendered clip."""

from __future__ import annotations

from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from ..common.errors import SourceError

if TYPE_CHECKING:
    from .parity import ParityReport


def verify_on_frames(model: Path, checkpoint: Path | None, source: str | None, count: int) -> ParityReport:
    """Compare the ways to execute ``model`` (:func:`.parity.verify_model`) on ``count`` frames.

    Args:
        model, checkpoint: as :func:`.parity.verify_model`.
        source: a video or a folder of frames; None for the rendered clip, at the size of the model.
        count: number of frames.

    Raises:
        ModelError: when the model is damaged or not an export of maskring.
        SourceError: when the source has fewer than two frames.
    """
    from ..runtime.model.step_graph import load_step_graph
    from ..runtime.video.open_source import open_source
    from ..runtime.video.synthetic import render_clip
    from .parity import verify_model

    if source is None:
        _, metadata = load_step_graph(model)
        clip = render_clip(metadata.height or 240, metadata.width or 426)
        frames = [image for image, _ in islice(clip, count)]
    else:
        with open_source(source) as stream:
            frames = [frame.image for frame in islice(stream, count)]
    if len(frames) < 2:
        raise SourceError(f"{source} has only {len(frames)} frames", "give a video of at least two frames")
    return verify_model(model, checkpoint=checkpoint, frames=frames)
