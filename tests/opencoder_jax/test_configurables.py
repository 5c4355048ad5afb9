"""The catalogue of configurations is read from the sources, and says what Python says once they are imported."""

import ast
import importlib
import subprocess
import sys
from dataclasses import MISSING, fields
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from opencoder_jax.configurables import accepts, catalog, meanings
from opencoder_jax.recipe import ROOT

KINDS = {
    "int": st.integers(),
    "float": st.floats(allow_nan=False) | st.integers(),
    "str": st.text(),
    "bool": st.booleans(),
    "int | None": st.none() | st.integers(),
    "tuple[int, ...]": st.lists(st.integers()).map(tuple),
    "tuple[str, int]": st.tuples(st.text(), st.integers()),
    "tuple[tuple[int, int], ...]": st.lists(st.tuples(st.integers(), st.integers())).map(tuple),
    "dict[str, float]": st.dictionaries(st.text(), st.floats(allow_nan=False)),
    "Literal['a', 'b']": st.sampled_from("ab"),
}


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
