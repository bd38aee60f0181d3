"""mma.sync, ldmatrix and cp.async of the PTX interpreter, held to the PTX ISA lane by lane."""

from __future__ import annotations

import numpy as np
import pytest
from cuda_on_cpu.ptx import PtxError
from cuda_on_cpu.ptx_kernels import Array, launch

RNG = np.random.default_rng(3)


def element_of_a(lane: int, i: int, columns: int) -> tuple[int, int]:
    """Row and column of a_i: PTX ISA 9.0, section 9.7.14.5.8 (m16n8k16) and 9.7.14.5.7 (m16n8k8), f16."""
    group, thread = lane >> 2, lane % 4
    if columns == 8:
        return (group if i < 2 else group + 8), thread * 2 + (i & 1)
    row = group if 0 <= i < 2 or 4 <= i < 6 else group + 8
    column = thread * 2 + (i & 1) + (0 if i < 4 else 8)
    return row, column


def element_of_b(lane: int, i: int) -> tuple[int, int]:
    """Row and column of b_i, same sections."""
    group, thread = lane >> 2, lane % 4
    return thread * 2 + (i & 1) + (0 if i < 2 else 8), group


def element_of_c(lane: int, i: int) -> tuple[int, int]:
    """Row and column of c_i and d_i, same sections."""
    group, thread = lane >> 2, lane % 4
    return (group if i < 2 else group + 8), thread * 2 + (i & 1)


LOAD_A = {
    16: "shl.b32 %r1, %r0, 4; cvt.u64.u32 %rd10, %r1; add.s64 %rd11, %rd0, %rd10; "
    "ld.global.v4.b32 {%r2,%r3,%r4,%r5}, [%rd11];",
    8: "shl.b32 %r1, %r0, 3; cvt.u64.u32 %rd10, %r1; add.s64 %rd11, %rd0, %rd10; "
    "ld.global.v2.b32 {%r2,%r3}, [%rd11];",
}
LOAD_B = {
    16: "shl.b32 %r1, %r0, 3; cvt.u64.u32 %rd10, %r1; add.s64 %rd11, %rd1, %rd10; "
    "ld.global.v2.b32 {%r6,%r7}, [%rd11];",
    8: "shl.b32 %r1, %r0, 2; cvt.u64.u32 %rd10, %r1; add.s64 %rd11, %rd1, %rd10; ld.global.b32 %r6, [%rd11];",
}
OPERANDS = {16: "{%r2,%r3,%r4,%r5}, {%r6,%r7}", 8: "{%r2,%r3}, {%r6}"}


@pytest.mark.parametrize("depth", [16, 8])
def test_mma_multiplies_what_the_isa_says_each_lane_holds(depth: int) -> None:
    warps = 3
    a = RNG.integers(-8, 9, (warps, 16, depth)).astype(np.float16)
    b = RNG.integers(-8, 9, (warps, depth, 8)).astype(np.float16)
    c = RNG.integers(-99, 99, (warps, 16, 8)).astype(np.float32)
    held_a = np.array(
        [
            [[a[(w, *element_of_a(t, i, depth))] for i in range(depth // 2)] for t in range(32)]
            for w in range(warps)
        ]
    )
    held_b = np.array(
        [[[b[(w, *element_of_b(t, i))] for i in range(depth // 4)] for t in range(32)] for w in range(warps)]
    )
    held_c = np.array(
        [[[c[(w, *element_of_c(t, i))] for i in range(4)] for t in range(32)] for w in range(warps)]
    )
    body = (
        LOAD_A[depth]
        + LOAD_B[depth]
        + "shl.b32 %r1, %r0, 4; cvt.u64.u32 %rd10, %r1; add.s64 %rd11, %rd2, %rd10; "
        "add.s64 %rd12, %rd3, %rd10;"
        "ld.global.v4.f32 {%f1,%f2,%f3,%f4}, [%rd11];"
        f"mma.sync.aligned.m16n8k{depth}.row.col.f32.f16.f16.f32 {{%f5,%f6,%f7,%f8}}, {OPERANDS[depth]},"
        "{%f1,%f2,%f3,%f4}; st.global.v4.f32 [%rd12], {%f5,%f6,%f7,%f8};"
    )
    made = launch(body, [held_a, held_b, held_c], np.empty((warps, 32, 4), np.float32), block=32 * warps)
    expected = a.astype(np.float32) @ b.astype(np.float32) + c
    for warp in range(warps):
        for lane in range(32):
            for i in range(4):
                assert made[warp, lane, i] == expected[(warp, *element_of_c(lane, i))]


FILL = (  # each thread copies 16 bytes of the input into its place of the tile
    "shl.b32 %r1, %r0, 4; cvt.u64.u32 %rd10, %r1; add.s64 %rd11, %rd0, %rd10; mov.u32 %r2, tile; "
    "add.u32 %r3, %r2, %r1;"
    "ld.global.v4.b32 {%r4,%r5,%r6,%r7}, [%rd11]; st.shared.v4.b32 [%r3], {%r4,%r5,%r6,%r7}; bar.sync 0;"
)
REGISTERS = {1: "{%r10}", 2: "{%r10,%r11}", 4: "{%r10,%r11,%r12,%r13}"}


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("count", [1, 2, 4])
def test_ldmatrix_gives_each_lane_what_the_isa_says(count: int, transposed: bool) -> None:
    """PTX ISA 9.0, section 9.7.14.5.15: lane l holds row l / 4, elements 2 (l % 4) and the next."""
    rows = RNG.integers(0, 2**16, (32, 8), dtype=np.uint16)
    order = RNG.permutation(32).astype(np.uint32)  # lane i names the row order[i] of the tile
    trans = ".trans" if transposed else ""
    stores = "".join(f"st.global.b32 [%rd14+{128 * i}], %r{10 + i};" for i in range(count))
    body = (
        FILL + "shl.b32 %r8, %r0, 2; cvt.u64.u32 %rd12, %r8; add.s64 %rd13, %rd1, %rd12; "
        "ld.global.u32 %r9, [%rd13];"
        "shl.b32 %r9, %r9, 4; add.u32 %r9, %r9, %r2;"
        f"ldmatrix.sync.aligned.m8n8.x{count}{trans}.shared.b16 {REGISTERS[count]}, [%r9];"
        "add.s64 %rd14, %rd2, %rd12;" + stores
    )
    made = launch(body, [rows, order], np.empty((count, 32, 2), np.uint16), shared=512)
    for matrix in range(count):
        held: Array = rows[order[8 * matrix : 8 * matrix + 8]]
        held = held.T if transposed else held
        for lane in range(32):
            assert made[matrix, lane].tolist() == held[lane // 4, lane % 4 * 2 : lane % 4 * 2 + 2].tolist()


def test_ldmatrix_needs_all_lanes() -> None:
    body = FILL + (
        "setp.lt.u32 %p1, %r0, 9; @%p1 ret; ldmatrix.sync.aligned.m8n8.x1.shared.b16 {%r10}, [%r3];"
    )
    with pytest.raises(PtxError, match="all 32") as error:
        launch(body, [np.zeros((32, 8), np.uint16)], np.empty(1, np.uint32), shared=512)
    assert error.value.kind == "convergence"


def copy(size: int, cache: str, source_size: str = "", wait: str = "cp.async.wait_group 0;") -> str:
    """Each thread copies ``size`` bytes asynchronously, waits, and stores its first word."""
    return (
        f"mul.lo.u32 %r1, %r0, {size}; cvt.u64.u32 %rd10, %r1; add.s64 %rd11, %rd0, %rd10; mov.u32 %r2, tile;"
        f"add.u32 %r3, %r2, %r1; cp.async.{cache}.shared.global.L2::128B [%r3], [%rd11], {size}{source_size};"
        f"cp.async.commit_group; {wait}"
    )


def store(size: int) -> str:
    words = "".join(
        f"ld.shared.b32 %r4, [%r3+{i}]; st.global.b32 [%rd12+{i}], %r4;" for i in range(0, size, 4)
    )
    return "add.s64 %rd12, %rd1, %rd10;" + words


@pytest.mark.parametrize(("size", "cache"), [(4, "ca"), (8, "ca"), (16, "ca"), (16, "cg")])
def test_copies_land_when_they_are_waited_for(size: int, cache: str) -> None:
    given = RNG.integers(0, 256, (32, size), dtype=np.uint8)
    made = launch(copy(size, cache) + store(size), [given], np.empty_like(given), shared=512)
    assert (made == given).all()


def test_beyond_the_source_size_come_zeros_and_nothing_is_read() -> None:
    given = RNG.integers(1, 256, (31 * 16 + 3,), dtype=np.uint8)  # thread 31 may read 3 bytes
    sizes = "setp.eq.u32 %p1, %r0, 31; selp.u32 %r9, 3, %r0, %p1; min.u32 %r9, %r9, 16;"
    made = launch(
        sizes + copy(16, "cg", ", %r9") + store(16), [given], np.empty((32, 16), np.uint8), shared=512
    )
    padded = np.concatenate([given, np.zeros(13, np.uint8)]).reshape(32, 16)
    valid = np.array([*(min(i, 16) for i in range(31)), 3])
    assert (made == np.where(np.arange(16) < valid[:, None], padded, 0)).all()


def test_copy_may_be_ignored_by_a_predicate() -> None:
    given = RNG.integers(1, 256, (32, 16), dtype=np.uint8)
    body = "setp.gt.u32 %p1, %r0, 4;" + copy(16, "cg", ", %p1") + store(16)
    made = launch(body, [given], np.empty((32, 16), np.uint8), shared=512)
    assert (made[:5] == given[:5]).all() and not made[5:].any()


@pytest.mark.parametrize("wait", ["", "cp.async.wait_group 1;", "bar.sync 0;"])
def test_missing_wait_is_seen(wait: str) -> None:
    given = np.zeros((32, 16), np.uint8)
    with pytest.raises(PtxError, match=r"has not been waited for") as error:
        launch(copy(16, "cg", wait=wait) + store(16), [given], np.empty_like(given), shared=512)
    assert error.value.kind == "in-flight"


def test_waiting_for_all_but_the_last_group_lands_the_first() -> None:
    given = RNG.integers(0, 2**32, (2, 32), dtype=np.uint32)
    body = (
        "shl.b32 %r1, %r0, 2; cvt.u64.u32 %rd10, %r1; add.s64 %rd11, %rd0, %rd10; mov.u32 %r2, tile;"
        "add.u32 %r3, %r2, %r1; cp.async.ca.shared.global [%r3], [%rd11], 4; cp.async.commit_group;"
        "cp.async.ca.shared.global [%r3+128], [%rd11+128], 4; cp.async.commit_group; cp.async.wait_group 1;"
        "add.s64 %rd12, %rd1, %rd10; ld.shared.b32 %r4, [%r3]; st.global.b32 [%rd12], %r4;"
    )
    assert (launch(body, [given], np.empty(32, np.uint32), shared=256) == given[0]).all()
    with pytest.raises(PtxError, match="has not been waited for"):
        launch(body + "ld.shared.b32 %r4, [%r3+128];", [given], np.empty(32, np.uint32), shared=256)
