"""Tasks: the problems of any benchmark in one form, with what a model is asked and where its answer begins and ends.

A base model goes on with `text`, a chat model answers `message`. Each benchmark is asked as its authors or EvalPlus ask
it: the prompt stripped, with one newline behind it; MBPP with three tasks shown; contests in APPS' own words. Where
OpenCoder's evaluator asks otherwise, `EvaluateConfig.prompts="opencoder"` does so too; what it does with the answers is
the profile of that name (answers/opencodeeval.py).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from opencoder_jax.benchmarks.differential import DifferentialProblem, functions
from opencoder_jax.benchmarks.problems import FunctionProblem
from opencoder_jax.benchmarks.programs import ProgramProblem
from opencoder_jax.benchmarks.prompts import asked
from opencoder_jax.benchmarks.readers import apps, mbpp
from opencoder_jax.benchmarks.readers.humaneval import InfillingProblem
from opencoder_jax.benchmarks.readers.polyglot import whole
from opencoder_jax.benchmarks.readers.table import Loaded
from opencoder_jax.evaluation.answers.answer import AnswerForm, Form
from opencoder_jax.evaluation.answers.samples import Sample
from opencoder_jax.evaluation.config import EvaluateConfig
from opencoder_jax.recipe import UserError


@dataclass(frozen=True)
class Exercise(AnswerForm):
    """A problem to ask.

    Attributes:
        text: what a base model goes on with.
        message: what a chat model is asked.
        stops: strings that end a completion; None: those of the configuration.
        older: the tests of the set that this one extends, where it extends one.
        published: ISO date, "" where unknown.
        opencoder_seconds: of a program, in OpenCoder's evaluator; 0 where that doesn't have the benchmark.
    """

    text: str = ""
    message: str = ""
    stops: tuple[str, ...] | None = None
    older: FunctionProblem | None = None
    published: str = ""
    opencoder_seconds: int = 0

    @property
    def level(self) -> int | str | None:
        return self.problem.level or None

    def stop_strings(self, config: EvaluateConfig) -> tuple[str, ...]:
        """What ends an answer; one in a conversation ends where the model ends it."""
        if config.chat:
            return ()
        return config.stop if self.stops is None else self.stops


def task_of(problem: FunctionProblem) -> Exercise:
    """One that is asked as HumanEval is."""
    text = problem.prompt.strip()
    return Exercise(problem, text=f"{text}\n", message=asked(text), opencoder_seconds=3)


def tasks(loaded: Loaded, config: EvaluateConfig) -> list[Exercise]:
    """The tasks of a benchmark: those of its test split, or of the window of days that the configuration names.

    Raises:
        UserError: none is left, or a reference that answers are compared with fails.
    """
    make = next(make for start, make in _MAKERS if loaded.name.startswith(start))
    found = make(loaded, config)
    first, last = config.published_from, config.published_before
    if first or last:
        found = [task for task in found if task.published and first <= task.published < (last or "9999")]
    if not found:
        raise UserError(f"{loaded.path}: {loaded.name} has no problem published from {first} and before {last}")
    return found


# ------------------------------------------------------------------------------------------- HumanEval and its children


def _functions(loaded: Loaded, config: EvaluateConfig) -> list[Exercise]:
    return [task_of(problem) for problem in loaded.problems if isinstance(problem, FunctionProblem)]


def _plus(loaded: Loaded, config: EvaluateConfig) -> list[Exercise]:
    """HumanEval+ and MBPP+, whose answers are compared on the inputs of the older set, too."""
    problems = [problem for problem in loaded.problems if isinstance(problem, DifferentialProblem)]
    found = functions(problems, loaded.sha256, workers=config.workers)
    olders = functions(problems, loaded.sha256, workers=config.workers, older=True)
    return [replace(task_of(one), older=older) for one, older in zip(found, olders, strict=True)]


_INFILLING = "Fill in what is missing at `<gap>` in this Python code. Answer with the missing lines alone, indented as"


def _infilling(loaded: Loaded, config: EvaluateConfig) -> list[Exercise]:
    found = []
    for each in loaded.problems:
        assert isinstance(each, InfillingProblem)
        before, after = each.function.prompt, each.suffix
        start, end, middle = config.fim
        message = f"{_INFILLING} there, in a markdown code block:\n```python\n{before}<gap>{after}\n```\n"
        text = f"{start}{before}{end}{after}{middle}"
        one_line = "single-line" in loaded.name
        stops = ("\n",) if one_line else ("<|endoftext|>", "</s>", "<|endofmask|>", start, end, middle)
        found.append(Exercise(each.function, "middle", suffix=after, text=text, message=message, stops=stops))
    return found


# -------------------------------------------------------------------------------------------------------------- MBPP

_DONE = ("[DONE]", "<|endoftext|>", "</s>", "\n\n\n\n")


def _mbpp(loaded: Loaded, config: EvaluateConfig) -> list[Exercise]:
    """The test split with three tasks shown, whichever half the file holds."""
    opencoder = config.prompts == "opencoder"
    split = mbpp.OPENCODER_TEST if opencoder else mbpp.TEST
    found = []
    for row, problem in zip(loaded.rows, loaded.problems, strict=True):
        if row["task_id"] in split:
            assert isinstance(problem, FunctionProblem | ProgramProblem)
            if opencoder:
                text = message = mbpp.opencoder_shots(loaded.rows, row)
                stops = config.stop[: config.stop.index("\ndef ")] if "\ndef " in config.stop else config.stop
            else:
                text, stops = mbpp.shots(loaded.rows, row), _DONE
                message = mbpp.message(row) + "\nAnswer with the program in a markdown code block.\n"
            found.append(Exercise(problem, "whole", text=text, message=message, stops=stops, opencoder_seconds=3))
    return found


# ----------------------------------------------------------------------------------------------------------- contests

_STDIN, _CALLED = "Use Standard Input format", "Use Call-Based format"
_READS = "It must read the standard input and print the answer."
_ENDS = ("\nQUESTION:", "\n---", "<|endoftext|>", "</s>", "###")


def _contest(loaded: Loaded, config: EvaluateConfig) -> list[Exercise]:
    """APPS and LiveCodeBench: programs that read and print, or a function of a site's class."""
    dates = {str(row.get("question_id")): str(row.get("contest_date") or "")[:10] for row in loaded.rows}
    found = []
    for problem in loaded.problems:
        assert isinstance(problem, FunctionProblem | ProgramProblem)
        called = isinstance(problem, FunctionProblem)
        text = f"\nQUESTION:\n{problem.prompt.strip()}\n{_CALLED if called else _STDIN}\nANSWER:\n"
        how = f"The function is called {problem.entry_point}." if isinstance(problem, FunctionProblem) else _READS
        message = (
            f"Write a Python program that solves this problem. {how} Answer with the whole program in a markdown "
            f"code block.\n\n{problem.prompt.strip()}\n"
        )
        opening = apps.PREAMBLE if called else ""
        day = dates.get(problem.task_id, "")
        found.append(
            Exercise(problem, "whole", opening=opening, text=text, message=message, stops=_ENDS, published=day)
        )
    return found


# ------------------------------------------------------------------------------- whole programs with tests behind them


def _bigcodebench(loaded: Loaded, config: EvaluateConfig) -> list[Exercise]:
    found = []
    for row, problem in zip(loaded.rows, loaded.problems, strict=True):
        assert isinstance(problem, ProgramProblem)
        complete = loaded.name.endswith("complete")
        message = asked(problem.prompt) if complete else f"{problem.prompt.strip()}\n"
        form: Form = "continues" if complete else "whole"
        # The imports and the signature stand in front of every answer, as in the published "calibrated" scores.
        opening = f"{row['code_prompt']}\n    pass\n"
        text = problem.prompt.strip() + "\n"
        found.append(Exercise(problem, form, opening=opening, text=text, message=message, opencoder_seconds=10))
    return found


def _polyglot(loaded: Loaded, config: EvaluateConfig) -> list[Exercise]:
    """MultiPL-E and HumanEval-X: a function is begun. In a conversation the answer brings it whole."""
    found = []
    for problem in loaded.problems:
        assert isinstance(problem, ProgramProblem)
        text = problem.prompt.strip()
        message = (
            f"Please provide a self-contained {problem.language} program that completes the following function, in a "
            f"markdown code block; leave out tests and a main function:\n```{problem.language.lower()}\n{text}\n```\n"
        )
        stops = problem.stops or ("\n}\n",)
        judged = whole(problem) if config.chat else problem
        # Completions go on with the prompt to the byte: MultiPL-E's end within a line's indentation.
        found.append(Exercise(judged, "continues", text=problem.prompt, message=message, stops=stops))
    return found


def _mceval(loaded: Loaded, config: EvaluateConfig) -> list[Exercise]:
    found = []
    for problem in loaded.problems:
        assert isinstance(problem, ProgramProblem)
        found.append(Exercise(problem, "whole", text=problem.prompt.strip() + "\n", message=problem.prompt))
    return found


def _cruxeval(loaded: Loaded, config: EvaluateConfig) -> list[Exercise]:
    found = []
    for problem in loaded.problems:
        assert isinstance(problem, FunctionProblem)
        message = (
            f"Complete the assertion so that it holds, with a literal in place of the gap:\n```python\n"
            f"{problem.prompt}\n```\nAnswer with what belongs in the gap alone, in a markdown code block.\n"
        )
        stops = ("\n", ") ==") if problem.task_id.endswith("/input") else ("\n", "#")
        found.append(Exercise(problem, "expression", text=problem.prompt, message=message, stops=stops))
    return found


_MAKERS: tuple[tuple[str, Callable[[Loaded, EvaluateConfig], list[Exercise]]], ...] = (
    ("humaneval-infilling", _infilling),
    ("humaneval-x", _polyglot),
    ("humaneval+", _plus),
    ("mbpp+", _plus),
    ("humaneval", _functions),
    ("mbpp", _mbpp),
    ("apps", _contest),
    ("livecodebench", _contest),
    ("bigcodebench", _bigcodebench),
    ("multipl-e", _polyglot),
    ("mceval", _mceval),
    ("cruxeval", _cruxeval),
)


# Seconds and bytes that a benchmark's own harness gives a program, or its references take on a slow machine.
_LIMITS = (
    ("humaneval+", 20, 4 << 30),
    ("mbpp+", 20, 4 << 30),
    ("livecodebench", 6, 4 << 30),
    ("apps", 4, 4 << 30),
    ("bigcodebench", 60, 30 << 30),
    ("multipl-e", 15, 2 << 30),
    ("humaneval-x", 15, 2 << 30),
    ("mceval", 15, 2 << 30),
)


def fitting(config: EvaluateConfig, name: str, found: Sequence[Exercise]) -> EvaluateConfig:
    """The configuration with a benchmark's limits, and the profiles that it has."""
    seconds, memory = next((limits for start, *limits in _LIMITS if name.startswith(start)), (0, 0))
    known = config.profiles if found[0].opencoder_seconds else ("strict",)
    return replace(
        config,
        profiles=known,
        cpu_seconds=max(config.cpu_seconds, seconds),
        memory_bytes=max(config.memory_bytes, memory),
    )


def references(found: Sequence[Exercise]) -> list[Sample]:
    """The benchmark's own answers, where it has them: they tell whether it is judged right here."""
    return [
        Sample(task.task_id, 0, "completion" if task.form in ("function", "middle", "expression") else "solution", code)
        for task in found
        if (code := task.problem.solution)
    ]
