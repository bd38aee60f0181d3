"""The emulator of CUDA threads itself, on kernels of a few lines: right ones, and ones with a mistake."""

from __future__ import annotations

import numpy as np
import pytest
from cuda_on_cpu.fibers import emulator
from cuda_on_cpu.fibers.emulator import ASAN, TSAN, KernelFailed

pytestmark = [emulator.needs_cuda_headers, emulator.needs_compiler]
THREADS = np.arange(64)


def probe(name: str, flags: tuple[str, ...] = (), **variables: str) -> list[int]:
    printed = emulator.run_probe(name, ("-O1", *flags), **variables)
    return [int(word) for word in printed.split()]


@pytest.mark.parametrize("seed", ["1", "2", "3"])
def test_threads_meet_at_barriers_in_any_order(seed: str) -> None:
    assert probe("barrier", CUDA_ON_CPU_SEED=seed) == [*((THREADS + 1) % 64)]
    assert probe("rounds", CUDA_ON_CPU_SEED=seed) == [*(2 * ((THREADS + 1) % 64) + 1)]


def test_shared_memory_that_nobody_wrote_is_no_number() -> None:
    """A thread that reads before its neighbour has written finds the bits of a NaN, not a plausible 0."""
    assert -1 in probe("no barrier", CUDA_ON_CPU_SEED="1")


def test_a_barrier_that_not_all_reach_is_reported() -> None:
    with pytest.raises(KernelFailed, match="a barrier or collective that not all threads reach"):
        probe("half a barrier")


def test_copies_arrive_when_they_are_awaited() -> None:
    assert probe("copies") == [1] * 64
    assert probe("copies not awaited") == [0] * 64
    assert probe("copies not awaited", CUDA_ON_CPU_ASYNC="early") == [1] * 64


def test_matrices_are_multiplied_and_loaded_as_documented() -> None:
    assert probe("product") == [1] * 64


@emulator.needs_asan
@pytest.mark.parametrize("name", ["barrier", "rounds", "copies", "product"])
def test_address_sanitizer_is_content_with_right_kernels(name: str) -> None:
    assert probe(name, ASAN) == probe(name)


@emulator.needs_asan
def test_address_sanitizer_sees_the_end_of_shared_memory() -> None:
    with pytest.raises(KernelFailed, match="heap-buffer-overflow"):
        probe("beyond shared memory", ASAN)


@emulator.needs_tsan
@pytest.mark.parametrize("name", ["barrier", "rounds", "copies", "product"])
def test_thread_sanitizer_is_content_with_right_kernels(name: str) -> None:
    assert probe(name, TSAN) == probe(name)


@emulator.needs_tsan
@pytest.mark.parametrize("name", ["no barrier", "rounds without a barrier"])
@pytest.mark.parametrize("seed", ["0", "1", "2"])
def test_thread_sanitizer_sees_a_missing_barrier_in_any_order(name: str, seed: str) -> None:
    with pytest.raises(KernelFailed, match="data race"):
        probe(name, TSAN, CUDA_ON_CPU_SEED=seed)
