"""Recorders in the places of parts that would work long: they keep what a command hands to them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from support import HEIGHT, WIDTH


def record_trackers(told: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    from maskring.demo import clip
    from maskring.runtime import backends
    from maskring.runtime.interaction import window
    from maskring.runtime.refinement import session, worker
    from maskring.runtime.tracking.tracker import Tracker
    from maskring.runtime.video import synthetic

    monkeypatch.setattr(clip, "FIRST_FRAME", 0)
    monkeypatch.setattr(clip, "LAST_FRAME", 2)

    open_backend, revise, wrap = backends.open_backend, Tracker.revise, session.Refinement.wrap
    render_clip = synthetic.render_clip

    def opened(model: Path, **settings: Any) -> Any:
        told.append(("open_backend", model.name, settings))
        return open_backend(model, **settings)

    def revised(tracker: Tracker, labels: Any) -> None:
        told.append("revise")
        revise(tracker, labels)

    def wrapped(refinement: Any, tracker: Tracker) -> Any:
        told.append(refinement)
        return wrap(refinement, tracker)

    def in_background(settings: Any, predictor: Any = None) -> Any:
        told.append(settings)
        return worker.StepsPerFrame(settings, 1, predictor)

    class Window:
        def __init__(self, title: str) -> None:
            told.append(title)

        def show(self, picture: Any) -> None: ...

        def events(self, wait_ms: int) -> list[Any]:
            return []

        def close(self) -> None: ...

    monkeypatch.setattr(backends, "open_backend", opened)
    monkeypatch.setattr(Tracker, "revise", revised)
    monkeypatch.setattr(session.Refinement, "wrap", wrapped)
    monkeypatch.setattr(worker, "new_worker", in_background)
    monkeypatch.setattr(window, "OpenCVWindow", Window)
    monkeypatch.setattr(synthetic, "render_clip", lambda *_: render_clip(HEIGHT, WIDTH, frames=4))


def replace_server(told: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    from maskring.commands import studio
    from maskring.studio import hub, runs, server

    class Hub:
        def __init__(self, *settings: Any) -> None:
            told.append(settings[3:])

        def open_only(self) -> None:
            pass

        def close(self) -> None:
            pass

    class Runner:
        def __init__(self, new_tracker: Callable[[], Any], size: int | None) -> None:
            new_tracker().close()
            told.append(size)

    def serve(app: Any, host: str, port: int, on_ready: Callable[[str], None]) -> None:
        told.append((host, port))
        on_ready("http://127.0.0.1/")

    monkeypatch.setattr(hub, "Hub", Hub)
    monkeypatch.setattr(runs, "Runner", Runner)
    monkeypatch.setattr(server, "serve", serve)
    monkeypatch.setattr(studio, "open_browser", told.append)


def replace_exports(told: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    from maskring.export import calibration, engine, onnx_export, refiner_export, verification
    from maskring.export.triton import repository

    def export_onnx(checkpoint: Path, out: Path, **settings: Any) -> None:
        told.append(("export_onnx", settings))
        out.write_bytes(b"model")

    def write_repository(checkpoint: Path, folder: Path, **settings: Any) -> Path:
        told.append(("triton", folder, settings))
        return folder

    def export_refiner(refiner: Path, out: Path, *, size: int) -> None:
        told.append(size)
        out.write_bytes(b"model")

    def build_engine(model: Path, out: Path, options: Any, progress: Any) -> Any:
        told.append(options)
        out.write_bytes(b"engine")
        manifest = SimpleNamespace(memory={"scratch": 1})
        return SimpleNamespace(manifest=manifest, reused=False, replaced="")

    def quantize(model: Path, videos: list[Path], out: Path, **settings: Any) -> int:
        told.append((videos, settings))
        out.write_bytes(b"model")
        return 2

    def verify(*arguments: Any) -> Any:
        told.append(arguments)
        return SimpleNamespace(rows=(), ok=True)

    monkeypatch.setattr(onnx_export, "export_onnx", export_onnx)
    monkeypatch.setattr(repository, "write_triton_repository", write_repository)
    monkeypatch.setattr(refiner_export, "export_refiner", export_refiner)
    monkeypatch.setattr(engine, "build_engine", build_engine)
    monkeypatch.setattr(calibration, "quantize_on_videos", quantize)
    monkeypatch.setattr(verification, "verify_on_frames", verify)


def replace_training_and_profiling(told: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    from maskring.runtime.profiling import run
    from maskring.runtime.profiling.report import Latency, Profile
    from maskring.training import loop, validation

    def train(recipe: Any, footage: list[Path], out: Path, **settings: Any) -> Any:
        told.append(
            (footage, out, {key: value for key, value in settings.items() if key not in ("report", "stop")})
        )
        return SimpleNamespace(skipped={}, skipped_stills={}, finished=True, step=2, checkpoint=out)

    def profile(models: list[Path], options: Any, out: Path, limit: float | None) -> Any:
        told.append((models, options, out))
        late = Latency(p50=20.0, p90=30.0, p99=40.0, max=50.0, mean=21.0, jitter=1.0)
        return [Profile("m", 48, 64, 1, 2, 1, late, {}, [], None, [], 10.0)], {}

    monkeypatch.setattr(loop, "train", train)
    monkeypatch.setattr(validation, "validator", lambda root, tracking: f"scores on {root.name}")
    monkeypatch.setattr(run, "profile_models", profile)
