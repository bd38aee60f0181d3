"""Windowed memory affinity on a CPU: native, threaded, for the best instruction set of the processor."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...common.machine import usable_cores
from . import _native

ISA_VARIABLE = "MASKRING_ISA"
"""Environment variable with the instruction set to use, for tests and benchmarks."""

_FLOATS = (np.dtype(np.float32), np.dtype(np.float16))


def instruction_sets() -> list[str]:
    """Instruction sets that this processor can run, best first."""
    names: list[str] = _native.instruction_sets()
    return names


def instruction_set() -> str:
    """The instruction set in use: the best one, or the one that ``MASKRING_ISA`` names.

    Raises:
        ValueError: if that variable names one that this processor cannot run.
    """
    names = instruction_sets()
    chosen = os.environ.get(ISA_VARIABLE)
    if chosen is None:
        return names[0]
    if chosen not in names:
        raise ValueError(
            f"{ISA_VARIABLE} is {chosen}, which this processor cannot run; use {', '.join(names)} or unset it"
        )
    return chosen


def windowed_affinity(
    query: NDArray[Any],
    keys: NDArray[Any],
    values: NDArray[Any],
    dilation: NDArray[np.int32],
    offsets: NDArray[np.int32] | None = None,
    *,
    radius: int,
    scale: float,
    top_k: int = 0,
    shares: bool = False,
    out: NDArray[Any] | None = None,
    threads: int = 0,
) -> NDArray[Any]:
    """Copy labels from memory frames by feature similarity inside a window.

    Arguments and result are those of ``reference.windowed_affinity``, as C-contiguous numpy arrays of float32
    or float16 (arithmetic is float32 for both). Logits must stay below 1e37 in magnitude.

    Speed and memory depend on the arguments:

    * Without ``offsets`` and ``top_k``: fast. Extra memory is a few key rows per thread. Queries whose
      windows contain only equal labels read no keys; with ``shares``, those whose windows contain only one label.
    * A slot in which all ``offsets`` are equal: as fast, but always reads all keys.
    * Other ``offsets``: slower. Keys and values are copied to float32, one slot at a time.
    * ``top_k``: slowest. Keys and values of all slots are copied to float32.

    Args:
        shares: divide the result by its sum over labels, where that is not 0.
        out: [B, O, H, W] array for the result; None for a new one.
        threads: CPU threads, 0 for all that this process may use.

    Raises:
        ValueError: if shapes, types or memory layouts of the arguments do not match.
    """
    _check(query, keys, values, dilation, offsets, radius, top_k)
    if not 0 <= scale < float("inf"):
        raise ValueError(f"scale must be finite and not negative, not {scale}")
    shape = (query.shape[0], values.shape[2], *query.shape[2:])
    if out is None:
        out = np.empty(shape, values.dtype)
    _check_array("out", out, shape, (values.dtype,))
    _native.windowed_affinity(
        query,
        keys,
        values,
        dilation,
        offsets,
        out,
        radius,
        scale,
        top_k,
        shares,
        threads or usable_cores(),
        instruction_set(),
    )
    return out


def _check(
    query: NDArray[Any],
    keys: NDArray[Any],
    values: NDArray[Any],
    dilation: NDArray[np.int32],
    offsets: NDArray[np.int32] | None,
    radius: int,
    top_k: int,
) -> None:
    for name, array, rank in (("query", query, 4), ("keys", keys, 5), ("values", values, 5)):
        if array.ndim != rank:
            raise ValueError(f"{name} must have {rank} dimensions, not shape {array.shape}")
    batch, channels, height, width = query.shape
    slots, labels = values.shape[1:3]
    types = (query.dtype,) if query.dtype in _FLOATS else _FLOATS
    integers = (np.dtype(np.int32),)
    _check_array("query", query, query.shape, types)
    _check_array("keys", keys, (batch, slots, channels, height, width), types)
    _check_array("values", values, (batch, slots, labels, height, width), types)
    _check_array("dilation", dilation, (batch, slots), integers)
    if offsets is not None:
        _check_array("offsets", offsets, (batch, slots, 2, height, width), integers)
    if 0 in (channels, height, width):
        raise ValueError(f"query must not be empty, not shape {query.shape}")
    if radius < 0 or top_k < 0:
        raise ValueError(f"radius and top_k must not be negative, not {radius} and {top_k}")


def _check_array(
    name: str, array: NDArray[Any], shape: tuple[int, ...], types: tuple[np.dtype[Any], ...]
) -> None:
    if array.shape != shape:
        raise ValueError(f"{name} must have shape {shape}, not {array.shape}")
    if array.dtype not in types:
        raise ValueError(f"{name} must be {' or '.join(map(str, types))}, not {array.dtype}")
    if not array.flags.c_contiguous:
        raise ValueError(f"{name} must be C-contiguous; use numpy.ascontiguousarray")
