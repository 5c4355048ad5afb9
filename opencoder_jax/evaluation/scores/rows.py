"""Rows: judged samples, one JSON line each. A score is a pure function of them."""

from collections.abc import Iterator
from pathlib import Path
from typing import Literal, NamedTuple, get_args

from opencoder_jax import files
from opencoder_jax.recipe import UserError

Profile = Literal["strict", "opencoder"]
PROFILES: tuple[Profile, ...] = get_args(Profile)

OutcomeKind = Literal[
    "passed",  # every test, to the last
    "wrong_answer",  # a test's assertion failed
    "runtime_error",  # an exception
    "syntax_error",
    "compile_error",  # that of a language which is compiled
    "exited",
    "timeout",
    "memory",
    "output_limit",
    "killed",
    "not_judged",  # a test needed a value that only the answer's own process can hold; no fault of the answer
    "no_code",  # nothing in the answer defines the function
]
OUTCOMES: tuple[OutcomeKind, ...] = get_args(OutcomeKind)


class Row(NamedTuple):
    """One judged sample: a line of rows.jsonl."""

    task_id: str
    sample: int
    level: int | str | None
    outcome: OutcomeKind
    detail: str
    method: str  # extract.Method
    code: str  # what extraction found
    dropped: str  # what extraction cut off behind it
    finish_reason: str | None
    tokens: int | None
    seconds: float
    cpu_seconds: float
    memory_bytes: int
    language: str = "Python"
    older: bool | None = (
        None  # whether it passes the set that this one extends (HumanEval of HumanEval+); None: no such
    )


def rows_file(output: Path, profile: Profile) -> Path:
    """Where the rows of a profile are."""
    return output / ("rows.jsonl" if profile == "strict" else f"rows.{profile}.jsonl")


def score_file(output: Path, profile: Profile) -> Path:
    """Where the score of a profile is."""
    return output / ("score.json" if profile == "strict" else f"score.{profile}.json")


def read_rows(path: Path) -> Iterator[Row]:
    """The rows of a file; UserError names the line that is none."""
    for number, line in files.read_lines(path):
        try:
            yield Row(**line)
        except TypeError:
            raise UserError(f"{path}, line {number}: not a row of an evaluation; choose another --output") from None
