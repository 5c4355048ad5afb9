"""Evaluation problems as decontamination needs them: what is asked, how it's solved, how it's tested, what it's called.

A benchmark is a file of JSON lines (also .gz or .zst). Fields are told by their names, which cover HumanEval and
HumanEval+, MBPP, APPS, MultiPL-E, BigCodeBench and DS-1000; others are named in the configuration. A field may hold a
string, a list of strings, or the JSON of such a list (as APPS has its solutions).
"""

import ast
import gzip
import json
import re
import warnings
import zlib
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import xxhash

from opencoder_jax.recipe import UserError

# What introduces a function's name in most languages; the last line of a prompt is where others begin theirs.
_DEFINED = re.compile(r"\b(?:def|function|func|fun|fn|sub|proc)\s+(\w+)")
_CALLED = re.compile(r"(\w+)\s*\(")


@dataclass(frozen=True)
class Fields:
    """Which fields of a line are what; of each kind all that are there count."""

    texts: tuple[str, ...]
    solutions: tuple[str, ...]
    tests: tuple[str, ...]


@dataclass(frozen=True)
class Solution:
    """A program, and the names that it gives to variables, arguments and functions (none where it isn't Python)."""

    code: str
    bound: frozenset[str]


@dataclass(frozen=True)
class Problem:
    """One problem of a benchmark.

    Attributes:
        benchmark: the name of its file.
        task: its id there.
        entry_point: the function that its tests call; "" where it has none.
        texts: what is asked: prompts, descriptions.
        solutions: whole programs, and the parts that a model would write.
        tests: their source.
    """

    benchmark: str
    task: str
    entry_point: str
    texts: tuple[str, ...]
    solutions: tuple[Solution, ...]
    tests: tuple[str, ...]

    @property
    def name(self) -> str:
        return f"{self.benchmark}: {self.task}"


@dataclass(frozen=True)
class Benchmark:
    """The problems of a file; a digest names it wherever it lies."""

    name: str
    digest: str
    problems: tuple[Problem, ...]

    @classmethod
    def read(cls, path: str, fields: Fields) -> "Benchmark":
        """Reads a file, looked up beside the working directory and the repository.

        Raises:
            UserError: naming the file and line: it's missing, damaged, or a line has none of the fields.
        """
        place = Path(path) if Path(path).is_file() else Path(__file__).resolve().parent.parent.parent / path
        if not place.is_file():
            raise UserError(f"benchmark file {path}: no such file")
        data = place.read_bytes()
        problems = []
        for number, line in enumerate(_unpacked(place, data).split(b"\n"), 1):
            if line.strip():
                try:
                    row = json.loads(line)
                except ValueError:
                    row = None
                if not isinstance(row, dict):
                    raise UserError(f"{path}:{number}: not a JSON object")
                problem = read_problem(place.name, number, row, fields)
                if not (problem.texts or problem.solutions or problem.tests):
                    known = ", ".join(fields.texts + fields.solutions + fields.tests)
                    raise UserError(
                        f"{path}:{number}: has none of the fields {known}; it has {', '.join(row) or 'none'}. "
                        "Name them: --gin.DecontaminateConfig.texts=(…), .solutions or .tests"
                    )
                problems.append(problem)
        return cls(place.name, xxhash.xxh3_128_hexdigest(data), tuple(problems))


def _unpacked(place: Path, data: bytes) -> bytes:
    try:
        if place.suffix == ".gz":
            return gzip.decompress(data)
        if place.suffix == ".zst":
            return bytes(pa.CompressedInputStream(pa.BufferReader(data), "zstd").read())
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"benchmark file {place}: can't be unpacked ({error})") from None
    return data


def read_problem(benchmark: str, number: int, row: dict[str, Any], fields: Fields) -> Problem:
    """The problem in a line of a benchmark."""
    texts = _strings(row, fields.texts)
    solutions = _strings(row, fields.solutions)
    tests = _strings(row, fields.tests)
    # MultiPL-E has a name instead of an id, APPS a number.
    task = next((row[key] for key in ("task_id", "name", "problem_id", "id") if key in row), f"line {number}")
    return Problem(
        benchmark,
        str(task),
        str(row.get("entry_point") or _entry_point(texts, solutions, tests)),
        tuple(texts),
        tuple(_solution(program) for solution in solutions for program in _programs(texts, solution)),
        tuple(tests),
    )


def _strings(row: dict[str, Any], names: Sequence[str]) -> list[str]:
    """The strings of some fields, each once; lists of tests are one string, as they'd stand in a file."""
    found: list[str] = []
    for name in names:
        value = row.get(name)
        if isinstance(value, str) and value[:1] == "[":
            with suppress(ValueError):  # a program may begin with a bracket
                value = json.loads(value)
        if isinstance(value, str):
            found.append(value)
        elif isinstance(value, list):
            strings = [item for item in value if isinstance(item, str)]
            found += strings if name == "solutions" else ["\n".join(strings)]
    return list(dict.fromkeys(text for text in found if text.strip()))


def _entry_point(texts: Sequence[str], solutions: Sequence[str], tests: Sequence[str]) -> str:
    """The last function that the problem defines and its tests know."""
    tested = set(re.findall(r"\w+", "\n".join(tests)))
    for program in (*solutions, *texts):
        lines = program.rstrip().splitlines()
        for names in (_DEFINED.findall(program), _CALLED.findall(lines[-1]) if lines else []):
            if known := [name for name in names if name in tested]:
                return known[-1]
    return ""


def _programs(texts: Sequence[str], solution: str) -> Iterator[str]:
    """The solution, and where it goes on with a prompt (as HumanEval's do) both together."""
    if solution[:1] in (" ", "\t", "\n"):
        for text in texts:
            if _DEFINED.search(text) and _bound(text + solution) is not None:
                yield text + solution
    yield solution


def _solution(code: str) -> Solution:
    # A body alone is Python inside of a function.
    return Solution(code, _bound(code) or _bound(f"def f():\n{code}") or frozenset())


def _bound(code: str) -> frozenset[str] | None:
    """The names that a Python program binds; None where it's none."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # "invalid escape sequence"
            tree = ast.parse(code)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None
    names = set()
    for node in ast.walk(tree):
        match node:
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
                names.add(name)
            case ast.arg(arg=name) | ast.Name(id=name, ctx=ast.Store()) | ast.ExceptHandler(name=str(name)):
                names.add(name)
    return frozenset(names)
