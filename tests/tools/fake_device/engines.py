"""Engine files for the fake: the ONNX file with its profile, and the manifest that ``maskring build`` writes."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from pathlib import Path
from typing import Any

import onnx

from maskring.export.engine import EngineOptions, profile_shapes
from maskring.runtime.model.engine_file import EngineKey, EngineManifest, manifest_path, sha256
from maskring.runtime.model.step_graph import load_step_graph

PROFILE = "fake_profile"


def write_engine(model: Path, out: Path, options: EngineOptions, **key: Any) -> Path:
    """Write ``model`` as an engine for the fake GPU; ``key`` changes fields of its manifest's key."""
    graph, metadata = load_step_graph(model)
    shapes = profile_shapes(metadata, options)
    graph.metadata_props.append(onnx.StringStringEntryProto(key=PROFILE, value=json.dumps(shapes)))
    content = graph.SerializeToString()
    out.write_bytes(content)
    decided = EngineKey(
        runtime=options.runtime,
        onnx_sha256=sha256(model),
        network_sha256=sha256(model),
        precision=metadata.dtype,
        shapes=shapes,
        tensorrt_version="11.1.0",
        compute_capability=("sm86",),
    )
    decided = dataclasses.replace(decided, **key)
    manifest = EngineManifest(decided, metadata, hashlib.sha256(content).hexdigest(), {})
    manifest_path(out).write_text(manifest.to_json())
    return out
