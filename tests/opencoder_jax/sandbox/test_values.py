"""What a judge and a candidate say to each other arrives as exactly the built-in value that was meant."""

import collections
import copy
import datetime
import json
from decimal import Decimal
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from opencoder_jax.sandbox.pair._values import assign, decode, encode

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
    number, point = decode(encode([Yes(3), Point(1, 2)]))
    assert type(number) is int
    assert type(point) is not Point
    assert (number, point.x, point, repr(point)) == (3, 1, (1, 2), "Point(x=1, y=2)")


@pytest.mark.parametrize(
    "value",
    [
        collections.Counter("aab"),
        collections.OrderedDict(b=1, a=2),
        collections.deque([1, [2]], maxlen=3),
        collections.defaultdict(list, {1: [2]}),
        Fraction(-1, 3),
        Decimal("1.10"),
        range(3, 9, 2),
        {1: 2}.keys(),
        {1: 2}.values(),
        {1: [2]}.items(),
        bytearray(b"ab"),
        datetime.date(2024, 2, 29),
        datetime.datetime(2024, 2, 29, 1, 2, tzinfo=datetime.UTC),
        datetime.timedelta(-1, 2, 3),
        np.int64(5),
        np.float32(0.1),
        np.bool_(True),
        np.complex64(1j),
        np.datetime64("2024-02-29"),
        np.arange(6, dtype=np.int16).reshape(2, 3),
        np.zeros((0, 3)),
        np.array(["a", "bcd"]),
        np.array(2.5),
    ],
    ids=repr,
)
def test_values_of_the_standard_library_and_numpy_keep_their_type(value: object) -> None:
    arrived = decode(encode(value))
    assert type(arrived) is type(value)
    assert repr(arrived) == repr(value)
    if isinstance(value, np.generic | np.ndarray):
        assert isinstance(arrived, np.generic | np.ndarray)
        assert arrived.dtype == value.dtype


values = st.recursive(
    st.integers(), lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.integers(), inner, max_size=4)
)


@given(old=values, new=values)
@settings(deadline=None)
def test_an_argument_is_made_equal_in_place(old: object, new: object) -> None:
    target = copy.deepcopy(old)
    assign(target, new)
    assert target == (new if type(old) is type(new) and isinstance(old, list | dict) else old)


def test_what_is_nested_in_an_argument_keeps_its_identity() -> None:
    row = [1, 2]
    grid = [row, [3, 4]]
    assign(grid, [[9, 2], [3, 4]])
    assert row == [9, 2]
    assert grid[0] is row


def test_the_types_of_plain_values_cross() -> None:
    assert decode(encode([int, dict, bool])) == [int, dict, bool]


def test_numbers_beyond_pythons_decimal_limit() -> None:
    assert decode(encode(-(10**9000))) == -(10**9000)
    assert str(decode(encode(float("nan")))) == "nan"
    assert decode(encode(float("-inf"))) == float("-inf")


@pytest.mark.parametrize(
    "value",
    [
        object(),
        print,
        object,
        iter([]),
        [object()],
        {1: print},
        np.array([object()]),
        collections.defaultdict(lambda: 1),
    ],
)
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
        {"function": 0},
        {"Fraction": [1, 0]},
        {"Decimal": "x"},
        {"scalar": ["O", ""]},
        {"ndarray": ["<i8", [10], "00"]},
        {"namedtuple": ["T", ["__class__"], [1]]},
        {"defaultdict": ["eval", []]},
        {"range": [1, 2, 0]},
    ],
)
def test_malformed_values_are_refused(content: object) -> None:
    with pytest.raises(ValueError):  # noqa: PT011
        decode(json.dumps(content).encode())


def test_nesting_bombs_are_refused() -> None:
    with pytest.raises(ValueError, match="not an encoded value"):
        decode(b"[" * 200_000 + b"]" * 200_000)
