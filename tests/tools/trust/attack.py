"""Feeds damaged files to a reader, in a process of its own.

``python -m trust.attack TARGET,TARGET SEED COUNT FOLDER``: whatever a reader does but return or raise a
``UserError`` is written as one JSON line: an exception, or more memory than the target may take. A case that
hangs or crashes ends the process; ``FOLDER/case`` says which one it was.
"""

from __future__ import annotations

import faulthandler
import json
import os
import random
import resource
import signal
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path

from maskring.common.errors import UserError

SECONDS_PER_CASE = 60
"""After which a case hangs: hundreds of times what any takes."""

MOST_FAILURES = 20


def run(attack: Callable[[random.Random], None], seed: int, count: int, folder: Path, most_mb: int) -> int:
    """Run ``count`` cases; returns how many failed. ``most_mb``: growth of the peak of resident memory."""
    failures, seen = 0, set()
    for case in range(5):
        _problem(attack, f"warm up {case}")  # imports, thread pools
    before = _peak_mb()
    for case in range(count):
        (folder / "case").write_text(f"{seed}:{case}")
        signal.alarm(SECONDS_PER_CASE)
        problem = _problem(attack, f"{seed}:{case}")
        if problem is None and _peak_mb() > before + most_mb:
            problem = f"{_peak_mb() - before} MB of memory"
            before = _peak_mb()
        place = (problem and problem.partition(" at ")[2]) or problem
        if problem is not None and place not in seen:
            seen.add(place)
            failures += 1
            print(json.dumps({"case": f"{seed}:{case}", "problem": problem}), flush=True)
        if failures >= MOST_FAILURES:
            break
    signal.alarm(0)
    return failures


def _problem(attack: Callable[[random.Random], None], case: str) -> str | None:
    try:
        attack(random.Random(case))
    except UserError as error:
        if "\n" in str(error).strip() or not str(error).endswith("."):
            return f"not one sentence: {str(error)[:300]!r}"
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt):
            raise
        frames = traceback.extract_tb(error.__traceback__)
        ours = [f"{Path(f.filename).name}:{f.lineno}" for f in frames if "trust" not in f.filename]
        return f"{type(error).__name__}: {str(error)[:200]} at {' > '.join(ours[-4:])}"
    return None


def _peak_mb() -> int:
    """Of this program: ``getrusage`` knows the peak of the one that started it as well."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) // 1024


def _made(folder: Path) -> Path:
    folder.mkdir(exist_ok=True)
    return folder


def main() -> None:
    from trust.targets import TARGETS

    names, seed, count, folder = sys.argv[1].split(","), int(sys.argv[2]), int(sys.argv[3]), Path(sys.argv[4])
    faulthandler.enable()
    attacks = {name: TARGETS[name].prepare(_made(folder / name)) for name in names}
    # What asks for more is refused, here as on a small board, and must say so in one sentence.
    held = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (held + (6 << 30), resource.RLIM_INFINITY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    failed = 0
    for name, attack in attacks.items():
        started = time.monotonic()
        failed += run(attack, seed, count, folder / name, TARGETS[name].most_mb)
        seconds = round(time.monotonic() - started, 1)
        print(json.dumps({"target": name, "cases": count, "seconds": seconds}), flush=True)
    os._exit(1 if failed else 0)  # threads of libraries need not be waited for


if __name__ == "__main__":
    main()
