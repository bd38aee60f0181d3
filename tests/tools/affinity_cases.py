"""Cases of windowed affinity for every implementation: named corner cases and seeded random ones."""

from __future__ import annotations

import functools
import hashlib
import random
import tempfile
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from hypothesis import strategies

KEPT = Path(__file__).resolve().parents[2] / "build" / "test_references"

Array = npt.NDArray[Any]
Features = Literal["normal", "integers", "large"]

TOLERANCE = {"float32": 1e-5, "float16": 2e-3}
"""Largest absolute error allowed against the reference in float64, for values in [-1, 1]."""


@dataclass(frozen=True)
class Case:
    """One set of shapes and settings. ``seed`` determines the data.

    ``features`` are

    * ``normal``: real numbers;
    * ``integers``: many ties, with logits that are exact in float32, so that rounding cannot change the top k;
    * ``large``: logits that overflow exp unless the largest is subtracted first. Any two are either far apart or
      equal in any order of arithmetic.

    Values are noise or, with ``objects``, labels as in tracking: one object on a background, which may fill the
    frame or be absent.

    Window centres are moved by up to ``offsets``. In every second slot, from the first on, squares of
    ``shared_offsets`` x ``shared_offsets`` pixels share an offset; in the others each pixel has its own.

    What the reference makes of it is ``kept``, unless the case is drawn anew in each run.
    """

    name: str
    height: int = 9
    width: int = 7
    radius: int = 2
    dilation: tuple[tuple[int, ...], ...] = ((1, 1),)
    labels: int = 3
    channels: int = 8
    offsets: int | None = None
    shared_offsets: int = 1
    top_k: int = 0
    features: Features = "normal"
    objects: bool = False
    dtype: str = "float32"
    seed: int = 0
    kept: bool = True

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True)
class Inputs:
    """The arguments of one call, as numpy arrays and numbers."""

    query: Array
    keys: Array
    values: Array
    dilation: Array
    offsets: Array | None
    radius: int
    scale: float
    top_k: int


@functools.lru_cache(maxsize=4)
def inputs_of(case: Case) -> Inputs:
    """The data of a case, already rounded to its type, so that the reference gets the same numbers."""
    rng = np.random.default_rng(case.seed)
    batch, slots = len(case.dilation), len(case.dilation[0])
    frame = (case.height, case.width)

    offsets = None
    if case.offsets is not None:
        reach = case.offsets
        offsets = rng.integers(-reach, reach + 1, (batch, slots, 2, *frame)).astype(np.int32)
        first = [np.arange(side) // case.shared_offsets * case.shared_offsets for side in frame]
        offsets[:, ::2] = offsets[:, ::2, :, first[0]][..., first[1]]
    query, keys = _features(case, rng, (batch, case.channels, *frame), (batch, slots, case.channels, *frame))
    return Inputs(
        query=query.astype(case.dtype),
        keys=keys.astype(case.dtype),
        values=_values(case, rng, (batch, slots, case.labels, *frame)).astype(case.dtype),
        dilation=np.array(case.dilation, np.int32),
        offsets=offsets,
        radius=case.radius,
        scale=2 / case.channels**0.5 if case.features == "normal" else 0.5,
        top_k=case.top_k,
    )


def _values(case: Case, rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
    """Label maps of the given shape."""
    if not case.objects:
        return rng.uniform(-1, 1, shape)
    values = np.zeros(shape)
    values[:, :, 0] = 1
    for batch, slot in np.ndindex(*shape[:2]):
        label, share = rng.integers(shape[2]), rng.choice([0, 0.3, 0.3, 1])
        height, width = (int(np.ceil(share * side)) for side in shape[3:])
        top, left = rng.integers(shape[3] - height + 1), rng.integers(shape[4] - width + 1)
        values[batch, slot, :, top : top + height, left : left + width] = 0
        values[batch, slot, label, top : top + height, left : left + width] = 1
    return values


def _features(
    case: Case, rng: np.random.Generator, query: tuple[int, ...], keys: tuple[int, ...]
) -> tuple[Array, Array]:
    """Query and keys of the given shapes."""
    if case.features == "normal":
        return rng.normal(size=query), rng.normal(size=keys)
    if case.features == "integers":
        return rng.integers(-3, 4, query), rng.integers(-3, 4, keys)
    # Each key has one channel and queries differ in sign alone, so that a logit is a single product.
    only = rng.integers(0, case.channels, (*keys[:2], 1, *keys[3:]))
    one_hot = np.arange(case.channels).reshape(-1, 1, 1) == only
    return 256 * rng.integers(-1, 2, query), 256 * rng.integers(-3, 4, keys) * one_hot


@functools.lru_cache(maxsize=4)
def expected_of(case: Case) -> Array:
    """The reference's result for a case, in float64.

    It takes longer than most implementations that are compared with it. So it is kept for all tests, and for all cases
    that differ in their names alone.
    """
    if not case.kept:
        return _computed(case)
    kept = (
        KEPT / f"{hashlib.sha256((repr(replace(case, name='')) + _sources()).encode()).hexdigest()[:32]}.npy"
    )
    if not kept.exists():
        kept.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=kept.parent, suffix=".partial", delete=False) as file:
            np.save(file, _computed(case))
        Path(file.name).replace(kept)
    return np.asarray(np.load(kept))


def _computed(case: Case) -> Array:
    import torch

    from maskring.plugins.windowed_affinity.reference import windowed_affinity

    data = inputs_of(case)
    out = windowed_affinity(
        torch.from_numpy(data.query).double(),
        torch.from_numpy(data.keys).double(),
        torch.from_numpy(data.values).double(),
        torch.from_numpy(data.dilation),
        None if data.offsets is None else torch.from_numpy(data.offsets),
        radius=data.radius,
        scale=data.scale,
        top_k=data.top_k,
    )
    return out.numpy()


@functools.cache
def _sources() -> str:
    """What decides an expected result, beside its case."""
    from maskring.plugins.windowed_affinity import reference

    texts = [Path(str(module)).read_text() for module in (__file__, reference.__file__)]
    return "".join([*texts, version("torch"), version("numpy")])


def random_case(seed: int) -> Case:
    """A random case within everything that the operator supports, small enough for the reference."""
    draw = random.Random(seed)
    radius = draw.choice([0, 1, 1, 2, 2, 3, 3, 4, 5, 6, 6, 8, 12])
    batch, slots = draw.choice([1, 1, 2]), draw.randint(1, 6 if radius <= 6 else 3)
    top_k = draw.choice([0, 0, 0, 1, 5, 36, 1000])
    return Case(
        name=f"seed {seed}",
        height=draw.randint(1, 20),
        width=draw.randint(1, 20),
        radius=radius,
        dilation=tuple(tuple(draw.choices([0, 1, 2, 3, 4], [2, 5, 2, 1, 1], k=slots)) for _ in range(batch)),
        labels=draw.randint(1, 11),
        channels=draw.choice([1, 3, 8, 16, 64] if radius <= 6 else [1, 5, 16]),
        offsets=draw.choice([None, None, 1, 6, 30]),
        top_k=top_k,
        features="integers" if top_k else draw.choice(["normal", "normal", "integers", "large"]),
        dtype=draw.choice(["float32", "float32", "float16"]),
        shared_offsets=draw.choice([1, 2, 100]),
        objects=draw.choice([False, False, True]),
        seed=seed,
    )


@strategies.composite
def any_case(draw: strategies.DrawFn) -> Case:
    """Like :func:`random_case`, larger and for hypothesis, which shrinks what fails."""

    def number(least: int, most: int) -> int:
        return draw(strategies.integers(least, most))

    batch, slots = number(1, 2), number(1, 6)
    dilation = tuple(tuple(number(0, 4) for _ in range(slots)) for _ in range(batch))
    top_k = draw(strategies.sampled_from([0, 0, 1, 2, 10, 36, 500]))
    return Case(
        name="any",
        kept=False,
        height=number(1, 24),
        width=number(1, 40),
        radius=number(0, 12 if slots <= 2 else 6),
        dilation=dilation,
        labels=number(1, 11),
        channels=number(1, 20),
        offsets=draw(strategies.sampled_from([None, None, 0, 3, 50, 2**31 - 1])),
        shared_offsets=draw(strategies.sampled_from([1, 2, 100])),
        top_k=top_k,
        features="integers" if top_k else draw(strategies.sampled_from(["normal", "integers", "large"])),
        dtype=draw(strategies.sampled_from(["float32", "float16"])),
        seed=number(0, 2**20),
        objects=draw(strategies.booleans()),
    )


def corner_cases() -> list[Case]:
    """Named corner cases, each in both float types."""
    both = ((1, 2), (0, 3))
    corners = [
        Case("plain"),
        Case("radius 0", radius=0),
        Case("radius 12", radius=12, height=30, width=29, dilation=((1,),), channels=4),
        Case("radius 12 in a frame of 3 x 2", radius=12, height=3, width=2),
        Case("one pixel", height=1, width=1, dilation=((1, 2, 0),)),
        Case("one row", height=1, width=33, radius=6),
        Case("one column", height=33, width=1, radius=6),
        Case("one label", labels=1),
        Case("eleven labels", labels=11),
        Case("one channel", channels=1),
        Case("odd channels", channels=37),
        Case("64 channels", channels=64, height=17, width=19, radius=6, dilation=((1, 1, 1, 1, 1),)),
        Case("six slots, every dilation", dilation=((0, 1, 2, 3, 4, 1),), height=19, width=23, radius=3),
        Case("batch with other dilations", dilation=both, height=13),
        Case("dilation beyond the frame", dilation=((2**31 - 1, 1),)),
        Case("all slots empty", dilation=((0, 0, 0),)),
        Case("all slots empty in one of two", dilation=((0, 0), (1, 1))),
        Case("offsets inside", offsets=2, height=17, width=15),
        Case("offsets that leave the frame", offsets=20, dilation=both),
        Case("offsets that all leave the frame", offsets=2**31 - 1),
        Case("offsets with radius 0", offsets=3, radius=0),
        Case(
            "offsets alike in half the slots",
            offsets=6,
            shared_offsets=100,
            dilation=((1, 1, 2, 2), (2, 3, 0, 1)),
        ),
        Case(
            "offsets alike that leave the frame",
            offsets=13,
            shared_offsets=100,
            dilation=((1, 0, 2, 0, 4),),
            seed=1,
        ),
        Case("offsets alike that all leave the frame", offsets=2**31 - 1, shared_offsets=100),
        Case(
            "offsets in several tiles",
            height=37,
            width=70,
            offsets=5,
            shared_offsets=4,
            dilation=((1, 2, 1),),
        ),
        Case(
            "offsets and windows wider than a run",
            radius=12,
            height=9,
            width=61,
            offsets=40,
            dilation=((1,),),
            seed=2,
        ),
        Case("offsets and enormous steps", offsets=3, dilation=((2**31 - 1, 100, 5),)),
        *(
            Case(f"objects, {seed}", objects=True, height=25, width=70, dilation=((1, 2), (3, 0)), seed=seed)
            for seed in range(8)
        ),
        Case("one label everywhere", objects=True, labels=1, width=33),
        Case("ties", features="integers", channels=2),
        Case("large logits", features="large", channels=64),
        Case("large logits of mixed dilations", features="large", dilation=both),
        Case("large logits with offsets", features="large", channels=16, offsets=4),
        Case("top 1", top_k=1, features="integers", channels=2),
        Case("top 10 of mixed dilations", top_k=10, features="integers", dilation=both),
        Case("top 10 with offsets", top_k=10, features="integers", offsets=6, dilation=both),
        Case("top k of everything", top_k=100_000, features="integers"),
        Case("top 36 of 845", top_k=36, features="integers", channels=64, radius=6, dilation=((1,) * 5,)),
    ]
    halves = [replace(case, name=f"{case.name}, float16", dtype="float16") for case in corners]
    return [*corners, *halves]
