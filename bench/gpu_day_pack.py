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

from gpu_day import LIBRARY, PLUGIN_PROGRAM
from kernel_code import KERNELS, REPOSITORY, command, toolkit

MOST_BYTES = 64 << 20
PLUGIN = KERNELS.parent
C_INTERFACE = PLUGIN / "onnxruntime" / "c_api.cpp"
ROOF = Path(__file__).with_name("gpu_day_roof.cu")
TENSORRT_CPP = REPOSITORY / "tests" / "tools" / "tensorrt_cpp"


def build_library(library: Path, architecture: str) -> None:
    """The kernels with their C interface, for one architecture ("90"), and what measures their roof."""
    sources = [C_INTERFACE, KERNELS / "dispatch.cpp", *sorted(KERNELS.glob("*.cu")), ROOF]
    name = f"-Xlinker=-soname={LIBRARY}"
    build(library, sources, "-std=c++17", f"-arch=sm_{architecture}", "-Xcompiler=-fPIC", "-shared", name)


def build_plugin_program(program: Path, library: Path) -> None:
    """The program that runs problems through the TensorRT plugin as TensorRT does, which itself is not needed.

    Args:
        program: is written.
        library: of :func:`build_library`, which must be in the program's folder wherever that runs.
    """
    sources = [TENSORRT_CPP / "plugin_values.cpp", *sorted((PLUGIN / "tensorrt").glob("*.cpp"))]
    headers = f"-I{TENSORRT_CPP / 'tensorrt_double'}"
    options = ["-std=c++20", headers, '-DMASKRING_VERSION="0"', "-Xlinker=-rpath=$ORIGIN"]
    build(program, [*sources, library], *options)


def build(made: Path, sources: Sequence[Path], *options: str) -> None:
    """Compile and link with nvcc; the file appears when it is complete."""
    nvcc = Path(toolkit("nvcc"))
    folders = [f"-I{KERNELS}", f"-I{PLUGIN}", f"-L{nvcc.resolve().parents[1] / 'lib'}"]
    partial = made.with_suffix(".partial")
    command([nvcc, "-O3", "--threads=0", *options, *folders, *sources, "-o", partial])
    partial.replace(made)


def pack(out: Path, built: Sequence[Path], footage: Sequence[Path], wheels: Sequence[Path]) -> int:
    """Copy everything into ``out``; returns its bytes.

    Raises:
        SystemExit: if that is more than 64 MiB; nothing is left behind then.
    """
    files = {path.name: path for path in (*built, *wheels)}
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
            shutil.copy(path, target)
    return total


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--architecture", default="90")
    parser.add_argument("--footage", type=Path, nargs="*", default=[])
    parser.add_argument("--wheel", type=Path, nargs="*", default=[])
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    library, program = options.out / LIBRARY, options.out / PLUGIN_PROGRAM
    build_library(library, options.architecture)
    build_plugin_program(program, library)
    total = pack(options.out, [library, program], options.footage, options.wheel)
    print(f"{options.out}: {total / 2**20:.1f} MiB")


if __name__ == "__main__":
    main()
