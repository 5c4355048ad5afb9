"""Every configuration of the project, read from its source: nothing is imported, so JAX and Beam stay out.

A configuration is a dataclass under `@configurable`. Its fields' types and defaults stand in the class; what a field
means stands in the docstring (`Attributes:`) or in a comment on the field's line or above it. Commands check recipes
by this, every `--help` lists the fields that the command reads, and docs/reference.md lists all.
"""

import ast
import inspect
import math
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import MISSING, fields, is_dataclass
from functools import cache, wraps
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

T = TypeVar("T")
PACKAGE = Path(__file__).parent


class Field(NamedTuple):
    """A field of a configuration, as its source has it."""

    name: str
    type: str
    default: str
    meaning: str = ""


class Configurable(NamedTuple):
    """A configuration: its class's name and module, what it is for, its fields in order."""

    name: str
    module: str
    meaning: str
    fields: dict[str, Field]


@cache
def catalog() -> dict[str, Configurable]:
    """All configurations by name, sorted."""
    found = {}
    for folder, _, files in os.walk(PACKAGE, followlinks=True):
        for path in (Path(folder, file) for file in files if file.endswith(".py")):
            source = path.read_text(encoding="utf-8")
            if "\n@configurable\n" in source:
                module = ".".join((PACKAGE.name, *path.relative_to(PACKAGE).with_suffix("").parts))
                found.update({entry.name: entry for entry in _read(source, module)})
    return dict(sorted(found.items()))


def of_class(cls: type) -> Configurable:
    """The entry of a class: the catalog's, or for a class outside of the project what Python knows of it."""
    if cls.__name__ in catalog() or not is_dataclass(cls):
        return catalog()[cls.__name__]
    entries = {
        field.name: Field(field.name, _words(field.type), "" if field.default is MISSING else repr(field.default))
        for field in fields(cls)
    }
    return Configurable(cls.__name__, cls.__module__, (cls.__doc__ or "").split("\n\n")[0], entries)


def _words(kind: Any) -> str:
    """An annotation as its source has it, without the names of modules."""
    text = kind.__name__ if type(kind) is type else str(kind)
    return re.sub(r"\b(?:\w+\.)+(?=\w)", "", text)


def checks_types(cls: type[T]) -> type[T]:
    """Lets a dataclass refuse, by a ValueError that names the field, what its annotations don't take."""
    make: Any = cls.__init__
    signature = inspect.signature(make)

    @wraps(make)
    def checked(self: T, *args: Any, **values: Any) -> None:
        kinds = {field.name: _words(field.type) for field in fields(cls)}  # type: ignore[arg-type]
        for name, value in signature.bind(self, *args, **values).arguments.items():
            if name in kinds and not accepts(kinds[name], value):
                raise ValueError(f"{name}={value!r}: must be {wanted(kinds[name])}")
        make(self, *args, **values)

    checked.__signature__ = signature  # type: ignore[attr-defined]  # gin looks there for the fields
    cls.__init__ = checked  # type: ignore[method-assign, assignment]
    return cls


def wanted(kind: str) -> str:
    """What `accepts` takes, in words."""
    return f"{kind}, of finite numbers" if "float" in kind else kind


def accepts(kind: str, value: Any) -> bool:
    """Whether a value has the type that a field's annotation names; a type that isn't known here takes anything.

    A number is finite, and an integer fits in 64 bits.
    """
    return _accepts(ast.parse(kind, mode="eval").body, value)


_PLAIN: dict[str, tuple[type, ...]] = {
    "bool": (bool,),
    "int": (int,),
    "float": (float, int),
    "str": (str,),
    "bytes": (bytes,),
}


_MOST = 2**63


def _accepts(kind: ast.expr, value: Any) -> bool:
    match kind:
        case ast.Constant(value=None):
            return value is None
        case ast.Name(id=name) if name in _PLAIN:
            if not isinstance(value, _PLAIN[name]) or isinstance(value, bool) != (name == "bool"):
                return False
            return (
                math.isfinite(value)
                if isinstance(value, float)
                else not isinstance(value, int) or -_MOST <= value < _MOST
            )
        case ast.BinOp(left=left, op=ast.BitOr(), right=right):
            return _accepts(left, value) or _accepts(right, value)
        case ast.Subscript(value=ast.Name(id="tuple"), slice=ast.Tuple(elts=[item, ast.Constant(value=end)])) if (
            end is Ellipsis
        ):
            return isinstance(value, tuple) and all(_accepts(item, one) for one in value)
        case ast.Subscript(value=ast.Name(id="tuple"), slice=inner):
            kinds = inner.elts if isinstance(inner, ast.Tuple) else [inner]
            return isinstance(value, tuple) and len(value) == len(kinds) and all(map(_accepts, kinds, value))
        case ast.Subscript(value=ast.Name(id="dict" | "Mapping"), slice=ast.Tuple(elts=[key, item])):
            return isinstance(value, dict) and all(_accepts(key, k) and _accepts(item, v) for k, v in value.items())
        case ast.Subscript(value=ast.Name(id="Literal"), slice=inner):
            choices = inner.elts if isinstance(inner, ast.Tuple) else [inner]
            return any(
                isinstance(choice, ast.Constant) and type(choice.value) is type(value) and choice.value == value
                for choice in choices
            )
    return True


def _read(source: str, module: str) -> Iterator[Configurable]:
    """The configurations of a module."""
    tree, lines = ast.parse(source), lines_of(source)
    for node in tree.body:
        if isinstance(node, ast.ClassDef) and "configurable" in map(ast.unparse, node.decorator_list):
            meaning = (ast.get_docstring(node) or "").split("\n\n")[0]
            yield Configurable(node.name, module, meaning, _fields(node, tree, lines))


def _fields(node: ast.ClassDef, tree: ast.Module, lines: list[bytes]) -> dict[str, Field]:
    """The fields of a class, those that it inherits first."""
    bound: dict[str, Field] = {}
    for base in map(ast.unparse, node.bases):
        bound |= _inherited(base, tree, lines)
    doc = ast.get_docstring(node) or ""
    told = meanings(doc, "Attributes")
    last = node.body[0].end_lineno if doc else node.lineno
    for entry in node.body:
        if isinstance(entry, ast.AnnAssign) and isinstance(entry.target, ast.Name) and entry.value:
            name = entry.target.id
            meaning = told.get(name) or _comment(lines, last or 0, entry)
            bound[name] = Field(name, ast.unparse(entry.annotation), _default(lines, entry.value), meaning)
            last = entry.end_lineno
    return bound


def _inherited(name: str, tree: ast.Module, lines: list[bytes]) -> dict[str, Field]:
    """The fields of a base class, which stands in the same file or in one of ours that it's imported from."""
    for node in tree.body:
        if isinstance(node, ast.ClassDef) and node.name == name:
            return _fields(node, tree, lines)
        if isinstance(node, ast.ImportFrom) and name in [alias.name for alias in node.names]:
            path = source_file(node.module or "")
            if not path.is_file():
                return {}
            source = path.read_text(encoding="utf-8")
            return _inherited(name, ast.parse(source), lines_of(source))
    return {}


def _default(lines: list[bytes], value: ast.expr) -> str:
    """A default as its source has it; of `field(default_factory=…)` what is made."""
    if isinstance(value, ast.Call) and ast.unparse(value.func) == "field":
        made = next((keyword.value for keyword in value.keywords if keyword.arg == "default_factory"), None)
        if not isinstance(made, ast.Lambda):
            return "{}" if made is not None and ast.unparse(made) == "dict" else "()"
        value = made.body
    return " ".join(segment(lines, value).split())


def _comment(lines: list[bytes], after: int, entry: ast.AnnAssign) -> str:
    """The comment on a field's own lines, or those between the field before (it ends on line `after`) and this one."""
    here, before = lines[entry.lineno - 1 : entry.end_lineno], lines[after : entry.lineno - 1]
    own = [line.decode().rstrip().partition("  # ")[2] for line in here]
    above = [line.decode().strip().removeprefix("#").strip() for line in before if b"#" in line]
    return " ".join(filter(None, [*above, *own]))


def meanings(doc: str, section: str) -> dict[str, str]:
    """What a docstring's section (`Attributes`, `Args`) says of each name; `a, b: text` says it of both."""
    _, found, rest = inspect.cleandoc(doc).partition(f"\n{section}:\n")
    told: dict[str, str] = {}
    names: list[str] = []
    for line in rest.splitlines() if found else ():
        if line and not line.startswith("    "):
            break
        if head := re.match(r"    (\w+(?:, \w+)*): (.*)", line):
            names = head[1].split(", ")
            told |= dict.fromkeys(names, head[2])
        elif line.strip():
            told |= {name: f"{told[name]} {line.strip()}" for name in names}
    return told


def source_file(module: str) -> Path:
    """Where the source of a module of ours lies, if there is one of that name."""
    return PACKAGE.joinpath(*module.split(".")[1:]).with_suffix(".py")


def lines_of(source: str) -> list[bytes]:
    """A source's lines with their ends, as Python counts them: their columns are bytes."""
    return source.encode().splitlines(keepends=True)


def segment(lines: Sequence[bytes], node: ast.expr | ast.stmt) -> str:
    """What ast.get_source_segment says, which splits the whole source into lines for each node."""
    assert node.end_lineno
    text = list(lines[node.lineno - 1 : node.end_lineno])
    text[-1] = text[-1][: node.end_col_offset]
    text[0] = text[0][node.col_offset :]
    return b"".join(text).decode()
