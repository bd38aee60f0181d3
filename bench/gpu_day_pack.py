"""Gathers what ``gpu_day.py`` needs beside the repository into one folder below 64 MiB.

    python bench/gpu_day_pack.py --out gpu_day                                  # builds the kernels for sm_90
    python bench/gpu_day_pack.py --out gpu_day --architecture 87 --footage CLIP ... --wheel FILE.whl ...

Footage is what the last step trains on. Wheels are unpacked on the other machine, which may have no network.
"""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Sequence
from pathlib import Path

from gpu_day import LIBRARY
from kernel_code import KERNELS, command, toolkit

MOST_BYTES = 64 << 20
C_INTERFACE = KERNELS.parent / "onnxruntime" / "c_api.cpp"


def build_library(library: Path, architecture: str) -> None:
    """The kernels with their C interface, for one architecture ("90")."""
    nvcc = Path(toolkit("nvcc"))
    sources = [C_INTERFACE, KERNELS / "dispatch.cpp", *sorted(KERNELS.glob("*.cu"))]
    folders = [f"-I{KERNELS}", f"-I{KERNELS.parent}", f"-L{nvcc.resolve().parents[1] / 'lib'}"]
    options = ["-std=c++17", "-O3", "--threads=0", f"-arch=sm_{architecture}", "-Xcompiler=-fPIC", "-shared"]
    partial = library.with_suffix(".partial")
    command([nvcc, *options, *folders, *sources, "-o", partial])
    partial.replace(library)


def pack(out: Path, library: Path, footage: Sequence[Path], wheels: Sequence[Path]) -> int:
    """Copy everything into ``out``; returns its bytes.

    Raises:
        SystemExit: if that is more than 64 MiB; nothing is left behind then.
    """
    files = {LIBRARY: library, **{wheel.name: wheel for wheel in wheels}}
    for clip in footage:
        inside = sorted(path for path in clip.rglob("*") if path.is_file()) if clip.is_dir() else [clip]
        files |= {f"footage/{path.relative_to(clip.parent)}": path for path in inside}
    sizes = {name: path.stat().st_size for name, path in files.items()}
    total = sum(sizes.values())
    if total >= MOST_BYTES:
        largest = max(sizes, key=lambda name: sizes[name])
        raise SystemExit(
            f"{total / 2**20:.1f} MiB are more than 64; leave out the largest, {largest} "
            f"({sizes[largest] / 2**20:.1f} MiB)"
        )
    for name, path in files.items():
        target = out / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if target.resolve() != path.resolve():
            shutil.copyfile(path, target)
    return total


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--architecture", default="90")
    parser.add_argument("--library", type=Path, help="a library that was built before")
    parser.add_argument("--footage", type=Path, nargs="*", default=[])
    parser.add_argument("--wheel", type=Path, nargs="*", default=[])
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    library = options.library or options.out / LIBRARY
    if options.library is None:
        build_library(library, options.architecture)
    total = pack(options.out, library, options.footage, options.wheel)
    print(f"{options.out}: {total / 2**20:.1f} MiB")


if __name__ == "__main__":
    main()
