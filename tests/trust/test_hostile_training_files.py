"""Recipes, cached frames, states and logs of training that are well formed and yet a trap."""

from __future__ import annotations

import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from support import TINY_ENCODER
from trust.damage import DEEP
from user_errors import raises_user_error

from maskring.common.errors import TrainingError

if TYPE_CHECKING:
    from maskring.training.trainer import Trainer


@pytest.mark.parametrize(
    "text",
    [
        "steps = " + "9" * 5000,
        "steps = " + DEEP,
        "learning_rate = inf",
        "learning_rate = 1" + "0" * 400,
        "clip_norm = nan",
        "distortion = nan",
        "delta = inf",
        "steps = 100000000000000000000",
        "steps = 0x" + "f" * 6000,
        "encoder = 0x" + "f" * 6000,
        "encoder = [0x" + "f" * 6000 + "]",
        "learning_rate = -0x" + "f" * 6000,
        "radius = 4294967296",
    ],
)
def test_recipe(text: str) -> None:
    from maskring.training.recipe import parse_recipe

    with pytest.raises(TrainingError):
        parse_recipe(text, "mine")


@pytest.mark.parametrize("content", [b"\0", b"\xff\xfe", b"steps = '\xff'"])
def test_recipe_file(tmp_path: Path, content: bytes) -> None:
    from maskring.training.recipe import load_recipe

    (tmp_path / "recipe.toml").write_bytes(content)
    with raises_user_error(TrainingError, mentions=("recipe",)):
        load_recipe(str(tmp_path / "recipe.toml"))


def test_recipe_of_a_name_too_long() -> None:
    from maskring.training.recipe import load_recipe

    with raises_user_error(TrainingError, mentions=("xxx",)):
        load_recipe("x" * 5000)


@pytest.mark.parametrize(
    "body", [b"", b"\1", struct.pack("<I", 2**31), struct.pack("<II", 1, 9) + b"\0short"]
)
def test_cached_frames(tmp_path: Path, body: bytes) -> None:
    """The checksum fits, the content does not."""
    from maskring.training.frame_cache import HEAD, MAGIC, FrameCache

    (tmp_path / "key.frames").write_bytes(HEAD.pack(MAGIC, zlib.crc32(body)) + body)
    assert FrameCache(tmp_path, 1 << 20).load("key") is None
    assert not (tmp_path / "key.frames").exists()


def saved_state(path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], Trainer]:
    """Save a tiny trainer's state; returns what resumes it."""
    import torch

    from maskring.training import trainer as module
    from maskring.training.distributed import DistributedContext
    from maskring.training.network.encoder import EncoderConfig
    from maskring.training.recipe import Recipe
    from maskring.training.trainer import Trainer

    config = EncoderConfig(**TINY_ENCODER)
    monkeypatch.setattr(module, "PRESETS", {**module.PRESETS, "nano": config})
    recipe, world = Recipe("tiny", encoder="nano"), DistributedContext(0, 1, torch.device("cpu"))
    Trainer(recipe, world).save(path)
    return lambda: Trainer.resume(recipe, world, path)


def test_training_state_with_one_bit_flipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """torch reads such a file without a word."""
    import torch

    path = tmp_path / "state.pt"
    resume = saved_state(path, monkeypatch)
    sound, weights = path.read_bytes(), list(resume().query.state_dict().values())
    seen = 0
    for place in range(10, len(sound), len(sound) // 40):
        flipped = bytearray(sound)
        flipped[place] ^= 16
        path.write_bytes(flipped)
        try:
            restored = resume()
        except TrainingError:
            seen += 1
            continue
        # It hit a date or the padding between tensors.
        assert all(map(torch.equal, weights, restored.query.state_dict().values())), place
    assert seen > 10


def test_training_state_whose_tensors_are_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Torch would hand out memory that nobody wrote."""
    import torch

    path = tmp_path / "state.pt"
    resume = saved_state(path, monkeypatch)
    weights = list(resume().query.state_dict().values())
    data = bytearray(path.read_bytes())
    with zipfile.ZipFile(path) as archive:
        entry = archive.start_dir
        for listed in archive.infolist():
            assert data[entry : entry + 4] == b"PK\1\2"
            data[entry + 38] |= 0x10  # MS-DOS's attribute of folders
            entry += 46 + len(listed.filename) + len(listed.extra) + len(listed.comment)
    path.write_bytes(data)
    assert all(map(torch.equal, weights, resume().query.state_dict().values()))


def test_training_state_that_is_compressed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Torch compresses nothing: whoever does may have packed a bomb."""
    path = tmp_path / "state.pt"
    resume = saved_state(path, monkeypatch)
    with zipfile.ZipFile(path) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in entries.items():
            archive.writestr(name, content)
    with raises_user_error(TrainingError, mentions=(path,)):
        resume()


@pytest.mark.parametrize("broken", ["query", "optimiser", "step", "palette"])
def test_training_state_of_other_content(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, broken: str
) -> None:
    import torch

    path = tmp_path / "state.pt"
    resume = saved_state(path, monkeypatch)
    state = torch.load(path, weights_only=True)
    state[broken] = {"a": 1} if broken != "step" else "ten"
    torch.save(state, path)
    with raises_user_error(TrainingError, mentions=(path,)):
        resume()


def test_training_log_that_is_no_text(tmp_path: Path) -> None:
    from maskring.training.run_log import RunLog

    (tmp_path / "log.jsonl").write_bytes(b'{"step": 1}\n\xff\xfe\n{"st')
    RunLog(tmp_path, 1, tensorboard=False).close()
    assert (tmp_path / "log.jsonl").read_bytes() == b'{"step": 1}\n'
