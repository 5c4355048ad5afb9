"""CRUXEval: what does a program return on an input, and on which input does it return this? As published."""

import ast
from collections.abc import Iterable
from typing import Any, Literal

from opencoder_jax.benchmarks.problems import FunctionProblem

Row = dict[str, Any]
ANSWER = "answer"


def problems(rows: Iterable[Row], asked: Literal["output", "input"]) -> list[FunctionProblem]:
    """One of the two tasks. An answer is an expression, which `answer` turns into a program."""
    found = []
    for row in rows:
        code, given, wanted = row["code"], row["input"], row["output"]
        if asked == "output":
            test = f"assert candidate() == f({given})"
            prompt, solution = f"{code}\nassert f({given}) == ", wanted
        else:
            test = f"_given, _named = candidate()\nassert f(*_given, **_named) == {wanted}"
            prompt, solution = f"{code}\nassert f(", given
        source = f"{code}\n{test}\ndef check(candidate): pass\n"
        found.append(FunctionProblem(f"{row['id']}/{asked}", prompt, ANSWER, source, solution))
    return found


def answer(problem: FunctionProblem, expression: str) -> str | None:
    """A program whose function `answer` returns the value, or the arguments; None where that's no expression.

    A program that is asked for the output knows nothing of f, so that it can't call it; one that is asked for the input
    may use what the problem's code defines.
    """
    if problem.task_id.endswith("/output"):
        return f"def {ANSWER}():\n    return (\n{expression}\n)\n" if _is_one(f"(\n{expression}\n)") else None
    code = problem.prompt.removesuffix("\nassert f(")
    catch = f"def _caught(*given, **named):\n    return list(given), named\n\n\ndef {ANSWER}():\n"
    call = f"_caught(\n{expression}\n)"
    return f"{code}\n\n\n{catch}    return {call}\n" if _is_one(call) else None


def _is_one(expression: str) -> bool:
    try:
        tree = ast.parse(expression, mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    # A bracket in the answer must not close ours.
    return not expression.startswith("_caught") or isinstance(tree, ast.Call)
