"""Values to call the Python API with, and what its docstrings say about bad ones."""

from __future__ import annotations

import contextlib
import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import strategies as st
from numpy.typing import NDArray
from pixel_model import write_pixel_model
from support import HEIGHT, WIDTH, moving_square

import maskring
from maskring.common import errors

EXCEPTIONS = {name: kind for name, kind in vars(errors).items() if isinstance(kind, type)}
EXCEPTIONS |= {"ValueError": ValueError, "RuntimeError": RuntimeError}


@contextlib.contextmanager
def its_word(*calls: Any) -> Iterator[None]:
    """Swallow what the docstrings of ``calls`` say they raise; anything else fails the test."""
    sections = [(call.__doc__ or "").partition("Raises:")[2] for call in calls]
    names = {name for section in sections for name in re.findall(r"^\s+(\w+Error):", section, re.MULTILINE)}
    try:
        yield
    except tuple(EXCEPTIONS[name] for name in names) as error:
        assert str(error).isprintable() and len(str(error)) < 3000


integers = st.one_of(st.integers(-3, 300), st.sampled_from([2**31, 2**63, -(2**63), 10**30]))
floats = st.one_of(
    st.floats(-2, 2), st.sampled_from([math.nan, math.inf, -math.inf, 1e308, -1e308, 5e-324, 1e30])
)
sides = st.sampled_from([0, 1, 2, 3, 5, 16, HEIGHT, WIDTH])
kinds = st.sampled_from([np.uint8, np.uint8, np.uint8, np.int8, np.bool_, np.int64, np.float32, np.complex64])
words = st.one_of(
    st.text(max_size=12),
    st.sampled_from(["a", "../a", "/a", "a/b", ".", "..", "", "a\0", "\ud800", "a" * 300]),
)


@st.composite
def arrays(draw: st.DrawFn, dimensions: st.SearchStrategy[int] | None = None) -> NDArray[Any]:
    """Arrays of few pixels, contiguous or not."""
    shape = [draw(sides) for _ in range(draw(dimensions or st.integers(0, 4)))]
    if draw(st.booleans()) and shape:
        shape[-1] = 3
    made = np.random.default_rng(draw(st.integers(0, 9))).integers(0, 6, shape).astype(draw(kinds))
    return draw(st.sampled_from([made, made[::-1] if made.ndim else made, made.T, np.asfortranarray(made)]))


@st.composite
def frames(draw: st.DrawFn) -> NDArray[Any]:
    """Often what a stream holds."""
    return draw(arrays()) if draw(st.integers(0, 3)) == 0 else moving_square(draw(st.integers(0, 8)))[0]


@st.composite
def masks(draw: st.DrawFn) -> NDArray[Any] | None:
    """Often what a user draws."""
    if draw(st.integers(0, 3)) == 0:
        return draw(arrays())
    return draw(st.sampled_from([1, 2, 7, 255])) * moving_square(draw(st.integers(0, 8)))[1]


def tracker(folder: Path, **options: Any) -> maskring.Tracker:
    model = folder / "pixels.onnx"
    if not model.exists():
        write_pixel_model(model)
    return maskring.open_tracker(model, threads=1, **options)
