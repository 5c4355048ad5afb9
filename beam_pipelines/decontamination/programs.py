"""The programs that solve a problem, and the names that they give."""

import symtable
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
            waiting = [symtable.symtable(program, "program", "exec")]
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None
    names = set()
    while waiting:
        scope = waiting.pop()
        waiting += scope.get_children()
        for symbol in scope.get_symbols():
            if (symbol.is_assigned() or symbol.is_parameter()) and not symbol.is_imported():
                names.add(symbol.get_name())
    return frozenset(filter(str.isidentifier, names))  # a comprehension has a parameter `.0`
