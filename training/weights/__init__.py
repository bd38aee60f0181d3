"""Checkpoints that come with maskring."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

from ...common.errors import ModelError

_FOLDER = Path(str(files(__package__)))


def shipped_checkpoint(name: str = "nano") -> Path:
    """The file of a checkpoint that comes with maskring; its model card lies beside it, as Markdown.

    Raises:
        ModelError: when no checkpoint of that name comes with maskring.
    """
    if name not in shipped_names():
        names = ", ".join(shipped_names()) or "none"
        raise ModelError(f"no checkpoint {name!r} comes with maskring", f"name one of: {names}")
    return _FOLDER / f"{name}.safetensors"


def shipped_names() -> list[str]:
    """Names of the checkpoints that come with maskring."""
    return sorted(file.stem for file in _FOLDER.glob("*.safetensors"))
