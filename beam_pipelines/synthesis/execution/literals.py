"""Values as source text that means them again. Its source is also run inside the sandbox, so it imports little.

assert f({1: "a"}) == [2, 3]
"""

import ast

LONGEST = 400  # characters of a value that anybody wants to read


def literal(value: object) -> str | None:
    """The text of a plain value, the same for equal ones; None where it has none, or one that is too long.

    Sets are written in order. What isn't equal to itself, such as nan, has no text.
    """
    try:
        text = _text(value)
        return text if len(text) <= LONGEST and ast.literal_eval(text) == value else None
    except (ValueError, TypeError, SyntaxError, RecursionError, MemoryError):
        return None


def _text(value: object) -> str:
    kind = type(value)
    if value is None or kind in (bool, int, float, str, bytes):
        return repr(value)
    if kind is list:
        return "[" + ", ".join(map(_text, value)) + "]"  # type: ignore[call-overload]
    if kind is tuple:
        inside = ", ".join(map(_text, value))  # type: ignore[call-overload]
        return f"({inside},)" if len(value) == 1 else f"({inside})"  # type: ignore[arg-type]
    if kind is set:
        return "{" + ", ".join(sorted(map(_text, value))) + "}" if value else "set()"  # type: ignore[call-overload]
    if kind is dict:
        pairs = [f"{_text(key)}: {_text(item)}" for key, item in value.items()]  # type: ignore[attr-defined]
        return "{" + ", ".join(pairs) + "}"
    raise ValueError(kind)
