"""What the grammar's tasks are about: its types, with the names that a parameter may have and values to try."""

import random
from collections.abc import Callable
from typing import Any, NamedTuple

# fmt: off
_WORDS = (
    "apple", "bread", "cloud", "Delta", "ember", "frog", "GRAPE", "house", "Iris", "jump", "kite", "level", "moon",
    "Noon", "otter", "pearl", "quiz", "river", "Stone", "tulip", "under", "violet", "wagon", "xylem", "yellow",
    "zebra", "radar", "a", "be", "cat", "Dog", "EEL", "fig", "io", "up", "sky", "tree", "lamp", "sand", "rain",
    "book", "leaf",
)
# fmt: on
_LETTERS = "aeioubcdlmnrst"


class Type(NamedTuple):
    """A type of values.

    Attributes:
        annotation: as a signature says it.
        element: the type of a list's elements; "" where it isn't one.
        one, many: what a person calls its elements, or itself.
        names: of parameters.
        leaves: what a person calls a parameter; `{name}` is its name.
        draw: a value; the size grows from 0, where it's empty or zero.
    """

    annotation: str
    element: str
    one: str
    many: str
    names: tuple[str, ...]
    leaves: tuple[str, ...]
    draw: Callable[[random.Random, int], Any]


def _number(rng: random.Random, size: int) -> int:
    return rng.choice((0, 1, 2)) if size == 0 else rng.randint(-4 * size if rng.random() < 0.4 else 0, 12 * size)


def _text(rng: random.Random, size: int) -> str:
    words = [rng.choice(_WORDS) for _ in range(size if size < 2 else rng.randint(1, 3))]
    text = rng.choice((" ", " ", "-", ", ")).join(words)
    return text + rng.choice(("", "", "", "!", "7", " ")) if size else text


def _numbers(rng: random.Random, size: int) -> list[int]:
    numbers = [_number(rng, 1 + rng.randint(0, 2)) for _ in range(size if size < 2 else rng.randint(2, 6))]
    return numbers + rng.sample(numbers, min(len(numbers), rng.randint(0, 2)))


def _words(rng: random.Random, size: int) -> list[str]:
    words = [rng.choice(_WORDS) for _ in range(size if size < 2 else rng.randint(2, 5))]
    return words + rng.sample(words, min(len(words), rng.randint(0, 1)))


def _counts(rng: random.Random, size: int) -> dict[str, int]:
    return {rng.choice(_WORDS): _number(rng, 1) for _ in range(size)}


def _natural(rng: random.Random, size: int) -> int:
    return rng.randint(1, 4 + 6 * size)


TYPES = {
    "int": Type(
        "int",
        "",
        "number",
        "numbers",
        ("n", "number", "value", "x", "num", "amount", "integer", "a"),
        ("{name}", "`{name}`", "the number", "a number", "the given number", "the integer {name}", "the value {name}"),
        _number,
    ),
    # A number above zero: what small algorithms want.
    "natural": Type(
        "int",
        "",
        "number",
        "numbers",
        ("n", "number", "value", "x", "num", "limit", "integer", "m"),
        ("{name}", "`{name}`"),
        _natural,
    ),
    "bool": Type("bool", "", "answer", "answers", ("flag",), ("{name}",), lambda rng, _: rng.random() < 0.5),
    "float": Type("float", "", "number", "numbers", ("x",), ("{name}",), lambda rng, _: rng.randint(-20, 20) / 4),
    "str": Type(
        "str",
        "",
        "text",
        "texts",
        ("text", "s", "string", "line", "phrase", "name", "message", "label"),
        ("{name}", "`{name}`", "the text", "a text", "the string", "a string", "the given string", "the string {name}"),
        _text,
    ),
    "numbers": Type(
        "list[int]",
        "int",
        "number",
        "numbers",
        ("numbers", "nums", "values", "items", "xs", "data", "integers", "scores", "lst"),
        (
            "the numbers",
            "the list",
            "`{name}`",
            "{name}",
            "a list of numbers",
            "the given numbers",
            "the given list",
            "the list {name}",
            "the integers in {name}",
            "a list of integers",
        ),
        _numbers,
    ),
    "words": Type(
        "list[str]",
        "str",
        "word",
        "words",
        ("words", "texts", "strings", "names", "items", "lines", "labels", "tokens"),
        (
            "the words",
            "the list",
            "`{name}`",
            "{name}",
            "a list of words",
            "a list of strings",
            "the given words",
            "the given strings",
            "the list {name}",
            "the strings in {name}",
        ),
        _words,
    ),
    "counts": Type(
        "dict[str, int]",
        "",
        "entry",
        "entries",
        ("counts", "table", "scores", "mapping", "stock", "prices", "ages", "d"),
        ("the dictionary", "`{name}`", "{name}", "a dictionary", "the given dictionary", "the mapping {name}"),
        _counts,
    ),
}

# What an operation may leave open: a constant or another parameter. Each with its type, the names that a parameter may
# have, and a value.
OPEN: dict[str, tuple[str, tuple[str, ...], Callable[[random.Random], Any]]] = {
    "k": ("int", ("k", "n", "limit", "step", "factor", "size", "count", "amount"), lambda rng: rng.randint(2, 9)),
    "h": ("int", ("high", "upper", "top", "end"), lambda rng: rng.randint(10, 20)),
    "c": ("str", ("letter", "char", "c", "character", "symbol"), lambda rng: rng.choice(_LETTERS)),
    "t": ("str", ("other", "suffix", "part", "extra", "piece", "t"), lambda rng: rng.choice((*_WORDS[:12], "!", "-"))),
}
