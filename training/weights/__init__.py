"""Checkpoints that come with maskring."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

from ...plugins.errors import ModelError


def shipped_checkpoint(name: str = "nano") -> Path:
    """The file of a checkpoint that comes with maskring; its model card lies beside it, as Markdown.

    Raises:
        ModelError: when no checkpoint of that name comes with maskring.
    """
    path = Path(str(files(__package__).joinpath(f"{name}.safetensors")))
    if not path.is_file():
        names = ", ".join(sorted(file.stem for file in path.parent.glob("*.safetensors"))) or "none"
        raise ModelError(f"no checkpoint {name!r} comes with maskring", f"name one of: {names}")
    return path
