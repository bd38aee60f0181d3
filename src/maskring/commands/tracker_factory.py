"""Factories of trackers for many videos, in this process or on other machines."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from pathlib import Path

from ..common.files import atomic_path, cache_directory, caching
from ..common.types import Device, Kernel
from ..models import open_tracker
from ..runtime.model.engine_file import manifest_path
from ..runtime.refinement.session import AnyTracker, Refinement
from ..runtime.tracking.tracker import Tracker


@dataclass(frozen=True)
class CarriedFile:
    """A small file, such as a model, that other machines get with their work and need not see.

    Attributes:
        name: of the file.
        parts: content by file name: its own, and that of an engine's manifest.
    """

    name: str
    parts: dict[str, bytes]

    @classmethod
    def read(cls, path: Path) -> CarriedFile:
        """The file and, beside an engine, its manifest."""
        files = [manifest_path(path), path]
        return cls(path.name, {file.name: file.read_bytes() for file in files if file.is_file()})

    def unpacked(self) -> Path:
        """The file in this machine's cache, where it is written unless it is there.

        Raises:
            OutputError: when the cache cannot be written.
        """
        digest = hashlib.sha256(b"".join(self.parts.values())).hexdigest()
        folder = cache_directory() / "carried" / digest
        if not (folder / self.name).is_file():
            for name, content in self.parts.items():  # the file itself comes last
                with caching(folder / name), atomic_path(folder / name) as partial:
                    partial.write_bytes(content)
        return folder / self.name


@dataclass(frozen=True)
class TrackerFactory:
    """Opens a tracker each time it is called. It can be pickled.

    Attributes:
        model: an exported model or an engine.
        kernel, threads, device: see :func:`maskring.models.open_tracker`.
    """

    model: Path | CarriedFile
    kernel: Kernel
    threads: int
    device: Device

    def __call__(self) -> Tracker:
        model = self.model.unpacked() if isinstance(self.model, CarriedFile) else self.model
        return open_tracker(model, kernel=self.kernel, threads=self.threads, device=self.device)

    def carried(self) -> TrackerFactory:
        """The same with the model's content instead of its path."""
        return replace(self, model=CarriedFile.read(self.model)) if isinstance(self.model, Path) else self


@dataclass(frozen=True)
class RefinedTrackerFactory:
    """As :class:`TrackerFactory`, for trackers whose masks are refined.

    Attributes:
        tracker: opens the tracker within.
        refinement: as the user chose it.
        start: content of the refiner that ``refinement`` starts from, None to read it from its path.
    """

    tracker: TrackerFactory
    refinement: Refinement
    start: CarriedFile | None = None

    def __call__(self) -> AnyTracker:
        refinement = self.refinement
        if self.start is not None:
            refinement = replace(refinement, start=self.start.unpacked())
        return refinement.wrap(self.tracker())

    def carried(self) -> RefinedTrackerFactory:
        """The same with the content of files instead of their paths."""
        start = self.refinement.start
        file = CarriedFile.read(start) if start is not None and start.is_file() else None
        return RefinedTrackerFactory(self.tracker.carried(), self.refinement, file)
