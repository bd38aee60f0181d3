"""Safe reading of torch files: data only, checksums verified."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any
from zipfile import ZIP_STORED, BadZipFile, ZipFile

import torch

LOCAL_HEADER = b"PK\3\4"


def load_torch_file(path: Path, device: torch.device | str) -> Any:
    """Read what ``torch.save`` wrote: tensors, numbers, strings and their containers only.

    Torch does not verify the checksums of the archive, and returns uninitialised memory where a flipped bit
    turns a tensor's entry into a folder. So this function unpacks and verifies the archive and gives torch
    the verified content. Files of torch before 1.6 are not archives and have no checksums.

    Raises:
        Exception: of any kind, because on damaged bytes the unpickler raises whatever it meets. The caller turns
            it into an error message.
    """
    with path.open("rb") as file:
        is_archive = file.read(len(LOCAL_HEADER)) == LOCAL_HEADER  # torch decides it the same way
    if not is_archive:
        return torch.load(path, map_location=device, weights_only=True)
    verified = io.BytesIO()
    with ZipFile(path) as archive, ZipFile(verified, "w") as copy:
        names = archive.namelist()
        if len(set(names)) != len(names):
            raise BadZipFile("two entries have the same name")
        for entry in archive.infolist():
            if entry.compress_type != ZIP_STORED:  # torch does not compress; a decompression bomb does
                raise BadZipFile("an entry is compressed")
            copy.writestr(entry.filename, archive.read(entry))
    verified.seek(0)
    return torch.load(verified, map_location=device, weights_only=True)
