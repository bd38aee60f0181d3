"""Everything that is to be learned on a machine with an NVIDIA GPU, in one prepared run of at most eight minutes.

    python bench/gpu_day_pack.py --out gpu_day                # beforehand: builds and gathers what the run needs
    python bench/gpu_day.py --carried gpu_day --out results   # on the machine with the GPU
    python bench/gpu_day.py --dry-run --out results           # here: tiny sizes, on the CPU

Each step is a process of its own with its own time limit (``gpu_day_steps.py``). ``results.json`` in the output
folder is written again after each step, so a run that is cut short loses nothing. When time runs short, optional
steps are skipped; correctness and tuning never are. Clocks are left as they are.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parents[1]
LIBRARY = "libmaskring_cuda.so"
"""In the carried folder: the kernels with their C interface, from ``gpu_day_pack.py``."""

PLUGIN_PROGRAM = "plugin_values"
"""In the carried folder: the TensorRT plugin in a program that needs no TensorRT, from ``gpu_day_pack.py``."""

TOTAL_SECONDS = 480
LEAST_SECONDS = 5
"""A step that would get less is not started."""


@dataclass(frozen=True)
class Step:
    """A step of the day: its name in ``gpu_day_steps.py``, its time limit, and whether it may be skipped."""

    name: str
    seconds: int
    optional: bool = False


STEPS = (
    Step("versions", 60),  # builds the library if none was carried
    Step("correctness", 60),
    Step("triton_kernels", 40),
    Step("plugin", 30),
    Step("roofs", 20),
    Step("tuning", 60),
    Step("operators", 40),
    Step("tracking", 40),
    Step("training", 75),
    Step("counters", 30, optional=True),
    Step("sanitizer", 60, optional=True),
    Step("peers", 60, optional=True),
    Step("best_recipe", 120, optional=True),
)


DRY_RUN_SECONDS = 1800
"""For each step: a dry run measures nothing, and the machine may be busy."""


def limits(steps: tuple[Step, ...], done: int, left: float) -> float:
    """Seconds for step ``done``: its own limit, and no more than is left beside the required ones after it."""
    reserved = sum(step.seconds for step in steps[done + 1 :] if not step.optional)
    step = steps[done]
    return min(step.seconds, left - reserved) if step.optional else min(step.seconds, left)


def write_results(out: Path, results: dict[str, Any]) -> None:
    partial = out / "results.json.partial"
    partial.write_text(json.dumps(results, indent=1) + "\n")
    partial.replace(out / "results.json")


def python_path(folder: Path, carried: Path | None) -> str:
    """Where steps find maskring, as sources, and the wheels that were carried."""
    package = folder / "maskring"
    package.mkdir()
    sources = [*(REPOSITORY / "src" / "maskring").iterdir()]
    sources += [REPOSITORY / name for name in ("common", "plugins", "runtime", "training", "export")]
    for source in sources:
        (package / source.name).symlink_to(source)
    paths = [folder]
    for wheel in sorted(carried.glob("*.whl")) if carried else []:
        paths.append(folder / wheel.stem)
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(paths[-1])
    return os.pathsep.join([*map(str, paths), *filter(None, [os.environ.get("PYTHONPATH")])])


def run_step(
    step: Step, seconds: float, options: argparse.Namespace, environment: dict[str, str]
) -> dict[str, Any]:
    """The step's result, or what kept it from one."""
    made = options.out / f"{step.name}.json"
    made.unlink(missing_ok=True)
    command = [sys.executable, Path(__file__).with_name("gpu_day_steps.py"), step.name, "--out", made]
    command += ["--seconds", f"{seconds:.0f}"]
    command += ["--dry-run"] if options.dry_run else []
    command += ["--carried", options.carried] if options.carried else []
    start = time.monotonic()
    try:
        done = subprocess.run(
            [*map(str, command)],
            env=environment,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=seconds,
            check=False,
        )
        ended: dict[str, Any] = {} if done.returncode == 0 else {"failed": done.stderr[-3000:]}
    except subprocess.TimeoutExpired:
        ended = {"failed": f"not done after {seconds:.0f} s"}
    if made.exists():  # also of a step that failed or ran out of time: it writes as it goes
        ended = json.loads(made.read_text()) | ended
    return {"seconds": round(time.monotonic() - start, 1), **ended}


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path(os.environ.get("OUT", "gpu_day_results")))
    parser.add_argument("--carried", type=Path, help="folder from gpu_day_pack.py")
    parser.add_argument("--seconds", type=float, default=TOTAL_SECONDS, help="for all steps together")
    parser.add_argument("--only", nargs="+", choices=[step.name for step in STEPS])
    parser.add_argument("--dry-run", action="store_true", help="tiny sizes, on the CPU")
    options = parser.parse_args()
    options.out = options.out.resolve()
    options.out.mkdir(parents=True, exist_ok=True)
    options.carried = options.carried.resolve() if options.carried else None
    end = time.monotonic() + options.seconds
    steps = tuple(step for step in STEPS if options.only is None or step.name in options.only)
    command = " ".join(["python", "bench/gpu_day.py", *sys.argv[1:]])
    results: dict[str, Any] = {"command": command, "dry_run": options.dry_run, "steps": {}}
    results["date"] = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime())
    with tempfile.TemporaryDirectory() as folder:
        environment = os.environ | {"PYTHONPATH": python_path(Path(folder), options.carried)}
        library = options.carried / LIBRARY if options.carried else options.out / LIBRARY
        environment.setdefault("MASKRING_ONNXRUNTIME_LIBRARY", str(library))
        for index, step in enumerate(steps):
            left = end - time.monotonic()
            seconds = DRY_RUN_SECONDS if options.dry_run else limits(steps, index, left)
            if seconds < LEAST_SECONDS:
                results["steps"][step.name] = {"failed": "no time was left"}
            else:
                results["steps"][step.name] = run_step(step, seconds, options, environment)
            write_results(options.out, results)
            found = results["steps"][step.name]
            print(f"{step.name}: {found.get('failed', 'done').splitlines()[-1]}", flush=True)
    return int(any("failed" in results["steps"][step.name] for step in steps if not step.optional))


if __name__ == "__main__":
    raise SystemExit(main())
