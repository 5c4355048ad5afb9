"""From what was measured to verdicts: pure functions of the files that an ablation's steps wrote.

Arms are paired: a seed is an initialisation and an order that both have, a project's texts are the same for both. What
is claimed of training is decided over seeds and projects together, what is claimed of data over projects. One project
says nothing of others, so nothing is concluded from it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from opencoder_jax.ablations.arms import HELD_OUT, Made
from opencoder_jax.ablations.config import NO_TRAINING, AblationConfig, Claim
from opencoder_jax.ablations.rows import read_rows
from opencoder_jax.evaluation.scores.rows import rows_file
from opencoder_jax.files import read_lines
from opencoder_jax.statistics.bootstrap import Interval, ratio
from opencoder_jax.statistics.claims import Outcome, crossed, needed, negligible, over_seeds, verdict
from opencoder_jax.training.metrics import read_metrics

_TAIL = 0.25  # of the logged steps: what the training loss is averaged over


@dataclass(frozen=True)
class Decision:
    """What an ablation says of a claim.

    Attributes:
        values: of the arm, and of the one that it's compared with; the latter is None where there's none.
        effect: arm minus the other one; of tokens a share of the other's, of copies the share itself.
        seeds, projects: how many there were of each; no seeds where nothing was trained. Of pass_at_1 the latter are
            problems.
        needed: seeds that find the smallest effect with the power asked for, by the pilot; None where nothing was
            trained.
    """

    claim: Claim
    values: tuple[float, float | None]
    effect: Interval
    outcome: Outcome
    seeds: int
    projects: int
    needed: int | None

    @property
    def lone(self) -> bool:
        """Whether the claim is one about projects, and there was a single one."""
        return self.claim.metric != "training_loss" and self.projects < 2

    @property
    def clusters(self) -> str:
        """What claims of this metric speak about, in the singular."""
        return "problem" if self.claim.metric == "pass_at_1" else "project"

    @property
    def sentence(self) -> str:
        """The verdict in words."""
        unit = _UNITS[self.claim.metric]
        shown = percentages if self.claim.metric in SHARES else figures
        low, high, middle = shown(self.effect.low), shown(self.effect.high), shown(self.effect.estimate)
        why = ""
        if self.lone:
            return f"undecided: one {self.clusters} says nothing of others; {middle}{unit} there"
        if self.outcome == "undecided":
            small = negligible(self.effect, self.claim.smallest)
            why = ": no difference that counts" if small else ": the interval says neither"
        return f"{self.outcome}{why}; {middle}{unit} (95 % interval {low} to {high})"


_UNITS = {
    **dict.fromkeys(NO_TRAINING, " of the tokens"),
    "bits_per_byte": " bits a byte",
    "training_loss": " nats a token",
    "pass_at_1": " of the problems",
}
SHARES = (*NO_TRAINING, "pass_at_1")  # metrics that are shown in per cent


def percentages(value: float) -> str:
    """A share with its sign, in per cent."""
    return f"{100 * value:+.1f} %"


def figures(value: float) -> str:
    """A difference with its sign."""
    return f"{value:+.4f}"


def judge(config: AblationConfig, made: Mapping[str, Made]) -> list[Decision]:
    """The findings of all claims, by what the arms' steps have written."""
    return [_finding(config, claim, made) for claim in config.claimed]


def seeds_needed(config: AblationConfig, findings: Sequence[Decision]) -> int:
    """How many seeds the pilot asks for, for the claim that needs the most, within what the recipe allows."""
    most = max((each.needed or 0 for each in findings), default=0)
    return min(max(most, config.seeds), config.most_seeds)


def _finding(config: AblationConfig, claim: Claim, made: Mapping[str, Made]) -> Decision:
    arm = made[claim.arm]
    match claim.metric:
        case "copies":
            rows = read_rows(Path(arm.counts))
            effect = ratio([row["copies"] for row in rows.values()], [row["tokens"] for row in rows.values()])
            return _judged(claim, (effect.estimate, None), effect, 0, len(rows), None)
        case "tokens":
            ours, theirs = (read_rows(Path(made[name].counts)) for name in (claim.arm, claim.against))
            projects = sorted(ours.keys() | theirs.keys())
            over, under = (
                np.array([side.get(name, {}).get("tokens", 0) for name in projects], np.float64)
                for side in (ours, theirs)
            )
            found = ratio(over, under)
            effect = Interval(*(each - 1 for each in found))
            return _judged(claim, (float(over.sum()), float(under.sum())), effect, 0, len(projects), None)
        case "training_loss":
            losses = np.array(
                [[training_loss(Path(run)) for run in made[name].runs.values()] for name in (claim.arm, claim.against)]
            )
            by_seed = losses[0] - losses[1]
            means = (float(np.mean(losses[0])), float(np.mean(losses[1])))
            effect, projects_ = over_seeds(by_seed), 0
        case _:
            measured = solved if claim.metric == "pass_at_1" else bits
            first, weights = measured(arm)
            second, _ = measured(made[claim.against])
            by_seed, projects_ = (first - second) @ weights / weights.sum(), len(weights)
            effect = crossed(first - second, weights) if projects_ > 1 else over_seeds(by_seed)
            means = (float(np.mean(first @ weights) / weights.sum()), float(np.mean(second @ weights) / weights.sum()))
    wanted = needed(by_seed[: config.seeds], claim.smallest, config.power)
    return _judged(claim, means, effect, len(by_seed), projects_, wanted)


def _judged(
    claim: Claim, values: tuple[float, float | None], effect: Interval, seeds: int, projects: int, wanted: int | None
) -> Decision:
    outcome = verdict(effect, claim.smallest, claim.expected)
    found = Decision(claim, values, effect, outcome, seeds, projects, wanted)
    return replace(found, outcome="undecided") if found.lone else found


def bits(made: Made) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Bits a byte of an arm's models, (seeds, projects), and the bytes of each project."""
    rows = [read_rows(Path(place)) for place in made.bits.values()]
    projects = sorted(rows[0])
    sizes = np.array([rows[0][name]["bytes"] for name in projects], np.float64)
    return np.array([[row[name]["bits"] for name in projects] for row in rows]) / sizes, sizes


def solved(made: Made) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Whether each problem's answer passes, (seeds, problems) of 0 and 1; each problem counts the same."""
    seeds = [
        {row["task_id"]: row["outcome"] for _, row in read_lines(rows_file(Path(place), "strict"))}
        for place in made.answers.values()
    ]
    problems = sorted(seeds[0])
    passed = np.array([[rows[name] == "passed" for name in problems] for rows in seeds], np.float64)
    return passed, np.ones(len(problems))


def training_loss(run: Path) -> float:
    """The mean loss in nats a token over the last quarter of a run's logged steps."""
    losses = [row["loss"] for row in read_metrics(run / "metrics.jsonl")]
    return float(np.mean(losses[-max(1, round(_TAIL * len(losses))) :]))


def curve(run: Path) -> dict[int, float]:
    """Bits a byte of the held-out texts at each step at which a run was evaluated."""
    rows: list[dict[str, Any]] = read_metrics(run / "metrics.jsonl")
    scores = {row["step"]: row["held_out"] for row in rows if row.get("held_out")}
    return {
        step: next(score["bits_per_byte"] for name, score in found.items() if name.startswith(HELD_OUT))
        for step, found in scores.items()
    }
