"""Contest problems: APPS as codeparrot/apps publishes it, LiveCodeBench as livecodebench/code_generation_lite does."""

import base64
import io
import json
import pickle
import zlib
from collections.abc import Iterable
from datetime import date
from typing import Any

from opencoder_jax.benchmarks.problems import FunctionProblem
from opencoder_jax.benchmarks.programs import ProgramProblem
from opencoder_jax.recipe import UserError

Row = dict[str, Any]

_TOLERANCE = (1e-08, 1e-05)  # numpy's allclose, by which APPS' own evaluator compares numbers

# The function of a contest's site is a method of a class there; JSON has neither tuples nor other keys than strings.
_TEST = """
import json as _json
_CASES = _json.loads({cases!r})

def _plain(value):
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return {{str(key): _plain(item) for key, item in value.items()}} if isinstance(value, dict) else value

def check(candidate):
    for _number, (_given, _wanted) in enumerate(_CASES):
        _got = _plain(candidate(*_given))
        assert _got == _wanted{or_first}, f"case {{_number}}: {{_got!r:.200}} is not {{_wanted!r:.200}}"
"""
# Behind an answer: its function by its name, where it is a method of the site's class.
_ENDING = """

if "Solution" in globals():
    {0} = getattr(Solution(), {0!r})
"""
# What contest sites import in front of an answer.
PREAMBLE = (
    "from typing import *\nfrom collections import *\nfrom functools import *\nfrom heapq import *\n"
    "from itertools import *\nfrom bisect import *\nimport collections, heapq, itertools, math, re, string\n"
)


def apps(rows: Iterable[Row]) -> list[FunctionProblem | ProgramProblem]:
    """APPS. A problem without tests is left out: nothing could be judged."""
    found: list[FunctionProblem | ProgramProblem] = []
    for row in rows:
        tests = json.loads(row["input_output"] or "{}")
        solutions = json.loads(row["solutions"] or "[]")
        task, solution = f"apps/{row['problem_id']}", solutions[0] if solutions else ""
        prompt = row["question"].rstrip() + "\n\n" + row["starter_code"]
        if name := tests.get("fn_name"):
            cases = list(zip(tests["inputs"], tests["outputs"], strict=True))
            found.append(_function(task, prompt, name, cases, solution, first=True))
        elif tests.get("inputs"):
            texts = tuple(
                (_text(given), _text(wanted)) for given, wanted in zip(tests["inputs"], tests["outputs"], strict=True)
            )
            found.append(
                ProgramProblem(task, prompt, solution, cases=texts, tolerance=_TOLERANCE, level=row["difficulty"])
            )
    return found


def livecodebench(rows: Iterable[Row]) -> list[FunctionProblem | ProgramProblem]:
    """LiveCodeBench's code generation. Its days stand with the problems: `programs.within` takes those of a window."""
    found: list[FunctionProblem | ProgramProblem] = []
    for row in rows:
        tests = [*_json(row["public_test_cases"]), *_json(row.get("private_test_cases") or "[]")]
        name = _json(row.get("metadata") or "{}").get("func_name")
        prompt = row["question_content"].rstrip() + "\n\n" + row.get("starter_code", "")
        if name:
            cases = [
                ([json.loads(line) for line in test["input"].splitlines() if line.strip()], json.loads(test["output"]))
                for test in tests
            ]
            found.append(_function(row["question_id"], prompt, name, cases, "", first=False))
        else:
            found.append(
                ProgramProblem(
                    row["question_id"],
                    prompt,
                    cases=tuple((test["input"], test["output"]) for test in tests),
                    level=row.get("difficulty", ""),
                    published=day(row),
                )
            )
    return found


def day(row: Row) -> date | None:
    """When a problem's contest was."""
    return date.fromisoformat(row["contest_date"][:10]) if row.get("contest_date") else None


def between(rows: Iterable[Row], begin: date | None, end: date | None) -> list[Row]:
    """LiveCodeBench's rows whose contest was on `begin` or later and before `end`."""
    return [row for row in rows if (begin or date.min) <= (day(row) or date.min) < (end or date.max)]


def _function(
    task: str, prompt: str, name: str, cases: list[tuple[Any, Any]], solution: str, *, first: bool
) -> FunctionProblem:
    # Some outputs of APPS are the answer in a list; its evaluator takes either.
    or_first = " or (isinstance(_wanted, list) and _wanted[:1] == [_got])" if first else ""
    test = _TEST.format(cases=json.dumps(cases), or_first=or_first)
    return FunctionProblem(task, prompt, name, test, solution, ending=_ENDING.format(name))


def _text(lines: str | list[str]) -> str:
    return lines if isinstance(lines, str) else "\n".join(map(str, lines)) + "\n"


class _Strings(pickle.Unpickler):
    """Reads strings and what holds them; a pickle that names any class is refused, since it could run code."""

    def find_class(self, module: str, name: str) -> Any:
        raise UserError(f"a benchmark's tests name {module}.{name}: they may hold text only")


def _json(text: str) -> Any:
    """JSON, or the same pickled, compressed and in base 64, as private tests are."""
    try:
        return json.loads(text)
    except ValueError:
        try:
            unpacked = _Strings(io.BytesIO(zlib.decompress(base64.b64decode(text)))).load()
        except (ValueError, zlib.error, pickle.UnpicklingError, EOFError, IndexError) as error:
            raise UserError(f"tests that are neither JSON nor packed JSON: {text[:60]!r} ({error})") from None
        return json.loads(unpacked)
