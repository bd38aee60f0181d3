"""Instructions of the PTX interpreter, one by one, against numpy or values worked out by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from cuda_on_cpu.ptx import PtxError, parse
from cuda_on_cpu.ptx_kernels import Array, compute, entry, launch

RNG = np.random.default_rng(7)
U32 = RNG.integers(0, 2**32, 64, dtype=np.uint32)
V32 = RNG.integers(0, 2**32, 64, dtype=np.uint32)
S32, T32 = U32.view(np.int32), V32.view(np.int32)
U64 = RNG.integers(0, 2**64, 64, dtype=np.uint64)
V64 = RNG.integers(0, 2**64, 64, dtype=np.uint64)
F, G, H = (RNG.normal(size=64).astype(np.float32) * 10 for _ in range(3))
HALF, HALG, HALH = (RNG.normal(size=64).astype(np.float16) for _ in range(3))
PAIR, PAIS, PAIT = (RNG.normal(size=128).astype(np.float16).view(np.uint32) for _ in range(3))


def wrapped(values: list[int], dtype: npt.DTypeLike) -> Array:
    """Python's exact integers, reduced to a type's width."""
    bits = 8 * np.dtype(dtype).itemsize
    return np.array([v % 2**bits for v in values], f"u{bits // 8}").view(dtype)


def exact(function: Any, dtype: npt.DTypeLike, *arrays: Array) -> Array:
    return wrapped([function(*map(int, row)) for row in zip(*arrays, strict=True)], dtype)


def truncated(a: int, b: int) -> int:
    return (1 if (a < 0) == (b < 0) else -1) * (abs(a) // abs(b))


INTEGERS = [
    ("add.s32", "s32", (S32, T32), lambda a, b: a + b),
    ("sub.u32", "u32", (U32, V32), lambda a, b: a - b),
    ("add.s64", "s64", (U64.view(np.int64), V64.view(np.int64)), lambda a, b: a + b),
    ("mul.lo.s32", "s32", (S32, T32), lambda a, b: a * b),
    ("mul.hi.s32", "s32", (S32, T32), lambda a, b: a * b >> 32),
    ("mul.hi.u32", "u32", (U32, V32), lambda a, b: a * b >> 32),
    ("mul.hi.u64", "u64", (U64, V64), lambda a, b: a * b >> 64),
    ("mad.lo.s32", "s32", (S32, T32, S32), lambda a, b, c: a * b + c),
    ("div.s32", "s32", (S32, T32 >> 12), truncated),
    ("rem.s32", "s32", (S32, T32 >> 12), lambda a, b: a - b * truncated(a, b)),
    ("div.u32", "u32", (U32, V32 >> 9), lambda a, b: a // b),
    ("min.s32", "s32", (S32, T32), min),
    ("max.u32", "u32", (U32, V32), max),
    ("and.b32", "b32", (U32, V32), lambda a, b: a & b),
    ("xor.b64", "b64", (U64, V64), lambda a, b: a ^ b),
    ("not.b32", "b32", (U32,), lambda a: ~a),
    ("neg.s32", "s32", (S32,), lambda a: -a),
    ("abs.s32", "s32", (S32,), abs),
    ("shl.b32", "b32", (U32, V32 % 40), lambda a, n: a << n),
    ("shr.u32", "u32", (U32, V32 % 40), lambda a, n: a >> n),
    ("shr.s32", "s32", (S32, V32 % 40), lambda a, n: a >> n),
    (
        "shf.l.wrap.b32",
        "b32",
        (U32, V32, U32[::-1].copy()),
        lambda a, b, n: ((b << 32 | a) << (n & 31)) >> 32,
    ),
    ("shf.r.clamp.b32", "b32", (U32, V32, V32 % 40), lambda a, b, n: (b << 32 | a) >> min(n, 32)),
    ("bfe.u32", "u32", (U32, V32 % 32, V32 % 31), lambda a, p, n: (a >> p) & ((1 << n) - 1)),
    (
        "bfi.b32",
        "b32",
        (U32, V32, U32 % 20, V32 % 12),
        lambda a, b, p, n: b & ~(((1 << n) - 1) << p) | (a & ((1 << n) - 1)) << p,
    ),
    ("popc.b32", "b32", (U32,), lambda a: bin(a).count("1")),
    ("clz.b32", "b32", (U32 >> 9,), lambda a: 32 - a.bit_length()),
    ("brev.b32", "b32", (U32,), lambda a: int(f"{a:032b}"[::-1], 2)),
    (
        "prmt.b32",
        "b32",
        (U32, V32, U32 & 0x7777),
        lambda a, b, c: sum(((b << 32 | a) >> 8 * (c >> 4 * i & 7) & 255) << 8 * i for i in range(4)),
    ),
]


@pytest.mark.parametrize(
    ("opcode", "kind", "arrays", "function"), INTEGERS, ids=[case[0] for case in INTEGERS]
)
def test_integers(opcode: str, kind: str, arrays: tuple[Array, ...], function: Any) -> None:
    kinds = ["u32" if a.itemsize == 4 else "u64" for a in arrays]
    dtype = arrays[0].dtype
    made = compute(opcode, kind, dtype, *zip(kinds, arrays, strict=True))
    assert (made == exact(function, dtype, *arrays)).all()


@pytest.mark.parametrize("kind", ["s32", "u32"])
def test_wide_products(kind: str) -> None:
    a, b = (S32, T32) if kind == "s32" else (U32, V32)
    c = U64.view(f"{'i' if kind == 's32' else 'u'}8")
    product = compute(f"mul.wide.{kind}", "s64", c.dtype, (kind, a), (kind, b))
    assert (product == exact(lambda x, y: x * y, c.dtype, a, b)).all()
    total = compute(f"mad.wide.{kind}", "s64", c.dtype, (kind, a), (kind, b), ("s64", c))
    assert (total == exact(lambda x, y, z: x * y + z, c.dtype, a, b, c)).all()


@pytest.mark.parametrize("table", [0x80, 0xFE, 0x96, 0xE8, 0x3A])
def test_logic_of_three_inputs(table: int) -> None:
    made = compute(
        "lop3.b32", "b32", np.uint32, ("b32", U32), ("b32", V32), ("b32", U32[::-1].copy()), tail=f", {table}"
    )

    def by_bit(a: int, b: int, c: int) -> int:
        return sum(
            (table >> (4 * (a >> i & 1) + 2 * (b >> i & 1) + (c >> i & 1)) & 1) << i for i in range(32)
        )

    assert (made == exact(by_bit, np.uint32, U32, V32, U32[::-1])).all()


FLOATS = [
    ("add.f32", (F, G), lambda a, b: a + b),
    ("sub.ftz.f32", (F, G), lambda a, b: a - b),
    ("mul.rn.f32", (F, G), lambda a, b: a * b),
    ("div.rn.f32", (F, G), lambda a, b: a / b),
    ("min.f32", (F, G), np.fmin),
    ("max.f32", (F, G), np.fmax),
    ("neg.f32", (F,), lambda a: -a),
    ("abs.f32", (F,), np.abs),
    ("rcp.rn.f32", (F,), lambda a: np.float32(1) / a),
    ("sqrt.rn.f32", (np.abs(F),), np.sqrt),
    ("ex2.approx.ftz.f32", (F,), lambda a: np.exp2(a.astype(np.float64)).astype(np.float32)),
    ("lg2.approx.f32", (np.abs(F),), lambda a: np.log2(a.astype(np.float64)).astype(np.float32)),
]


@pytest.mark.parametrize(("opcode", "arrays", "function"), FLOATS, ids=[case[0] for case in FLOATS])
def test_floats(opcode: str, arrays: tuple[Array, ...], function: Any) -> None:
    made = compute(opcode, "f32", np.float32, *(("f32", a) for a in arrays))
    np.testing.assert_array_max_ulp(made, function(*arrays), 2)


def test_fma_rounds_once() -> None:
    a = np.array([1 + 2.0**-12] * 32, np.float32)
    c = np.array([-1 - 2.0**-11] * 32, np.float32)
    assert (compute("fma.rn.f32", "f32", np.float32, ("f32", a), ("f32", a), ("f32", c)) == 2.0**-24).all()


@pytest.mark.parametrize(("opcode", "function"), [("add", np.add), ("mul", np.multiply), ("max", np.fmax)])
def test_halves(opcode: str, function: Any) -> None:
    made = compute(f"{opcode}.f16", "b16", np.float16, ("f16", HALF), ("f16", HALG))
    assert (made == function(HALF, HALG)).all()
    pairs = compute(f"{opcode}.f16x2", "f16x2", np.uint32, ("f16x2", PAIR), ("f16x2", PAIS))
    assert (pairs.view(np.float16) == function(PAIR.view(np.float16), PAIS.view(np.float16))).all()


def test_fma_of_halves() -> None:
    inputs = [PAIR, PAIS, PAIT]
    made = compute("fma.rn.f16x2", "f16x2", np.uint32, *(("f16x2", a) for a in inputs))
    a, b, c = (x.view(np.float16).astype(np.float64) for x in inputs)
    assert (made.view(np.float16) == (a * b + c).astype(np.float16)).all()


def test_minimum_prefers_numbers() -> None:
    nan = np.full(32, np.nan, np.float32)
    one = np.ones(32, np.float32)
    assert (compute("max.f32", "f32", np.float32, ("f32", nan), ("f32", one)) == 1).all()
    assert np.isnan(compute("max.NaN.f32", "f32", np.float32, ("f32", nan), ("f32", one))).all()


SPECIAL = np.array([0.5, 1.5, -2.5, -0.4, 3e9, -3e9, np.nan, np.inf], np.float32)
CONVERSIONS = [
    (
        "cvt.rni.s32.f32",
        "s32",
        "f32",
        SPECIAL,
        np.array([0, 2, -2, 0, 2**31 - 1, -(2**31), 0, 2**31 - 1], np.int32),
    ),
    ("cvt.rzi.s32.f32", "s32", "f32", SPECIAL[:4], np.array([0, 1, -2, 0], np.int32)),
    ("cvt.rmi.s32.f32", "s32", "f32", SPECIAL[:4], np.array([0, 1, -3, -1], np.int32)),
    ("cvt.rpi.s32.f32", "s32", "f32", SPECIAL[:4], np.array([1, 2, -2, 0], np.int32)),
    ("cvt.rzi.u32.f32", "u32", "f32", SPECIAL[3:6], np.array([0, 3_000_000_000, 0], np.uint32)),
    ("cvt.rn.f32.s32", "f32", "s32", S32, S32.astype(np.float32)),
    ("cvt.rn.f32.u32", "f32", "u32", U32, U32.astype(np.float32)),
    ("cvt.rn.f16.f32", "b16", "f32", F, F.astype(np.float16)),
    (
        "cvt.rz.f16.f32",
        "b16",
        "f32",
        np.array([2049, -2049, 1 + 2**-11], np.float32),
        np.array([2048, -2048, 1], np.float16),
    ),
    ("cvt.f32.f16", "f32", "f16", HALF, HALF.astype(np.float32)),
    ("cvt.s64.s32", "s64", "s32", S32, S32.astype(np.int64)),
    ("cvt.u64.u32", "u64", "u32", U32, U32.astype(np.uint64)),
    ("cvt.u32.u64", "u32", "u64", U64, U64.astype(np.uint32)),
    ("cvt.u32.u16", "u32", "u16", U32.astype(np.uint16), U32.astype(np.uint16).astype(np.uint32)),
    ("cvt.s32.s8", "s32", "s8", S32.astype(np.int8), S32.astype(np.int8).astype(np.int32)),
    ("cvt.sat.u8.s32", "u8", "s32", np.array([-5, 100, 300], np.int32), np.array([0, 100, 255], np.uint8)),
    (
        "cvt.sat.f32.f32",
        "f32",
        "f32",
        np.array([-1, 0.25, 7, np.nan], np.float32),
        np.array([0, 0.25, 1, 0], np.float32),
    ),
    ("cvt.rzi.f32.f32", "f32", "f32", SPECIAL[:4], np.array([0, 1, -2, 0], np.float32)),
]


@pytest.mark.parametrize(
    ("opcode", "to", "kind", "given", "expected"), CONVERSIONS, ids=[c[0] for c in CONVERSIONS]
)
def test_conversions(opcode: str, to: str, kind: str, given: Array, expected: Array) -> None:
    assert (compute(opcode, to, expected.dtype, (kind, given)) == expected).all()


def test_two_floats_become_halves_the_first_above() -> None:
    made = compute("cvt.rn.f16x2.f32", "f16x2", np.uint32, ("f32", F), ("f32", G)).view(np.float16)
    assert (made == np.stack([G, F], 1).astype(np.float16).reshape(-1)).all()


OUT = "mul.wide.u32 %rd20, %r0, 4; add.s64 %rd20, %rd20, %rd{0}; st.global.b32 [%rd20], {1};"


@pytest.mark.parametrize(
    ("compare", "expected"),
    [
        ("lt", [1, 0, 0, 0]),
        ("ge", [0, 1, 1, 0]),
        ("ne", [1, 0, 1, 0]),
        ("neu", [1, 0, 1, 1]),
        ("equ", [0, 1, 0, 1]),
        ("ltu", [1, 0, 0, 1]),
        ("geu", [0, 1, 1, 1]),
        ("num", [1, 1, 1, 0]),
        ("nan", [0, 0, 0, 1]),
    ],
)
def test_comparison_of_floats(compare: str, expected: list[int]) -> None:
    a, b = np.array([1, 2, 3, np.nan], np.float32), np.array([2, 2, 2, 2], np.float32)
    body = (
        "mul.wide.u32 %rd20, %r0, 4; add.s64 %rd21, %rd20, %rd0; add.s64 %rd22, %rd20, %rd1;"
        "ld.global.f32 %f1, [%rd21]; ld.global.f32 %f2, [%rd22];"
        f"setp.{compare}.f32 %p1|%p2, %f1, %f2; selp.u32 %r1, 1, 0, %p1; @%p2 add.u32 %r1, %r1, 2;"
        + OUT.format(2, "%r1")
    )
    made = launch(body, [a, b], np.empty(4, np.uint32), block=4)
    assert made.tolist() == [1 if e else 2 for e in expected]


def test_predicates_combine() -> None:
    body = (
        "setp.lt.u32 %p1, %r0, 8; setp.gt.and.u32 %p2, %r0, 3, %p1; setp.eq.or.u32 %p3, %r0, 20, !%p1;"
        "xor.pred %p4, %p2, %p3; selp.u32 %r1, 1, 0, %p4;" + OUT.format(0, "%r1")
    )
    made = launch(body, [], np.empty(32, np.uint32))
    assert np.flatnonzero(made).tolist() == [4, 5, 6, 7, *range(8, 32)]


def test_vectors_are_packed_and_unpacked() -> None:
    body = (
        "mul.wide.u32 %rd20, %r0, 8; add.s64 %rd21, %rd20, %rd0; "
        "ld.global.v4.u16 {%rs1,%rs2,%rs3,%rs4}, [%rd21];"
        "mov.b32 %r1, {%rs4,%rs3}; mov.b64 %rd22, {%r1,%r1}; mov.b64 {%r2,_}, %rd22; "
        "mov.b32 {%rs5,%rs6}, %r2;"
        "mov.b32 %r3, {%rs5,%rs1};" + OUT.format(1, "%r3")
    )
    words = RNG.integers(0, 2**16, (32, 4), dtype=np.uint16)
    made = launch(body, [words], np.empty((32, 2), np.uint16))
    assert (made == words[:, [3, 0]]).all()


@pytest.mark.parametrize(
    ("mode", "b", "c", "source"),
    [
        ("bfly", 5, 31, lambda i: i ^ 5),
        ("idx", 3, 31, lambda i: 3),
        ("idx", 3, 0x181F, lambda i: i & 24 | 3),  # groups of 8
        ("up", 2, 0, lambda i: i - 2 if i >= 2 else i),
        ("down", 4, 31, lambda i: i + 4 if i < 28 else i),
        ("down", 4, 0x101F, lambda i: i + 4 if i % 16 < 12 else i),  # groups of 16
    ],
)
def test_shuffle(mode: str, b: int, c: int, source: Any) -> None:
    body = f"shfl.sync.{mode}.b32 %r1|%p1, %r0, {b}, {c}, -1; @!%p1 add.u32 %r1, %r1, 100;" + OUT.format(
        0, "%r1"
    )
    made = launch(body, [], np.empty(64, np.uint32), block=64)
    for i in range(64):
        lane = i % 32
        from_elsewhere = mode in ("bfly", "idx") or source(lane) != lane
        assert made[i] == i - lane + source(lane) + (0 if from_elsewhere else 100)


def test_votes_are_by_warp() -> None:
    body = (
        "setp.lt.u32 %p1, %r0, 40; vote.sync.ballot.b32 %r1, %p1, -1; vote.sync.any.pred %p2, %p1, -1;"
        "vote.sync.all.pred %p3, %p1, -1; selp.u32 %r2, 1000, 0, %p2; selp.u32 %r3, 2000, 0, %p3;"
        "add.u32 %r1, %r1, %r2; add.u32 %r1, %r1, %r3; redux.sync.max.u32 %r4, %r0, -1; "
        "add.u32 %r1, %r1, %r4;" + OUT.format(0, "%r1")
    )
    made = launch(body, [], np.empty(96, np.uint32), block=96)
    assert made[[0, 32, 64]].tolist() == [(2**32 - 1 + 3000 + 31) % 2**32, 255 + 1000 + 63, 95]
    assert len(np.unique(made)) == 3


def test_lanes_that_diverge_meet_for_a_shuffle() -> None:
    body = (
        "setp.lt.u32 %p1, %r0, 7; @%p1 bra LESS; mul.lo.u32 %r1, %r0, 2; bra JOIN;"
        "LESS: mov.u32 %r1, 5; JOIN: shfl.sync.idx.b32 %r2, %r1, 9, 31, -1;" + OUT.format(0, "%r2")
    )
    assert (launch(body, [], np.empty(32, np.uint32)) == 18).all()


def test_loops_of_different_lengths() -> None:
    body = (
        "mov.u32 %r1, 0; mov.u32 %r2, 0; LOOP: setp.ge.u32 %p1, %r2, %r0; @%p1 bra DONE;"
        "add.u32 %r1, %r1, %r2; add.u32 %r2, %r2, 1; bra.uni LOOP; DONE:" + OUT.format(0, "%r1")
    )
    made = launch(body, [], np.empty(32, np.uint32))
    assert made.tolist() == [i * (i - 1) // 2 for i in range(32)]


def test_branch_by_index() -> None:
    body = (
        "rem.u32 %r1, %r0, 3; TABLE: .branchtargets A, B, C; brx.idx %r1, TABLE;"
        "A: mov.u32 %r2, 10; bra OUT; B: mov.u32 %r2, 11; bra OUT; C: mov.u32 %r2, 12; OUT:"
        + OUT.format(0, "%r2")
    )
    assert launch(body, [], np.empty(32, np.uint32)).tolist() == [10 + i % 3 for i in range(32)]


def test_registers_of_inline_assembly_have_their_own_scope() -> None:
    body = (
        "{.reg .b32 t; add.u32 t, %r0, 1; mov.b32 %r1, t;}\n"
        "{.reg .b32 t; add.u32 t, %r1, 10; mov.b32 %r2, t;}" + OUT.format(0, "%r2")
    )
    assert launch(body, [], np.empty(32, np.uint32)).tolist() == [i + 11 for i in range(32)]


@pytest.mark.parametrize(
    "unknown", ["sad.u32 %r1, %r0, %r0, %r0;", "add.sat.s32 %r1, %r0, %r0;", "mov.u32 %r1, %clock;"]
)
def test_what_is_not_known_is_an_error_with_its_line(unknown: str) -> None:
    with pytest.raises(PtxError, match=r"not supported\n  at PTX line \d+: ") as error:
        launch(unknown, [], np.empty(32, np.uint32))
    assert error.value.kind == "unsupported"


def test_label_that_does_not_exist() -> None:
    with pytest.raises(PtxError, match="label NOWHERE"):
        parse(entry("bra NOWHERE;", 0))
