"""From what a model said to the program that is run, changing as little as possible.

The usual extractors break correct answers: they prune helpers without `return`, module-level statements, or everything
behind line 100. Here the first candidate that parses *and* defines the entry point is taken as it is, and no definition
is ever removed. Only if no candidate parses is one repaired, by cutting it behind its longest prefix that does. Cut
off at the end are only the things a script does when it is run: trailing prints, asserts and calls, and the `__main__`
block.

The method is stored with every answer, so that a score can be traced to how its programs were found.
"""

import ast
import re
import warnings
from collections.abc import Iterator, Sequence
from typing import Literal, NamedTuple

from opencoder_jax.benchmarks.problems import FunctionProblem
from opencoder_jax.evaluation.samples import Sample

Method = Literal[
    "completion",  # the prompt and all of the completion
    "completion, cut at a stop",
    "completion, longest prefix",
    "fence",  # a closed block in fences, the last that defines the entry point
    "unclosed fence",
    "text",  # all of it
    "fence, longest prefix",
    "unclosed fence, longest prefix",
    "text, longest prefix",
    "none",
]


class Extracted(NamedTuple):
    """The program of an answer: `code` defines the entry point, unless the method is "none" (then it is empty)."""

    code: str
    method: Method
    dropped: str = ""  # what was cut off at the end


def extract(problem: FunctionProblem, sample: Sample, stops: Sequence[str]) -> Extracted:
    """Finds the program in an answer."""
    text = sample.text.replace("\r\n", "\n").rpartition("</think>")[2]
    candidates = list(_candidates(problem, sample, text, stops))
    for code, method in candidates:
        if _defines(code, problem.entry_point):
            return _without_script(code, method)
    for code, method in candidates:
        # A prefix of prompt and completion that ends within the prompt holds nothing of the model.
        begin = len(problem.prompt) if method.startswith("completion") else 0
        prefix = _longest_prefix(code)
        if len(prefix.rstrip()) > begin and _defines(prefix, problem.entry_point):
            family = method.split(",")[0]
            return _without_script(prefix, f"{family}, longest prefix", code[len(prefix) :])  # type: ignore[arg-type]
    return Extracted("", "none")


def standalone(problem: FunctionProblem, code: str) -> str:
    """The code behind the prompt's own imports and helpers, where both can stand in one program.

    A chat answer often leaves out what its question showed. The entry point of the answer replaces the prompt's empty
    one.
    """
    together = f"{problem.prompt}\n\n{code}"
    module = _parse(code)
    from_future = module and any(
        isinstance(node, ast.ImportFrom) and node.module == "__future__" for node in module.body
    )
    return code if code.startswith(problem.prompt) or from_future or not parses(together) else together


def parses(code: str) -> bool:
    """Whether Python can read it."""
    return _parse(code) is not None


def _candidates(
    problem: FunctionProblem, sample: Sample, text: str, stops: Sequence[str]
) -> Iterator[tuple[str, Method]]:
    if sample.kind == "completion":
        # The prompt ends in a newline; a completion may begin with its own.
        prompt = problem.prompt.rstrip() + "\n"
        yield prompt + text.removeprefix("\n"), "completion"
        yield prompt + _cut(text.removeprefix("\n"), stops), "completion, cut at a stop"
    # A fence may be indented in a list of steps; the language behind it is any word or none.
    closed = re.findall(r"^[ \t]*```[^\n`]*\n(.*?)^[ \t]*```[ \t]*$", text, re.DOTALL | re.MULTILINE)
    for block in reversed(closed):
        yield block, "fence"
    opened = re.split(r"^[ \t]*```[^\n`]*\n", text, flags=re.MULTILINE)
    if len(opened) > 1:
        yield opened[-1], "unclosed fence"
    yield text, "text"
    if sample.kind == "solution":
        yield problem.prompt.rstrip() + "\n" + text, "completion"


def _cut(text: str, stops: Sequence[str]) -> str:
    return text[: min((start for stop in stops if (start := text.find(stop)) >= 0), default=len(text))]


def _parse(code: str) -> ast.Module | None:
    try:
        with warnings.catch_warnings(action="ignore"):
            return ast.parse(code)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None


def _defines(code: str, name: str) -> bool:
    module = _parse(code)
    return module is not None and any(name in _bound(statement) for statement in module.body)


def _bound(statement: ast.stmt) -> Iterator[str]:
    """The names that a statement of a module binds, whether it stands in an `if`, a `try` or a `with`."""
    match statement:
        case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
            yield name
        case ast.Import(names=aliases) | ast.ImportFrom(names=aliases):
            yield from ((alias.asname or alias.name).split(".")[0] for alias in aliases)
        case ast.Assign(targets=targets):
            for target in targets:
                yield from (node.id for node in ast.walk(target) if isinstance(node, ast.Name))
        case ast.AnnAssign(target=ast.Name(id=name), value=ast.expr()):
            yield name
        case ast.If() | ast.Try() | ast.With() | ast.For() | ast.While():
            for child in ast.iter_child_nodes(statement):
                if isinstance(child, ast.stmt):
                    yield from _bound(child)
                elif isinstance(child, ast.ExceptHandler):
                    for inner in child.body:
                        yield from _bound(inner)


def _longest_prefix(code: str) -> str:
    """The longest run of whole lines from the first that parses; Python's error says where to cut, so few tries do."""
    lines = code.splitlines(keepends=True)
    while lines:
        prefix = "".join(lines)
        try:
            with warnings.catch_warnings(action="ignore"):
                ast.parse(prefix)
            return prefix
        except SyntaxError as error:
            del lines[max(0, min((error.lineno or len(lines)) - 1, len(lines) - 1)) :]
        except (ValueError, RecursionError, MemoryError):
            return ""
    return ""


def _without_script(code: str, method: Method, dropped: str = "") -> Extracted:
    module = _parse(code)
    assert module is not None
    kept = len(module.body)
    while kept and _only_acts(module.body[kept - 1]):
        kept -= 1
    if kept == len(module.body):
        return Extracted(code, method, dropped)
    first = module.body[kept]
    # Columns count bytes of UTF-8.
    lines = code.encode(errors="surrogatepass").splitlines(keepends=True)
    offset = sum(map(len, lines[: first.lineno - 1])) + first.col_offset
    data = b"".join(lines)
    head, tail = (part.decode(errors="surrogatepass") for part in (data[:offset], data[offset:]))
    return Extracted(head, method, tail + dropped)


def _only_acts(statement: ast.stmt) -> bool:
    match statement:
        case ast.Assert() | ast.Expr(value=ast.Call()):
            return True
        case ast.If(test=ast.Compare(left=ast.Name(id="__name__")), orelse=[]):
            return True
    return False
