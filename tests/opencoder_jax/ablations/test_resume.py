"""The court killed at any step and started again, with steps that write what real ones would: one report."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import xxhash

from opencoder_jax import chain
from opencoder_jax.ablations import ablate
from opencoder_jax.ablations.rows import ROWS
from opencoder_jax.chain import Step

RECIPE = """
AblationConfig.question = "Which?"
AblationConfig.stages = ("exact_duplicates", "train")
AblationConfig.arms = {"once": (), "twice": ("train",)}
AblationConfig.seeds = 2
AblationConfig.most_seeds = 3
AblationConfig.claims = {
    "fewer tokens": ("tokens", "once", "twice", "less", 0.05),
    "better": ("bits_per_byte", "once", "twice", "less", 0.001),
    "lower": ("training_loss", "once", "twice", "less", 0.001),
    "copies": ("copies", "twice", "", "more", 0.05),
}
"""


class Steps:
    """Stands for the programs: a step that isn't killed writes numbers that follow from its directory."""

    def __init__(self, every: int):
        self.done: list[str] = []
        self.every, self.left = every, every

    def main(self, step: Step) -> Callable[[list[str]], None]:
        def run(argv: list[str]) -> None:
            output = Path(step.output)
            if step.program == chain.PIPELINES and (output / chain.STAGE).exists():
                return  # stages know themselves
            self.left -= 1
            if self.every and not self.left:
                self.left = self.every
                raise KeyboardInterrupt
            output.mkdir(parents=True, exist_ok=True)
            self.done.append(step.output)
            write(step, output)

        return run


def write(step: Step, output: Path) -> None:
    draw = np.random.default_rng(xxhash.xxh3_64_intdigest(output.name.encode()))
    if step.program == chain.PIPELINES:
        (output / chain.STAGE).write_text(json.dumps({"files": {"documents": output.name}}))
    elif step.verb == "train":
        scores = [{"heldout-0": {"loss": 3.0, "bits_per_byte": float(value)}} for value in draw.normal(2, 0.1, 5)]
        rows = [
            {"step": 20 * n, "seconds": 1.0, "loss": 4.0 - n, "held_out": score} for n, score in enumerate(scores, 1)
        ]
        (output / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    else:
        rows = [
            {"project": f"p{n}", "documents": 1, "bytes": 100, "tokens": 50, "copies": 5, "bits": 200 + float(value)}
            for n, value in enumerate(draw.normal(0, 1, 6))
        ]
        (output / ROWS).write_text("".join(json.dumps(row) + "\n" for row in rows))


def tried(place: Path, every: int, monkeypatch: pytest.MonkeyPatch) -> tuple[bytes, list[str], int]:
    """The report of a run that is killed at each `every`th step; the steps that were made; how often it was killed."""
    steps, kills = Steps(every), 0
    place.mkdir()
    (place / "two.gin").write_text(RECIPE)
    monkeypatch.chdir(place)
    monkeypatch.setattr(chain, "_main", steps.main)
    monkeypatch.setattr(ablate, "need_projects", lambda court, case: None)  # it counts those in a real split
    while True:
        try:
            ablate.main(["two.gin", "--archives=corpus", "--output=run"])
        except KeyboardInterrupt:
            kills += 1
            continue
        return Path("run/report.html").read_bytes(), steps.done, kills


@pytest.mark.slow
def test_killed_at_any_step_the_report_is_the_same_to_the_byte(tmp_path, monkeypatch) -> None:
    whole, made, _ = tried(tmp_path / "whole", 0, monkeypatch)
    killed, again, kills = tried(tmp_path / "killed", 6, monkeypatch)
    assert killed == whole
    assert kills >= 4
    assert sorted(again) == sorted(made)  # nothing was made twice
    assert len(made) == len(set(made))
    assert b"<svg" in whole
    assert sum("train" in place and "tokenizer" not in place for place in made) == 6  # the pilot asked for a third seed
