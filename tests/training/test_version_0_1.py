"""Files that version 0.1.0 wrote open and track as they did there.

``tests/files/version_0_1`` holds a checkpoint, an export with other settings (compressed), and the labels
that version 0.1.0 gave twelve frames of ``moving_square`` with each.
"""

from __future__ import annotations

import json
import lzma
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support import moving_square

from maskring import open_tracker
from maskring.common.errors import ModelError, TrainingError
from maskring.runtime.model.metadata import ModelMetadata
from maskring.runtime.model.step_graph import load_step_graph
from maskring.training.checkpoint import AffinitySettings, load_checkpoint
from maskring.training.recipe import Recipe, parse_recipe
from maskring.training.weights import shipped_checkpoint, shipped_names

FILES = Path(__file__).parents[1] / "files" / "version_0_1"
CHECKPOINT = FILES / "tiny.safetensors"


@pytest.fixture
def export(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.onnx"
    path.write_bytes(lzma.decompress((FILES / "tiny.onnx.xz").read_bytes()))
    return path


def tracked(model: Path) -> np.ndarray:
    with open_tracker(model, threads=1) as tracker:
        frame, mask = moving_square(0)
        labels = [tracker.step(frame, mask).labels]
        labels += [tracker.step(moving_square(index)[0]).labels for index in range(1, 12)]
    return np.stack(labels)


def test_a_checkpoint_tracks_as_it_did() -> None:
    expected = np.load(FILES / "labels.npz")["checkpoint"]
    np.testing.assert_array_equal(tracked(CHECKPOINT), expected)


def test_an_export_tracks_as_it_did(export: Path) -> None:
    expected = np.load(FILES / "labels.npz")["export"]
    np.testing.assert_array_equal(tracked(export), expected)
    metadata = load_step_graph(export)[1]
    assert (metadata.top_k, metadata.roi_step, metadata.smoothing_radius) == (30, 2, 1)
    assert (metadata.num_labels, metadata.num_slots) == (2, 9)


def with_metadata(path: Path, change: Callable[[dict[str, str]], None]) -> Path:
    """A copy of the old checkpoint whose metadata was changed."""
    data = CHECKPOINT.read_bytes()
    (length,) = struct.unpack_from("<Q", data)
    header: dict[str, Any] = json.loads(data[8 : 8 + length])
    change(header["__metadata__"])
    packed = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(packed)) + packed + data[8 + length :])
    return path


def test_settings_that_format_1_lacks_have_their_old_meaning(tmp_path: Path) -> None:
    """The ``nano`` of version 0.1.0 states neither: it did not search, and smoothed with radius 2."""

    def shorten(metadata: dict[str, str]) -> None:
        metadata["tracking"] = '{"radius": 9, "scale": 2.0, "top_k": 4}'

    loaded = load_checkpoint(with_metadata(tmp_path / "old.safetensors", shorten))
    assert loaded.tracking == AffinitySettings(9, 2.0, top_k=4, roi_step=0, smoothing_radius=2)


@pytest.mark.parametrize("missing", ["roi_step", "smoothing_radius", "top_k"])
def test_format_2_states_every_setting(tmp_path: Path, missing: str) -> None:
    settings = {"radius": 9, "logit_scale": 2.0, "top_k": 4, "roi_step": 0, "smoothing_radius": 2}
    del settings[missing]
    path = with_metadata(
        tmp_path / "new.safetensors", lambda m: m.update(version="2", tracking=json.dumps(settings))
    )
    with pytest.raises(ModelError) as refused:
        load_checkpoint(path)
    assert "tracking" in refused.value.problem and str(path) in refused.value.problem


@pytest.mark.parametrize("name", shipped_names())
def test_shipped_checkpoints_state_every_setting(name: str) -> None:
    data = shipped_checkpoint(name).read_bytes()
    (length,) = struct.unpack_from("<Q", data)
    metadata = json.loads(data[8 : 8 + length])["__metadata__"]
    assert metadata["version"] == "2"
    settings = {"radius": 12, "logit_scale": 2.0, "top_k": 0, "roi_step": 0, "smoothing_radius": 2}
    if name == "pico":  # version 0.1.0 cannot read it: it knows neither votes nor the guided filter
        settings |= {"logit_scale": 2.88, "confidence_exponent": 4, "guided_filter_radius": 2}
    assert json.loads(metadata["tracking"]) == settings


def test_metadata_is_written_for_both_versions_and_read_in_both_spellings() -> None:
    """Version 0.1.0 refuses metadata with a key that it does not know."""
    metadata = ModelMetadata(4, 8, 3, 1.0, 5, 2, 1, num_slots=9, num_labels=3)
    stored = json.loads(metadata.to_json())
    old = {"scale": 1.0, "localise": 2, "smooth": 1, "slots": 9, "labels": 3}
    assert old.items() <= stored.items()
    new = {
        {
            "scale": "logit_scale",
            "localise": "roi_step",
            "smooth": "smoothing_radius",
            "slots": "num_slots",
            "labels": "num_labels",
        }.get(name, name): value
        for name, value in stored.items()
    }
    assert ModelMetadata.from_json(json.dumps(new), "new.onnx") == metadata
    for both in (stored | {"roi_step": 2}, {k: v for k, v in stored.items() if k != "smooth"}):
        with pytest.raises(ModelError):
            ModelMetadata.from_json(json.dumps(both), "odd.onnx")


def test_recipes_in_the_old_spelling() -> None:
    recipe = parse_recipe("localise = 3\ntracking_scale = 0.5\n", "mine")
    assert recipe == Recipe("mine", roi_step=3, tracking_logit_scale=0.5)
    with pytest.raises(TrainingError) as refused:
        parse_recipe("localise = 3\nroi_step = 3\n", "mine")
    assert "roi_step" in refused.value.problem and "localise" in refused.value.problem


def test_a_run_saved_in_the_old_spelling_belongs_to_its_recipe() -> None:
    recipe = Recipe("mine", roi_step=3, tracking_logit_scale=0.5)
    old = recipe.to_json().replace("roi_step", "localise").replace("tracking_logit_scale", "tracking_scale")
    assert Recipe.from_json(old) == Recipe.from_json(recipe.to_json()) == recipe
