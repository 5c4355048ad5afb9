"""What a configuration refuses: one line a field, and a message that names the field, its value and what is wanted.

def __post_init__(self) -> None:
    check(self, steps=at_least(1), remat=one_of(*REMATS), keep=or_none(at_least(1)))
"""

from collections.abc import Callable
from typing import Any, NamedTuple


class Requirement(NamedTuple):
    """What a value must be: a test, and the same in words."""

    holds: Callable[[Any], bool]
    words: str


def check(config: object, **rules: Requirement) -> None:
    """Raises ValueError for the first field that breaks its rule."""
    for name, rule in rules.items():
        value = getattr(config, name)
        if not rule.holds(value):
            raise ValueError(f"{name}={value!r}: must be {rule.words}")


def at_least(low: float) -> Requirement:
    """A number of `low` or more; nan isn't."""
    return Requirement(lambda value: value >= low, f"{low} or more")


def above(low: float) -> Requirement:
    """A number greater than `low`."""
    return Requirement(lambda value: value > low, f"above {low}")


def between(low: float, high: float) -> Requirement:
    """A number from `low` to `high`, both included."""
    return Requirement(lambda value: low <= value <= high, f"between {low} and {high}")


def power_of_two() -> Requirement:
    """One of 1, 2, 4, 8 and so on."""
    return Requirement(lambda value: value >= 1 and not value & (value - 1), "a power of two")


def one_of(*choices: Any) -> Requirement:
    """One of some values."""
    return Requirement(lambda value: value in choices, f"one of {', '.join(map(str, choices))}")


def or_none(rule: Requirement) -> Requirement:
    """None, or what `rule` takes."""
    return Requirement(lambda value: value is None or rule.holds(value), f"{rule.words}, or None")


def each(rule: Requirement) -> Requirement:
    """A tuple or list whose values all keep `rule`, or a dictionary whose values do; a string is neither."""

    def holds(values: Any) -> bool:
        found = values.values() if isinstance(values, dict) else values
        return not isinstance(values, str) and all(rule.holds(value) for value in found)

    return Requirement(holds, f"a tuple whose values are each {rule.words}")
