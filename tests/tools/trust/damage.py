"""Ways to damage a file: what disks, networks, wrong programs and enemies do to bytes and to documents."""

from __future__ import annotations

import json
import random
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

Attack = Callable[[random.Random], None]
"""Reads one damaged file."""

STRANGE_NUMBERS = (0, 1, -1, 2**31 - 1, 2**31, -(2**31), 2**32 - 1, 2**63, 10**18, 10**400, 1e308, 0.5)
STRANGE_VALUES: tuple[Any, ...] = (
    *STRANGE_NUMBERS,
    *(float("nan"), float("inf"), float("-inf")),
    *(None, True, False, "", "x", "1e9", "\0", "\ud800", "../../x", "x" * 5000),
    *([], {}, [[]], [None], {"a": 1}, list(range(2000))),
)


DEEP = "[" * 100_000
"""A document that nests deeper than any parser likes."""


def damaged_bytes(data: bytes, rng: random.Random) -> bytes:
    """``data`` with one to four wounds."""
    for _ in range(rng.choice((1, 1, 2, 4))):
        data = rng.choice(WOUNDS)(data, rng)
    return data


def _flip(data: bytes, rng: random.Random) -> bytes:
    changed = bytearray(data)
    for _ in range(rng.choice((1, 1, 3, 30))):
        if changed:
            changed[_place(data, rng)] ^= 1 << rng.randrange(8)
    return bytes(changed)


def _place(data: bytes, rng: random.Random) -> int:
    """Often near the beginning, where headers are."""
    return rng.randrange(min(len(data), 256) if rng.random() < 0.5 else len(data))


def _truncate(data: bytes, rng: random.Random) -> bytes:
    return data[: rng.randrange(len(data) + 1)]


def _cut_out(data: bytes, rng: random.Random) -> bytes:
    start = rng.randrange(len(data) + 1)
    return data[:start] + data[start + rng.choice((1, 4, 64, 4096)) :]


def _repeat(data: bytes, rng: random.Random) -> bytes:
    start = rng.randrange(len(data) + 1)
    return data[:start] + data[start : start + rng.choice((1, 8, 100))] * rng.choice((2, 50)) + data[start:]


def _noise(data: bytes, rng: random.Random) -> bytes:
    start = rng.randrange(len(data) + 1)
    noise = rng.randbytes(rng.choice((1, 4, 40)))
    return data[:start] + noise + data[start + (len(noise) if rng.random() < 0.5 else 0) :]


def _giant_number(data: bytes, rng: random.Random) -> bytes:
    """A length or count that promises more than there is."""
    if not data:
        return data
    kind = rng.choice(("<I", ">I", "<Q", ">Q", "<H", ">H"))
    number = rng.choice((0, 1, 2**15, 2**16 - 1, 2**31 - 1, 2**31, 2**32 - 1, 2**40, 2**63 - 1))
    packed = struct.pack(kind, number % (1 << 8 * struct.calcsize(kind)))
    start = _place(data, rng)
    return data[:start] + packed + data[start + len(packed) :]


def _something_else(data: bytes, rng: random.Random) -> bytes:
    begun = (b"", b"{}", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"PK\3\4")
    return rng.choice((*begun, b"\0" * 100, rng.randbytes(300), data[::-1]))


WOUNDS: tuple[Callable[[bytes, random.Random], bytes], ...] = (
    *(_flip, _flip, _flip, _truncate, _truncate, _cut_out, _repeat, _noise, _giant_number, _giant_number),
    _something_else,
)


def attack_files(path: Path, originals: list[bytes], read: Callable[[Path], object]) -> Attack:
    """Byte damage to one of several sound files, written to ``path``."""

    def attack(rng: random.Random) -> None:
        path.write_bytes(damaged_bytes(rng.choice(originals), rng))
        read(path)

    return attack


def damaged_document(document: Any, rng: random.Random) -> Any:
    """A JSON document in which one to three values, keys or lists are not what they should be."""
    for _ in range(rng.choice((1, 1, 2, 3))):
        document = _wounded(document, rng)
    return document


def _wounded(value: Any, rng: random.Random) -> Any:
    if not isinstance(value, (dict, list)) or not value or rng.random() < 0.05:
        return rng.choice(STRANGE_VALUES)
    copy: Any = dict(value) if isinstance(value, dict) else list(value)
    key = rng.choice(list(copy) if isinstance(copy, dict) else range(len(copy)))
    wound = rng.random()
    if wound < 0.75:
        copy[key] = _wounded(copy[key], rng)
    elif wound < 0.85:
        del copy[key]
    elif isinstance(copy, dict):
        copy[rng.choice(("", "format_version", "extra"))] = rng.choice(STRANGE_VALUES)
    else:
        copy *= rng.choice((2, 500))
    return copy


def as_json(document: Any, rng: random.Random) -> str:
    """The text of a document; one in twenty nests deeper than any parser likes."""
    if rng.random() < 0.05:
        depth = rng.choice((900, 3000, 200_000))
        return "[" * depth + "]" * (depth if rng.random() < 0.5 else 0)
    return json.dumps(document)
