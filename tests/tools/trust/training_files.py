"""Attacks on readers of what training reads and keeps: recipes, states, cached frames."""

from __future__ import annotations

import json
import random
from dataclasses import asdict
from pathlib import Path
from typing import Any

from support import TINY_ENCODER
from trust.damage import STRANGE_VALUES, Attack, damaged_bytes


def recipes(folder: Path) -> Attack:
    import maskring.training.recipe as module
    from maskring.training.recipe import load_recipe, recipe_names

    path = folder / "recipe.toml"
    shipped = Path(module.__file__).parent / "recipes"
    texts = [(shipped / f"{name}.toml").read_bytes() for name in recipe_names()]
    settings = list(asdict(load_recipe("nano")).items())

    def attack(rng: random.Random) -> None:
        if rng.random() < 0.5:
            path.write_bytes(damaged_bytes(rng.choice(texts), rng))
        else:
            lines = [f"{name} = {_toml(value, rng)}" for name, value in rng.sample(settings, 3)]
            path.write_text("\n".join(lines), "utf-8", "replace")
        load_recipe(str(path))

    return attack


def _toml(value: Any, rng: random.Random) -> str:
    wound = rng.random()
    if wound < 0.1:
        return "[" * 5000 + "]" * 5000
    if wound < 0.3:
        return rng.choice(("nan", "inf", "-inf", "1e400", "9" * 5000, "1979-05-27", "{a.b.c = 1}"))
    chosen = rng.choice(STRANGE_VALUES) if wound < 0.8 else value
    return "1" if chosen is None else json.dumps(chosen, ensure_ascii=False)


def states(folder: Path) -> Attack:
    """The state of an interrupted training run; a damaged one is never taken for a sound one."""
    import torch

    from maskring.common.errors import TrainingError
    from maskring.training import trainer as module
    from maskring.training.distributed import DistributedContext
    from maskring.training.network.encoder import EncoderConfig
    from maskring.training.recipe import Recipe
    from maskring.training.trainer import Trainer

    config = EncoderConfig(**TINY_ENCODER)
    module.PRESETS = {**module.PRESETS, "nano": config}
    recipe = Recipe("tiny", encoder="nano", ema=0.5)
    world = DistributedContext(0, 1, torch.device("cpu"))
    path = folder / "state.pt"
    Trainer(recipe, world).save(path)
    sound = path.read_bytes()

    def attack(rng: random.Random) -> None:
        data = damaged_bytes(sound, rng)
        path.write_bytes(data)
        try:
            resumed = Trainer.resume(recipe, world, path)
        except TrainingError:
            return
        fresh = Trainer(recipe, world)
        same = all(
            torch.equal(mine, its)
            for mine, its in zip(*(t.query.state_dict().values() for t in (fresh, resumed)), strict=True)
        )
        assert same and resumed.step == 0, "a damaged state was taken for a sound one"

    return attack


def segments(folder: Path) -> Attack:
    """Cached frames, with checksums that fit as often as not."""
    import zlib

    from maskring.training.frame_cache import HEAD, MAGIC, FrameCache, Segment

    sound = Segment((b"first", b"second", b"third"), (0, 2)).to_bytes()
    cache = FrameCache(folder, 1 << 20)

    def attack(rng: random.Random) -> None:
        data = damaged_bytes(sound, rng)
        if rng.random() < 0.5:
            body = data[HEAD.size :]
            data = HEAD.pack(MAGIC, zlib.crc32(body)) + body
        (folder / "key.frames").write_bytes(data)
        segment = cache.load("key")
        assert segment is None or segment.size <= len(data), "frames that are not in the file"

    return attack
