"""What a judge and a candidate say to each other arrives as exactly the built-in value that was meant."""

import collections
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from opencoder_jax.sandbox._values import decode, encode

atoms = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text()
    | st.binary()
    | st.complex_numbers(allow_nan=False)
)
hashable = st.recursive(atoms, lambda inner: st.tuples(inner, inner) | st.frozensets(inner, max_size=3), max_leaves=6)
anything = st.recursive(
    hashable,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.sets(hashable, max_size=4)
        | st.dictionaries(hashable, inner, max_size=4)
        | st.tuples(inner)
    ),
    max_leaves=20,
)


def same(left: object, right: object) -> bool:
    """Equal, and of the same types all the way down (1 is not True, and 0.0 is not -0.0)."""
    return (
        repr(left) == repr(right)
        if not isinstance(left, set | frozenset | dict | list | tuple)
        else type(left) is type(right) and left == right
    )


@given(value=anything)
@settings(deadline=None, max_examples=200)
def test_round_trip(value: object) -> None:
    assert same(decode(encode(value)), value)


@given(message=st.binary(max_size=50) | st.text(max_size=50).map(str.encode))
@settings(deadline=None, max_examples=200)
def test_garbage_is_refused_or_plain(message: bytes) -> None:
    try:
        value = decode(message)
    except ValueError:
        return
    assert type(value).__module__ == "builtins"


def test_nothing_but_built_ins_arrives() -> None:
    class Yes(int):
        def __eq__(self, other: object) -> bool:
            return True

        __hash__ = int.__hash__

    Point = collections.namedtuple("Point", "x y")
    sent = [Yes(3), Point(1, 2), collections.Counter("aab"), np.int64(5), np.float64(0.5), iter([1, 2])]
    number, point, counts, five, half, items = decode(encode(sent))
    assert [type(value) for value in (number, point, counts, five, half)] == [int, tuple, dict, int, float]
    assert (number, point, counts, five, half, list(items)) == (3, (1, 2), {"a": 2, "b": 1}, 5, 0.5, [1, 2])


def test_numbers_beyond_pythons_decimal_limit() -> None:
    assert decode(encode(-(10**9000))) == -(10**9000)
    assert str(decode(encode(float("nan")))) == "nan"
    assert decode(encode(float("-inf"))) == float("-inf")


@pytest.mark.parametrize("value", [object(), print, int, range(3), [object()], {1: print}])
def test_what_is_not_plain_is_refused(value: object) -> None:
    with pytest.raises(TypeError, match="cannot be passed"):
        encode(value)


@pytest.mark.parametrize(
    "content",
    [
        {},
        {"code": 1},
        {"tuple": 3},
        {"tuple": [], "set": []},
        {"set": [[1]]},
        {"bytes": 5},
        {"bytes": "x"},
        {"int": []},
    ],
)
def test_malformed_values_are_refused(content: object) -> None:
    with pytest.raises(ValueError):  # noqa: PT011
        decode(json.dumps(content).encode())


def test_nesting_bombs_are_refused() -> None:
    with pytest.raises(ValueError, match="not an encoded value"):
        decode(b"[" * 200_000 + b"]" * 200_000)
