"""``make lock``: constraints.hashes.txt, by file what constraints.txt says by version.

``python .ci/lock.py`` asks pip what it would install for the tests, on this machine and on those of
``ELSEWHERE``, and notes the SHA-256 of each file. Hashes that the lock has already stay while the version is
the same: machines that get another file of it (torch for CPUs, for CUDA) add theirs. Nothing is installed.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
CONSTRAINTS, LOCK = ROOT / "constraints.txt", ROOT / "constraints.hashes.txt"

WANTED = ["-e", ".[test]", "pip", "scikit-build-core", "nanobind", "cmake", "ninja"]
"""What the Makefile installs."""

ELSEWHERE = [(python, machine) for machine in ("x86_64", "aarch64") for python in ("3.11", "3.12", "3.13")]
"""(Python, Linux machine) whose files are noted beside those of this machine."""

LATEST_GLIBC = 39
"""Minor version of glibc 2 up to which wheels are taken."""

HEAD = """\
# What CI installs, by file: made from constraints.txt by `make lock`; installed by `make install LOCKED=1`.
"""

MISSING = re.compile(r"No matching distribution found for (\S+?)==")


@dataclass
class Entry:
    """One package of the lock."""

    name: str
    version: str
    hashes: set[str] = field(default_factory=set)

    def __str__(self) -> str:
        files = "".join(f" \\\n    --hash=sha256:{digest}" for digest in sorted(self.hashes))
        return f"{self.name}=={self.version}{files}\n"


def normal(name: str) -> str:
    """A package's name as PEP 503 compares it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def read_lock(text: str) -> dict[str, Entry]:
    """Entries by normal name."""
    entries = {}
    for line in re.sub(r"\s*\\\n\s*", " ", text).splitlines():
        if match := re.match(r"([\w.-]+)==([\w.!+-]+)", line):
            name, version = match.groups()
            hashes = set(re.findall(r"--hash=sha256:([0-9a-f]{64})", line))
            entries[normal(name)] = Entry(name, version, hashes)
    return entries


def resolved(arguments: Sequence[str]) -> list[dict[str, Any]]:
    """What pip would install.

    Raises:
        subprocess.CalledProcessError: when it could not; ``stderr`` says why.
    """
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.json"
        command = [sys.executable, "-m", "pip", "install", "--dry-run", "--quiet", "--ignore-installed"]
        subprocess.run(
            [*command, "--report", str(report), *arguments],
            cwd=ROOT,
            check=True,
            capture_output=True,
            text=True,
        )
        installs: list[dict[str, Any]] = json.loads(report.read_text())["install"]
    return [install for install in installs if "archive_info" in install["download_info"]]


def elsewhere(pins: Iterable[str], python: str, machine: str) -> list[dict[str, Any]]:
    """What pip would install of ``pins`` there, without those that have no wheel for it."""
    left = list(pins)
    glibc = [f"--platform=manylinux_2_{minor}_{machine}" for minor in range(LATEST_GLIBC, 4, -1)]
    old = [f"--platform={name}_{machine}" for name in ("manylinux2014", "manylinux2010", "manylinux1")]
    target = ["--no-deps", "--only-binary=:all:", f"--python-version={python}", "--target=none", *glibc, *old]
    while True:
        try:
            return resolved([*target, *left])
        except subprocess.CalledProcessError as error:
            absent = {normal(name) for name in MISSING.findall(error.stderr)}
            kept = [pin for pin in left if normal(pin.partition("==")[0]) not in absent]
            if len(kept) == len(left):
                raise
            left = kept


def main() -> None:
    """Write the lock.

    Raises:
        SystemExit: when a package that would be installed has no version in constraints.txt.
    """
    lines = CONSTRAINTS.read_text().splitlines()
    pinned = {normal(line.partition("==")[0]) for line in lines if "==" in line}
    before = read_lock(LOCK.read_text()) if LOCK.exists() else {}
    entries: dict[str, Entry] = {}

    def note(installs: list[dict[str, Any]]) -> None:
        for install in installs:
            name, version = install["metadata"]["name"], install["metadata"]["version"].partition("+")[0]
            entry = entries.setdefault(normal(name), Entry(name, version))
            entry.hashes.add(install["download_info"]["archive_info"]["hashes"]["sha256"])

    note(resolved(["--no-build-isolation", "-c", str(CONSTRAINTS), *WANTED]))
    if loose := sorted(set(entries) - pinned):
        names = ", ".join(f"{entries[name].name}=={entries[name].version}" for name in loose)
        raise SystemExit(f"constraints.txt lacks {names}")
    pins = [f"{entry.name}=={entry.version}" for entry in entries.values()]
    for python, machine in ELSEWHERE:
        note(elsewhere(pins, python, machine))
    for name, entry in entries.items():
        if name in before and before[name].version == entry.version:
            entry.hashes |= before[name].hashes
    LOCK.write_text(HEAD + "".join(str(entries[name]) for name in sorted(entries)))
    print(f"{LOCK.name}: {len(entries)} packages, {sum(len(e.hashes) for e in entries.values())} files")


if __name__ == "__main__":
    main()
