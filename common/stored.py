"""Values from JSON in a file, checked against type annotations: files may be damaged or foreign."""

from __future__ import annotations

import types
from dataclasses import dataclass, fields
from typing import Annotated, Any, TypeVar, Union, get_args, get_origin, get_type_hints

T = TypeVar("T")

MAX_FLOAT = 3.4e38
"""Largest size of a floating-point number: that of float32."""


@dataclass(frozen=True)
class Between:
    """Smallest and largest value that a file may give: ``Annotated[int, Between(1, 255)]``."""

    low: float
    high: float


def from_stored(kind: type[T], stored: object) -> T:
    """A dataclass from a JSON object, which must hold every field with a value of its annotated type.

    Raises:
        ValueError: when a field is missing or unknown, or its value fails :func:`checked`.
    """
    names = {field.name for field in fields(kind)}  # type: ignore[arg-type]  # a dataclass
    if not isinstance(stored, dict) or set(stored) != names:
        raise ValueError(f"not the fields of {kind.__name__}")
    hints = get_type_hints(kind, include_extras=True)
    return kind(**{name: checked(hints[name], value) for name, value in stored.items()})


def checked(hint: Any, value: Any) -> Any:
    """A JSON value as the type ``hint``; lists become tuples where that says so.

    Args:
        hint: int, float, str, bool, a number with :class:`Between`, ``X | None``, or a tuple, list or
            dictionary (with text as keys) of these.
        value: what ``json.loads`` returned.

    Raises:
        ValueError: when the value is of another type or out of range.
    """
    origin, inner = get_origin(hint), get_args(hint)
    if origin is Annotated:
        value = checked(inner[0], value)
        _require(inner[1].low <= value <= inner[1].high)
        return value
    if origin in (Union, types.UnionType):
        return None if value is None else checked(inner[0], value)
    if origin in (list, tuple):
        _require(isinstance(value, list))
        if origin is list or inner[-1] is ...:
            inner = (inner[0],) * len(value)
        _require(len(value) == len(inner))
        return origin(map(checked, inner, value))
    if origin is dict:
        _require(isinstance(value, dict))
        return {name: checked(inner[1], each) for name, each in value.items()}
    _require(type(value) in ((int, float) if hint is float else (hint,)))
    _require(hint is not float or abs(value) <= MAX_FLOAT)
    return value


def _require(is_sound: bool) -> None:
    if not is_sound:
        raise ValueError("a damaged value")
