"""HumanEval, HumanEval+ and HumanEval infilling, as OpenAI and EvalPlus publish them."""

from collections.abc import Iterable
from typing import Any, NamedTuple

from opencoder_jax.benchmarks.differential import DifferentialProblem
from opencoder_jax.benchmarks.problems import FunctionProblem

Row = dict[str, Any]


class InfillingProblem(NamedTuple):
    """A function whose middle is asked for.

    Attributes:
        function: its prompt is what stands before the gap, its solution what belongs there.
        suffix: what stands behind it.
    """

    function: FunctionProblem
    suffix: str

    def program(self, middle: str) -> str:
        return self.function.prompt + middle + self.suffix


def plain(rows: Iterable[Row]) -> list[FunctionProblem]:
    """HumanEval itself."""
    return [
        FunctionProblem(row["task_id"], row["prompt"], row["entry_point"], row["test"], row["canonical_solution"])
        for row in rows
    ]


def plus(rows: Iterable[Row]) -> list[DifferentialProblem]:
    """HumanEval+: the inputs of HumanEval, and many more."""
    return [
        DifferentialProblem(
            row["task_id"],
            row["prompt"],
            row["entry_point"],
            row["canonical_solution"],
            (*row["base_input"], *row["plus_input"]),
            len(row["base_input"]),
            row["atol"],
            "root" if row["entry_point"] == "find_zero" else "",
        )
        for row in rows
    ]


def infilling(rows: Iterable[Row]) -> list[InfillingProblem]:
    """Single-line, multi-line and random-span infilling share one form.

    Some tests call a helper that the prompt defines, and a prompt that ends at a gap defines none: the judge has those
    of the whole program.
    """
    found = []
    for row, problem in ((row, plain([row])[0]) for row in rows):
        known = f"{problem.prompt}{problem.solution}{row['suffix']}"
        test = f"{known}\n{problem.entry_point} = candidate\n{problem.test}"
        found.append(InfillingProblem(problem._replace(test=test), row["suffix"]))
    return found
