"""What a program does when it is run, behind what it defines: prints, tests, and what only they need.

Judging calls the function; a script at its end would ask for input, print, or test with a number that the model got
wrong. Only that is cut off. What a definition reads, or what changes something that one reads, is never script.
"""

import ast
import symtable
import warnings
from collections.abc import Iterator

from opencoder_jax.evaluation.answers.syntax import bound

_DEFINITIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Import, ast.ImportFrom)
_BLOCKS = (ast.If, ast.For, ast.While, ast.With, ast.Try)


def script_start(module: ast.Module, code: str, entry_point: str) -> int:
    """The number of the statement that the script at a module's end begins with; of all where there is none."""
    body = module.body
    defined = len(body)
    while defined and not isinstance(body[defined - 1], _DEFINITIONS):
        defined -= 1
    kept = len(body)
    try:
        reads, state = _globals(body[:defined], code)
    except (SyntaxError, ValueError, RecursionError, MemoryError):  # no program, though its syntax is right
        return kept
    while kept > defined:
        statement = body[kept - 1]
        if acts(statement):
            if _prepares(statement, state):
                break
        elif kept == len(body) and not isinstance(statement, _BLOCKS):
            break  # nothing runs what it assigns
        elif not _harmless(statement, reads | {entry_point}, set().union(*state.values())):
            break
        kept -= 1
    return kept


def acts(statement: ast.stmt) -> bool:
    """Whether a statement only prints, tests or calls."""
    match statement:
        case ast.Assert() | ast.Expr() | ast.AnnAssign(value=None):  # the last is prose ("Output: 3")
            return True
        case ast.If(test=ast.Compare(left=ast.Name(id="__name__")), orelse=[]):
            return True
    return False


def _globals(definitions: list[ast.stmt], code: str) -> tuple[set[str], dict[str, set[str]]]:
    """What functions and classes read of their module: all names, and, for each of them, those that aren't defined."""
    if not definitions:
        return set(), {}
    lines = code.split("\n")[: definitions[-1].end_lineno]
    with warnings.catch_warnings(action="ignore"):  # of escapes that an answer spelled wrongly
        scopes = symtable.symtable("\n".join(lines) + "\n", "answer", "exec").get_children()
    known = {name for statement in definitions if isinstance(statement, _DEFINITIONS) for name in bound(statement)}
    reads: set[str] = set()
    state: dict[str, set[str]] = {}
    for scope in scopes:
        names = set(_read_by(scope))
        reads |= names
        state.setdefault(scope.get_name(), set()).update(names - known)
    return reads, state


def _read_by(scope: symtable.SymbolTable) -> Iterator[str]:
    waiting = [scope]
    while waiting:
        scope = waiting.pop()
        waiting += scope.get_children()
        yield from (symbol.get_name() for symbol in scope.get_symbols() if symbol.is_global())


def _prepares(statement: ast.stmt, state: dict[str, set[str]]) -> bool:
    """Whether a call makes what others read (`fill_table()`, `memo.update(…)`, `sys.setrecursionlimit(…)`)."""
    match statement:
        case ast.Expr(value=ast.Call(func=ast.Name(id=name))):
            others = set().union(*(names for other, names in state.items() if other != name))
            return bool(state.get(name, set()) & others)
        case ast.Expr(value=ast.Call(func=ast.Attribute(value=ast.Name(id=name), attr=method))):
            return method.startswith("set") or method == "seed" or any(name in names for names in state.values())
    return False


def _harmless(statement: ast.stmt, reads: set[str], state: set[str]) -> bool:
    """Whether an assignment or a block changes nothing that a definition reads."""
    if not isinstance(statement, (*_BLOCKS, ast.Assign, ast.AnnAssign, ast.AugAssign)):
        return False
    stored, mentioned = set(bound(statement)), set[str]()
    for node in ast.walk(statement):
        match node:
            case ast.Attribute(ctx=ast.Store()) | ast.Subscript(ctx=ast.Store()):
                return False
            case ast.Name(id=name, ctx=context):
                mentioned.add(name)
                if not isinstance(context, ast.Load):
                    stored.add(name)
    return not (stored & reads or mentioned & state)
