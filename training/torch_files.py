"""Torch's own file format, read as data alone and only where it is what was written."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any
from zipfile import ZIP_STORED, BadZipFile, ZipFile

import torch

LOCAL_HEADER = b"PK\3\4"


def load_torch_file(path: Path, device: torch.device | str) -> Any:
    """What ``torch.save`` put into a file; tensors, numbers, texts and their containers only.

    Torch verifies no checksum, and hands out memory that nobody wrote where a flipped bit makes a folder of a
    tensor. So the archive is unpacked and verified here, and torch is given the verified content. Files of
    torch before 1.6 are no archives and carry no checksum.

    Raises:
        Exception: of any kind: the unpickler meets damaged bytes with whatever there is. The caller knows
            what to say.
    """
    with path.open("rb") as file:
        is_archive = file.read(len(LOCAL_HEADER)) == LOCAL_HEADER  # as torch decides it
    if not is_archive:
        return torch.load(path, map_location=device, weights_only=True)
    verified = io.BytesIO()
    with ZipFile(path) as archive, ZipFile(verified, "w") as copy:
        names = archive.namelist()
        if len(set(names)) != len(names):
            raise BadZipFile("two entries of one name")
        for entry in archive.infolist():
            if entry.compress_type != ZIP_STORED:  # torch compresses nothing; a bomb would
                raise BadZipFile("a compressed entry")
            copy.writestr(entry.filename, archive.read(entry))
    verified.seek(0)
    return torch.load(verified, map_location=device, weights_only=True)
