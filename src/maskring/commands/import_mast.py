"""``maskring import``."""

from __future__ import annotations

from ..common.errors import one_line
from . import options
from .console import note, require_suffix, say


def import_mast(checkpoint: options.MastCheckpoint, out_file: options.CheckpointOut) -> None:
    """Convert a published MAST checkpoint into a maskring checkpoint."""
    from ..models import CHECKPOINT_SUFFIX

    require_suffix(out_file, CHECKPOINT_SUFFIX)
    from ..training.checkpoint import save_checkpoint
    from ..training.mast_import import import_mast

    imported, unused = import_mast(checkpoint)
    save_checkpoint(out_file, imported)
    for key in unused:
        note(f"not used: {one_line(key)}")
    say(f"wrote {out_file}; {len(unused)} keys of {checkpoint.name} were not used")
