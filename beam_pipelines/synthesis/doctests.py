"""Verified snippets without a language model: functions of the corpus whose doctests pass.

OpenCoder's annealing mixture has 2.71 B tokens of self-contained functions with tests, written by a strong model and
kept only when the tests pass (section 2.2). Here the functions are found, not written: a top-level Python function with
doctests is cut out with everything of its module that it needs, its doctests are run in the sandbox, and only what
passes is kept. Each snippet ends in its doctests as assertions. What becomes of the others is counted.

Cost: about 10 ms of one core a function, most of it the start of a process in the sandbox.
"""

import ast
import builtins
import doctest
import re
import symtable
import sys
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

import pyarrow as pa

from opencoder_jax.beam_pipelines.core.documents import SCHEMA, document_id
from opencoder_jax.beam_pipelines.core.manifest import Manifest
from opencoder_jax.beam_pipelines.core.maps import Result, map_stage
from opencoder_jax.beam_pipelines.core.runner import BeamOptions
from opencoder_jax.checks import at_least, check
from opencoder_jax.recipe import configurable
from opencoder_jax.sandbox.pool import Sandbox
from opencoder_jax.sandbox.program import Limits, Program

_CHECK = """

import doctest as _doctest
_test = _doctest.DocTestParser().get_doctest({docstring!r}, globals(), {name!r}, None, 0)
_runner = _doctest.DocTestRunner(verbose=False, optionflags=_doctest.ELLIPSIS | _doctest.NORMALIZE_WHITESPACE)
_failed, _attempted = _runner.run(_test, out=lambda text: None)
assert _attempted and not _failed, (_failed, _attempted)
"""


@configurable
@dataclass(frozen=True)
class DoctestConfig:
    """What is cut out, and how it's run.

    Attributes:
        max_lines: lines of a snippet, what the function needs included.
        cpu_seconds: of one function's doctests.
        without_walls: of the sandbox, that this machine may lack though nothing else stands where they should.
    """

    max_lines: int = 60
    cpu_seconds: int = 2
    without_walls: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        check(self, max_lines=at_least(1), cpu_seconds=at_least(1))


@dataclass(frozen=True)
class Snippet:
    """A function with all that it needs.

    Attributes:
        source: a module of its own, without tests.
        docstring: of the function, with its doctests.
        assertions: those doctests that state a value, as `assert f(2) == 4`.
    """

    name: str
    source: str
    docstring: str
    assertions: tuple[str, ...]

    def check(self) -> str:
        """A program that reaches its end only if the doctests and the assertions pass."""
        return self.text() + _CHECK.format(docstring=self.docstring, name=self.name)

    def text(self) -> str:
        return self.source + ("\n\n\n" + "\n".join(self.assertions) if self.assertions else "") + "\n"


def snippets(text: str, max_lines: int) -> Iterator[Snippet | str]:
    """Cuts the functions with doctests out of a Python module; for one that can't stand alone, says why.

    Nothing comes out of what isn't Python 3.
    """
    if ">>> " not in text:
        return
    if (module := parsed(text)) is None:
        return
    lines = source_lines(text)
    defined = definitions(module)
    for function in module.body:
        if isinstance(function, ast.FunctionDef) and ">>> " in (docstring := ast.get_docstring(function) or ""):
            try:
                yield cut(function, docstring, defined, lines, max_lines)
            except CannotStandAloneError as reason:
                yield str(reason)


def parsed(text: str) -> ast.Module | None:
    """A module's tree; None for what isn't Python 3."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Python's parser warns of the odd escapes in what it reads
            return ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None


@dataclass(frozen=True)
class RunDoctests:
    """The kernel: of each document the snippets whose doctests pass."""

    config: DoctestConfig
    makes_documents: ClassVar[bool] = True

    def __call__(self, documents: pa.RecordBatch) -> Result:
        found: list[tuple[int, Snippet]] = []
        counts: Counter[str] = Counter()
        for row, document in enumerate(documents.select(["text", "language"]).to_pylist()):
            if document["language"] == "Python":
                for snippet in snippets(document["text"], self.config.max_lines):
                    if isinstance(snippet, Snippet):
                        found.append((row, snippet))
                    else:
                        counts[f"left out: {snippet}"] += 1
        rows = []
        if found:
            limits = Limits(
                cpu_seconds=self.config.cpu_seconds,
                idle_seconds=2.0 * self.config.cpu_seconds + 1,
                file_bytes=1,  # what writes files isn't self-contained
            )
            with Sandbox(limits, preload=("doctest",), without=self.config.without_walls) as sandbox:
                outcomes = dict(sandbox.map([Program(snippet.check()) for _, snippet in found]))
            for number, (row, snippet) in enumerate(found):
                status = outcomes[number].status
                counts[f"doctests: {status}"] += 1
                if status == "ok":
                    rows.append(_document(documents.slice(row, 1).to_pylist()[0], snippet))
        return Result(pa.RecordBatch.from_pylist(rows, schema=SCHEMA), (), counts)


def _document(origin: dict[str, object], snippet: Snippet) -> dict[str, object]:
    path = f"{origin['path']}#{snippet.name}"
    text = snippet.text()
    return origin | {
        "id": document_id(str(origin["repository"]), path),
        "text": text,
        "path": path,
        "kind": "synthetic",
        "source": "doctests",
        "bytes": len(text.encode()),
    }


class CannotStandAloneError(Exception):
    """A function can't be cut out of its module."""


def cut(
    function: ast.FunctionDef, docstring: str, defined: dict[str, ast.stmt], lines: list[str], max_lines: int
) -> Snippet:
    """Cuts a top-level function out of its module, with all that it needs of it.

    Args:
        docstring: whose doctests are to run; may be "".
        defined: `definitions` of the module, whose `source_lines` are `lines`.

    Raises:
        CannotStandAloneError: and why.
    """
    if defined.get(function.name) is not function:
        raise CannotStandAloneError("defined twice")
    try:
        examples = doctest.DocTestParser().get_examples(docstring)
        needed = _needed(function, examples, defined)
        source = _source(needed, examples, lines)
        unbound = _unbound(source)
    except (SyntaxError, ValueError):
        raise CannotStandAloneError("malformed doctest") from None
    if unbound:
        raise CannotStandAloneError("needs a name that its module doesn't plainly define")
    if source.count("\n") >= max_lines:
        raise CannotStandAloneError("too long")
    return Snippet(function.name, source, docstring, tuple(_assertions(function.name, examples)))


def _source(needed: Sequence[ast.stmt], examples: Sequence[doctest.Example], lines: list[str]) -> str:
    """Imports first, with the names that are used alone; the rest as it was written."""
    trees: list[ast.AST] = [*needed, *(ast.parse(example.source) for example in examples)]
    used = {node.id for tree in trees for node in ast.walk(tree) if isinstance(node, ast.Name)}
    imports, others = [], []
    for node in needed:
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [alias for alias in node.names if _bound_name(alias) in used]
            imports.append(ast.unparse(_with_names(node, names)))
        else:
            others.append("\n".join(lines[first_line(node) - 1 : node.end_lineno]))
    return "\n\n\n".join([*(["\n".join(imports)] if imports else []), *dict.fromkeys(others)])


def source_lines(text: str) -> list[str]:
    """Lines as Python counts them, for which a form feed, say, ends none."""
    return re.split(r"\r\n|\r|\n", text)


def _unbound(source: str) -> set[str]:
    """The names that a module uses and neither defines nor imports, wherever in it they are used."""
    used: set[str] = set()
    bound = set(dir(builtins))
    tables = [symtable.symtable(source, "snippet", "exec")]
    while tables:
        table = tables.pop()
        tables += table.get_children()
        for symbol in table.get_symbols():
            if symbol.is_global():
                (bound if symbol.is_assigned() or symbol.is_imported() else used).add(symbol.get_name())
    return used - bound


def _with_names(node: ast.Import | ast.ImportFrom, names: list[ast.alias]) -> ast.stmt:
    return ast.Import(names) if isinstance(node, ast.Import) else ast.ImportFrom(node.module, names, 0)


def _bound_name(alias: ast.alias) -> str:
    return (alias.asname or alias.name).split(".")[0]


def definitions(module: ast.Module) -> dict[str, ast.stmt]:
    """Top-level names of a module and the one statement that defines each; names defined twice are left out."""
    found: dict[str, ast.stmt] = {}
    twice: set[str] = set()
    for node in module.body:
        for name in _defined_names(node):
            if name in found:
                twice.add(name)
            found[name] = node
    return {name: node for name, node in found.items() if name not in twice}


def _defined_names(node: ast.stmt) -> list[str]:
    match node:
        case ast.Import() | ast.ImportFrom():
            return [_bound_name(alias) for alias in node.names]
        case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
            return [node.name]
        case ast.Assign():
            return [target.id for target in node.targets if isinstance(target, ast.Name)]
        case ast.AnnAssign(target=ast.Name(id=name)):
            return [name]
        case _:
            return []


def _needed(
    function: ast.FunctionDef, examples: Sequence[doctest.Example], definitions: dict[str, ast.stmt]
) -> list[ast.stmt]:
    """The statements of the module that a function and its examples need, in order, the function last."""
    needed: set[ast.stmt] = {function}
    queue: list[ast.AST] = [function, *(ast.parse(example.source) for example in examples)]
    while queue:
        for node in ast.walk(queue.pop()):
            if isinstance(node, ast.Name) and node.id in definitions and definitions[node.id] not in needed:
                statement = definitions[node.id]
                if isinstance(statement, ast.Import | ast.ImportFrom) and not _standard(statement):
                    raise CannotStandAloneError("imports a package")
                needed.add(statement)
                queue.append(statement)
    ordered = sorted(needed - {function}, key=lambda node: (first_line(node), node.col_offset))
    if any(first_line(node) > first_line(function) and not isinstance(node, ast.FunctionDef) for node in ordered):
        raise CannotStandAloneError("needs a later statement")
    return [*ordered, function]


def _standard(node: ast.Import | ast.ImportFrom) -> bool:
    """Whether an import needs the standard library alone."""
    if isinstance(node, ast.ImportFrom):
        return node.level == 0 and (node.module or "").split(".")[0] in sys.stdlib_module_names
    return all(alias.name.split(".")[0] in sys.stdlib_module_names for alias in node.names)


def first_line(node: ast.stmt) -> int:
    """The line where a statement begins, its decorators included."""
    decorators = getattr(node, "decorator_list", [])
    return min([node.lineno, *(decorator.lineno for decorator in decorators)])


def _assertions(name: str, examples: Sequence[doctest.Example]) -> Iterator[str]:
    """`>>> f(2)` with `4` below becomes `assert f(2) == 4`, where the call stands alone and the value is a literal."""
    for example in examples:
        source, want = example.source.strip(), example.want.strip()
        try:
            call = ast.parse(source, mode="eval").body
            value = ast.parse(want, mode="eval").body
            ast.literal_eval(value)
        except (SyntaxError, ValueError, TypeError):
            continue
        if not (isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id == name):
            continue
        if "\n" in source + want or "..." in want:  # the dots of doctest's ELLIPSIS are a literal too
            continue
        if _names(call) == {name}:
            yield f"assert {source} == {want}"


def _names(node: ast.AST) -> set[str]:
    return {name.id for name in ast.walk(node) if isinstance(name, ast.Name)}


def run(documents: str, output: str, config: DoctestConfig, options: BeamOptions) -> Manifest:
    """Writes the snippets of Python documents whose doctests pass.

    Args:
        documents: what snippets are cut out of.
    """
    return map_stage("doctests", RunDoctests(config), [documents], output, config, options, megabytes_per_second=5.0)
