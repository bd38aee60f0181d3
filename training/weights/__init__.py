"""Checkpoints that are shipped with maskring."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

from ...common.errors import ModelError

_FOLDER = Path(str(files(__package__)))


def shipped_checkpoint(name: str = "nano") -> Path:
    """The file of a shipped checkpoint; its model card is the Markdown file of the same name.

    Raises:
        ModelError: when no checkpoint of that name is shipped.
    """
    if name not in shipped_names():
        names = ", ".join(shipped_names()) or "none"
        raise ModelError(f"there is no shipped checkpoint {name!r}", f"choose one of: {names}")
    return _FOLDER / f"{name}.safetensors"


def shipped_names() -> list[str]:
    """Names of the shipped checkpoints."""
    return sorted(file.stem for file in _FOLDER.glob("*.safetensors"))
