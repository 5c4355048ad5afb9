"""Plain values as JSON: what a judge and an untrusted function may say to each other.

Nothing but exact built-in types comes out of `decode`, whatever the other side sends: no object whose `__eq__` is
always true, no code. Not pickle, not marshal, because reading those can run code or crash.
"""

import json
from collections.abc import Iterator
from numbers import Integral
from typing import Any

MESSAGE_BYTES = 16 << 20


def encode(value: Any) -> bytes:
    """JSON in ASCII. Subclasses become their built-in base; an iterator is run to its end.

    Raises:
        TypeError: a value that is none of None, bool, int, float, complex, str, bytes, list, tuple, set, frozenset,
        dict
            or an iterator of such.
    """
    return json.dumps(_plain(value)).encode()


def decode(message: bytes) -> Any:
    """The value that `encode` wrote.

    Raises:
        ValueError: anything else.
    """
    try:
        return _value(json.loads(message))
    except (KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(f"not an encoded value: {error}") from None


def _plain(value: Any) -> Any:
    if value is None or isinstance(value, bool | str):
        return value
    if isinstance(value, Integral):  # numpy's integers are registered as such
        number = int(value)
        return number if abs(number) < 1 << 63 else {"int": hex(number)}  # Python refuses decimals of over 4,300 digits
    if isinstance(value, float):
        return float(value)
    if isinstance(value, list):
        return [_plain(item) for item in value]
    if isinstance(value, complex):
        return {"complex": [value.real, value.imag]}
    if isinstance(value, bytes | bytearray):
        return {"bytes": value.hex()}
    if isinstance(value, dict):
        return {"dict": [[_plain(key), _plain(item)] for key, item in value.items()]}
    for kind in tuple, set, frozenset, Iterator:
        if isinstance(value, kind):
            return {kind.__name__.lower(): [_plain(item) for item in value]}
    raise TypeError(f"a {type(value).__name__} cannot be passed between the judge and the candidate")


def _value(plain: Any) -> Any:
    if isinstance(plain, list):
        return [_value(item) for item in plain]
    if not isinstance(plain, dict):
        return plain
    ((kind, content),) = plain.items()
    match kind:
        case "int":
            return int(content, 16)
        case "complex":
            return complex(*content)
        case "bytes":
            return bytes.fromhex(content)
        case "dict":
            return {_value(key): _value(item) for key, item in content}
        case "tuple":
            return tuple(map(_value, content))
        case "set":
            return set(map(_value, content))
        case "frozenset":
            return frozenset(map(_value, content))
        case "iterator":
            return iter([_value(item) for item in content])
    raise ValueError(f"unknown kind of value {kind!r}")
