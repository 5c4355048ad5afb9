"""Problems planted in documents: verbatim, re-indented, renamed, inside a longer file; whole or a part alone."""

import ast
import random
import textwrap
from collections.abc import Iterator, Sequence
from functools import cache
from typing import NamedTuple

from opencoder_jax.beam_pipelines.decontamination.programs import programs
from opencoder_jax.benchmarks.problems import Problem

# What people call things; more names than the largest problem binds are numbered.
NAMES = (
    *("data", "value", "result", "item", "acc", "left", "right", "cur", "tmp", "seq", "obj", "cnt", "elem", "other"),
    *("first", "second", "total", "flag", "state", "entry", "amount", "idx", "pos", "node", "head", "tail", "store"),
    *"uvwpqkijnxyz",
)


class Planted(NamedTuple):
    """A text that gives a problem away."""

    part: str  # problem | prompt | solution | tests
    form: str  # verbatim | re-indented | renamed | longer file
    text: str


def planted(problem: Problem, host: str, seed: int) -> Iterator[Planted]:
    """A problem in all ways. `host` is the file that becomes longer."""
    prompt = problem.texts[0]
    solution = next(programs(problem), "")  # the first program is the whole one
    whole = solution if prompt in solution else f'"""{prompt}"""\n{solution}'
    parts = {"problem": whole, "prompt": prompt, "solution": solution, "tests": "\n".join(problem.tests)}
    for part, text in parts.items():
        if text:
            yield Planted(part, "verbatim", text)
            yield Planted(part, "re-indented", reindented(text))
            yield Planted(part, "longer file", inside(text, host, seed))
    if solution:
        # The strictest: nothing but the program, with neither its comments nor its docstrings.
        yield Planted("solution", "renamed", renamed(solution, seed))
        yield Planted("problem", "renamed", f"# {' '.join(prompt.split())}\n{renamed(solution, seed)}")


def reindented(code: str) -> str:
    """Twice the indentation, in a class, with the line ends of Windows."""
    lines = []
    for line in code.splitlines():
        body = line.lstrip()
        lines.append(line[: len(line) - len(body)] * 2 + body)
    return ("class Answer:\n" + textwrap.indent("\n".join(lines), "\t")).replace("\n", "\r\n")


def inside(code: str, host: str, seed: int) -> str:
    """The code between two statements of a Python file."""
    lines = host.splitlines()
    # A decorator stands before the line that its function is said to begin in.
    statement = random.Random(seed).choice(_body(host))
    place = min([statement.lineno, *(line.lineno for line in getattr(statement, "decorator_list", ()))]) - 1
    return "\n".join([*lines[:place], code, *lines[place:]])


@cache
def _body(host: str) -> list[ast.stmt]:
    return ast.parse(host).body


def renamed(code: str, seed: int) -> str:
    """The program with other names for its variables, arguments and functions, as `ast.unparse` writes it.

    Docstrings and comments are gone, since they would tell. Raises SyntaxError where it isn't Python.
    """
    tree = ast.parse(code)
    used = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    bound = sorted(_bound(tree))
    names = [name for name in NAMES if name not in used and name not in bound]
    random.Random(seed).shuffle(names)
    names += [f"name{number}" for number in range(len(bound))]
    return ast.unparse(ast.fix_missing_locations(_Rename(dict(zip(bound, names, strict=False))).visit(tree)))


def _bound(tree: ast.Module) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.arg):
            names.add(node.arg)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
        elif isinstance(node, ast.ExceptHandler) and node.name:
            names.add(node.name)
    # What is found by its name from outside can't be renamed: methods that Python calls, and attributes.
    return {name for name in names if not name.startswith("__")} - _methods(tree)


def _methods(tree: ast.Module) -> set[str]:
    classes = [node for node in ast.walk(tree) if isinstance(node, ast.ClassDef)]
    return {child.name for node in classes for child in node.body if isinstance(child, ast.FunctionDef)}


class _Rename(ast.NodeTransformer):
    def __init__(self, names: dict[str, str]) -> None:
        self.names = names
        self.own = set(names.values())

    def _new(self, name: str) -> str:
        return self.names.get(name, name)

    def visit_Name(self, node: ast.Name) -> ast.AST:
        node.id = self._new(node.id)
        return node

    def visit_arg(self, node: ast.arg) -> ast.AST:
        node.arg = self._new(node.arg)
        return self.generic_visit(node)

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        node.name = self._new(node.name)
        node.body = _without_docstring(node.body)
        return self.generic_visit(node)

    def visit_ClassDef(self, node: ast.ClassDef) -> ast.AST:
        node.name = self._new(node.name)
        node.body = _without_docstring(node.body)
        return self.generic_visit(node)

    def visit_Call(self, node: ast.Call) -> ast.AST:
        self.generic_visit(node)
        if isinstance(node.func, ast.Name) and node.func.id in self.own:  # f(n=1), where f is the program's own
            for keyword in node.keywords:
                keyword.arg = keyword.arg and self._new(keyword.arg)
        return node

    def visit_ExceptHandler(self, node: ast.ExceptHandler) -> ast.AST:
        node.name = node.name and self._new(node.name)
        return self.generic_visit(node)

    def visit_Global(self, node: ast.Global) -> ast.AST:
        node.names = [self._new(name) for name in node.names]
        return node

    def visit_Nonlocal(self, node: ast.Nonlocal) -> ast.AST:
        node.names = [self._new(name) for name in node.names]
        return node


def _without_docstring(body: Sequence[ast.stmt]) -> list[ast.stmt]:
    first, *rest = body
    if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant) and isinstance(first.value.value, str):
        return rest or [ast.Pass()]
    return list(body)
