"""Values as JSON: what a judge and an untrusted function may say to each other.

`decode` makes nothing but exact types of Python, of its standard library and of numpy, whatever the other side sends:
no object whose `__eq__` is always true, no code. Not pickle, not marshal: reading those can run code or crash.
Functions and iterators cross as handles, by which `_calls.py` reaches the original.
"""

import collections
import datetime
import json
import re
import sys
from collections.abc import Callable, Iterator
from decimal import Decimal
from fractions import Fraction
from types import BuiltinFunctionType, FunctionType, MethodType
from typing import Any, Protocol

MESSAGE_BYTES = 16 << 20

_FUNCTIONS = (FunctionType, BuiltinFunctionType, MethodType)
# What numpy's dtype.str may be: booleans, numbers, text, bytes, dates. No objects, no structures.
# No half precision: its infinity equals every number above 65504, since numpy rounds the number to it.
_DTYPE = re.compile(r"[<>|=](?!f2)[biufcSUMm]\d{1,6}(\[\w{1,3}\])?")
_DATES = {kind.__name__: kind for kind in (datetime.datetime, datetime.date, datetime.time)}
# A defaultdict's factory is a name of these; another function cannot be copied.
_FACTORIES = {kind.__name__: kind for kind in (int, float, str, list, dict, set, tuple, bool)}
_VIEWS: dict[str, Callable[[list[Any]], Any]] = {
    "dict_keys": lambda items: dict.fromkeys(items).keys(),
    "dict_values": lambda items: dict(enumerate(items)).values(),
    "dict_items": lambda items: dict(items).items(),
}


class Uncrossable(TypeError):
    """A value that the other side can be given neither a copy of nor a handle to."""


class Handles(Protocol):
    """What stands for the functions and iterators of either side."""

    def give(self, value: Any) -> dict[str, Any]:
        """The handle of an object here; Uncrossable where none may be given."""

    def take(self, kind: str, number: int) -> Any:
        """What stands here for an object of the other side, or the object that it gives back; ValueError if none."""


class NoHandles:
    """For what must be whole."""

    def give(self, value: Any) -> dict[str, Any]:
        raise Uncrossable(f"a {type(value).__name__} cannot be passed between the judge and the candidate")

    def take(self, kind: str, number: int) -> Any:
        raise ValueError(f"a handle of a {kind} where none may be")


def encode(value: Any, handles: Handles | None = None) -> bytes:
    """JSON in ASCII. Subclasses of built-in types become their base; named tuples keep their fields.

    Raises:
        Uncrossable: the value, or one in it, is of a class that only one side knows, or refers to itself.
    """
    try:
        return json.dumps(_plain(value, handles or NoHandles())).encode()
    except RecursionError:
        raise Uncrossable("a value that refers to itself, or is nested too deep") from None


def decode(message: bytes, handles: Handles | None = None) -> Any:
    """The value that `encode` wrote.

    Raises:
        ValueError: anything else.
    """
    try:
        return _value(json.loads(message), handles or NoHandles())
    except (LookupError, TypeError, AttributeError, ArithmeticError, RecursionError) as error:
        raise ValueError(f"not an encoded value: {error}") from None


def _plain(value: Any, handles: Handles) -> Any:
    if value is None or isinstance(value, bool | str):
        return value
    if type(value).__module__ == "numpy":
        return _of_numpy(value)
    if isinstance(value, int):
        number = int(value)
        return number if abs(number) < 1 << 63 else {"int": hex(number)}  # Python refuses decimals of over 4,300 digits
    if isinstance(value, float):
        return float(value)
    if isinstance(value, list):
        return [_plain(item, handles) for item in value]

    def plain(items: Any) -> list[Any]:
        return [_plain(item, handles) for item in items]

    if isinstance(value, dict):
        pairs = [[_plain(key, handles), _plain(item, handles)] for key, item in value.items()]
        if isinstance(value, collections.defaultdict) and value.default_factory is not None:
            name = getattr(value.default_factory, "__name__", "")
            if _FACTORIES.get(name) is not value.default_factory:
                return handles.give(value)
            return {"defaultdict": [name, pairs]}
        named = [kind for kind in (collections.OrderedDict, collections.Counter) if isinstance(value, kind)]
        return {named[0].__name__ if named else "dict": pairs}
    if isinstance(value, tuple) and isinstance(names := getattr(value, "_fields", None), tuple):
        return {"namedtuple": [type(value).__name__, list(names), plain(value)]}
    for collection in tuple, set, frozenset:
        if isinstance(value, collection):
            return {collection.__name__: plain(value)}
    if isinstance(value, bytes | bytearray):
        return {"bytes" if isinstance(value, bytes) else "bytearray": value.hex()}
    if isinstance(value, type) and _FACTORIES.get(name := value.__name__) is value:
        return {"type": name}
    if isinstance(value, complex):
        return {"complex": [value.real, value.imag]}
    if isinstance(value, range):
        return {"range": plain((value.start, value.stop, value.step))}
    if isinstance(value, collections.deque):
        return {"deque": [plain(value), value.maxlen]}
    if isinstance(value, Fraction):
        return {"Fraction": plain((value.numerator, value.denominator))}
    if isinstance(value, Decimal):
        return {"Decimal": str(value)}
    if type(value).__name__ in _VIEWS and type(value).__module__ == "builtins":
        return {type(value).__name__: plain(value)}
    for name, date in _DATES.items():
        if type(value) is date:
            return {name: value.isoformat()}
    if type(value) is datetime.timedelta:
        return {"timedelta": [value.days, value.seconds, value.microseconds]}
    return handles.give(value)


def _of_numpy(value: Any) -> dict[str, Any]:
    kind = value.dtype.str if hasattr(value, "dtype") else ""
    if not _DTYPE.fullmatch(kind):
        raise Uncrossable(f"numpy's {type(value).__name__} of {kind or 'no dtype'} cannot be passed")
    if type(value).__name__ == "ndarray":
        return {"ndarray": [kind, list(value.shape), value.tobytes().hex()]}
    return {"scalar": [kind, value.tobytes().hex()]}


def _to_numpy(kind: str, data: str, shape: list[int]) -> Any:
    if not _DTYPE.fullmatch(kind):
        raise ValueError(f"not a dtype: {kind!r}")
    import numpy  # here, for most judges never need it

    if not data:
        return numpy.zeros(shape, kind)
    return numpy.frombuffer(bytes.fromhex(data), numpy.dtype(kind)).reshape(shape).copy()


def _value(plain: Any, handles: Handles) -> Any:
    if isinstance(plain, list):
        return [_value(item, handles) for item in plain]
    if not isinstance(plain, dict):
        return plain
    ((kind, content),) = plain.items()

    def values(items: list[Any]) -> list[Any]:
        if not isinstance(items, list):
            raise ValueError(f"not the items of a {kind}")
        return [_value(item, handles) for item in items]

    def pairs(items: list[Any]) -> dict[Any, Any]:
        return {_value(key, handles): _value(item, handles) for key, item in items}

    match kind:
        case "int":
            return int(content, 16)
        case "complex":
            return complex(*content)
        case "bytes":
            return bytes.fromhex(content)
        case "bytearray":
            return bytearray.fromhex(content)
        case "dict":
            return pairs(content)
        case "OrderedDict":
            return collections.OrderedDict(pairs(content))
        case "Counter":
            return collections.Counter(pairs(content))
        case "defaultdict":
            return collections.defaultdict(_FACTORIES[content[0]], pairs(content[1]))
        case "tuple":
            return tuple(values(content))
        case "set":
            return set(values(content))
        case "frozenset":
            return frozenset(values(content))
        case "namedtuple":
            name, names, items = content
            return collections.namedtuple(name, names)(*values(items))
        case "type":
            return _FACTORIES[content]
        case "range":
            return range(*values(content))
        case "deque":
            return collections.deque(values(content[0]), content[1])
        case "Fraction":
            return Fraction(*values(content))
        case "Decimal":
            return Decimal(content)
        case "timedelta":
            return datetime.timedelta(*content)
        case "ndarray":
            dtype, shape, data = content
            return _to_numpy(dtype, data, shape)
        case "scalar":
            dtype, data = content
            return _to_numpy(dtype, data, [])[()]
        case "function" | "iterator" | "generator" | "yours":
            if type(content) is not int:
                raise ValueError("not a handle")
            return handles.take(kind, content)
    if kind in _VIEWS:
        return _VIEWS[kind](values(content))
    if kind in _DATES:
        return _DATES[kind].fromisoformat(content)
    raise ValueError(f"unknown kind of value {kind!r}")


def handle_kind(value: Any) -> str:
    """How an object crosses as a handle: "function", "generator", "iterator"; "" if not at all."""
    if isinstance(value, _FUNCTIONS) or type(value).__name__ in ("partial", "_lru_cache_wrapper"):
        return "function"
    # An iterator of a class of its own may compare or print as it likes; those of Python and itertools do not.
    if isinstance(value, Iterator) and type(value).__module__ in ("builtins", "itertools"):
        return "generator" if type(value).__name__ == "generator" else "iterator"
    return ""


def assign(target: Any, new: Any) -> None:
    """Makes a mutable value equal to another, in place, as deep as both have the same shape."""
    if type(target) is not type(new):
        return
    if isinstance(target, list | collections.deque):
        if len(target) == len(new):
            new = [_merged(old, item) for old, item in zip(target, new, strict=True)]
        items = list(new)
        target.clear()
        target.extend(items)
    elif isinstance(target, dict):
        merged = {key: _merged(target[key], item) if key in target else item for key, item in new.items()}
        target.clear()
        target.update(merged)
    elif isinstance(target, set):
        items = list(new)
        target.clear()
        target.update(items)
    elif isinstance(target, bytearray):
        target[:] = new
    elif isinstance(target, tuple) and len(target) == len(new):
        for old, item in zip(target, new, strict=True):
            assign(old, item)
    elif "numpy" in sys.modules and isinstance(target, sys.modules["numpy"].ndarray) and target.shape == new.shape:
        target[...] = new


def _merged(old: Any, new: Any) -> Any:
    """`old` made equal to `new` if it can be; else `new`."""
    if type(old) is type(new) and isinstance(old, list | collections.deque | dict | set | bytearray):
        assign(old, new)
        return old
    return new
