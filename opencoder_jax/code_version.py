"""What code an output was made by: a digest of just the definitions that can have made its bytes.

From one function on, every definition of ours that is named in it, in what that names, and so on, is found in the
sources; nothing is run. Comments, blank lines, docstrings, annotations and the messages of errors don't count, nor does
what only keeps the books (recipes, manifests, runners, progress). A JSON or TOML file that a definition names counts by
its values. So a changed comment or a new configuration makes nothing stale, and a changed threshold only what reads it.
"""

import ast
import importlib.util
import json
import os
import sys
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

import xxhash

from opencoder_jax.configurables import source_file

PACKAGE = "opencoder_jax"
PIPELINES = f"{PACKAGE}.beam_pipelines"

# What never shows in an output's bytes.
BOOKKEEPING = frozenset(
    f"{PACKAGE}.{name}" for name in ("recipe", "configurables", "checks", "code_version", "progress", "chain")
) | frozenset(
    f"{PIPELINES}.{name}"
    for name in ("core.stage", "core.manifest", "core.runner", "core.memory", "core.storage", "decontamination.review")
)


def code_version(*roots: tuple[str, str]) -> dict[str, str]:
    """A digest for each module that has a part in some functions or classes: of the definitions in it that are reached.

    Args:
        roots: what to begin with, as (module, name).
    """
    reached: dict[str, set[str]] = {}
    waiting = list(roots)
    while waiting:
        at, what = waiting.pop()
        if at in BOOKKEEPING or (source := _source(at)) is None or what in reached.get(at, ()):
            continue
        reached.setdefault(at, set()).add(what)
        waiting += source.references(what)
    sources = {at: _source(at) for at in sorted(reached)}
    return {at: source.digest(frozenset(reached[at])) for at, source in sources.items() if source}


def tree_digest() -> str:
    """16 hexadecimal digits over all sources of the package, as they lie on this machine."""
    root, hasher = Path(__file__).parent, xxhash.xxh3_64()
    for folder, folders, files in os.walk(root, followlinks=True):
        folders.sort()
        for path in (Path(folder, file) for file in sorted(files) if file.endswith(".py")):
            hasher.update(path.relative_to(root).as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
    return hasher.hexdigest()


class _Definition(NamedTuple):
    """What a definition names, and what counts of it."""

    references: list[tuple[str, str]]
    contents: bytes


class _Source:
    """The definitions of a module by name; "" holds its statements that define nothing and run at import."""

    def __init__(self, module: str, path: Path) -> None:
        self.module = module
        self.folder = path.parent
        self.statements: dict[str, list[ast.stmt]] = {"": []}
        self.imported: dict[str, tuple[str, str]] = {}
        # Many steps of a chain reach the same definitions.
        self._read: dict[str, _Definition] = {}
        for node in ast.parse(path.read_bytes()).body:
            if isinstance(node, (ast.Import, ast.ImportFrom)):
                self.imported.update(_imports(node))
            elif names := _defined(node):
                for name in names:
                    self.statements.setdefault(name, []).append(node)
            elif not _is_idle(node):
                self.statements[""].append(node)

    def references(self, name: str) -> list[tuple[str, str]]:
        """What a definition names, as (module, name); a name that is imported from elsewhere leads there."""
        if name == "*":
            return [(self.module, known) for known in self.statements]
        if name not in self.statements:
            return [self.imported[name]] if name in self.imported else []
        return self._definition(name).references

    def digest(self, names: frozenset[str]) -> str:
        """16 hexadecimal digits over some definitions and the data files that they name."""
        hasher = xxhash.xxh3_64()
        for name in sorted(names & self.statements.keys()):
            hasher.update(self._definition(name).contents)
        return hasher.hexdigest()

    def _definition(self, name: str) -> _Definition:
        if name not in self._read:
            found = {(self.module, "")} if name else set()
            contents = b""
            for node in self.statements[name]:
                parts = list(ast.walk(node))
                found.update(self._named(parts))
                contents += ast.unparse(_Bare().visit(node)).encode()  # the node's annotations and docstrings are gone
                for part in parts:
                    if isinstance(part, ast.Constant) and isinstance(part.value, str) and _is_data(part.value):
                        contents += _data(self.folder / part.value)
            self._read[name] = _Definition(sorted(found), contents)
        return self._read[name]

    def _named(self, parts: list[ast.AST]) -> Iterator[tuple[str, str]]:
        """What the parts of a statement name; what isn't ours leads nowhere."""
        here = self.imported | {key: to for part in parts for key, to in _imports(part)}
        for part in parts:
            if isinstance(part, ast.Name):
                if part.id in self.statements:
                    yield self.module, part.id
                elif part.id in here:
                    yield here[part.id]
            elif isinstance(part, ast.Attribute):
                if isinstance(part.value, ast.Name) and part.value.id in here:  # perhaps `module.name`
                    package, name = here[part.value.id]
                    yield f"{package}.{name}" if name else package, part.attr
            elif isinstance(part, ast.Constant) and str(part.value).startswith(f"{PACKAGE}."):
                yield str(part.value), "*"  # a module that is imported by its name


@cache
def _source(module: str) -> _Source | None:
    """A module of ours, or one that stands alone, as a user's own stage may; None for others and for packages."""
    path = _path(module)
    return _Source(module, path) if path else None


def _path(module: str) -> Path | None:
    """Where the source of such a module lies. Python's own search would import what the last name may be a part of."""
    if module.startswith(f"{PACKAGE}."):
        path = source_file(module)
        return path if path.is_file() else None
    if "." in module or module in sys.stdlib_module_names:
        return None
    try:
        spec = importlib.util.find_spec(module)
    except (ModuleNotFoundError, ValueError):
        return None
    if spec is None or spec.submodule_search_locations or not str(spec.origin).endswith(".py"):
        return None
    path = Path(str(spec.origin))
    return None if "site-packages" in path.parts else path


def _imports(node: ast.AST) -> list[tuple[str, tuple[str, str]]]:
    """The names that an import binds, each with (module, name in it; "" for the module)."""
    if isinstance(node, ast.Import):
        return [(alias.asname or alias.name, (alias.name, "")) for alias in node.names]
    if isinstance(node, ast.ImportFrom) and node.module:
        return [(alias.asname or alias.name, (node.module, alias.name)) for alias in node.names]
    return []


def _defined(node: ast.stmt) -> list[str]:
    """The names that a statement at a module's top binds, if that's all that it does."""
    if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
        return [node.name]
    if isinstance(node, (ast.Assign, ast.AnnAssign)):
        targets = node.targets if isinstance(node, ast.Assign) else [node.target]
        return [name.id for target in targets for name in ast.walk(target) if isinstance(name, ast.Name)]
    return []


def _is_idle(node: ast.stmt) -> bool:
    """A docstring, or what happens only where the module is run as a program or read by a type checker."""
    if isinstance(node, ast.Expr):
        return isinstance(node.value, ast.Constant)
    return isinstance(node, ast.If) and any(word in ast.unparse(node.test) for word in ("__main__", "TYPE_CHECKING"))


class _Bare(ast.NodeTransformer):
    """Takes away what changes no output: docstrings, annotations of functions, what errors say."""

    def _without_docstring(self, node: ast.AST) -> ast.AST:
        body: list[ast.stmt] = node.body  # type: ignore[attr-defined]
        if isinstance(body[0], ast.Expr) and isinstance(body[0].value, ast.Constant):
            node.body = body[1:] or [ast.Pass()]  # type: ignore[attr-defined]
        return self.generic_visit(node)

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        node.returns = None
        return self._without_docstring(node)

    def visit_ClassDef(self, node: ast.ClassDef) -> ast.AST:
        return self._without_docstring(node)

    def visit_arg(self, node: ast.arg) -> ast.AST:
        node.annotation = None
        return node

    def visit_Raise(self, node: ast.Raise) -> ast.AST:
        if isinstance(node.exc, ast.Call):
            node.exc = node.exc.func
        return node


def _is_data(value: str) -> bool:
    return value.endswith((".json", ".jsonl", ".toml")) and "\n" not in value and len(value) < 200


@cache
def _data(path: Path) -> bytes:
    """The values of a data file, however it's laid out; nothing where there is none."""
    if not path.is_file():
        return b""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".jsonl":
        return json.dumps([json.loads(line) for line in text.splitlines() if line.strip()], sort_keys=True).encode()
    return json.dumps(json.loads(text) if path.suffix == ".json" else tomllib.loads(text), sort_keys=True).encode()
