"""What Python's own parser says of a piece of text that may be a program."""

import ast
import builtins
import warnings
from collections.abc import Iterator

_CUTS = 50
_ALWAYS = frozenset(dir(builtins)) | {"__name__", "__file__", "__doc__"}


def parse(code: str) -> ast.Module | None:
    """The tree of a module, or None where Python cannot read it."""
    try:
        return _tree(code)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None


def _tree(code: str) -> ast.Module:
    with warnings.catch_warnings(action="ignore"):  # of escapes that an answer spelled wrongly
        return ast.parse(code)


def bound(statement: ast.stmt) -> Iterator[str]:
    """The names that a statement of a module binds, whether it stands in an `if`, a `try` or a `with`."""
    waiting: list[ast.AST] = [statement]  # no recursion: an answer may have a thousand `elif`
    while waiting:
        match waiting.pop():
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
                yield name
            case ast.Import(names=aliases) | ast.ImportFrom(names=aliases):
                yield from ((alias.asname or alias.name).split(".")[0] for alias in aliases)
            case ast.Assign(targets=targets):
                for target in targets:
                    yield from (node.id for node in ast.walk(target) if isinstance(node, ast.Name))
            case ast.AnnAssign(target=ast.Name(id=name), value=ast.expr()):
                yield name
            case ast.If() | ast.Try() | ast.With() | ast.For() | ast.While() | ast.ExceptHandler() as holder:
                children = ast.iter_child_nodes(holder)
                waiting += [child for child in children if isinstance(child, ast.stmt | ast.ExceptHandler)]


def unbound(module: ast.Module) -> set[str]:
    """The names that a module uses and binds nowhere. Scopes are not told apart: too few are found, never too many."""
    used, own = set[str](), set[str]()
    for node in ast.walk(module):
        match node:
            case ast.Name(id=name, ctx=ast.Load()):
                used.add(name)
            case ast.Name(id=name) | ast.arg(arg=name) | ast.ExceptHandler(name=str(name)):
                own.add(name)
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
                own.add(name)
            case ast.Import(names=aliases) | ast.ImportFrom(names=aliases):
                own.update((alias.asname or alias.name).split(".")[0] for alias in aliases)
    return used - own - _ALWAYS


def is_stub(module: ast.Module, name: str) -> bool:
    """Whether the last function of this name has no code in it but `pass` and the like."""
    functions = [node for node in module.body if isinstance(node, ast.FunctionDef) and node.name == name]
    others = any(name in bound(node) for node in module.body if not isinstance(node, ast.FunctionDef))
    return bool(functions) and not others and all(map(_says_nothing, functions[-1].body))


def _says_nothing(statement: ast.stmt) -> bool:
    match statement:
        case ast.Pass() | ast.Expr(value=ast.Constant()):
            return True
        case ast.Raise(exc=ast.Name(id="NotImplementedError") | ast.Call(func=ast.Name(id="NotImplementedError"))):
            return True
    return False


def longest_prefix(code: str) -> str:
    """The longest run of whole lines from the first that parses; Python's error says where to cut, so few tries do.

    "" where they don't: a text can be made so that each cut takes one line off.
    """
    lines = code.splitlines(keepends=True)
    for _ in range(_CUTS):
        prefix = "".join(lines)
        try:
            _tree(prefix)
            return prefix
        except SyntaxError as error:
            del lines[max(0, min((error.lineno or len(lines)) - 1, len(lines) - 1)) :]
        except (ValueError, RecursionError, MemoryError):
            return ""
    return ""
