"""Faults planted in small kernels: each must be seen, and what is right must pass."""

from __future__ import annotations

import numpy as np
import pytest
from cuda_on_cpu.ptx import PtxError
from cuda_on_cpu.ptx_kernels import launch

OWN = "shl.b32 %r1, %r0, 2; mov.u32 %r2, tile; add.u32 %r3, %r2, %r1; cvt.u64.u32 %rd10, %r1;"
WRITE = "st.shared.b32 [%r3], %r0;"
NEXT = "add.u32 %r4, %r0, 1; rem.u32 %r4, %r4, 64; shl.b32 %r4, %r4, 2; add.u32 %r4, %r4, %r2;"  # neighbour's
NEXT_LANE = "xor.b32 %r4, %r0, 1; shl.b32 %r4, %r4, 2; add.u32 %r4, %r4, %r2;"  # of the same warp
READ = "ld.shared.b32 %r5, [%r4];"
STORE = "add.s64 %rd11, %rd{0}, %rd10; st.global.b32 [%rd11], %r5;"


def run(body: str, *buffers: np.ndarray) -> list[int]:
    made = launch(body + STORE.format(len(buffers)), buffers, np.empty(64, np.uint32), shared=256, block=64)
    return [int(x) for x in made]


def fault(body: str, *buffers: np.ndarray) -> str:
    with pytest.raises(PtxError, match=r"at PTX line \d+") as error:
        run(body, *buffers)
    return error.value.kind


def test_neighbours_read_after_a_barrier() -> None:
    assert run(OWN + WRITE + "bar.sync 0;" + NEXT + READ) == [(i + 1) % 64 for i in range(64)]


def test_missing_barrier_before_reading() -> None:
    assert fault(OWN + WRITE + NEXT + READ) == "race"


def test_missing_barrier_before_writing_again() -> None:
    again = OWN + WRITE + "bar.sync 0;" + NEXT + READ
    assert fault(again + WRITE) == "race"
    assert run(again + "bar.sync 0;" + WRITE) == [(i + 1) % 64 for i in range(64)]


def test_two_threads_write_one_place() -> None:
    assert fault(OWN + "mov.u32 %r5, 0; shr.u32 %r6, %r0, 1; shl.b32 %r6, %r6, 2; add.u32 %r6, %r6, %r2;"
                 "st.shared.b32 [%r6], %r0;") == "race"  # fmt: skip


def test_a_warp_needs_its_own_barrier() -> None:
    assert run(OWN + WRITE + "bar.warp.sync -1;" + NEXT_LANE + READ) == [i ^ 1 for i in range(64)]
    assert fault(OWN + WRITE + NEXT_LANE + READ) == "race"
    assert fault(OWN + WRITE + "shfl.sync.idx.b32 %r7, %r0, 0, 31, -1;" + NEXT_LANE + READ) == "race"
    assert fault(OWN + WRITE + "bar.warp.sync -1;" + NEXT + READ) == "race"  # lane 31 reads of the next warp
    assert fault(OWN + WRITE + "bar.warp.sync -1;" + NEXT_LANE + READ + WRITE) == "race"


def test_own_accesses_need_no_barrier() -> None:
    assert run(OWN + WRITE + "ld.shared.b32 %r5, [%r3]; st.shared.b32 [%r3], %r5;") == list(range(64))


def test_everybody_may_read_one_place_but_nobody_write_it_then() -> None:
    body = OWN + WRITE + "bar.sync 0; mov.u32 %r4, tile;" + READ
    assert run(body) == [0] * 64
    assert fault(body + "setp.eq.u32 %p1, %r0, 63; @%p1 st.shared.b32 [%r4], %r0;") == "race"
    assert fault(body + "setp.eq.u32 %p1, %r0, 0; @%p1 st.shared.b32 [%r4], %r0;") == "race"


def test_barrier_that_a_thread_does_not_reach() -> None:
    assert (
        fault(OWN + WRITE + "setp.eq.u32 %p1, %r0, 5; @%p1 bra SKIP; bar.sync 0; SKIP: mov.u32 %r5, 0;")
        == "barrier"
    )
    assert fault(OWN + WRITE + "setp.eq.u32 %p1, %r0, 5; @%p1 ret; bar.sync 0; mov.u32 %r5, 0;") == "barrier"


def test_two_barriers_are_not_one() -> None:
    body = "setp.lt.u32 %p1, %r0, 32; @%p1 bra A; bar.sync 0; bra B; A: bar.sync 0; B: mov.u32 %r5, 0;"
    assert fault(OWN + body) == "barrier"


def test_shuffle_that_a_lane_never_reaches() -> None:
    body = "mov.u32 %r5, 0; setp.eq.u32 %p1, %r0, 5; @%p1 bra A; shfl.sync.bfly.b32 %r5, %r0, 1, 31, -1;"
    assert fault(OWN + body + "bar.sync 0; bra B; A: bar.sync 0; B:") == "convergence"
    assert fault(OWN + "shfl.sync.bfly.b32 %r5, %r0, 1, 31, 0xffff;") == "convergence"


def test_shared_memory_that_nobody_wrote() -> None:
    assert (
        fault(OWN + "setp.ne.u32 %p1, %r0, 9; @%p1 " + WRITE + "bar.sync 0;" + NEXT + READ) == "uninitialised"
    )


@pytest.mark.parametrize("address", ["%r3+256", "%r3+-4", "%r3+252"])
def test_shared_access_out_of_bounds(address: str) -> None:
    assert fault(OWN + f"mov.u32 %r5, 1; st.shared.b32 [{address}], %r0;") == "bounds"


def test_misaligned_access() -> None:
    assert fault(OWN + WRITE + "bar.sync 0; ld.shared.v2.b32 {%r5,%r6}, [%r3];") == "alignment"


GIVEN = np.arange(64, dtype=np.uint32)
SOURCE = "add.s64 %rd12, %rd0, %rd10;"


def test_global_access_out_of_bounds() -> None:
    assert run(OWN + SOURCE + "ld.global.b32 %r5, [%rd12];", GIVEN) == list(range(64))
    assert fault(OWN + SOURCE + "ld.global.b32 %r5, [%rd12+4];", GIVEN) == "bounds"
    assert fault(OWN + SOURCE + "ld.global.b32 %r5, [%rd12+-4];", GIVEN) == "bounds"
    assert fault(OWN + "ld.global.b32 %r5, [%rd10];", GIVEN) == "bounds"


def test_message_names_buffer_place_and_thread() -> None:
    with pytest.raises(
        PtxError, match=r"block 0 thread 63: .* byte 256 of 'p0' \(256 bytes\)\n  at PTX line \d+: ld"
    ):
        run(OWN + SOURCE + "ld.global.b32 %r5, [%rd12+4];", GIVEN)


def test_inputs_are_not_written() -> None:
    assert fault(OWN + SOURCE + "mov.u32 %r5, 0; st.global.b32 [%rd12], %r0;", GIVEN) == "read-only"


def test_output_is_written_once_and_whole() -> None:
    other = "xor.b32 %r6, %r0, 1; mul.wide.u32 %rd13, %r6, 4; add.s64 %rd14, %rd0, %rd13; mov.u32 %r5, 0;"
    assert fault(OWN + other + "st.global.b32 [%rd14], %r0;") == "race"
    with pytest.raises(PtxError, match="4 of 256 bytes of 'out' were never written") as error:
        run(OWN + "mov.u32 %r5, 0; setp.eq.u32 %p1, %r0, 3; @%p1 ret;")
    assert error.value.kind == "uninitialised"


def test_output_is_not_read_before_it_is_written() -> None:
    assert fault(OWN + "add.s64 %rd12, %rd0, %rd10; ld.global.b32 %r5, [%rd12];") == "uninitialised"


def test_ctas_do_not_share_shared_memory() -> None:
    body = (
        OWN + "mov.u32 %r6, %ctaid.x; mad.lo.u32 %r7, %r6, 100, %r0; st.shared.b32 [%r3], %r7; "
        "bar.sync 0;" + NEXT + READ
        + "mad.lo.u32 %r8, %r6, 64, %r0; mul.wide.u32 %rd10, %r8, 4;" + STORE.format(0)
    )  # fmt: skip
    made = launch(body, [], np.empty((3, 64), np.uint32), shared=256, block=64, ctas=3)
    assert (made == np.arange(3)[:, None] * 100 + (np.arange(64) + 1) % 64).all()


def test_copy_into_a_buffer_that_is_still_read() -> None:
    copy = SOURCE + "cp.async.ca.shared.global [%r3], [%rd12], 4; cp.async.commit_group;"
    whole = OWN + copy + "cp.async.wait_group 0; bar.sync 0;" + NEXT + READ
    assert run(whole, GIVEN) == [(i + 1) % 64 for i in range(64)]
    assert fault(whole + copy, GIVEN) == "race"
    assert run(whole + "bar.sync 0;" + copy, GIVEN) == [(i + 1) % 64 for i in range(64)]


def test_waiting_is_no_barrier() -> None:
    body = OWN + SOURCE + "cp.async.ca.shared.global [%r3], [%rd12], 4; cp.async.wait_all;" + NEXT + READ
    assert fault(body, GIVEN) == "race"


def test_trap_and_local_memory() -> None:
    assert fault(OWN + "mov.u32 %r5, 0; setp.eq.u32 %p1, %r0, 9; @%p1 trap;") == "trap"
    local = ".local .align 4 .b8 depot[8]; mov.u64 %rd15, depot; cvta.local.u64 %rd16, %rd15;"
    assert run(OWN + local + "st.local.b32 [%rd15+4], %r0; ld.b32 %r5, [%rd16+4];") == list(range(64))
    assert fault(OWN + local + "st.local.b32 [%rd15+8], %r0; mov.u32 %r5, 0;") == "bounds"
    assert fault(OWN + local + "st.local.b32 [%rd15+4], %r0; ld.b32 %r5, [%rd16];") == "uninitialised"
