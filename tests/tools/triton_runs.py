"""Runs or compiles the Triton kernels in a process of its own: ``python triton_runs.py interpret|compile FILE``."""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from affinity_cases import Case, inputs_of
from torch import Tensor

from maskring.plugins.windowed_affinity import torch_triton

CASES = [
    Case("odd sides", 11, 9, 2, ((1, 1),)),
    Case("two elements, mixed steps, one slot empty", 10, 7, 2, ((1, 2, 0), (0, 1, 1)), labels=2),
    Case("window wider than the frame", 3, 2, 4, ((1, 2),)),
    Case("one pixel", 1, 1, 6, ((1,),), labels=1),
    Case("radius 0", 5, 9, 0, ((1, 3),), channels=3),
    Case("step beyond the frame", 3, 4, 1, ((2**31 - 1, 1),)),
    Case("several blocks of keys", 9, 10, 6, ((1,),), channels=17, labels=1),
    Case("more labels than a tile is wide", 4, 5, 1, labels=17),
    Case("all slots empty", 4, 3, 1, ((0, 0),)),
    Case("all slots empty in one of two", 4, 3, 1, ((0, 0), (1, 1))),
    Case("large logits of mixed steps", 8, 6, 2, ((1, 2),), features="large"),
    Case("float16", 9, 7, 2, ((1, 2),), dtype="float16"),
    Case("bfloat16", 9, 7, 2, ((1, 2),)),
]
"""The interpreter takes about a millisecond for each block of keys."""


def digest(files: Iterable[Path | str]) -> str:
    return hashlib.sha256(b"".join(Path(file).read_bytes() for file in files)).hexdigest()[:16]


def type_of(case: Case) -> str:
    return "bfloat16" if case.name == "bfloat16" else case.dtype


def problem_of(case: Case) -> tuple[torch_triton.Problem, Tensor]:
    """A case, and the gradient of its result."""
    data, dtype = inputs_of(case), getattr(torch, type_of(case))
    inputs = [torch.from_numpy(x).to(dtype) for x in (data.query, data.keys, data.values)]
    problem = torch_triton.Problem(*inputs, torch.from_numpy(data.dilation), data.radius, data.scale)
    shape = (len(data.query), *data.values.shape[2:])
    return problem, torch.randn(shape, generator=torch.Generator().manual_seed(1)).to(dtype)


def interpret(out: Path) -> None:
    """Result and gradients of each case."""

    def run(problem: torch_triton.Problem, grad: Tensor, needs: list[bool]) -> list[Tensor]:
        result = torch_triton.forward(problem)
        found = torch_triton.backward(grad, result, problem, needs)
        return [result, *(x for x in (found.query, found.keys, found.values) if x is not None)]

    found = {case.name: run(*problem_of(case), [True] * 3) for case in CASES}
    problem, grad = problem_of(CASES[0])
    found["again"] = run(problem, grad, [True] * 3)
    found["only keys"] = run(problem, grad, [False, True, False])[1:]
    found["only values"] = run(problem, grad, [False, False, True])[1:]
    problem, grad = problem_of(Case("unread", 4, 5, 1, ((1, 0),)))
    problem.keys[:, 1] = problem.values[:, 1] = torch.nan
    found["unread"] = run(problem, grad, [True] * 3)
    torch.save(found, out)


INTEGERS = ("slot", "slots", "height", "width", "radius", "programs")
FLOATS = ("scale", "key_scale")


def compile_kernels(out: Path, sm: int) -> None:
    """Compile for a compute capability (86 = 8.6) with the options of 64 channels in float32, and read the PTX."""
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from maskring.plugins.windowed_affinity import torch_triton_kernels as kernels

    work = torch_triton.shape_of_work(sm // 10 == 9)
    options = {name: work.pop(name) for name in ("num_warps", "num_stages")}
    shared: dict[str, Any] = {"CHANNELS": 64, "CHANNEL_WIDTH": 64, "LABELS": 1, "LABEL_WIDTH": 16}
    shared |= {
        **work,
        "SIDE": torch_triton.SIDE,
        **torch_triton.precisions(torch.float32, torch.float32),
    }
    both = {"FOR_KEYS": True, "FOR_VALUES": True}
    variants: dict[str, tuple[Any, dict[str, bool]]] = {
        "read": (kernels.read, {"WITH_VALUES": True}),
        "logits alone": (kernels.read, {"WITH_VALUES": False}),
        "query gradient": (kernels.query_gradient, {}),
        "memory gradients": (kernels.memory_gradients, both),
        "key gradients": (kernels.memory_gradients, {**both, "FOR_VALUES": False}),
    }
    found = {}
    for name, (kernel, own) in variants.items():
        constants = {key: value for key, value in (shared | own).items() if key in kernel.arg_names}
        kinds = {argument: kind(argument, constants) for argument in kernel.arg_names}
        aligned = {
            (index,): [["tt.divisibility", 16]]
            for index, argument in enumerate(kernel.arg_names)
            if kinds[argument].startswith("*")
        }
        at = {(kernel.arg_names.index(key),): value for key, value in constants.items()}
        compiled = triton.compile(
            ASTSource(kernel, kinds, at, aligned), target=GPUTarget("cuda", sm, 32), options=options
        )
        found[name] = {"shared_bytes": compiled.metadata.shared, **read_ptx(compiled.asm["ptx"], sm)}
    out.write_text(json.dumps(found))


def kind(argument: str, constants: dict[str, Any]) -> str:
    if argument in constants:
        return "constexpr"
    if argument in INTEGERS or argument in FLOATS:
        return "i32" if argument in INTEGERS else "fp32"
    return "*i32" if argument == "steps" else "*fp32"


def read_ptx(ptx: str, sm: int) -> dict[str, int]:
    """What ptxas, of Triton's wheel, makes of it."""
    from triton.backends.nvidia.compiler import get_ptxas

    with tempfile.NamedTemporaryFile("w", suffix=".ptx") as file:
        file.write(ptx)
        file.flush()
        name = f"--gpu-name=sm_{sm}" + ("a" if sm >= 90 else "")
        command = [get_ptxas(sm).path, "-v", name, file.name, "-o", "/dev/null"]
        told = subprocess.run(command, capture_output=True, text=True, check=True).stderr
    return {
        "registers": int(re.findall(r"Used (\d+) registers", told)[0]),
        "spilled_bytes": sum(map(int, re.findall(r"(\d+) bytes spill stores", told))),
        "tensor_core_products": len(re.findall(r"\bmma\.sync|\bwgmma\.mma_async", ptx)),
        "atomics": len(re.findall(r"\b(?:atom|red)\.(?:global|shared)", ptx)),
    }


if __name__ == "__main__":
    mode, file = sys.argv[1], Path(sys.argv[2])
    if mode == "interpret":
        interpret(file)
    else:
        compile_kernels(file, int(sys.argv[3]))
