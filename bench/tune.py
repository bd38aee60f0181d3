"""Times every CUDA kernel of windowed affinity on this machine's GPU. Does dispatch choose the fastest?

    python bench/tune.py                            # 120x120, C=64, N=5, O=11, r=6 and r=12
    python bench/tune.py --height 120 --width 214 --labels 3 --radius 12
    python bench/tune.py --radius 12 --steps 1 3 3 3 3     # steps of the tracker's default memory policy

Compiles the kernels for this GPU with nvcc. Times are medians of 30 launches, each between two events.
``MASKRING_KERNEL="simt f16 r6"`` makes dispatch use a row by name, in the plugin as well.
"""

from __future__ import annotations

import argparse
import subprocess
import tempfile
from pathlib import Path

from kernel_code import KERNELS, command, toolkit
from rich.console import Console
from rich.table import Table

SOURCE = Path(__file__).with_name("tune.cu")


def build(folder: Path, architecture: str) -> Path:
    """The program of ``tune.cu`` for one architecture ("native" or "sm_87")."""
    program = folder / "tune"
    nvcc = Path(toolkit("nvcc"))
    sources = [SOURCE, *sorted(KERNELS.glob("*.cu")), KERNELS / "dispatch.cpp"]
    libraries = f"-L{nvcc.resolve().parents[1] / 'lib'}"  # where pip's toolkit keeps them
    options = ["-std=c++17", "-O3", f"-arch={architecture}", f"-I{KERNELS}", libraries]
    command([nvcc, *options, *sources, "-o", program])
    return program


def table_of(lines: list[str], title: str) -> Table:
    """The rows that ran, by type, fastest first."""
    table = Table("kernel", "type", "ms", title=title)
    ran = []
    for line in lines:
        name, kind, result = line.split(";", 2)
        if result[0].isdigit():
            ran.append((kind, float(result), name))
    for kind, ms, name in sorted(ran):
        table.add_row(name, kind, f"{ms:.4f}")
    return table


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for name, default in (("height", 120), ("width", 120), ("channels", 64), ("labels", 11)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--radius", type=int, nargs="+", default=[6, 12])
    parser.add_argument("--steps", type=int, nargs="+", default=[1] * 5, help="window step of each slot")
    parser.add_argument("--architecture", default="native", help="as nvcc names it (default: this GPU's)")
    options = parser.parse_args()
    sizes = [options.height, options.width, options.channels, options.labels]
    console = Console(width=100)
    with tempfile.TemporaryDirectory() as folder:
        program = build(Path(folder), options.architecture)
        for radius in options.radius:
            done = subprocess.run(
                [program, *map(str, [*sizes, radius, *options.steps])],
                capture_output=True,
                text=True,
                check=False,
            )
            if done.returncode != 0:
                raise SystemExit(done.stderr.strip() or f"{program.name} ended with {done.returncode}.")
            console.print(table_of(done.stdout.splitlines(), f"radius {radius}"))


if __name__ == "__main__":
    main()
