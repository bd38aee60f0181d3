"""The paper's ablation as one command: what each part is worth, with equal footage and steps.

Trains one encoder per training variant (an interrupted run continues), tracks a labelled split with every variant
by the real tracker, and writes a Markdown report with a plot. The base is a recipe.

    python bench/ablate.py --data FOOTAGE --davis ROOT --split dev --steps 1000 --size 240 --out docs/results
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import matplotlib
from feature_tracker import encoder_features, feature_tracker

from maskring.common.files import atomic_path, make_directory
from maskring.runtime.evaluation.protocol import evaluate
from maskring.runtime.tracking.memory import MemoryPolicy
from maskring.runtime.video.folders import find_clips
from maskring.training.checkpoint import load_checkpoint
from maskring.training.feature_backend import Features
from maskring.training.loop import train
from maskring.training.recipe import Recipe, load_recipe

matplotlib.use("Agg")

BASE = "the base"


@dataclass(frozen=True, eq=False)
class Variant:
    """One row.

    Attributes:
        question: the question that it helps to answer.
        name: of the row in the report.
        train: changes of the recipe.
        clips: unlabelled clips to train on, evenly picked; None for all.
        track: changes of the settings of :func:`feature_tracker.feature_tracker`.
    """

    question: str
    name: str
    train: dict[str, Any] = field(default_factory=dict)
    clips: int | None = None
    track: dict[str, Any] = field(default_factory=dict)


def policy(
    long_term: tuple[int, ...], short_term: tuple[int, ...], **settings: Any
) -> dict[str, MemoryPolicy]:
    """A memory policy as a change of the tracker's settings."""
    return {"policy": MemoryPolicy(long_term, short_term, **settings)}


SYSTEM = (
    "target",
    "clusters",
    "references",
    "frames",
    "max_gap",
    "roi_step",
    "distortion",
    "delta",
    "momentum",
)
"""Settings that distinguish the system of a recipe, apart from its encoder and its size."""


def system(name: str, base: Recipe) -> dict[str, Any]:
    """The system of another recipe with the base's encoder and as many frames per step as the base."""
    recipe = load_recipe(name)
    clips = max(1, round(base.clips * base.frames / recipe.frames))
    return {key: getattr(recipe, key) for key in SYSTEM} | {"clips": clips}


def variants(base: Recipe) -> list[Variant]:
    """All rows, the base first. Variants of tracking use the base's encoder."""
    scale = base.tracking_logit_scale
    dilated = policy((0, 5), (1, 3, 5), dilate_after=1, max_dilation=2, reach=math.inf)
    alone = base.encoder.removesuffix("-patch")
    unscaled = {"encoder": alone, "logit_scale": 1.0}
    scaled = {"encoder": alone, "logit_scale": 0.125}
    return [
        Variant(BASE, base.name),
        *(Variant("system", name, system(name, base)) for name in ("colorization", "mast", "paper")),
        Variant("key encoder", "momentum 0.9", {"momentum": 0.9}),
        Variant("key encoder", "momentum 0.99", {"momentum": 0.99}),
        Variant("references in training", "pairs", {"frames": 2}),
        Variant("references in training", "five references", {"frames": 6, "clips": max(1, base.clips // 2)}),
        Variant("window centres", "searched in training", {"roi_step": 2}),
        Variant("window centres", "searched in tracking", track={**dilated, "roi_step": 1}),
        Variant("window centres", "dilated in tracking, not searched", track=dilated),
        Variant("network alone", "logits / sqrt(C)", scaled, track={"logit_scale": 0.25}),
        Variant("network alone", "logits not scaled", unscaled, track={"logit_scale": 1.0}),
        Variant("unlabelled clips", "10", clips=10),
        Variant("unlabelled clips", "30", clips=30),
        Variant("memory in tracking", "short-term only", track=policy((), (1, 3, 5))),
        Variant("memory in tracking", "long-term only", track=policy((0, 5), ())),
        Variant("memory in tracking", "previous frame only", track=policy((), (1,))),
        *(Variant("top-k", str(count), track={"top_k": count}) for count in (5, 10, 36)),
        *(Variant("radius in tracking", str(radius), track={"radius": radius}) for radius in (6, 9, 15, 18)),
        *(
            Variant(
                "scale in tracking", f"{factor:g} times the base's", track={"logit_scale": factor * scale}
            )
            for factor in (0.5, 2.0)
        ),
    ]


@dataclass(frozen=True)
class Study:
    """What is measured, and where its files are.

    Attributes:
        base: the recipe that variants change.
        data: unlabelled footage.
        davis, split, size: labelled sequences and the shorter side to track them at.
        work: folder for runs and scores.
    """

    base: Recipe
    data: Path
    davis: Path
    split: str
    size: int
    work: Path

    def score(self, variant: Variant) -> dict[str, float]:
        """J&F in percent by sequence; stored in ``work``, so that it is measured once per settings."""
        settings = (self.base.to_json(), self.davis, self.split, self.size, variant.train, variant.clips)
        digest = hashlib.sha256(repr((settings, variant.track)).encode()).hexdigest()
        path = self.work / f"{digest[:16]}.json"
        if not path.exists():
            scores = self._measure(variant)
            with atomic_path(path) as partial:
                partial.write_text(json.dumps(scores), "utf-8")
        stored: dict[str, float] = json.loads(path.read_text("utf-8"))
        return stored

    def _measure(self, variant: Variant) -> dict[str, float]:
        settings = {
            "radius": self.base.tracking_radius,
            "logit_scale": self.base.tracking_logit_scale,
            **variant.track,
        }
        features = self._features(variant)
        with tempfile.TemporaryDirectory() as folder:
            out = Path(folder)
            evaluation = evaluate(
                self.davis,
                self.split,
                lambda: feature_tracker(features, **settings),
                out,
                out / "scores.json",
                size=self.size,
            )
        return {result.name: result.score.jf for result in evaluation.sequences if result.score is not None}

    def _features(self, variant: Variant) -> Features:
        recipe = replace(self.base, **variant.train)
        trained = hashlib.sha256(f"{recipe.to_json()} {variant.clips}".encode()).hexdigest()
        run = self.work / f"run-{trained[:16]}"
        clips = find_clips(self.data)
        if variant.clips is not None:
            clips = clips[:: max(1, len(clips) // variant.clips)][: variant.clips]
        outcome = train(recipe, clips, run)
        return encoder_features(load_checkpoint(outcome.checkpoint).query_encoder())


def mean(scores: dict[str, float]) -> float:
    """Mean over sequences."""
    return sum(scores.values()) / len(scores)


def report(study: Study, scores: dict[Variant, dict[str, float]], command: str) -> str:
    """The Markdown report: one row per variant, with its difference from the base."""
    base = mean(next(iter(scores.values())))
    sequences = list(next(iter(scores.values())))
    lines = [
        "# Ablation",
        "",
        f"Recipe `{study.base.name}`, {study.base.steps} steps, seed {study.base.seed}; J&F in percent,",
        f"shorter side {study.size} pixels, radius {study.base.tracking_radius}, references 0, 5, t-1,",
        "t-3, t-5 unless the row says otherwise. Printed by",
        "",
        f"    {command}",
        "",
        "![J&F by variant](ablation.png)",
        "",
        "| question | variant | mean | minus the base | " + " | ".join(sequences) + " |",
        "|" + "---|" * (4 + len(sequences)),
    ]
    for variant, found in scores.items():
        cells = [variant.question, variant.name, f"{mean(found):.1f}", f"{mean(found) - base:+.1f}"]
        cells += [f"{found[name]:.1f}" for name in sequences]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def plot(path: Path, scores: dict[Variant, dict[str, float]]) -> None:
    """A bar per variant, one colour per question."""
    import matplotlib.pyplot as plt

    questions = list(dict.fromkeys(variant.question for variant in scores))
    figure, axes = plt.subplots(figsize=(8, 0.32 * len(scores) + 1))
    colours = [f"C{questions.index(variant.question) % 10}" for variant in scores]
    labels = [f"{variant.question}: {variant.name}" for variant in scores]
    axes.barh(labels, [mean(found) for found in scores.values()], color=colours)
    axes.axvline(mean(next(iter(scores.values()))), color="black", linewidth=1)
    axes.invert_yaxis()
    axes.set_xlabel("mean J&F, percent")
    figure.tight_layout()
    with atomic_path(path) as partial:
        figure.savefig(partial, format="png", dpi=120)
    plt.close(figure)


def study_all(study: Study, chosen: Callable[[Variant], bool], out: Path, command: str) -> str:
    """Measure the base and all ``chosen`` variants; writes ``ablation.md`` and ``.png`` into ``out``."""
    make_directory(study.work)
    make_directory(out)
    scores: dict[Variant, dict[str, float]] = {}
    for variant in variants(study.base):
        if variant.question == BASE or chosen(variant):
            scores[variant] = study.score(variant)
            print(f"{variant.question}: {variant.name}: {mean(scores[variant]):.1f}", flush=True)
    text = report(study, scores, command)
    plot(out / "ablation.png", scores)
    with atomic_path(out / "ablation.md") as partial:
        partial.write_text(text, "utf-8")
    return text


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="unlabelled footage")
    parser.add_argument("--davis", type=Path, required=True, help="labelled sequences")
    parser.add_argument("--split", default="dev")
    parser.add_argument("--size", type=int, default=240, help="shorter side to track at")
    parser.add_argument("--recipe", default="nano", help="the base")
    parser.add_argument("--steps", type=int, default=1000, help="of every training")
    parser.add_argument("--question", action="append", help="measure these alone; default: all")
    parser.add_argument("--work", type=Path, default=Path("runs/ablation"))
    parser.add_argument("--out", type=Path, default=Path("docs/results"))
    options = parser.parse_args()
    base = replace(load_recipe(options.recipe), steps=options.steps, finetune_steps=0)
    study = Study(base, options.data, options.davis, options.split, options.size, options.work)
    command = (
        f"python bench/ablate.py --data FOOTAGE --davis ROOT --split {options.split} --size {options.size} "
        f"--recipe {options.recipe} --steps {options.steps}"
    )
    print(
        study_all(
            study, lambda v: not options.question or v.question in options.question, options.out, command
        )
    )


if __name__ == "__main__":
    main()
