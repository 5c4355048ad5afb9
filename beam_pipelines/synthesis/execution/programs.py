"""A solution and its tests as a program for the sandbox, each in a process of its own wherever that can be.

Tests reach the solution's functions through the judge's channel and get plain values back. So a solution can't leave
early, patch what compares, or answer with an object that equals everything; and tests can't be passed by whoever ends
the process. Where tests make objects of the solution's classes, both must share one process, and mutants
(mutants.py) alone show that the tests can fail.
"""

import ast
from typing import NamedTuple

from opencoder_jax.beam_pipelines.synthesis import doctests
from opencoder_jax.sandbox.program import Candidate, Program

_ENTRY = "_asked_by_name"
# The solution's side: which function is meant is said with each call.
_ANSWER = f"\n\n\ndef {_ENTRY}(name, /, *arguments, **keywords):\n    return globals()[name](*arguments, **keywords)\n"
_ASK = "{name} = lambda *arguments, **keywords: candidate({name!r}, *arguments, **keywords)"


class Unfit(Exception):
    """Solution and tests make no program; the message is the reason by which that is counted."""


class SolutionWithTests(NamedTuple):
    """A solution with its tests.

    Attributes:
        solution: a module that defines functions.
        tests: statements, some of which are to raise AssertionError where the functions are wrong.
    """

    solution: str
    tests: str

    def functions(self) -> list[str]:
        """The solution's functions that the tests call by their names.

        Raises:
            Unfit: one of the two isn't Python, or there are none.
        """
        defined = {node.name for node in parsed(self.solution, "solution").body if isinstance(node, ast.FunctionDef)}
        tree = parsed(self.tests, "tests")
        # `check(f)` hands a function on, and counts too; a test that defines the name anew tests itself.
        used = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)}
        found = sorted((defined & used) - _bound(tree.body))
        if not any(isinstance(node, ast.Assert) for node in ast.walk(tree)):
            raise Unfit("tests assert nothing")
        if not found:
            raise Unfit("tests never call the solution")
        return found

    def program(self) -> Program:
        """What ends well only if all tests pass. Raises Unfit, as `functions` does."""
        functions = self.functions()
        module, tests = parsed(self.solution, "solution"), parsed(self.tests, "tests")
        used = {node.id for node in ast.walk(tests) if isinstance(node, ast.Name)}
        others = _bound([node for node in module.body if not isinstance(node, ast.Import | ast.ImportFrom)])
        if used & others - set(functions):
            return Program(f"{self.solution}\n\n\n{self.tests}\n")
        imports = [ast.unparse(node) for node in module.body if isinstance(node, ast.Import | ast.ImportFrom)]
        names = [_ASK.format(name=name) for name in functions]
        judge = "\n".join([*imports, *names, self.tests]) + "\n"
        return Program(judge, candidate=Candidate(self.solution + _ANSWER, _ENTRY))


def parsed(source: str, what: str) -> ast.Module:
    """The tree of a program. Raises Unfit, naming `what` it is, for what isn't Python."""
    if (module := doctests.parsed(source)) is None:
        raise Unfit(f"{what}: not Python")
    return module


def _bound(statements: list[ast.stmt]) -> set[str]:
    """The names that a module's own statements define or assign."""
    found = set()
    for node in statements:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            found.add(node.name)
        else:
            found |= {
                each.id for each in ast.walk(node) if isinstance(each, ast.Name) and isinstance(each.ctx, ast.Store)
            }
    return found
