"""The validation score: what counts, its geometry, and that it is the benchmark's J."""

from __future__ import annotations

import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from user_errors import raises_user_error

from maskring.common.errors import SourceError
from maskring.training.checkpoint import AffinitySettings
from maskring.training.network.encoder import Encoder, EncoderConfig
from maskring.training.validation import propagation_score, scorable_sequences, validator

SIZE = 64
COLOURS = {1: (0, 0, 128), 2: (0, 128, 0)}  # BGR of DAVIS' palette


@pytest.fixture
def encoder() -> Encoder:
    """Untrained: the colours of patches, compared by distance."""
    torch.manual_seed(0)
    return Encoder(EncoderConfig(stem=8, stages=(8, 8, 8, 8), channels=64, patch=9)).eval()


def write(root: Path, name: str, frames: int = 9, step: int = 2, masks: set[int] | None = None) -> Path:
    """Two squares of plain colours that move over black, in DAVIS layout."""
    folders = [root / kind / "480p" / name for kind in ("JPEGImages", "Annotations")]
    for folder in folders:
        folder.mkdir(parents=True)
    for index in range(frames):
        image, mask = (np.zeros((SIZE, 80, 3), np.uint8) for _ in range(2))
        for object_id, top, colour in ((1, 8, (40, 60, 230)), (2, 40, (230, 60, 40))):
            place = slice(top, top + 16), slice(8 + step * index, 24 + step * index)
            image[place], mask[place] = colour, COLOURS[object_id]
        cv2.imwrite(str(folders[0] / f"{index:05d}.png"), image)
        if masks is None or index in masks:
            cv2.imwrite(str(folders[1] / f"{index:05d}.png"), mask)
    return root


def test_easy_objects_are_followed(tmp_path: Path, encoder: Encoder) -> None:
    root = write(tmp_path, "squares")
    before = {name: tensor.clone() for name, tensor in encoder.state_dict().items()}
    scores = propagation_score(
        encoder, root, size=SIZE, tracking=AffinitySettings(radius=30, logit_scale=1.0)
    )
    assert set(scores) == {"squares", "mean"} and scores["squares"] == scores["mean"]
    assert 70 < scores["mean"] <= 100  # edges lie between the features of plain squares this small
    assert all(torch.equal(before[name], tensor) for name, tensor in encoder.state_dict().items())


def test_objects_that_outrun_the_window_are_lost(tmp_path: Path, encoder: Encoder) -> None:
    """Radius 7.5 at 480 is one feature, four pixels, at 64; the squares move twelve per frame."""
    root = write(tmp_path, "fast", frames=5, step=12)
    slow = propagation_score(encoder, root, size=SIZE, tracking=AffinitySettings(radius=30, logit_scale=1.0))[
        "mean"
    ]
    lost = propagation_score(encoder, root, size=SIZE, tracking=AffinitySettings(radius=7, logit_scale=1.0))[
        "mean"
    ]
    assert lost < 30 < 60 < slow


def test_first_and_last_mask_do_not_count(tmp_path: Path, encoder: Encoder) -> None:
    """The masks 1, 4, 6 and 8 are there: 4 and 6 count. In 8 the squares have left, which would cost half."""
    root = write(tmp_path, "sparse", frames=9, masks={1, 4, 6, 8})
    settings = AffinitySettings(radius=30, logit_scale=1.0)
    whole = propagation_score(encoder, root, size=SIZE, tracking=settings)
    last = root / "Annotations" / "480p" / "sparse" / "00008.png"
    cv2.imwrite(str(last), np.zeros((SIZE, 80, 3), np.uint8))
    assert propagation_score(encoder, root, size=SIZE, tracking=settings) == whole
    cv2.imwrite(str(last.with_stem("00006")), np.zeros((SIZE, 80, 3), np.uint8))
    half = propagation_score(encoder, root, size=SIZE, tracking=settings)["mean"]
    assert half == pytest.approx(whole["mean"] / 2, abs=10)


def test_sequences_are_spread_over_the_names(tmp_path: Path) -> None:
    for name in "abcdef":
        write(tmp_path, name, frames=3)
    write(tmp_path, "given", frames=3, masks={0})  # only the first mask, as in hidden test sets
    assert [sequence.name for sequence in scorable_sequences(tmp_path)] == list("abcdef")
    assert [sequence.name for sequence in scorable_sequences(tmp_path, 3)] == ["a", "c", "e"]
    assert len(scorable_sequences(tmp_path, 99)) == 6


def test_layout_without_resolutions(tmp_path: Path) -> None:
    write(tmp_path / "davis", "one")
    for kind in ("JPEGImages", "Annotations"):
        shutil.copytree(tmp_path / "davis" / kind / "480p", tmp_path / "vos" / kind)
    assert [sequence.name for sequence in scorable_sequences(tmp_path / "vos")] == ["one"]


def test_nothing_to_score_is_one_sentence(tmp_path: Path, encoder: Encoder) -> None:
    with raises_user_error(SourceError, mentions=(tmp_path, "3 masks", "JPEGImages and Annotations")):
        validator(tmp_path, AffinitySettings())
    root = write(tmp_path, "torn")
    (root / "JPEGImages" / "480p" / "torn" / "00002.png").write_bytes(b"nothing")
    with raises_user_error(SourceError, ["00002.png"]):
        propagation_score(encoder, root)


def test_agrees_with_the_evaluation_of_the_exported_model(
    tmp_path: Path, encoder: Encoder, shared_data: Path
) -> None:
    """The same sequence, tracked by the runtime and scored by the benchmark's measure."""
    from maskring.export.onnx_export import export_onnx
    from maskring.runtime.backends import open_backend
    from maskring.runtime.evaluation.protocol import evaluate
    from maskring.runtime.tracking.memory import MemoryPolicy
    from maskring.runtime.tracking.tracker import Tracker
    from maskring.training.checkpoint import Checkpoint, save_checkpoint

    root = tmp_path / "davis"
    for kind in ("JPEGImages", "Annotations"):
        source = shared_data / "davis_dev" / kind / "480p" / "schoolgirls"
        if not source.is_dir():
            pytest.skip(f"{source} is not there")
        (root / kind / "480p" / "schoolgirls").mkdir(parents=True)
        for path in sorted(source.iterdir())[:12]:
            shutil.copy(path, root / kind / "480p" / "schoolgirls")
    (root / "ImageSets" / "2017").mkdir(parents=True)
    (root / "ImageSets" / "2017" / "dev.txt").write_text("schoolgirls\n")
    checkpoint = Checkpoint(encoder.config, encoder.state_dict(), tracking=AffinitySettings(logit_scale=1.0))
    save_checkpoint(tmp_path / "tiny.safetensors", checkpoint)
    export_onnx(tmp_path / "tiny.safetensors", tmp_path / "tiny.onnx", radius=6)
    policy = MemoryPolicy((0, 5), (1, 3, 5), dilate_after=0)
    truth = evaluate(
        root,
        "dev",
        lambda: Tracker(open_backend(tmp_path / "tiny.onnx"), policy=policy),
        tmp_path / "masks",
        tmp_path / "scores.json",
        size=240,
    ).score
    assert truth is not None
    score = propagation_score(encoder, root, size=240, tracking=checkpoint.tracking)["mean"]
    assert score == pytest.approx(truth.j.mean, abs=0.05)
