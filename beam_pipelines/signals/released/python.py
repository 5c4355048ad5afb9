"""The released filter's signals of Python, where ours mend them."""

import ast
from collections.abc import Iterator

from opencoder_jax.beam_pipelines.signals.fixed import python
from opencoder_jax.beam_pipelines.signals.views.signal import Signal, lines_with, named, ratio
from opencoder_jax.beam_pipelines.signals.views.view import View

_PASS, _IMPORT = lines_with("pass", lower=True), lines_with("import", lower=True)


def cate_var_zero(view: View) -> float | None:
    """1 where no plain name is assigned to, looped over, or a positional argument."""
    return None if view.statements is None else float(not any(map(_binds, view.statements)))


def _binds(statement: ast.stmt) -> bool:
    if isinstance(statement, ast.Assign):
        return any(isinstance(target, ast.Name) for target in statement.targets)
    if isinstance(statement, ast.For):
        return isinstance(statement.target, ast.Name)
    return isinstance(statement, ast.FunctionDef) and bool(statement.args.args)


def frac_lines_func_ratio(view: View) -> float | None:
    """Functions, without async ones, by code lines."""
    if view.statements is None:
        return None
    return ratio(sum(isinstance(node, ast.FunctionDef) for node in view.statements), view.num_code_lines)


def frac_lines_simplefunc(view: View) -> float | None:
    """Functions, without async ones, whose body is one return statement, by code lines."""
    if view.statements is None:
        return None
    bodies = (node.body for node in view.statements if isinstance(node, ast.FunctionDef))
    return ratio(sum(len(body) == 1 and isinstance(body[0], ast.Return) for body in bodies), view.num_code_lines)


def frac_lines_pass(view: View) -> float:
    """Lines that hold "pass" anywhere, by code lines; 0 without code."""
    return _PASS(view) or 0.0


def frac_lines_import(view: View) -> float:
    """Lines that hold "import" anywhere, by code lines; 0 without code."""
    return _IMPORT(view) or 0.0


def score_lines_no_logic(view: View) -> float | None:
    """Functions, classes, lines with "import", returns, and plain variables of outermost classes, by code lines."""
    if view.tree is None or view.statements is None:
        return None
    definitions = sum(isinstance(node, ast.FunctionDef | ast.ClassDef) for node in view.statements)
    imports = sum("import" in line.lower() for line in view.code_lines)
    variables = sum(map(_plain_variables, _outermost_classes(view.tree)))
    return ratio(definitions + imports + return_lines(view.code_lines) + variables, view.num_code_lines)


def return_lines(lines: list[str]) -> int:
    """Lines that begin with `return`; a bare one takes the next line along."""
    total, position = 0, 0
    while position < len(lines):
        if lines[position] == "return":
            total += 1
            position += 1
        elif lines[position].startswith("return") and lines[position][6].isspace():
            total += 1
        position += 1
    return total


def _outermost_classes(tree: ast.Module) -> Iterator[ast.ClassDef]:
    """The classes that lie in no other class; a class inside a function is one."""
    queue: list[ast.AST] = [tree]
    while queue:
        for node in ast.iter_child_nodes(queue.pop()):
            if isinstance(node, ast.ClassDef):
                yield node
            elif not isinstance(node, ast.expr):
                queue.append(node)


def _plain_variables(definition: ast.ClassDef) -> int:
    total = 0
    for node in definition.body:
        if isinstance(node, ast.Assign):
            total += sum(isinstance(target, ast.Name) for target in node.targets)
        elif isinstance(node, ast.AnnAssign):
            total += isinstance(node.target, ast.Name)
    return total


PYTHON: dict[str, Signal] = python.PYTHON | named(
    *(cate_var_zero, frac_lines_func_ratio, frac_lines_simplefunc, frac_lines_pass, frac_lines_import),
    score_lines_no_logic,
    frac_lines_print=lines_with("print"),
)
