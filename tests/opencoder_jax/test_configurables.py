"""The catalogue of configurations is read from the sources, and says what Python says once they are imported."""

import ast
import builtins
import collections.abc
import importlib
import math
import subprocess
import sys
import types
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from opencoder_jax import configurables
from opencoder_jax.configurables import accepts, catalog, lines_of, meanings, segment, source_file
from opencoder_jax.recipe import ROOT, UserError, check_recipe

INTEGERS = st.integers(-(2**63), 2**63 - 1)
FLOATS = st.floats(allow_nan=False, allow_infinity=False)
KINDS = {
    "int": INTEGERS,
    "float": FLOATS | INTEGERS,
    "str": st.text(),
    "bool": st.booleans(),
    "int | None": st.none() | INTEGERS,
    "tuple[int, ...]": st.lists(INTEGERS).map(tuple),
    "tuple[str, int]": st.tuples(st.text(), INTEGERS),
    "tuple[tuple[int, int], ...]": st.lists(st.tuples(INTEGERS, INTEGERS)).map(tuple),
    "dict[str, float]": st.dictionaries(st.text(), FLOATS),
    "Literal['a', 'b']": st.sampled_from("ab"),
}
# Values by their type, the wrong ones for a field of another.
PLAIN: dict[Any, st.SearchStrategy[Any]] = {
    int: INTEGERS,
    float: FLOATS,
    str: st.text(st.characters(codec="utf-8")),
    bool: st.booleans(),
    types.NoneType: st.none(),
}
FALSE_NUMBERS = {int: st.sampled_from([2**63, -(2**63) - 1]), float: st.sampled_from([math.inf, -math.inf, math.nan])}


def right(kind: Any) -> st.SearchStrategy[Any]:
    """Values that an annotation means."""
    match get_origin(kind), get_args(kind):
        case (types.UnionType, kinds):
            return st.one_of(*map(right, kinds))
        case (builtins.tuple, (item, end)) if end is Ellipsis:
            return st.lists(right(item), max_size=2).map(tuple)
        case (builtins.tuple, kinds):
            return st.tuples(*map(right, kinds))
        case (builtins.dict | collections.abc.Mapping, (key, item)):
            return st.dictionaries(right(key), right(item), max_size=2)
    return PLAIN[kind]


def wrong(kind: Any) -> st.SearchStrategy[Any]:
    """Values that it doesn't mean: of another type, or with one such part."""
    match get_origin(kind), get_args(kind):
        case (types.UnionType, (some, types.NoneType)):
            return wrong(some).filter(lambda value: value is not None)
        case (builtins.tuple, (item, end)) if end is Ellipsis:
            parts = st.tuples(wrong(item)) | st.tuples(right(item), wrong(item))
            return st.one_of(*PLAIN.values(), parts, st.lists(right(item)))
        case (builtins.tuple, kinds):
            mixed = [
                st.tuples(*(wrong(other) if at == number else right(other) for at, other in enumerate(kinds)))
                for number in range(len(kinds))
            ]
            return st.one_of(*PLAIN.values(), st.tuples(*map(right, kinds[1:])), *mixed)
        case (builtins.dict | collections.abc.Mapping, (key, item)):
            names = wrong(key).filter(lambda value: not isinstance(value, list | dict))
            held = st.dictionaries(right(key), wrong(item), min_size=1, max_size=1)
            return st.one_of(*PLAIN.values(), held, names.flatmap(lambda name: right(item).map(lambda it: {name: it})))
    taken = (int, float) if kind is float else (kind,)
    others = [values for other, values in PLAIN.items() if other not in taken]
    return st.one_of(*others, st.lists(right(kind), max_size=1).map(tuple), FALSE_NUMBERS.get(kind, st.nothing()))


@pytest.mark.parametrize("name", catalog())
@settings(max_examples=15)
@given(data=st.data())
def test_every_field_refuses_values_of_other_types_by_its_name(name: str, data: st.DataObject) -> None:
    cls = getattr(importlib.import_module(catalog()[name].module), name)
    for field, kind in get_type_hints(cls).items():
        value = data.draw(wrong(kind), label=field)
        with pytest.raises(ValueError, match=rf"^{field}=.*: must be "):
            cls(**{field: value})
        with pytest.raises(UserError, match=rf"^recipe: {name}\.{field}=(?s:.*): must be [^\n]*$"):
            check_recipe([f"--gin.{name}.{field}={literal(value)}"])


def literal(value: Any) -> str:
    """As it stands in a recipe, where 1e999 is infinite."""
    return repr(value).replace("inf", "1e999")


@pytest.mark.parametrize("name", catalog())
def test_the_catalogue_says_what_the_class_is(name: str) -> None:
    entry = catalog()[name]
    cls = getattr(importlib.import_module(entry.module), name)
    assert list(entry.fields) == [field.name for field in fields(cls)]
    for field in fields(cls):
        default = field.default if field.default_factory is MISSING else field.default_factory()
        kind = entry.fields[field.name].type
        assert accepts(kind, default), f"{field.name}: {kind} doesn't take its own default {default!r}"
        try:
            told = ast.literal_eval(entry.fields[field.name].default)
        except ValueError:
            continue  # an expression, such as 1 << 30
        assert told == default


@pytest.mark.parametrize("kind", KINDS)
@given(data=st.data())
def test_a_type_takes_its_values(kind: str, data: st.DataObject) -> None:
    assert accepts(kind, data.draw(KINDS[kind]))


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        ("int", "10"),
        ("int", 1.5),
        ("int", True),
        ("float", "1e-3"),
        ("str", 3),
        ("bool", 1),
        ("int | None", "none"),
        ("tuple[int, ...]", [1]),
        ("tuple[int, ...]", (1, "2")),
        ("tuple[str, ...]", "abc"),
        ("tuple[str, int]", ("a",)),
        ("dict[str, float]", {"a": "b"}),
        ("dict[str, float]", {1: 2.0}),
        ("Literal['a', 'b']", "c"),
    ],
)
def test_a_type_refuses_others(kind: str, value: Any) -> None:
    assert not accepts(kind, value)


def test_a_type_that_is_not_known_takes_anything() -> None:
    assert accepts("Path", object())


def test_what_a_docstring_says_of_a_name() -> None:
    doc = """Does.

    Args:
        one, two: the first
            and its end.
        three: last.

    Raises:
        four: no.
    """
    assert meanings(doc, "Args") == {"one": "the first and its end.", "two": "the first and its end.", "three": "last."}
    assert meanings(doc, "Attributes") == {}


def test_reading_it_imports_neither_half() -> None:
    program = "import sys; from opencoder_jax.configurables import catalog; catalog(); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert not {"jax", "apache_beam", "tensorflow", "pyarrow"} & set(done.stdout.split())


SOURCES = {
    "columns are bytes": 'é = "größe"; b = {"ä": (1,\n  2)}\n',
    "ends of lines": "a = 1\r\nb = (2,\r 3)\nc = '''x\r\ny'''",
    "what only str.splitlines divides": 'a = "\x0b\x1c\u2028"; b = 1\nc\x0c= 2\n',
    "a real module": Path(configurables.__file__).read_text(encoding="utf-8"),
}


@pytest.mark.parametrize("text", SOURCES.values(), ids=SOURCES)
def test_a_segment_is_pythons(text: str) -> None:
    lines = lines_of(text)
    nodes = [node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.expr | ast.stmt)]
    assert len(nodes) > 4
    for node in nodes:
        assert segment(lines, node) == ast.get_source_segment(text, node)


def test_where_a_module_lies() -> None:
    assert source_file("opencoder_jax.configurables").samefile(configurables.__file__)
    assert source_file("opencoder_jax.beam_pipelines.core.stage").is_file()
    assert not source_file("opencoder_jax.configurables.segment").is_file()
