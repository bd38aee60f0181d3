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
    assert all(kernel.blocks_per_sm >= 1 for kernel in kernels)


@pytest.mark.parametrize("radius", [6, 12])
def test_tensor_cores_do_little_more_than_is_useful(radius: int) -> None:
    kernel = next(k for k in compiled(87) if k.row.name == f"mma f16 r{radius} c64 o15")
    assert bench.issued_over_useful(kernel) <= {6: 2.5, 12: 1.7}[radius]
    assert bench.exponentials_per_pair(kernel) <= 1
    assert bench.exponentials_per_pair(kernel, wide=True) <= 1


@pytest.mark.parametrize("radius", [6, 12])
@pytest.mark.parametrize("step", [2, 3, 4])
def test_a_wider_step_costs_tensor_cores_no_more_than_its_columns(radius: int, step: int) -> None:
    """Between the window's columns pairs are computed and masked, between its rows none are."""
    kernel = next(k for k in compiled(87) if k.row.name == f"mma f16 r{radius} c64 o15")
    assert bench.issued_over_useful(kernel, (step,)) <= 1.3 * step * bench.issued_over_useful(kernel)


@pytest.mark.parametrize("radius", [6, 12])
def test_a_stage_issues_the_multiply_adds_of_the_shape_and_no_more(radius: int) -> None:
    """4 per key tile for 64 channels, and for each pair of key tiles one per tile of labels."""
    for kernel in compiled(87):
        if not kernel.row.name.startswith(f"mma f16 r{radius} "):
            continue
        tiles, labels = kernel.row.key_tiles, kernel.row.max_labels // 8 + 1
        assert kernel.body()["HMMA"] == bench.ROWS_AT_ONCE[False] * (4 * tiles + -(-tiles // 2) * labels)
        tiles = bench.WIDE_KEY_TILES
        assert kernel.body(wide=True)["HMMA"] == 4 * tiles + -(-tiles // 2) * labels


@pytest.mark.parametrize("radius", [6, 12])
def test_modelled_time_on_orin(radius: int) -> None:
    kernel = next(k for k in compiled(87) if k.row.name == f"mma f16 r{radius} c64 o15")
    orin = next(gpu for gpu in bench.GPUS if gpu.sm == 87)
    assert bench.modelled_ms(kernel, orin) <= {6: 0.25, 12: 0.8}[radius]
    assert bench.modelled_ms(kernel, orin, bench.policy_steps(radius)) <= {6: 0.7, 12: 1.4}[radius]


def test_a_halo_is_copied_once_for_each_cta() -> None:
    """Staged are the CTAs' halos: tile and radius on both sides, columns from a multiple of 8."""
    for radius in (6, 12):
        row = next(r for r in rows() if r.name == f"mma f16 r{radius} c64 o15")
        halo = (row.tile_y + 2 * radius) * row.columns / (row.tile_y * row.tile_x)
        # the last tile juts out of the frame
        assert bench.Work.of(row, 1).staged_per_element <= halo * 128 / 120
