"""Samples: a model's answers to the problems of a benchmark, one JSON line each.

A line has `task_id`, and `completion` (goes on where the prompt ends) or `solution` (a whole answer, with or without
prose and fences). Optional: `sample` (its number, else counted in the order of the file), `finish_reason`, `tokens`.
Files of other harnesses are read, too (shapes.py).
"""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, NamedTuple, Protocol

from opencoder_jax import files
from opencoder_jax.evaluation.answers.shapes import lines
from opencoder_jax.recipe import UserError

Kind = Literal["completion", "solution"]

_FIELDS = frozenset({"task_id", "completion", "solution", "sample", "finish_reason", "tokens", "raw_solution"})


class Named(Protocol):
    """A problem, of which nothing but the name is needed."""

    @property
    def task_id(self) -> str: ...


class Sample(NamedTuple):
    """One answer of a model."""

    task_id: str
    sample: int  # its number among the answers to this problem
    kind: Kind
    text: str
    finish_reason: str | None = None  # "stop", "length", or unknown
    tokens: int | None = None  # how many were generated

    def line(self) -> dict[str, str | int | None]:
        """The line of a file, as `read_samples` reads it."""
        rest = {"finish_reason": self.finish_reason, "tokens": self.tokens}
        return {"task_id": self.task_id, "sample": self.sample, self.kind: self.text, **rest}


def read_samples(path: Path, problems: Sequence[Named], ordered: bool = True) -> list[Sample]:
    """Reads answers to these problems.

    Args:
        ordered: by the order of the problems and their numbers; else as the file has them.

    Raises:
        UserError: names the file and the line that is wrong.
    """
    order = {problem.task_id: index for index, problem in enumerate(problems)}
    found: dict[tuple[str, int], Sample] = {}
    seen: Counter[str] = Counter()
    unread: dict[str, None] = {}
    for number, line in lines(path, list(order)):
        task = files.field(path, number, line, "task_id", str)
        if task not in order:
            raise UserError(f"{path}, line {number}: {task} is no problem of this benchmark; is it the right file?")
        if "completion" in line and "solution" in line:
            raise UserError(f"{path}, line {number}: has a completion and a solution; which is the answer?")
        unread |= dict.fromkeys(name for name in line if name not in _FIELDS)
        kind: Kind = "completion" if "completion" in line else "solution"
        text = files.field(path, number, line, kind, str)
        index = files.field(path, number, line, "sample", int) if "sample" in line else seen[task]
        seen[task] += 1
        if (task, index) in found:
            raise UserError(f"{path}, line {number}: sample {index} of {task} stands in the file twice")
        reason = None if line.get("finish_reason") is None else files.field(path, number, line, "finish_reason", str)
        tokens = None if line.get("tokens") is None else files.field(path, number, line, "tokens", int)
        found[task, index] = Sample(task, index, kind, text, reason, tokens)
    if unread:
        print(f"{path}: ignored {', '.join(unread)}")
    samples = list(found.values())
    return sorted(samples, key=lambda sample: (order[sample.task_id], sample.sample)) if ordered else samples
