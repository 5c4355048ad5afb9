"""Problems whose answer is a whole program: of any language, with tests behind it or with inputs and outputs.

`problems.FunctionProblem` is the other form: one function of Python, called from another process. It is the safer one,
and what can be asked in it is.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from decimal import Decimal, InvalidOperation


@dataclass(frozen=True)
class ProgramProblem:
    """A problem that a program is judged on.

    Attributes:
        task_id: its id.
        prompt: what a model goes on with, or is asked.
        solution: a whole program that passes; "" where none is known.
        language: as the sandbox's table calls it.
        tests: source that goes behind the program and fails unless it is right.
        cases: of a program that reads and prints: what it reads, what it must print.
        tolerance: how far numbers may be from those of a case, absolute and relative.
        stops: strings that end a completion.
        level: how hard it is, in the benchmark's words.
        published: the day on which it was, where that is known.
    """

    task_id: str
    prompt: str
    solution: str = ""
    language: str = "Python"
    tests: str = ""
    cases: tuple[tuple[str, str], ...] = ()
    tolerance: tuple[float, float] = (0.0, 0.0)
    stops: tuple[str, ...] = ()
    level: str = ""
    published: date | None = None


def within(problems: Sequence[ProgramProblem], begin: date | None, end: date | None) -> list[ProgramProblem]:
    """Those published from `begin` on and before `end`; one of unknown day is in no window."""
    if begin is None and end is None:
        return list(problems)
    first, last = begin or date.min, end or date.max
    return [problem for problem in problems if problem.published and first <= problem.published < last]


def same_output(printed: str, expected: str, tolerance: tuple[float, float] = (0.0, 0.0)) -> bool:
    """Whether a program printed what it must: the same words on the same lines, numbers by their value.

    White space at the ends of lines, and empty lines at the end, don't count. More lines or fewer do.
    """
    found, wanted = ([line.split() for line in text.rstrip().splitlines()] for text in (printed, expected))
    if [len(line) for line in found] != [len(line) for line in wanted]:
        return False
    lines = zip(found, wanted, strict=True)
    pairs = (pair for one, other in lines for pair in zip(one, other, strict=True))
    return all(one == other or _equal(one, other, tolerance) for one, other in pairs)


def _equal(one: str, other: str, tolerance: tuple[float, float]) -> bool:
    try:
        first, second = Decimal(one), Decimal(other)
    except InvalidOperation:
        return False
    if not first.is_finite() or not second.is_finite():
        return False
    if tolerance == (0.0, 0.0) or not _fraction(other):
        return first == second
    return math.isclose(first, second, abs_tol=tolerance[0], rel_tol=tolerance[1])


def _fraction(number: str) -> bool:
    """Whether it is written as one: an integer must be met exactly."""
    return any(mark in number for mark in ".eE")
