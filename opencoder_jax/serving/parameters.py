"""Reads the JSON of a request: each parameter by a reader of its own, and a refusal that names what is wrong.

A reader takes a JSON value and returns what the server goes on with; what it can't take is a ValueError that says what
the value must be. `null` stands for the default, as in OpenAI's API. Bodies come from anyone: nesting without end,
numbers without end, NaN and lone surrogates are refused here, so that nothing behind meets them.
"""

import difflib
import json
import math
import reprlib
from collections.abc import Callable, Mapping
from typing import Any

Reader = Callable[[Any], Any]

MOST = 2**63 - 1


class Refused(Exception):
    """A request that isn't answered, in OpenAI's terms.

    Attributes:
        status: of HTTP.
        param: the parameter that is wrong, where it is one.
        code: for programs.
        retry_after: seconds after which it may be tried again.
    """

    def __init__(
        self,
        message: str,
        param: str | None = None,
        code: str | None = None,
        status: int = 400,
        retry_after: int | None = None,
    ) -> None:
        super().__init__(message)
        self.param, self.code, self.status, self.retry_after = param, code, status, retry_after


def error_body(message: str, kind: str, param: str | None = None, code: str | None = None) -> dict[str, Any]:
    """An error in the shape of OpenAI's."""
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}


def shown(value: Any) -> str:
    """A value as an error quotes it: short, however large or deep it is, and free of lone surrogates."""
    return reprlib.repr(value)


def parse(body: bytes) -> dict[str, Any]:
    """The object of a body. Raises Refused when it is none."""
    try:
        # Not json.loads(bytes), which would guess UTF-16 and UTF-32.
        value = json.loads(body.decode(), parse_constant=_no_number)
    except UnicodeDecodeError as error:
        raise Refused(f"the body isn't UTF-8 (byte {error.start})") from None
    except RecursionError:
        raise Refused("the body is nested too deeply") from None
    except ValueError as error:
        raise Refused(f"the body isn't JSON: {error}") from None
    if not isinstance(value, dict):
        raise Refused(f"the body must be a JSON object; got {shown(value)}")
    return value


def _no_number(word: str) -> None:
    raise ValueError(f"{word} is no JSON number")


def read(fields: Mapping[str, Any], readers: Mapping[str, Reader], within: str = "") -> dict[str, Any]:
    """The parameters that are given and not null, each read by its reader.

    Args:
        within: what errors put before a parameter's name, such as `messages[0].`.

    Raises:
        Refused: a parameter isn't known, or its value isn't taken.
    """
    found = {}
    for name, value in fields.items():
        place = f"{within}{shown(name)[1:-1]}"
        if name not in readers:
            near = difflib.get_close_matches(name[:100], readers, 1)
            advice = f"did you mean {near[0]}?" if near else f"there are {', '.join(readers)}"
            raise Refused(f"unknown parameter {place}; {advice}", place, "unknown_parameter")
        if value is None:
            continue
        try:
            found[name] = readers[name](value)
        except ValueError as error:
            raise Refused(f"{place}: must be {error}; got {shown(value)}", place, "invalid_value") from None
    return found


def boolean(value: Any) -> bool:
    """True or false."""
    if not isinstance(value, bool):
        raise ValueError("true or false")
    return value


def whole(low: int, high: int = MOST) -> Reader:
    """Whole numbers from `low` to `high`."""

    def reader(value: Any) -> int:
        if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
            raise ValueError(f"a whole number from {low}" + (f" to {high}" if high < MOST else " up"))
        return value

    return reader


def number(low: float, high: float = math.inf) -> Reader:
    """Finite numbers from `low` to `high`."""

    def reader(value: Any) -> float:
        right = isinstance(value, int | float) and not isinstance(value, bool)
        # Compared before it's converted: an integer may be larger than any float.
        if not right or not low <= value <= high or not -1e300 < value < 1e300:
            raise ValueError(f"a number from {low}" + (f" to {high}" if high < math.inf else " up"))
        return float(value)

    return reader


def text(value: Any) -> str:
    """A string of characters; a lone surrogate is none."""
    if not isinstance(value, str):
        raise ValueError("a string")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"a string of whole characters, without the lone surrogate at {error.start}") from None
    return value


def list_of(reader: Reader, most: int, words: str) -> Reader:
    """Lists of one to `most` values that `reader` takes; `words` say what they are."""

    def read_list(value: Any) -> list[Any]:
        if not isinstance(value, list) or not 1 <= len(value) <= most:
            raise ValueError(f"a list of 1 to {most} {words}")
        return [reader(each) for each in value]

    return read_list


def only(*values: Any) -> Reader:
    """What other servers can do and this one can't: taken where it says so, and refused where it asks for it."""

    def reader(value: Any) -> Any:
        if not any(type(value) is type(each) and value == each for each in values):
            words = " or ".join(json.dumps(each) for each in values)
            raise ValueError(f"{words}, or left out: this server can do nothing else")
        return value

    return reader
