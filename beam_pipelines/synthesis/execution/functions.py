"""Functions that stand alone and give the same for the same: what can be a seed, or be called on made-up inputs."""

import ast
from collections.abc import Iterator

from opencoder_jax.beam_pipelines.synthesis.doctests import (
    CannotStandAloneError,
    Snippet,
    cut,
    definitions,
    parsed,
    source_lines,
)

# Modules whose functions give the same for the same, and touch nothing outside.
PURE = {
    "abc",
    "ast",
    "base64",
    "binascii",
    "bisect",
    "calendar",
    "cmath",
    "collections",
    "colorsys",
    "contextlib",
    "copy",
}
PURE |= {"dataclasses", "decimal", "difflib", "enum", "fractions", "functools", "hashlib", "heapq", "html", "itertools"}
PURE |= {
    "json",
    "keyword",
    "math",
    "numbers",
    "operator",
    "posixpath",
    "re",
    "statistics",
    "string",
    "struct",
    "textwrap",
}
PURE |= {"token", "typing", "unicodedata", "urllib", "zlib", "__future__"}
# Built-in functions that reach outside, or whose result differs from run to run.
_REACHES_OUT = {"open", "print", "input", "exec", "eval", "compile", "globals", "locals", "vars", "id", "hash", "exit"}
_REACHES_OUT |= {"breakpoint", "quit", "__import__", "setattr", "delattr", "memoryview", "super", "object"}


def functions(text: str, least_lines: int, max_lines: int) -> Iterator[Snippet | str]:
    """Cuts every top-level function out of a Python module, with what it needs; for one that can't be, says why."""
    if (module := parsed(text)) is None:
        return
    lines, defined = source_lines(text), definitions(module)
    for function in module.body:
        if isinstance(function, ast.FunctionDef):
            length = (function.end_lineno or function.lineno) - function.lineno + 1
            try:
                if not least_lines <= length <= max_lines:
                    yield "too short" if length < least_lines else "too long"
                elif problem := impure(found := cut(function, "", defined, lines, max_lines)):
                    yield problem
                else:
                    yield found
            except CannotStandAloneError as reason:
                yield str(reason)


def impure(snippet: Snippet) -> str:
    """What of a snippet may reach outside or differ from run to run; "" where nothing is seen."""
    module = ast.parse(snippet.source)
    for node in ast.walk(module):
        match node:
            case ast.Import(names=names) if any(alias.name.split(".")[0] not in PURE for alias in names):
                return "imports what reaches outside"
            case ast.ImportFrom(module=name) if (name or "").split(".")[0] not in PURE:
                return "imports what reaches outside"
            case ast.Name(id=name) if name in _REACHES_OUT:
                return "reaches outside"
            case ast.Global() | ast.Nonlocal() | ast.Yield() | ast.YieldFrom():
                return "keeps a state"
    function = module.body[-1]
    assert isinstance(function, ast.FunctionDef)
    if function.name.startswith("__") or not any(
        isinstance(node, ast.Return) and node.value is not None for node in ast.walk(function)
    ):
        return "returns nothing"
    return "is decorated" if function.decorator_list else ""
