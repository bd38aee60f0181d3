"""Products in full float32 precision on NVIDIA GPUs."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch


@contextlib.contextmanager
def exact_float32() -> Iterator[None]:
    """Within it, matrix products and convolutions of float32 on a GPU do not round their inputs to TF32.

    TF32 keeps ten bits, and features are compared by inner products of up to hundreds: logits would be off by
    almost one. The setting is the process's, so other threads have it meanwhile.
    """
    exact = _exact_settings()
    before = [(owner, name, getattr(owner, name)) for owner, name, _ in exact]
    try:
        for owner, name, value in exact:
            setattr(owner, name, value)
        yield
    finally:
        for owner, name, value in before:
            setattr(owner, name, value)


def _exact_settings() -> list[tuple[Any, str, Any]]:
    """(object, attribute, value). torch before 2.9 has other names, and refuses a mixture of both."""
    products: Any = torch.backends.cuda.matmul
    cudnn: Any = torch.backends.cudnn
    if hasattr(products, "fp32_precision"):
        return [(owner, "fp32_precision", "ieee") for owner in (products, cudnn.conv)]
    return [(owner, "allow_tf32", False) for owner in (products, cudnn)]
