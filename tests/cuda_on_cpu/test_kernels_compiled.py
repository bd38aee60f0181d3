"""What nvcc makes of the CUDA kernels: compiled for every architecture, nothing spilled, no wasted work."""

from __future__ import annotations

import importlib
import shutil
from functools import cache
from pathlib import Path
from types import ModuleType

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]


def load_bench() -> tuple[ModuleType, ModuleType]:
    """The modules ``kernels`` and ``kernel_code`` of ``bench/``."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(REPOSITORY / "bench")
        return importlib.import_module("kernels"), importlib.import_module("kernel_code")


bench, kernel_code = load_bench()


def has_toolkit() -> bool:
    try:
        return bool(kernel_code.toolkit("nvcc") and kernel_code.toolkit("nvdisasm"))
    except SystemExit:
        return False


pytestmark = [
    pytest.mark.skipif(not has_toolkit(), reason="no nvcc and nvdisasm: pip install 'maskring[cuda]'"),
    pytest.mark.skipif(shutil.which("g++") is None, reason="no C++ compiler"),
]


@cache
def rows() -> list[bench.Row]:
    return bench.table_rows()


@cache
def compiled(sm: int) -> list[bench.Kernel]:
    return bench.kernels_of(rows(), sm)


ROW_FOR = {2: 4, 6: 8, 12: 12, 16: 16}
"""The largest radius of the row that computes a radius."""

EVERYDAY = (75, 87)
"""Without tensor cores for the kernels, and the one that the tests of instructions read."""


@pytest.mark.parametrize(
    "sm", [sm if sm in EVERYDAY else pytest.param(sm, marks=pytest.mark.slow) for sm in bench.ARCHITECTURES]
)
def test_every_kernel_compiles_without_spills(sm: int) -> None:
    kernels = compiled(sm)
    expected = [row.name for row in rows() if sm >= 80 or not row.name.startswith("mma")]
    assert [kernel.row.name for kernel in kernels] == expected
    assert {kernel.row.name: kernel.spilled_bytes for kernel in kernels if kernel.spilled_bytes} == {}
    assert not any(kernel_code.spills("mma.cu", sm).values())  # those before and after the main one, too
    assert all(kernel.blocks_per_sm >= 1 for kernel in kernels)


def row_for(radius: int) -> bench.Kernel:
    return next(k for k in compiled(87) if k.row.name == f"mma f16 r{ROW_FOR[radius]} c64 o15")


@pytest.mark.parametrize(("radius", "most"), [(2, 6.0), (6, 2.5), (12, 1.7), (16, 1.8)])
def test_tensor_cores_do_little_more_than_is_useful(radius: int, most: float) -> None:
    kernel = row_for(radius)
    assert bench.issued_over_useful(kernel) <= most
    assert bench.exponentials_per_pair(kernel) <= 1


@pytest.mark.parametrize("radius", [2, 6, 12, 16])
@pytest.mark.parametrize("step", [2, 3, 4])
def test_a_wider_step_costs_tensor_cores_only_its_tiles(radius: int, step: int) -> None:
    """What phases add is in tiles that jut out of them, and in windows that the frame cuts."""
    kernel = row_for(radius)
    assert bench.issued_over_useful(kernel, (step,)) <= 1.4 * bench.issued_over_useful(kernel)


@pytest.mark.parametrize("radius", [2, 6, 12, 16])
def test_a_stage_issues_the_multiply_adds_of_the_shape_and_no_more(radius: int) -> None:
    """4 per key tile for 64 channels, and for each pair of key tiles one per tile of labels."""
    for kernel in compiled(87):
        if not kernel.row.name.startswith(f"mma f16 r{ROW_FOR[radius]} "):
            continue
        tiles, labels = kernel.row.key_tiles, kernel.row.max_labels // 8 + 1
        assert kernel.body()["HMMA"] == bench.STAGE_ROWS * (4 * tiles + -(-tiles // 2) * labels)


@pytest.mark.parametrize(
    ("sm", "radius", "most"),
    [
        (87, 6, 0.35),  # the aim is 0.33: a third of the time goes into rearranging four slots
        (87, 12, 0.55),
        pytest.param(90, 6, 0.04, marks=pytest.mark.slow),
        pytest.param(90, 12, 0.08, marks=pytest.mark.slow),
    ],
)
def test_modelled_time_with_the_steps_of_tracking(sm: int, radius: int, most: float) -> None:
    kernel = next(k for k in compiled(sm) if k.row.name == f"mma f16 r{ROW_FOR[radius]} c64 o15")
    gpu = next(gpu for gpu in bench.GPUS if gpu.sm == sm)
    assert bench.modelled_ms(kernel, gpu, bench.policy_steps(radius)) <= most
    wide, direct = (
        bench.modelled_ms(kernel, gpu, bench.policy_steps(radius), width=width) for width in (214, 216)
    )
    assert wide <= 1.15 * direct


def test_modelled_time_of_smoothing() -> None:
    """The aim is 0.03 ms: three launches and the partial sums, which one slot would not need, take 0.02."""
    orin = next(gpu for gpu in bench.GPUS if gpu.sm == 87)
    assert bench.modelled_ms(row_for(2), orin, (1,)) <= 0.05


def test_a_halo_is_copied_once_for_each_cta() -> None:
    """Staged are the CTAs' halos: tile and radius on both sides, columns from a multiple of 8."""
    for radius in (6, 12):
        row = next(r for r in rows() if r.name == f"mma f16 r{ROW_FOR[radius]} c64 o15")
        halo = (row.tile_y + 2 * radius) * row.columns / (row.tile_y * row.tile_x)
        # the last tile juts out of the frame
        assert bench.Work.of(row, 1).staged_per_element <= halo * 128 / 120
