"""How HumanEval+ and MBPP+ compare: an answer's values with the reference's, on every input, in the judge.

The rules are EvalPlus's (evalplus 0.3.1, eval/__init__.py), but for what lets wrong answers pass there: a tolerance
that the first float brings stays with its input, a polynomial far below zero is no root, and a task whose own
reference is doubtful (Mbpp/164) still wants a truth value.

A case is the arguments of a call and what the reference returned, both as the sandbox writes values; the latter may be
a digest of that. This module is source for a judge, which runs it in a namespace of its own.
"""

import hashlib
import math
from collections.abc import Callable, Sequence

from opencoder_jax.sandbox.pair._values import decode, encode


def close(got: object, wanted: object, absolute: float) -> bool:
    """Numpy's assert_allclose, on numbers and on lists and tuples of them."""
    if isinstance(wanted, (list, tuple)):
        if not isinstance(got, (list, tuple)) or len(got) != len(wanted):
            return False
        return all(close(one, other, absolute) for one, other in zip(got, wanted, strict=True))
    if not isinstance(got, (int, float)) or not isinstance(wanted, (int, float)):
        return bool(got == wanted)
    if math.isnan(got) or math.isnan(wanted):
        return math.isnan(got) and math.isnan(wanted)
    if math.isinf(got) or math.isinf(wanted):
        return got == wanted
    return abs(got - wanted) <= absolute + 1e-07 * abs(wanted)


def floats(value: object) -> bool:
    """Whether a value is a float, or a list or tuple of nothing else."""
    if isinstance(value, (list, tuple)):
        return bool(value) and all(isinstance(item, float) for item in value)
    return isinstance(value, float)


def agrees(got: object, wanted: object, absolute: float, rule: str, arguments: list) -> bool:
    """Whether an answer's value is as good as the reference's."""
    if rule == "root":  # any root of the polynomial is right
        if isinstance(got, bool) or not isinstance(got, (int, float)) or not math.isfinite(got):
            return False
        return abs(sum(factor * math.pow(got, power) for power, factor in enumerate(arguments[0]))) <= absolute
    if rule == "truth":
        return isinstance(got, bool)
    if rule == "or zero" and got == 0:
        return True
    if rule == "found" and not isinstance(got, bool):
        return (got is not None) == wanted
    if absolute == 0 and floats(wanted):
        absolute = 1e-06
    try:
        same = bool(got == wanted)
    except ValueError:  # of an array
        same = False
    if same or absolute == 0:
        return same
    return close(got, wanted, absolute)


class Digest:
    """Stands for a long value: equal to what is written as it was."""

    def __init__(self, text: str):
        self.text = text

    def __eq__(self, other: object) -> bool:
        try:
            return digest(other) == self.text
        except TypeError:  # what cannot be written is no list of numbers
            return False

    def __hash__(self) -> int:
        return hash(self.text)


def digest(value: object) -> str:
    """What stands for a value in a case: equal for equal numbers, texts, and lists and tuples of them."""
    return f"sha256:{hashlib.sha256(encode(_exact(value))).hexdigest()}"


def _exact(value: object) -> object:
    """With one way to write a number: 1.0 and True are 1."""
    if isinstance(value, (list, tuple)):
        return type(value)(map(_exact, value))
    if isinstance(value, bool) or (isinstance(value, float) and value.is_integer()):
        return int(value)
    return value


def check_cases(candidate: Callable[..., object], cases: Sequence[tuple[str, str]], absolute: float, rule: str) -> None:
    """Calls an answer with every input, and raises AssertionError on the first that differs."""
    for number, (given, output) in enumerate(cases):
        wanted = Digest(output) if output.startswith("sha256:") else decode(output.encode())
        got = candidate(*decode(given.encode()))
        assert agrees(got, wanted, absolute, rule, decode(given.encode())), (
            f"input {number}: {got!r:.200} is not {wanted!r:.200}"
        )
