"""An adapted U-Net as an ONNX file."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from disc_clip import OBJECT, OTHER, SIZE, clip
from real_bindings import assert_rtx_builds
from user_errors import raises_user_error

from maskring.common.errors import ModelError, UserError
from maskring.export.refiner_export import export_refiner
from maskring.runtime.refinement.network.checkpoint import save_predictor
from maskring.runtime.refinement.network.predictor import Predictor


@pytest.fixture
def refiner(tmp_path: Path) -> Path:
    predictor = Predictor.untrained(8, seed=1)
    predictor.follow([OBJECT, OTHER], seed=1)
    save_predictor(tmp_path / "refiner.safetensors", predictor)
    return tmp_path / "refiner.safetensors"


@pytest.mark.parametrize("size", [SIZE, 50])
def test_the_file_answers_as_the_network_does(refiner: Path, tmp_path: Path, size: int) -> None:
    out = tmp_path / "refiner.onnx"
    export_refiner(refiner, out, size=size)
    image = clip(1)[0][0][:size, :size]
    session = onnxruntime.InferenceSession(out, providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {"image": image[None]})
    predictor = Predictor.untrained(8, seed=1)
    predictor.follow([OBJECT, OTHER], seed=1)
    np.testing.assert_allclose(found[0], predictor.predict(image, [OBJECT, OTHER]), atol=1e-5)
    described = {entry.key: entry.value for entry in onnx.load(out).metadata_props}
    assert json.loads(described["maskring-refiner"]) == {"ids": [OBJECT, OTHER], "size": size}
    assert {node.domain for node in onnx.load(out).graph.node} <= {"", "ai.onnx"}


def test_nvidias_builder_makes_an_engine_of_it(refiner: Path, tmp_path: Path) -> None:
    export_refiner(refiner, tmp_path / "refiner.onnx", size=SIZE)
    assert_rtx_builds(tmp_path / "refiner.onnx", {})


def test_same_refiner_same_bytes(refiner: Path, tmp_path: Path) -> None:
    for name in ("a.onnx", "b.onnx"):
        export_refiner(refiner, tmp_path / name, size=32)
    assert (tmp_path / "a.onnx").read_bytes() == (tmp_path / "b.onnx").read_bytes()


def test_bad_input_is_refused(refiner: Path, tmp_path: Path) -> None:
    with raises_user_error(UserError, mentions=("--size 32",)):
        export_refiner(refiner, tmp_path / "a.onnx", size=16)
    with raises_user_error(ModelError, mentions=(tmp_path / "missing",)):
        export_refiner(tmp_path / "missing", tmp_path / "a.onnx")
    assert not (tmp_path / "a.onnx").exists()
