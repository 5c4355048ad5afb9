"""The programs that solve a problem, and the names that they give."""

import ast
import warnings
from collections.abc import Iterator

from opencoder_jax.benchmarks.problems import DEFINED, Problem


def programs(problem: Problem) -> Iterator[str]:
    """The problem's solutions; before one that goes on with a prompt, as HumanEval's do, both together."""
    for solution in problem.solutions:
        if solution[:1] in (" ", "\t", "\n"):
            for text in problem.texts:
                if DEFINED.search(text) and _bound(text + solution) is not None:
                    yield text + solution
        yield solution


def bound_names(program: str) -> frozenset[str]:
    """What a Python program, or a body alone, calls its own variables, arguments and functions; else nothing."""
    return _bound(program) or _bound(f"def f():\n{program}") or frozenset()


def _bound(program: str) -> frozenset[str] | None:
    """The names that a Python program binds; None where it's none."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # "invalid escape sequence"
            tree = ast.parse(program)
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
