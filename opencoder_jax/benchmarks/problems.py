"""Benchmarks in HumanEval's format, and samples of a model's answers to them.

One problem a line: `task_id`, `prompt` (a signature with its docstring), `entry_point` (the name of the function),
`canonical_solution` (the body), `test` (defines `check(candidate)`); ours has a `level` besides, 1 to 4. The default is
the project's own `problems.jsonl`: 51 problems from one-liners upwards, each of them original, so that a model of some
million weights has something to hit. HumanEval.jsonl.gz is read as it was published.

One sample a line: `task_id`, and `completion` (goes on where the prompt ends) or `solution` (a whole answer, with or
without prose and fences). Optional: `sample` (its number, else counted in the order of the file), `finish_reason`,
`tokens`.
"""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, NamedTuple

from opencoder_jax import files
from opencoder_jax.recipe import UserError

COOKBOOK = Path(__file__).with_name("problems.jsonl")


class Problem(NamedTuple):
    """One problem of a benchmark."""

    task_id: str
    prompt: str
    entry_point: str
    canonical_solution: str
    test: str
    level: int | None = None


class Sample(NamedTuple):
    """One answer of a model."""

    task_id: str
    sample: int  # its number among the answers to this problem
    kind: Literal["completion", "solution"]
    text: str
    finish_reason: str | None = None  # "stop", "length", or unknown
    tokens: int | None = None  # how many were generated


def read_problems(path: Path) -> list[Problem]:
    """Reads a benchmark.

    Raises:
        UserError: names the file, and the line that is wrong.
    """
    problems: dict[str, Problem] = {}
    for number, line in files.read_lines(path):
        task, prompt, name, solution, test = (files.field(path, number, line, key, str) for key in Problem._fields[:5])
        level = files.field(path, number, line, "level", int) if "level" in line else None
        problem = Problem(task, prompt, name, solution, test, level)
        if problem.task_id in problems:
            raise UserError(f"{path}, line {number}: {problem.task_id} stands in the file twice")
        if not problem.entry_point.isidentifier():
            raise UserError(f"{path}, line {number}: the entry point {problem.entry_point!r} is no name of a function")
        problems[problem.task_id] = problem
    if not problems:
        raise UserError(f"{path}: holds no problems; it should be a file of JSON lines like HumanEval.jsonl.gz")
    return list(problems.values())


def read_samples(path: Path, problems: Sequence[Problem]) -> list[Sample]:
    """Reads answers to these problems, in the order of the problems and of their numbers.

    Raises:
        UserError: names the file and the line that is wrong; or the problems that have no answer.
    """
    order = {problem.task_id: place for place, problem in enumerate(problems)}
    found: dict[tuple[str, int], Sample] = {}
    seen: Counter[str] = Counter()
    for number, line in files.read_lines(path):
        task = files.field(path, number, line, "task_id", str)
        if task not in order:
            raise UserError(f"{path}, line {number}: {task} is no problem of this benchmark; is it the right file?")
        kind: Literal["completion", "solution"] = "completion" if "completion" in line else "solution"
        text = files.field(path, number, line, kind, str)
        index = files.field(path, number, line, "sample", int) if "sample" in line else seen[task]
        seen[task] += 1
        if (task, index) in found:
            raise UserError(f"{path}, line {number}: sample {index} of {task} stands in the file twice")
        found[task, index] = Sample(task, index, kind, text, line.get("finish_reason"), line.get("tokens"))
    return sorted(found.values(), key=lambda sample: (order[sample.task_id], sample.sample))


def sample_line(sample: Sample) -> dict[str, str | int | None]:
    """The line of a sample that `read_samples` reads."""
    return {
        "task_id": sample.task_id,
        "sample": sample.sample,
        sample.kind: sample.text,
        "finish_reason": sample.finish_reason,
        "tokens": sample.tokens,
    }
