"""Which C++ compiler can do what a test needs: found by letting it compile, link and run a line."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from functools import cache
from pathlib import Path

CLANG = (*(f"clang++-{version}" for version in range(22, 14, -1)), "clang++")
GCC_OR_CLANG = ("g++", *CLANG)

INTERFACES = {"thread": "tsan", "address": "asan"}
"""Headers of the sanitizers."""


@cache
def compiler(*flags: str, names: tuple[str, ...] = GCC_OR_CLANG) -> str | None:
    """The first of the compilers that makes a program with these flags which runs; None when none does.

    A package of clang may come without the headers or libraries of its sanitizers, and some kernels of Linux
    map memory where ThreadSanitizer does not expect it.
    """
    return next((name for name in names if shutil.which(name) and _serves(name, flags)), None)


def _serves(name: str, flags: tuple[str, ...]) -> bool:
    headers = [header for kind, header in INTERFACES.items() if any(kind in flag for flag in flags)]
    lines = [f"#include <sanitizer/{header}_interface.h>" for header in headers]
    with tempfile.TemporaryDirectory() as folder:
        source, program = Path(folder) / "probe.cpp", Path(folder) / "probe"
        source.write_text("\n".join([*lines, "int main() { return 0; }\n"]))
        for command in ([name, "-std=c++20", *flags, source, "-o", program], [program]):
            if subprocess.run(command, capture_output=True, check=False).returncode != 0:
                return False
    return True
