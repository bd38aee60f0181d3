"""Builds of ``m.engine`` in the current folder."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from support import HEIGHT, WIDTH

from maskring.export.engine import BuiltEngine, EngineOptions, build_engine

OPEN = EngineOptions(height=(32, HEIGHT, 96), width=(32, WIDTH, 128), objects=(1, 2, 5))
CACHED = dataclasses.replace(OPEN, timing_cache=Path("timings"))


def build(model: Path, options: EngineOptions = OPEN, **change: Any) -> BuiltEngine:
    return build_engine(model, Path("m.engine"), dataclasses.replace(options, **change))


def files() -> list[str]:
    return sorted(path.name for path in Path().iterdir())
