"""Scores: pure functions of the rows that `run.py` writes. Nothing is run again.

pass@k is the unbiased estimate of Chen et al., 2021 (arXiv 2107.03374, section 2.1). Its interval is the bootstrap over
tasks: what would another draw of as many problems have given? One task of 164 is 0.6 points, so differences of a few
points are noise. Where all tasks have one value, as where none is solved, the bootstrap can say nothing: the interval
is then the rule of three, and never without width.

Cost: 0.1 s for HumanEval, seconds for 100,000 rows.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from opencoder_jax.evaluation.run import OUTCOMES, Row

CONFIDENCE = 0.95
RESAMPLES = 10_000
_SEED = 0
_RESAMPLES_AT_ONCE = 1_000


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
    """

    tasks: int
    samples: int
    pass_at_k: dict[str, Share]
    by_level: dict[int, tuple[float, int]]
    outcomes: dict[str, int]
    methods: dict[str, int]
    closed: float | None
    truncated: float | None


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
    """The percentile bootstrap's interval of the mean of `values`, one a task. The same values give the same.

    n equal values say that at most 3/n of all tasks have another, in 0 .. 1: the rule of three.
    """
    data = np.asarray(values, np.float64)
    if (value := data.min()) == data.max():
        others = min(1.0, 3 / len(data))
        return float(value - value * others), float(value + (1 - value) * others)
    generator = np.random.default_rng(_SEED)
    means = [
        data[generator.integers(0, len(data), (_RESAMPLES_AT_ONCE, len(data)))].mean(axis=1)
        for _ in range(RESAMPLES // _RESAMPLES_AT_ONCE)
    ]
    low, high = np.quantile(np.concatenate(means), [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return float(low), float(high)


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
    levels: dict[int, list[float]] = {}
    for task, answers in by_task.items():
        if (level := answers[0].level) is not None:
            levels.setdefault(level, []).append(solved[task] / len(answers))
    outcomes = Counter(row.outcome for row in rows)
    finished = Counter(row.finish_reason for row in rows if row.finish_reason is not None)
    return Score(
        tasks=len(by_task),
        samples=len(rows),
        pass_at_k=estimates,
        by_level={level: (float(np.mean(shares)), len(shares)) for level, shares in sorted(levels.items())},
        outcomes={outcome: outcomes[outcome] for outcome in OUTCOMES if outcomes[outcome]},
        methods=dict(sorted(Counter(row.method for row in rows).items())),
        closed=finished["stop"] / finished.total() if finished else None,
        truncated=finished["length"] / finished.total() if finished else None,
    )
