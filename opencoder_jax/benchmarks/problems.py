"""Benchmarks: what evaluation scores and decontamination looks for, read by one reader.

A benchmark is a file of JSON lines (also .gz or .zst), a problem a line. Its fields are told by their names: FORMATS
has those of published benchmarks, and one that names them otherwise is a row more. A field may hold a string, a list
of strings, or the JSON of such a list (as APPS has its solutions).

The files NAME.jsonl beside this module are the project's own and are found by NAME. `problems` has 228 of them from
one-liners upwards, with a `level` of 1 to 4, each of them original, so that a model of some million weights has
something to hit.
"""

import hashlib
import json
import re
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

from opencoder_jax import files
from opencoder_jax.recipe import UserError

OWN = "problems"  # the project's own benchmark


class Fields(NamedTuple):
    """The names of the fields that hold what is asked, programs, and tests; of each kind all that are there count."""

    texts: tuple[str, ...] = ()
    solutions: tuple[str, ...] = ()
    tests: tuple[str, ...] = ()


FORMATS = {
    "HumanEval": Fields(("prompt",), ("canonical_solution",), ("test",)),
    "MultiPL-E": Fields(("prompt",), (), ("tests",)),
    "MBPP": Fields(("text",), ("code",), ("test_list", "challenge_test_list")),
    "MBPP+": Fields(("prompt",), ("code",), ("test", "test_list", "assertion")),
    "KodCode": Fields(("question",), ("solution",), ("test_code",)),
    "Educational-Instruct": Fields(("instruction", "output"), ("code",), ("testcase",)),
    "CodeContests": Fields(("description",), ("solutions",)),
    "APPS": Fields(("question", "starter_code"), ("solutions",)),
    "BigCodeBench": Fields(("complete_prompt", "instruct_prompt"), ("canonical_solution",), ("test",)),
    "DS-1000": Fields(("prompt",), ("reference_code",)),
    "LiveCodeBench": Fields(("question_content", "starter_code")),
    "HumanEval-X": Fields(("prompt", "declaration"), ("canonical_solution",), ("test",)),
    "LeetCodeDataset": Fields(("problem_description", "starter_code", "prompt"), ("completion",), ("test",)),
    "others": Fields(("problem", "problem_statement", "problem_description")),
}

_TASKS = ("task_id", "name", "problem_id", "question_id", "id")  # MultiPL-E has a name instead of an id, APPS a number

# What introduces a function's name in most languages; the last line of a prompt is where others begin theirs.
DEFINED = re.compile(r"\b(?:def|function|func|fun|fn|sub|proc)\s+(\w+)")
_TESTING = re.compile("input|output|test|assert|expected|contract", re.IGNORECASE)  # in names of fields
_CALLED = re.compile(r"(\w+)\s*\(")


@dataclass(frozen=True)
class Problem:
    """One problem of a benchmark.

    Attributes:
        benchmark: the name of its file.
        task: its id there.
        entry_point: the function that its tests call; "" where it has none.
        texts: what is asked: prompts, descriptions.
        solutions: programs, or what follows a prompt.
        tests: their source.
        level: how hard it is, where that is a number.
        line: of the file, from 1.
    """

    benchmark: str
    task: str
    entry_point: str
    texts: tuple[str, ...] = ()
    solutions: tuple[str, ...] = ()
    tests: tuple[str, ...] = ()
    level: int | None = None
    line: int = 1

    @property
    def called(self) -> str:
        """The entry point's own name: `twoSum` of `Solution().twoSum`."""
        return next(reversed(re.findall(r"\w+", self.entry_point)), "")

    @property
    def name(self) -> str:
        return f"{self.benchmark}: {self.task}"


@dataclass(frozen=True)
class Benchmark:
    """The problems of a file; its SHA-256 tells it from others wherever it lies.

    Attributes:
        read_fields, ignored_fields: those that any problem was read from, and the others.
    """

    name: str
    sha256: str
    problems: tuple[Problem, ...]
    read_fields: tuple[str, ...] = ()
    ignored_fields: tuple[str, ...] = ()

    @classmethod
    def read(cls, name: str, fields: Fields | None = None) -> "Benchmark":
        """Reads a benchmark.

        Args:
            name: a file's path, or the name of one of the project's own.
            fields: how its fields are called; without it, as in any of FORMATS.

        Raises:
            UserError: naming the file and line: it's missing, damaged, or a line has none of the fields.
        """
        own = Path(__file__).parent / f"{name}.jsonl"
        path = own if own.is_file() else Path(name)
        fields = fields or known_fields()
        problems = []
        used: dict[str, bool] = {}
        for number, row in files.read_lines(path):
            for key, value in row.items():
                known = key in (*_TASKS, "entry_point") or (key == "level" and isinstance(value, int))
                used[key] = used.get(key, False) or known or (key in chain(*fields) and bool(_strings(row, (key,))))
            problem = read_problem(path.name, number, row, fields)
            if not (problem.texts or problem.solutions or problem.tests):
                raise UserError(
                    f"{path}, line {number}: has none of the fields {', '.join(chain(*fields))}; it has "
                    f"{', '.join(row) or 'none'}. Add a row to FORMATS in opencoder_jax/benchmarks/problems.py, or for "
                    "decontamination alone name them: --gin.DecontaminateConfig.texts=(…), .solutions or .tests"
                )
            problems.append(problem)
        read, ignored = (tuple(key for key in used if used[key] is which) for which in (True, False))
        return cls(path.name, hashlib.sha256(path.read_bytes()).hexdigest(), tuple(problems), read, ignored)

    @property
    def told(self) -> str:
        """What was read of it, in a line for people."""
        kinds = ("texts", "solutions", "tests")
        lacking = [(sum(not getattr(problem, kind) for problem in self.problems), kind) for kind in kinds]
        return (
            f"{self.name}: {len(self.problems):,} problems; read {', '.join(self.read_fields) or 'no field'}; ignored "
            f"{', '.join(self.ignored_fields) or 'none'}; "
            + (", ".join(f"{count:,} without {kind}" for count, kind in lacking if count) or "all with all parts")
        )


class FunctionProblem(NamedTuple):
    """A problem that a model's answer can be judged on, in HumanEval's form: one function is asked for.

    Attributes:
        task_id: its id.
        prompt: the function's signature with its docstring.
        entry_point: the function's name.
        test: defines `check(candidate)`, which raises unless the function is right.
        solution: goes on behind the prompt; "" where none is known.
        level: as Problem has it.
        ending: source that goes behind every answer, in its own process.
    """

    task_id: str
    prompt: str
    entry_point: str
    test: str
    solution: str = ""
    level: int | None = None
    ending: str = ""


def function_problems(benchmark: Benchmark) -> list[FunctionProblem]:
    """The problems of a benchmark for evaluation.

    Raises:
        UserError: there's none, or one isn't of that form; the message names its line.
    """
    if unread := [name for name in benchmark.ignored_fields if _TESTING.search(name)]:
        raise UserError(
            f"{benchmark.name}: {', '.join(unread)} may hold tests, and aren't read: the score would be another "
            "benchmark's (HumanEval's, where this is HumanEval+). Write all tests into `check`, or remove the fields"
        )
    found: dict[str, FunctionProblem] = {}
    for problem in benchmark.problems:
        place = f"{benchmark.name}, line {problem.line}"
        tests = [test for test in problem.tests if "def check(" in test]
        if not problem.texts or not tests:
            lacking = "test that defines check(candidate)" if problem.texts else "prompt"
            raise UserError(f"{place}: has no {lacking}; a problem to be scored is like one of HumanEval.jsonl.gz")
        if problem.task in found:
            raise UserError(f"{place}: {problem.task} stands in the file twice")
        if not problem.entry_point.isidentifier():
            raise UserError(f"{place}: the entry point {problem.entry_point!r} is no name of a function")
        found[problem.task] = FunctionProblem(
            problem.task, problem.texts[0], problem.entry_point, tests[0], "".join(problem.solutions[:1]), problem.level
        )
    if not found:
        raise UserError(f"{benchmark.name}: holds no problems; each is a line of JSON, as in HumanEval.jsonl.gz")
    return list(found.values())


def known_fields() -> Fields:
    """The names of all FORMATS, each once."""
    return Fields(*(tuple(dict.fromkeys(chain(*names))) for names in zip(*FORMATS.values(), strict=True)))


def read_problem(benchmark: str, line: int, row: dict[str, Any], fields: Fields) -> Problem:
    """The problem in a line of a benchmark."""
    texts, solutions, tests = (_strings(row, names) for names in fields)
    task = next((row[key] for key in _TASKS if key in row), f"line {line}")
    entry_point = str(row.get("entry_point") or _entry_point(texts, solutions, tests))
    level = row.get("level")
    return Problem(
        benchmark, str(task), entry_point, texts, solutions, tests, level if isinstance(level, int) else None, line
    )


def _strings(row: dict[str, Any], names: Sequence[str]) -> tuple[str, ...]:
    """The strings of some fields, each once; lists of tests are one string, as they'd stand in a file."""
    found: list[str] = []
    for name in names:
        value = row.get(name)
        if isinstance(value, str) and value[:1] == "[":
            with suppress(ValueError):  # a program may begin with a bracket
                value = json.loads(value)
        if isinstance(value, dict):  # CodeContests has languages beside
            value = value.get("solution")
        if isinstance(value, str):
            found.append(value)
        elif isinstance(value, list):
            strings = [item for item in value if isinstance(item, str)]
            found += strings if name == "solutions" else ["\n".join(strings)]
    return tuple(dict.fromkeys(text for text in found if text.strip()))


def _entry_point(texts: Sequence[str], solutions: Sequence[str], tests: Sequence[str]) -> str:
    """The last function that the problem defines and its tests know."""
    tested = set(re.findall(r"\w+", "\n".join(tests)))
    for program in (*solutions, *texts):
        lines = program.rstrip().splitlines()
        for names in (DEFINED.findall(program), _CALLED.findall(lines[-1]) if lines else []):
            if known := [name for name in names if name in tested]:
                return known[-1]
    return ""
