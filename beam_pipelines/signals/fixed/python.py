"""Signals of Python documents, over the syntax tree and the code lines.

The definitions are those of OpenCoder's released filter (quality_signals/code_specific/python.py), with words instead
of substrings: there, "password" counts as a pass statement, "important" as an import and "fingerprint" as a print. As
there, a file that this interpreter cannot parse has no tree: Python 2 falls under `cate_ast`.
"""

import ast
import re
from collections.abc import Callable

from opencoder_jax.beam_pipelines.signals.views.signal import Signal, named, ratio
from opencoder_jax.beam_pipelines.signals.views.view import View

_PASS = re.compile(r"(?:^|[:;]\s*)pass\s*(?:$|[;#])")
_PRINT = re.compile(r"(?<![\w.])print\b\s*(?:\(|[\"'\w%]|$)")


def cate_ast(view: View) -> float:
    """1 where the document parses."""
    return float(view.statements is not None)


def cate_var_zero(view: View) -> float | None:
    """1 where no variable is bound: by assignment of any kind, `for`, `with` or as an argument.

    The reference knows only plain assignments to a name, `for` and positional arguments.
    """
    return None if view.statements is None else float(not any(map(_binds, view.statements)))


def frac_lines_func_ratio(view: View) -> float | None:
    """Function definitions, async ones too, by code lines."""
    return None if view.statements is None else ratio(len(_functions(view.statements)), view.num_code_lines)


def frac_lines_simplefunc(view: View) -> float | None:
    """Functions whose body is one return statement, by code lines."""
    if view.statements is None:
        return None
    simple = [f for f in _functions(view.statements) if len(f.body) == 1 and isinstance(f.body[0], ast.Return)]
    return ratio(len(simple), view.num_code_lines)


def frac_lines_pass(view: View) -> float | None:
    """Lines with a pass statement by code lines."""
    return _share(view, lambda line: "pass" in line and _PASS.search(line) is not None)


def frac_lines_import(view: View) -> float | None:
    """Lines that begin an import by code lines."""
    return _share(view, _is_import)


def frac_lines_print(view: View) -> float | None:
    """Lines that print, by code lines."""
    return _share(view, lambda line: "print" in line and _PRINT.search(line) is not None)


def score_lines_no_logic(view: View) -> float | None:
    """Functions, classes, imports, returns and plain variables of classes, by code lines."""
    if view.statements is None:
        return None
    lines = sum(1 for line in view.code_lines if _is_import(line) or line.startswith("return"))
    plain = 0
    for statement in view.statements:
        if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef):
            plain += 1
        elif isinstance(statement, ast.ClassDef):
            plain += 1 + sum(map(_is_plain_variable, statement.body))
    return ratio(lines + plain, view.num_code_lines)


def _functions(statements: list[ast.stmt]) -> list[ast.FunctionDef | ast.AsyncFunctionDef]:
    return [node for node in statements if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]


def _binds(statement: ast.stmt) -> bool:
    if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef):
        given = statement.args
        return bool(given.posonlyargs or given.args or given.kwonlyargs or given.vararg or given.kwarg)
    if isinstance(statement, ast.With | ast.AsyncWith):
        return any(item.optional_vars for item in statement.items)
    return isinstance(statement, ast.Assign | ast.AnnAssign | ast.AugAssign | ast.For | ast.AsyncFor)


def _is_plain_variable(statement: ast.stmt) -> bool:
    if isinstance(statement, ast.Assign):
        return any(isinstance(target, ast.Name) for target in statement.targets)
    return isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name)


def _is_import(line: str) -> bool:
    return line.startswith(("import ", "from ")) and "import" in line


def _share(view: View, belongs: Callable[[str], bool]) -> float | None:
    return ratio(sum(map(belongs, view.code_lines)), view.num_code_lines)


PYTHON: dict[str, Signal] = named(
    *(cate_ast, cate_var_zero, frac_lines_func_ratio, frac_lines_simplefunc, frac_lines_pass, frac_lines_import),
    *(frac_lines_print, score_lines_no_logic),
)
