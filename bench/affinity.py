"""Times every CPU implementation of windowed memory affinity, and onnxruntime's MatMul, in one run.

    python bench/affinity.py                 # 120x120, C=64, N=5, O=3, r=6 and r=12
    python bench/affinity.py --radius 6 --rounds 9

Times are medians over rounds. In each round all implementations run one after the other, so that ratios hold
even if the machine's speed drifts. Useful FLOP are 2 * HW * N * P^2 * (C + O). Peak extra memory is measured in
a separate process: after inputs, session and a small warm-up call, the high-water mark of resident memory is
reset, then one call is made. "One offset for all" moves all windows by 5 pixels; "an offset per pixel" moves
each by up to 8 pixels, at random.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper
from rich.console import Console
from rich.table import Table

from maskring.common.machine import usable_cores
from maskring.plugins.windowed_affinity import cpu_op, onnx_function, onnx_op

HEIGHT = WIDTH = 120
CHANNELS, SLOTS, LABELS, SCALE = 64, 5, 3, 0.125
MATMUL_SIZE = 2048

NATIVE, TORCH, FUNCTION, UNFOLD = "native kernel", "torch operator", "ONNX function", "naive unfold"
SHARED_OFFSET, OFFSETS = "native, one offset for all", "native, an offset per pixel"
IMPLEMENTATIONS = (NATIVE, SHARED_OFFSET, OFFSETS, TORCH, FUNCTION, UNFOLD)
TARGETS = "targets: 50 % of MatMul's FLOP/s, 60x the ONNX function at r=6, 100x naive unfold, below 30 MB"

Inputs = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]
Run = Callable[[], Any]


def inputs_of(height: int, width: int) -> Inputs:
    rng = np.random.default_rng(0)

    def normal(*shape: int) -> np.ndarray:
        return rng.normal(size=shape).astype(np.float32)

    return (
        normal(1, CHANNELS, height, width),
        normal(1, SLOTS, CHANNELS, height, width),
        rng.random((1, SLOTS, LABELS, height, width), np.float32),
        np.ones((1, SLOTS), np.int32),
    )


def native_run(inputs: Inputs, radius: int, threads: int) -> Run:
    return lambda: cpu_op.windowed_affinity(*inputs, radius=radius, scale=SCALE, threads=threads)


def shared_offset_run(inputs: Inputs, radius: int, threads: int) -> Run:
    offsets = np.full(offsets_shape(inputs), 5, np.int32)
    return lambda: cpu_op.windowed_affinity(*inputs, offsets, radius=radius, scale=SCALE, threads=threads)


def offsets_run(inputs: Inputs, radius: int, threads: int) -> Run:
    offsets = np.random.default_rng(0).integers(-8, 9, offsets_shape(inputs), np.int32)
    return lambda: cpu_op.windowed_affinity(*inputs, offsets, radius=radius, scale=SCALE, threads=threads)


def offsets_shape(inputs: Inputs) -> tuple[int, ...]:
    batch, slots, _, height, width = inputs[1].shape
    return batch, slots, 2, height, width


def torch_run(inputs: Inputs, radius: int, threads: int) -> Run:
    """The operator as training calls it: with gradients recorded, so that it takes no native shortcut."""
    import torch

    from maskring.plugins.windowed_affinity.torch_op import windowed_affinity

    torch.set_num_threads(threads)
    query, *memory = map(torch.from_numpy, inputs)
    query.requires_grad_()
    return lambda: windowed_affinity(query, *memory, radius=radius, scale=SCALE)


def function_run(inputs: Inputs, radius: int, threads: int) -> Run:
    """One node with its function body in plain onnxruntime."""
    names = ("query", "keys", "values", "dilation")
    kinds = (TensorProto.FLOAT,) * 3 + (TensorProto.INT32,)
    node = helper.make_node(
        onnx_op.OP_TYPE, names, ["out"], domain=onnx_op.DOMAIN, radius=radius, scale=SCALE, top_k=0
    )
    values = [
        helper.make_tensor_value_info(name, kind, list(array.shape))
        for name, kind, array in zip(names, kinds, inputs, strict=True)
    ]
    out = helper.make_tensor_value_info("out", TensorProto.FLOAT, [None] * 4)
    opsets = [
        helper.make_opsetid("", onnx_function.BODY_OPSET),
        helper.make_opsetid(onnx_op.DOMAIN, onnx_op.OPSET_VERSION),
    ]
    graph = helper.make_graph([node], "read", values, [out])
    body = onnx_function.function_body()
    session = session_of(
        helper.make_model(graph, opset_imports=opsets, ir_version=10, functions=[body]), threads
    )
    feeds = dict(zip(names, inputs, strict=True))
    return lambda: session.run(None, feeds)


def unfold_run(inputs: Inputs, radius: int, threads: int) -> Run:
    """What one writes first: unfold the memory, multiply, softmax; slot by slot, or it would not fit."""
    import torch
    import torch.nn.functional as F

    torch.set_num_threads(threads)
    query, keys, values, _ = map(torch.from_numpy, inputs)
    window, height, width = 2 * radius + 1, *query.shape[2:]

    def unfold(maps: torch.Tensor) -> torch.Tensor:
        return F.unfold(maps, window, padding=radius).view(maps.shape[1], window**2, height * width)

    @torch.no_grad()
    def run() -> torch.Tensor:
        inside = unfold(torch.ones(1, 1, height, width))[0] > 0
        flat = query[0].flatten(1).unsqueeze(1)
        logits = [
            (flat * unfold(keys[:, n])).sum(0).mul(SCALE).masked_fill(~inside, -torch.inf)
            for n in range(SLOTS)
        ]
        weights = torch.stack(logits).flatten(0, 1).softmax(0).view(SLOTS, window**2, -1)
        read = torch.stack([(unfold(values[:, n]) * weights[n]).sum(1) for n in range(SLOTS)]).sum(0)
        return read.view(LABELS, height, width)

    return run


MAKERS: dict[str, Callable[[Inputs, int, int], Run]] = {
    NATIVE: native_run,
    SHARED_OFFSET: shared_offset_run,
    OFFSETS: offsets_run,
    TORCH: torch_run,
    FUNCTION: function_run,
    UNFOLD: unfold_run,
}


def session_of(model: onnx.ModelProto, threads: int) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    # Waiting threads would otherwise spin into the time of whatever runs next.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )


def matmul_run(threads: int) -> Run:
    shape = [MATMUL_SIZE, MATMUL_SIZE]
    a, b, c = (helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in "abc")
    graph = helper.make_graph([helper.make_node("MatMul", ["a", "b"], ["c"])], "matmul", [a, b], [c])
    session = session_of(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), threads
    )
    matrix = np.random.default_rng(0).random(shape, np.float32)
    return lambda: session.run(None, {"a": matrix, "b": matrix})


def seconds(run: Run) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def resident_mb(field: str) -> float:
    status = Path("/proc/self/status").read_text()
    line = next(line for line in status.splitlines() if line.startswith(field))
    return int(line.split()[1]) / 1e3


def peak_extra_mb(name: str, radius: int, threads: int) -> float:
    """In this process: resident memory that one call takes beyond its inputs."""
    MAKERS[name](inputs_of(8, 8), 1, threads)()
    run = MAKERS[name](inputs_of(HEIGHT, WIDTH), radius, threads)
    Path("/proc/self/clear_refs").write_text("5")  # resets the high-water mark
    before = resident_mb("VmRSS")
    run()
    return resident_mb("VmHWM") - before


def peak_in_child(name: str, radius: int, threads: int) -> float:
    command = [sys.executable, __file__, "--peak", json.dumps([name, radius, threads])]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def measure(radius: int, threads: int, rounds: int, console: Console) -> None:
    """Print one table."""
    inputs = inputs_of(HEIGHT, WIDTH)
    runs = {name: MAKERS[name](inputs, radius, threads) for name in IMPLEMENTATIONS} | {
        "MatMul": matmul_run(threads)
    }
    times: dict[str, list[float]] = {name: [] for name in runs}
    for run in runs.values():
        run()
    for _ in range(rounds):
        for name, run in runs.items():
            times[name].append(seconds(run))
    useful = 2 * HEIGHT * WIDTH * SLOTS * (2 * radius + 1) ** 2 * (CHANNELS + LABELS)
    flop = dict.fromkeys(IMPLEMENTATIONS, useful) | {"MatMul": 2 * MATMUL_SIZE**3}
    of_matmul = {
        name: median(
            flop[name] / spent / (flop["MatMul"] / matmul)
            for spent, matmul in zip(times[name], times["MatMul"], strict=True)
        )
        for name in runs
    }
    times_native = {
        name: median(spent / best for spent, best in zip(times[name], times[NATIVE], strict=True))
        for name in runs
    }
    table = Table("r = " + str(radius), "ms", "GFLOP/s", "of MatMul", "times native", "peak extra MB")
    for name in runs:
        spent = median(times[name])
        known = name in IMPLEMENTATIONS
        table.add_row(
            name,
            f"{spent * 1e3:.1f}",
            f"{flop[name] / spent / 1e9:.1f}",
            f"{of_matmul[name]:.1%}",
            f"{times_native[name]:.1f}" if known else "",
            f"{peak_in_child(name, radius, threads):.1f}" if known else "",
        )
    console.print(table)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--radius", type=int, nargs="*", default=[6, 12])
    parser.add_argument("--threads", type=int, default=usable_cores())
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--peak", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.peak:
        print(peak_extra_mb(*json.loads(options.peak)))
        return
    console = Console()
    console.print(
        f"{HEIGHT}x{WIDTH}, C={CHANNELS}, N={SLOTS}, O={LABELS}, float32, {options.threads} threads, "
        f"instruction set {cpu_op.instruction_set()}, medians of {options.rounds} rounds; {TARGETS}"
    )
    for radius in options.radius:
        measure(radius, options.threads, options.rounds, console)


if __name__ == "__main__":
    main()
