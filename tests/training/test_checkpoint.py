"""Checkpoint files: what is written comes back, and every kind of damage gets its sentence."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from support import TINY_ENCODER
from torch import Tensor
from user_errors import raises_user_error

from maskring.common.errors import ModelError, OutputError
from maskring.training.checkpoint import (
    AffinitySettings,
    Checkpoint,
    Provenance,
    load_checkpoint,
    save_checkpoint,
)
from maskring.training.mast_import import import_mast
from maskring.training.network.encoder import Encoder, EncoderConfig

TINY = EncoderConfig(**TINY_ENCODER)


def tiny(seed: int = 0, *, key: bool = False) -> Checkpoint:
    torch.manual_seed(seed)
    return Checkpoint(
        config=TINY,
        query=Encoder(TINY).state_dict(),
        key=Encoder(TINY).state_dict() if key else None,
        tracking=AffinitySettings(radius=7, logit_scale=0.2, top_k=36),
        provenance=Provenance("nano", 12, 3, "two clips", "Apache-2.0"),
    )


def equal(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("key", [False, True])
def test_everything_comes_back(tmp_path: Path, key: bool) -> None:
    written = tiny(key=key)
    save_checkpoint(tmp_path / "new" / "a.safetensors", written)
    read = load_checkpoint(tmp_path / "new" / "a.safetensors")
    assert equal(read.query, written.query)
    assert (read.key is not None) == key
    if key:
        assert read.key is not None and written.key is not None and equal(read.key, written.key)
    assert (read.config, read.tracking, read.provenance) == (
        written.config,
        written.tracking,
        written.provenance,
    )


def test_the_encoder_has_the_weights_and_is_in_evaluation_mode() -> None:
    checkpoint = tiny(key=True)
    encoder = checkpoint.query_encoder()
    assert not encoder.training
    assert equal(encoder.state_dict(), checkpoint.query)


def test_half_storage_halves_convolutions_and_keeps_statistics(tmp_path: Path) -> None:
    written = tiny()
    written.query["stem.1.running_var"].fill_(1e6)  # beyond float16
    save_checkpoint(tmp_path / "full.safetensors", written)
    save_checkpoint(tmp_path / "half.safetensors", written, half=True)
    assert (tmp_path / "half.safetensors").stat().st_size < (tmp_path / "full.safetensors").stat().st_size
    read = load_checkpoint(tmp_path / "half.safetensors")
    assert read.query["head.weight"].dtype == torch.float32
    assert torch.equal(read.query["head.weight"], written.query["head.weight"].half().float())
    assert torch.equal(read.query["stem.1.running_var"], written.query["stem.1.running_var"])


def rewrite(path: Path, change: Callable[[dict[str, Tensor], dict[str, str]], None]) -> Path:
    """Change tensors and metadata of a valid checkpoint behind the writer's back."""
    save_checkpoint(path, tiny())
    with safe_open(path, framework="pt") as file:
        metadata = dict(file.metadata())
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    change(tensors, metadata)
    save_file(tensors, path, metadata)
    return path


def encoder_entry(**changes: object) -> Callable[[dict[str, Tensor], dict[str, str]], None]:
    def change(_: dict[str, Tensor], metadata: dict[str, str]) -> None:
        metadata["encoder"] = json.dumps({**json.loads(metadata["encoder"]), **changes})

    return change


DAMAGE = {
    "another program's": (lambda t, m: m.clear(), ("maskring import",)),
    "another version": (lambda t, m: m.update(version="3"), ("format 3", "2", "use the version")),
    "missing tensor": (lambda t, m: t.pop("query.head.bias"), ("lacks", "query.head.bias")),
    "unknown tensor": (lambda t, m: t.update(extra=torch.zeros(1)), ("unknown", "extra")),
    "wrong shape": (
        lambda t, m: t.update({"query.head.bias": torch.zeros(3)}),
        ("query.head.bias", [3], [8]),
    ),
    "not a number": (lambda t, m: t["query.head.bias"].fill_(float("nan")), ("query.head.bias", "finite")),
    "half a key encoder": (
        lambda t, m: t.update({"key.head.bias": torch.zeros(8)}),
        ("lacks", "key.stem.0.weight", "more"),
    ),
    "another width": (encoder_entry(stem=16), ("lacks", "query.stages.0.0.shortcut")),
    "encoder of no stages": (encoder_entry(stages=[]), ("encoder",)),
    "encoder not JSON": (lambda t, m: m.update(encoder="{"), ("encoder",)),
    "tracking of a wrong type": (
        lambda t, m: m.update(tracking=json.dumps(asdict(AffinitySettings()) | {"radius": "x"})),
        ("tracking",),
    ),
    "tracking incomplete": (
        lambda t, m: m.update(tracking='{"radius": 6}'),
        ("tracking",),
    ),
    "no provenance": (lambda t, m: m.pop("provenance"), ("provenance",)),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_damage_is_named_with_the_file(tmp_path: Path, name: str) -> None:
    change, words = DAMAGE[name]
    path = rewrite(tmp_path / "damaged.safetensors", change)  # type: ignore[arg-type]
    with raises_user_error(ModelError, mentions=(path, *words)):
        load_checkpoint(path)


@pytest.mark.parametrize("kept", [0, 5, 300, -1])
def test_truncated_file(tmp_path: Path, kept: int) -> None:
    path = tmp_path / "cut.safetensors"
    save_checkpoint(path, tiny())
    path.write_bytes(path.read_bytes()[:kept])
    with raises_user_error(ModelError, mentions=(path, "copy or download")):
        load_checkpoint(path)


def test_missing_file_and_folder(tmp_path: Path) -> None:
    for path in (tmp_path / "absent.safetensors", tmp_path):
        with raises_user_error(ModelError, mentions=(path,)):
            load_checkpoint(path)


def test_weights_that_are_not_finite_are_not_written(tmp_path: Path) -> None:
    checkpoint = tiny()
    checkpoint.query["head.bias"].fill_(float("inf"))
    with raises_user_error(ModelError, mentions=("query.head.bias", "finite")):
        save_checkpoint(tmp_path / "a.safetensors", checkpoint)
    assert list(tmp_path.iterdir()) == []


def test_path_in_the_way(tmp_path: Path) -> None:
    (tmp_path / "a.safetensors").mkdir()
    with raises_user_error(OutputError, mentions=(tmp_path / "a.safetensors",)):
        save_checkpoint(tmp_path / "a.safetensors", tiny())
    assert [path.name for path in tmp_path.iterdir()] == ["a.safetensors"]


def mast_names(state: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Our tensors under the names of MAST's published files."""
    renamed = {}
    for name, tensor in state.items():
        part, _, rest = name.partition(".")
        if part == "head":
            key = f"post_convolution.{rest}"
        elif part == "stem":
            key = f"feature_extraction.conv1.{rest}"
        else:
            stage, _, rest = rest.partition(".")
            key = f"feature_extraction.layer{int(stage) + 1}.{rest.replace('.residual.', '.left.')}"
        renamed[prefix + key] = tensor
    return renamed


@pytest.fixture(scope="module")
def full_state() -> dict[str, Tensor]:
    torch.manual_seed(1)
    return Encoder(EncoderConfig.preset("full")).state_dict()


@pytest.mark.parametrize("prefix", ["", "module."])
@pytest.mark.parametrize("zipped", [True, False])
def test_mast_file_is_read(tmp_path: Path, full_state: dict[str, Tensor], prefix: str, zipped: bool) -> None:
    published = mast_names(full_state, prefix)
    assert f"{prefix}feature_extraction.layer2.0.shortcut.1.running_mean" in published
    published[f"{prefix}extra.weight"] = torch.zeros(2)
    path = tmp_path / "mast.pt"
    torch.save(
        {"epoch": 3, "state_dict": published, "optimizer": {}}, path, _use_new_zipfile_serialization=zipped
    )
    checkpoint, leftovers = import_mast(path)
    assert leftovers == [f"{prefix}extra.weight"]
    assert checkpoint.config == EncoderConfig.preset("full")
    assert equal(checkpoint.query, full_state)
    assert checkpoint.tracking == AffinitySettings(radius=12, logit_scale=1.0, top_k=0, smoothing_radius=0)
    assert equal(checkpoint.query_encoder().state_dict(), full_state)


def test_mast_file_without_batch_counts_is_read(tmp_path: Path, full_state: dict[str, Tensor]) -> None:
    published = {k: v for k, v in mast_names(full_state, "").items() if not k.endswith("num_batches_tracked")}
    torch.save(published, tmp_path / "old.pth")
    checkpoint, leftovers = import_mast(tmp_path / "old.pth")
    assert leftovers == []
    assert checkpoint.query["stem.1.num_batches_tracked"] == 0


def test_mast_file_of_another_shape_says_what_did_not_fit(
    tmp_path: Path, full_state: dict[str, Tensor]
) -> None:
    published = mast_names(full_state, "module.") | {"module.post_convolution.bias": torch.zeros(5)}
    torch.save({"state_dict": published}, tmp_path / "mast.pt")
    with raises_user_error(ModelError, mentions=("mast.pt", "head.bias", "module.post_convolution.bias")):
        import_mast(tmp_path / "mast.pt")


class Attack:
    """Unpickled by a careless reader, this would run code."""

    def __reduce__(self) -> tuple[object, ...]:
        return (Path.touch, (Path("attacked"),))


def test_mast_file_that_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "bad.pt"
    with raises_user_error(ModelError, mentions=(path,)):
        import_mast(path)
    for content in (b"", b"not a pickle", b"PK\x03\x04 cut"):
        path.write_bytes(content)
        with raises_user_error(ModelError, mentions=(path,)):
            import_mast(path)
    torch.save(Attack(), path)
    with raises_user_error(ModelError, mentions=(path, "tensors only")):
        import_mast(path)
    assert not (tmp_path / "attacked").exists()
    for stored in ([1, 2], {1: torch.zeros(1)}):
        torch.save(stored, path)
        with raises_user_error(ModelError, mentions=(path, "state_dict")):
            import_mast(path)
