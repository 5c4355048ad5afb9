"""What functions return in the sandbox: on the inputs of their own tests, and on others made from these.

A function and what watches it share a process here: it could lie, about what it returns itself.
"""

import ast
import inspect
import json
import random
import secrets
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

from opencoder_jax.beam_pipelines.synthesis.execution import literals
from opencoder_jax.beam_pipelines.synthesis.execution.programs import SolutionWithTests
from opencoder_jax.sandbox.program import Outcome, Program

Run = Callable[[Program], Outcome]

_MARK = f"observed-{secrets.token_hex(8)} "  # what the function may print can't begin so
# What a program has below the code that is watched.
COMMON = f"""
import json as _json
_literals = {{}}
exec({inspect.getsource(literals)!r}, _literals)
_literal = _literals["literal"]
_seen = []
"""
_SAY = f"\nprint({_MARK!r} + _json.dumps(_seen), flush=True)\n"
_RECORD = """
def _recording(name, call):
    def recorded(*arguments, **keywords):
        given = _literal(arguments)
        value = call(*arguments, **keywords)
        if not keywords and len(_seen) < 200:
            _seen.append([name, given, _literal(value)])
        return value
    return recorded
"""
_EACH = """
for _arguments in {inputs!r}:
    try:
        _seen.append(_literal({name}(*_arguments)))
    except Exception:
        _seen.append(None)
"""


class ObservedCall(NamedTuple):
    """A call that was made: of which function, its arguments as the text of a tuple, and the text of what it gave."""

    name: str
    arguments: str
    value: str | None

    def assertion(self) -> str:
        """`assert f(1, 2) == 3`."""
        given = ", ".join(map(ast.unparse, ast.parse(self.arguments, mode="eval").body.elts))  # type: ignore[attr-defined]
        wanted = f"is {self.value}" if self.value in ("None", "True", "False") else f"== {self.value}"
        return f"assert {self.name}({given}) {wanted}"


def calls_of_tests(item: SolutionWithTests, run: Run) -> list[ObservedCall]:
    """The calls that tests make of a solution that passes them, without those whose arguments have no text."""
    wrapped = [f"{name} = _recording({name!r}, {name})" for name in item.functions()]
    seen = _said(run(Program("\n".join([item.solution, COMMON, _RECORD, *wrapped, item.tests, _SAY]))))
    return [ObservedCall(*each) for each in dict.fromkeys(map(tuple, seen)) if each[1] is not None]


def values(source: str, name: str, inputs: Sequence[tuple[Any, ...]], run: Run) -> list[str | None]:
    """The text of what a function returns on each input; None where it raises or gives what has no text.

    All None where the program ends on the way.
    """
    seen = _said(run(Program("\n".join([source, COMMON, _EACH.format(inputs=list(inputs), name=name), _SAY]))))
    return seen if len(seen) == len(inputs) else [None] * len(inputs)


def _said(outcome: Outcome) -> list[Any]:
    for line in outcome.stdout.splitlines():
        if line.startswith(_MARK):
            found: list[Any] = json.loads(line[len(_MARK) :])
            return found
    return []


def varied(inputs: Sequence[tuple[Any, ...]], count: int, seed: int = 0) -> list[tuple[Any, ...]]:
    """Up to `count` inputs like these, each with one argument changed within its type; none twice, none of these."""
    rng = random.Random(seed)
    known = {repr(each) for each in inputs}
    found: list[tuple[Any, ...]] = []
    changeable = [each for each in inputs if each]
    for _ in range(8 * count if changeable else 0):
        arguments = list(rng.choice(changeable))
        place = rng.randrange(len(arguments))
        arguments[place] = rng.choice(list(_changes(arguments[place], rng)))
        if repr(tuple(arguments)) not in known:
            known.add(repr(tuple(arguments)))
            found.append(tuple(arguments))
            if len(found) == count:
                break
    return found


def _changes(value: Any, rng: random.Random) -> Iterator[Any]:
    match value:
        case bool():
            yield not value
        case int():
            yield from (value + 1, value - 1, -value, 0, value * 2, rng.randint(-10, 20))
        case float():
            yield from (value + 0.5, -value, 0.0, value * 2, float(rng.randint(-9, 9)))
        case str():
            yield from ("", value[1:], value[:-1], value[::-1], value + value[:1], value.swapcase(), value + " a")
        case list() | tuple() if not value:
            yield value
        case list() | tuple():
            items, kind = list(value), type(value)
            place = rng.randrange(len(items))
            yield from (kind(items[::-1]), kind(items[:place] + items[place + 1 :]), kind([*items, items[place]]))
            yield from (
                kind(items[:place]),
                kind([*items[:place], next(_changes(items[place], rng)), *items[place + 1 :]]),
            )
            inner = rng.choice(list(_changes(items[place], rng)))
            yield kind([*items[:place], inner, *items[place + 1 :]])
        case set() if value:
            yield value - {rng.choice(sorted(value, key=repr))}
        case dict() if value:
            key = rng.choice(sorted(value, key=repr))
            yield {other: item for other, item in value.items() if other != key}
            yield value | {key: rng.choice(list(_changes(value[key], rng)))}
        case _:
            yield value
