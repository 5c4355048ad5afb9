"""Tasks: operations, one upon the other, with their parameters and constants; which of them are held out.

A task is a chain: an operation on parameters, then up to two more on what came out; or a choice between two changes by
a predicate. It is drawn by its number: the same number gives the same task, whoever draws it.

What is held out: a pair of operations that follow each other, by a hash of their names and HELD_OUT. No task for
training holds such a pair anywhere; every task for evaluation has one. Single operations are never held out: a model
that never saw a word can't know what it means.
"""

import random
import re
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import xxhash

from opencoder_jax.beam_pipelines.synthesis.grammar.operations import Operation, of_collections, of_elements, of_numbers
from opencoder_jax.beam_pipelines.synthesis.grammar.types import OPEN, TYPES

HELD_OUT = 8  # one pair in so many

# How often a chain begins in each family.
_FAMILIES = ((0.4, tuple(of_elements())), (0.35, tuple(of_collections())), (0.25, tuple(of_numbers())))
OPERATIONS = tuple(operation for _, family in _FAMILIES for operation in family)


@dataclass(frozen=True)
class Scope:
    """How much of the grammar is drawn from.

    Attributes:
        families: of operations, each behind how often a chain begins in it.
        lengths: how often a chain has one, two, three operations.
        choices: how often a task is a choice instead.
        open_parameter: how often what an operation leaves open becomes a parameter, not a constant.
        examples: how many a text shows; one of them is drawn.
        names: of a type's names, how many a parameter may have.
        plain: a text says everything in one way, types and all, functions have few names, and programs go step by step.
    """

    families: tuple[tuple[float, tuple[Operation, ...]], ...]
    lengths: tuple[float, ...]
    choices: float
    open_parameter: float
    examples: tuple[int, ...]
    names: int
    plain: bool

    @cached_property
    def taking(self) -> dict[str, list[Operation]]:
        """The operations on one value, by its type."""
        found: dict[str, list[Operation]] = {}
        for _, family in self.families:
            for operation in family:
                if len(operation.takes) == 1:
                    found.setdefault(operation.takes[0], []).append(operation)
        return found


def _small() -> Scope:
    """What a model of a million weights learns in minutes: one or two common operations on numbers.

    Each is said in one way, with few names of parameters and functions, and no constants: a miniature learns what words
    mean long before it takes over a number that it's told, and with all names and wordings it wants many times as long.
    """
    names = set(tomllib.loads((Path(__file__).parent / "vocabulary/small.toml").read_text(encoding="utf-8"))["names"])
    about = (("numbers",), ("int",))
    chosen = (
        (share, tuple(each for each in family if each.name in names and each.takes in about))
        for share, family in _FAMILIES
    )
    families = tuple((share, family) for share, family in chosen if family)
    return Scope(families, (0.2, 0.8), choices=0.0, open_parameter=0.0, examples=(0,), names=2, plain=True)


SCOPES = {
    "full": Scope(
        _FAMILIES,
        (0.45, 0.4, 0.15),
        choices=0.12,
        open_parameter=0.3,
        examples=(0, 1, 1, 2, 2, 3),
        names=99,
        plain=False,
    ),
    "small": _small(),
}

# The variables of the programs: a parameter has another name.
_WORD = re.compile(r"\b[a-z]\b")
_OWN = {"key", "count", "total", "result", "steps", "factors"}


class Parameter(NamedTuple):
    """A parameter of the function that is asked for; `full`: it's never empty."""

    name: str
    type: str
    full: bool = False


class Composition(NamedTuple):
    """What a function is to do.

    Attributes:
        operations: the first is applied to the parameters, each other to what came before. With a `choice`, none.
        choice: (predicate, if it holds, otherwise), all on the one parameter.
        parameters: in order; first the operands of the first operation.
        constants: what the operations leave open, by the names of types.OPEN: a value, or the parameter that has it.
    """

    operations: tuple[Operation, ...]
    choice: tuple[Operation, Operation, Operation] | None
    parameters: tuple[Parameter, ...]
    constants: dict[str, Any]

    @property
    def parts(self) -> tuple[Operation, ...]:
        return self.choice or self.operations

    @property
    def gives(self) -> str:
        return self.parts[-1].gives

    @property
    def signature(self) -> str:
        """What it is, apart from names and constants."""
        chain = " > ".join(f"{each.name}({','.join(each.takes)})" for each in self.parts)
        return f"choice: {chain}" if self.choice else chain

    @property
    def held_out(self) -> bool:
        """Whether it's for evaluation alone."""
        return any(_held_out(first, second) for first, second in pairwise(self.parts))


def _held_out(first: Operation, second: Operation) -> bool:
    return xxhash.xxh64_intdigest(f"{first.name} {second.name} {first.takes} {second.takes}".encode()) % HELD_OUT == 0


def draw(rng: random.Random, scope: Scope) -> Composition:
    """A task. Whether it means anything is found out by trying it (examples.py)."""
    choice = rng.random() < scope.choices
    operations = _choice(rng, scope) if choice else _chain(rng, scope)
    wanted = list(dict.fromkeys(letter for each in operations for letter in each.open))
    code = " ".join(text for each in operations for text in (*each.code, *each.body, each.keep, each.each))
    taken = set(_bound_names(code))
    parameters: list[Parameter] = []
    for kind in operations[0].takes:
        full = operations[0].full or (kind in ("numbers", "words") and any(each.full for each in operations))
        parameters.append(Parameter(_name(rng, TYPES[kind].names[: scope.names], taken), kind, full))
    constants: dict[str, Any] = {}
    for letter in wanted:
        kind, names, value = OPEN[letter]
        if rng.random() < scope.open_parameter and len(parameters) < 3:
            parameters.append(Parameter(_name(rng, names, taken), kind, full=True))
            constants[letter] = parameters[-1]
        else:
            constants[letter] = value(rng)
    if choice:
        return Composition((), (operations[0], operations[1], operations[2]), tuple(parameters), constants)
    return Composition(tuple(operations), None, tuple(parameters), constants)


def _chain(rng: random.Random, scope: Scope) -> list[Operation]:
    (length,) = rng.choices(range(1, len(scope.lengths) + 1), scope.lengths)
    while True:
        (family,) = rng.choices([family for _, family in scope.families], [share for share, _ in scope.families])
        chain = [rng.choice(family)]
        full = True  # a parameter can be asked for that isn't empty
        while len(chain) < length:
            last = chain[-1]
            full = full and last.length == "same"
            fitting = [
                each
                for each in scope.taking.get(last.gives, ())
                if (full or not each.full) and each.name != last.name and not set(each.open) & _open(chain)
            ]
            if not fitting or last.body:
                break
            chain.append(rng.choice(fitting))
        if len(chain) == length and (length == 1 or all(each.code or each.fold[1] for each in chain)):
            return chain


def _choice(rng: random.Random, scope: Scope) -> list[Operation]:
    """A predicate and two changes of what it's about."""
    kind = rng.choice(("int", "int", "str"))
    unary = [each for each in scope.taking[kind] if each.code]
    predicate = rng.choice([each for each in unary if each.gives == "bool"])
    first = rng.choice([each for each in unary if each.gives == kind and not set(each.open) & set(predicate.open)])
    used = _open((predicate, first))
    second = rng.choice(
        [each for each in unary if each.gives == kind and each.name != first.name and not set(each.open) & used]
    )
    return [predicate, first, second]


def _open(operations: Sequence[Operation]) -> set[str]:
    return {letter for each in operations for letter in each.open}


def _name(rng: random.Random, names: Sequence[str], taken: set[str]) -> str:
    """One of the names that is free; it's taken then."""
    free = [name for name in names if name not in taken]
    name = rng.choice(free or [f"{names[0]}{number}" for number in (2, 3, 4)])
    taken.add(name)
    return name


def _bound_names(code: str) -> set[str]:
    """The one-letter names, and those of loops, that a program binds itself."""
    return {"n", "w", "c", "d", "i", "p", "x", "a", "b"} & set(_WORD.findall(code)) | _OWN
