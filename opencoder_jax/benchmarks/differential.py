"""Problems judged by comparing an answer's values with the reference's: HumanEval+ and MBPP+.

The published files have inputs but no outputs; what the references return on them is computed once, in the sandbox, and
kept in the user's cache by the file's checksum. The judge gets both as data. The published `test` is not used: in
HumanEvalPlus.jsonl.gz it is HumanEval's own, without one of the added inputs.
"""

import hashlib
import inspect
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from opencoder_jax import files
from opencoder_jax.benchmarks import comparing
from opencoder_jax.benchmarks.problems import FunctionProblem
from opencoder_jax.machine import user_cache
from opencoder_jax.recipe import UserError
from opencoder_jax.sandbox.pair._values import decode, encode
from opencoder_jax.sandbox.pool import Sandbox
from opencoder_jax.sandbox.program import Limits, Program

# Some references take seconds and return megabytes.
_LIMITS = Limits(cpu_seconds=120, idle_seconds=60.0, memory_bytes=8 << 30, output_bytes=256 << 20)

# Names of ours are such as no benchmark has: HumanEval/93 asks for a function `encode`.
_RUN = """
from opencoder_jax.sandbox.pair import _values as _crossing_values
for _text in {inputs!r}:
    print(_crossing_values.encode({function}(*_crossing_values.decode(_text.encode()))).decode())
"""
_TEST = """
_comparing = {{}}
exec({comparing!r}, _comparing)
_CASES = {cases!r}

def check(candidate):
    _comparing["check_cases"](candidate, _CASES, {tolerance!r}, {rule!r})
"""
_LONG = 1 << 12  # characters


class DifferentialProblem(NamedTuple):
    """A function that is asked for, with inputs.

    Attributes:
        solution: goes on behind the prompt.
        inputs: the arguments of each call.
        base: how many of them are the older benchmark's own, which come first.
        tolerance: between numbers; 0 where they must be equal.
        rule: one of `comparing.agrees`, or "".
    """

    task_id: str
    prompt: str
    entry_point: str
    solution: str
    inputs: tuple[list[Any], ...]
    base: int
    tolerance: float = 0.0
    rule: str = ""

    def test(self, outputs: Sequence[str]) -> str:
        """The source of `check(candidate)`, with what the reference returned on as many inputs as there are outputs."""
        cases = [(encode(given).decode(), wanted) for given, wanted in zip(self.inputs, outputs)]  # noqa: B905
        return _TEST.format(
            comparing=inspect.getsource(comparing), cases=cases, tolerance=self.tolerance, rule=self.rule
        )

    def function(self, outputs: Sequence[str]) -> FunctionProblem:
        return FunctionProblem(self.task_id, self.prompt, self.entry_point, self.test(outputs), self.solution)


def functions(
    problems: Sequence[DifferentialProblem],
    sha256: str,
    cache: Path | None = None,
    workers: int = 2,
    older: bool = False,
) -> list[FunctionProblem]:
    """The problems as evaluation judges them.

    Args:
        sha256: of the file that they are from.
        cache: a folder; the user's own by default.
        older: with the older benchmark's inputs alone.

    Raises:
        UserError: a reference fails on its own inputs, so nothing can be compared with it.
    """
    # What was computed by another version of these lines is not used.
    key = hashlib.sha256((sha256 + _RUN + inspect.getsource(comparing)).encode()).hexdigest()[:16]
    place = (cache or user_cache("benchmarks")) / f"{key}.jsonl"
    if place.exists():
        known = {row["task_id"]: row["outputs"] for _, row in files.read_lines(place)}
    else:
        known = dict(_computed(problems, workers))
        files.write_lines(place, ({"task_id": task, "outputs": outputs} for task, outputs in known.items()))
    return [problem.function(known[problem.task_id][: problem.base if older else None]) for problem in problems]


def _computed(problems: Sequence[DifferentialProblem], workers: int) -> Iterable[tuple[str, list[str]]]:
    programs = []
    for problem in problems:
        inputs = [encode(given).decode() for given in problem.inputs]
        source = problem.prompt + problem.solution + _RUN.format(inputs=inputs, function=problem.entry_point)
        programs.append(Program(source))
    with Sandbox(_LIMITS, workers) as sandbox:
        for index, outcome in sandbox.map(programs):
            problem, outputs = problems[index], outcome.stdout.splitlines()
            if outcome.status != "ok" or len(outputs) != len(problem.inputs):
                raise UserError(
                    f"{problem.task_id}: the benchmark's own reference fails: {outcome.status} {outcome.error} "
                    f"{outcome.stderr[-300:]}"
                )
            yield problem.task_id, [_shorter(output, problem.tolerance) for output in outputs]


def _shorter(output: str, tolerance: float) -> str:
    """A digest instead of a long output that must be met exactly, such as a number of a million digits."""
    if len(output) < _LONG or tolerance:
        return output
    value = decode(output.encode())
    parts = value if isinstance(value, list | tuple) else [value]
    exact = all(isinstance(part, str | int | float) for part in parts) and not comparing.floats(value)
    return comparing.digest(value) if exact else output
