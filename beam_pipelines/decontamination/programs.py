"""The programs that solve a problem."""

import re
from collections.abc import Iterator

from opencoder_jax.beam_pipelines.decontamination.names import python_names
from opencoder_jax.benchmarks.problems import DEFINED, Problem

_BEGINS = re.compile(r"(?:.*(?:[;{}]|\*/))?\s*(.+\{)\s*\Z", re.DOTALL)  # the head of a function at the end of a text
_SKIPPED = re.compile(r"//[^\n]*|/\*.*?\*/|\"(?:\\.|[^\"\\\n])*\"|'(?:\\.|[^'\\\n])'|[{}]", re.DOTALL)


def programs(problem: Problem) -> Iterator[str]:
    """The problem's solutions; before one that goes on with a prompt, as HumanEval's do, both together."""
    for solution in problem.solutions:
        if solution[:1] in (" ", "\t", "\n"):
            for text in problem.texts:
                if begins := _BEGINS.match(text):
                    yield begins[1] + "\n" + solution[: _end(solution)]
                elif DEFINED.search(text) and python_names(text + solution) is not None:
                    yield text + solution
        yield solution


def _end(body: str) -> int:
    """Where the bracket stands that closes one before a body."""
    depth = 1
    for match in _SKIPPED.finditer(body):
        depth += {"{": 1, "}": -1}.get(match.group(), 0)
        if not depth:
            return match.end()
    return len(body)
