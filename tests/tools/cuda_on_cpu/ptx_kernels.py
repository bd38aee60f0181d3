"""Small PTX kernels written by hand, to try the interpreter itself."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from cuda_on_cpu.ptx import Device, parse

Array = npt.NDArray[Any]

HEAD = ".version 9.0\n.target sm_80\n.address_size 64\n"


def entry(body: str, parameters: int, shared: int = 0) -> str:
    """A kernel with 64-bit parameters p0, p1, ..., shared memory ``tile`` and many registers.

    %r0 is the thread's number in its CTA; %rd<i> of i below ``parameters`` is parameter i.
    """
    declared = ", ".join(f".param .u64 p{i}" for i in range(parameters))
    loads = "\n".join(f"ld.param.u64 %rd{i}, [p{i}];" for i in range(parameters))
    tile = f".shared .align 16 .b8 tile[{shared}];" if shared else ""
    return f"""{HEAD}.visible .entry test({declared})
{{
.reg .pred %p<20>; .reg .b16 %rs<40>; .reg .b32 %r<60>; .reg .f32 %f<40>; .reg .b64 %rd<40>; .reg .f64 %d<20>;
{tile}
mov.u32 %r0, %tid.x;
{loads}
{body}
ret;
}}
"""


def launch(
    body: str, buffers: Sequence[Array], out: Array, *, shared: int = 0, ctas: int = 1, block: int = 32
) -> Array:
    """Runs a kernel whose last parameter is the output; returns that, of the shape and type of ``out``."""
    device = Device()
    given = [device.upload(array, f"p{i}") for i, array in enumerate(buffers)]
    made = device.allocate(out.nbytes, "out")
    kernel = parse(entry(body, len(buffers) + 1, shared)).kernel("test")
    device.launch(kernel, (ctas, 1, 1), (block, 1, 1), [*given, made])
    return device.download(made, out.shape, out.dtype)


def _register(kind: str, number: int) -> str:
    if kind in ("f32", "f64"):
        return f"%{'f' if kind == 'f32' else 'd'}{number}"
    bits = 32 if kind == "f16x2" else int(kind[1:])
    return f"{ {8: '%rs', 16: '%rs', 32: '%r', 64: '%rd'}[bits] }{number + 10}"


def compute(
    opcode: str, out_kind: str, out_dtype: npt.DTypeLike, *inputs: tuple[str, Array], tail: str = ""
) -> Array:
    """``opcode d, a, b, ...`` by one thread per element of the inputs; d is of type ``out_kind``."""
    lines, names = [], []
    for i, (kind, array) in enumerate(inputs):
        name = _register(kind, i + 1)
        memory = "b32" if kind == "f16x2" else kind.replace("f16", "b16")
        lines += [f"mul.wide.u32 %rd20, %r0, {array.itemsize};", f"add.s64 %rd20, %rd20, %rd{i};"]
        lines.append(f"ld.global.{memory} {name}, [%rd20];")
        names.append(name)
    result = _register(out_kind, 9)
    memory = "b32" if out_kind == "f16x2" else out_kind.replace("f16", "b16")
    lines.append(f"{opcode} {result}, {', '.join(names)}{tail};")
    lines += [
        f"mul.wide.u32 %rd20, %r0, {np.dtype(out_dtype).itemsize};",
        f"add.s64 %rd20, %rd20, %rd{len(inputs)};",
    ]
    lines.append(f"st.global.{memory} [%rd20], {result};")
    count = len(inputs[0][1])
    return launch("\n".join(lines), [a for _, a in inputs], np.empty(count, out_dtype), block=count)
