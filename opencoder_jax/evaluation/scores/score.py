"""Scores: pure functions of the rows that `run.py` writes. Nothing is run again.

pass@k is the unbiased estimate of Chen et al., 2021 (arXiv 2107.03374, section 2.1). Its interval is the bootstrap over
tasks: what would another draw of as many problems have given? One task of 164 is 0.6 points, so differences of a few
points are noise. Where all tasks have one value, as where none is solved, the bootstrap can say nothing: the interval
is then the rule of three, and never without width.

Cost: 0.1 s for HumanEval, seconds for 100,000 rows.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, NamedTuple, TypeVar

import numpy as np

from opencoder_jax.evaluation.scores.rows import OUTCOMES, Row
from opencoder_jax.statistics.bootstrap import bounded

Group = TypeVar("Group", int | str, str)


class Share(NamedTuple):
    """A share with its 95 % interval, all in 0 .. 1."""

    estimate: float
    low: float
    high: float


@dataclass(frozen=True)
class Score:
    """What the rows say.

    Attributes:
        tasks, samples: how many.
        pass_at_k: "pass@k" -> its estimate, for each k asked for.
        by_level: a problem's level -> share of right samples (pass@1), number of tasks; empty without levels.
        outcomes: how many samples ended in which way, in the order of run.OUTCOMES, without those that didn't occur.
        methods: how many programs were found in which way (extract.Method).
        closed: share of the samples that ended by themselves; None where no sample says how it ended.
        truncated: share of the samples that were cut at the limit of tokens; None likewise.
        by_language: a language -> share of right samples (pass@1), number of tasks; empty where all are in one.
        older: pass@1 on the tests of the set that the benchmark extends (HumanEval of HumanEval+); None without one.
    """

    tasks: int
    samples: int
    pass_at_k: dict[str, Share]
    by_level: dict[int | str, tuple[float, int]]
    outcomes: dict[str, int]
    methods: dict[str, int]
    closed: float | None
    truncated: float | None
    by_language: dict[str, tuple[float, int]] = field(default_factory=dict)
    older: Share | None = None


def pass_at_k(samples: int, right: int, k: int) -> float:
    """The probability that of k samples drawn from `samples`, `right` of which are right, at least one is.

    Raises:
        ValueError: unless 1 <= k <= samples and 0 <= right <= samples.
    """
    if not (1 <= k <= samples and 0 <= right <= samples):
        raise ValueError(f"pass@{k} of {right} right among {samples} samples makes no sense")
    if samples - right < k:
        return 1.0
    return float(1.0 - np.prod(1.0 - k / np.arange(samples - right + 1, samples + 1)))


def interval(values: Sequence[float]) -> tuple[float, float]:
    """The percentile bootstrap's interval of the mean of `values` in 0 .. 1, one a task, or the rule of three."""
    return bounded(values)[1:]


def score(rows: Iterable[Row], tasks: Sequence[str], ks: Sequence[int]) -> Score:
    """Scores the rows of a whole benchmark.

    Args:
        tasks: the ids of all problems, answered or not; their order does not matter.

    Raises:
        ValueError: a task has no rows, or fewer than the largest k; or a row belongs to no task. A missing task would
            raise the score.
    """
    rows = list(rows)
    by_task: dict[str, list[Row]] = {task: [] for task in sorted(tasks)}
    for row in rows:
        if row.task_id not in by_task:
            raise ValueError(f"{row.task_id} is no problem of this benchmark")
        by_task[row.task_id].append(row)
    for task, answers in by_task.items():
        if len(answers) < max(ks):
            raise ValueError(f"{task} has {len(answers)} samples: pass@{max(ks)} needs {max(ks)} for every problem")
    solved = {task: sum(row.outcome == "passed" for row in answers) for task, answers in by_task.items()}
    estimates = {}
    for k in sorted(set(ks)):
        values = [pass_at_k(len(answers), solved[task], k) for task, answers in by_task.items()]
        estimates[f"pass@{k}"] = Share(float(np.mean(values)), *interval(values))
    levels: dict[int | str, list[float]] = {}
    languages: dict[str, list[float]] = {}
    for task, answers in by_task.items():
        share = solved[task] / len(answers)
        if (level := answers[0].level) is not None:
            levels.setdefault(level, []).append(share)
        languages.setdefault(answers[0].language, []).append(share)
    known = [sum(bool(row.older) for row in answers) / len(answers) for answers in by_task.values()]
    extends = any(row.older is not None for row in rows)
    outcomes = Counter(row.outcome for row in rows)
    finished = Counter(row.finish_reason for row in rows if row.finish_reason is not None)
    return Score(
        tasks=len(by_task),
        samples=len(rows),
        pass_at_k=estimates,
        by_level=_means(dict(sorted(levels.items(), key=lambda item: (str(type(item[0])), item[0])))),
        outcomes={outcome: outcomes[outcome] for outcome in OUTCOMES if outcomes[outcome]},
        methods=dict(sorted(Counter(row.method for row in rows).items())),
        closed=finished["stop"] / finished.total() if finished else None,
        truncated=finished["length"] / finished.total() if finished else None,
        by_language=_means(dict(sorted(languages.items()))) if len(languages) > 1 else {},
        older=Share(float(np.mean(known)), *interval(known)) if extends else None,
    )


def _means(groups: dict[Group, list[float]]) -> dict[Group, tuple[float, int]]:
    return {name: (float(np.mean(shares)), len(shares)) for name, shares in groups.items()}


def content(found: Score) -> dict[str, Any]:
    """A score as a JSON file holds it."""
    shares = {name: share._asdict() for name, share in found.pass_at_k.items()}
    return asdict(found) | {"pass_at_k": shares, "older": found.older and found.older._asdict()}


def table(found: Score, profile: str = "") -> str:
    """A score as a person reads it."""
    lines = [f"{found.tasks} problems, {found.samples} samples" + (f", profile {profile}" if profile else ""), ""]
    shares = found.pass_at_k | ({"pass@1, older": found.older} if found.older else {})
    for name, share in shares.items():
        lines.append(f"{name:14} {share.estimate:7.1%}   95 % interval {share.low:.1%} to {share.high:.1%}")
    for level, (right, tasks) in found.by_level.items():
        lines.append(f"{f'level {level}':14} {right:7.1%}   of the samples of {tasks} problems")
    for language, (right, tasks) in found.by_language.items():
        lines.append(f"{language:14} {right:7.1%}   of the samples of {tasks} problems")
    lines.append("")
    for outcome, count in found.outcomes.items():
        lines.append(f"{outcome:14} {count / found.samples:7.1%}   {count}")
    if found.closed is not None:
        lines.append(f"{'closed':14} {found.closed:7.1%}   of the answers ended by themselves")
    if found.truncated is not None:
        lines.append(f"{'truncated':14} {found.truncated:7.1%}   of the answers were cut at the limit of tokens")
    return "\n".join(lines)
