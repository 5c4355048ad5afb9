"""The operations of the grammar, each from values of some types to one of another, in words and in code.

The rows stand in vocabulary/, a file a topic. Those on lists follow from the rows of predicates.toml and changes.toml:
keep, drop, count, find, any, all, sort by, each changed.
"""

import tomllib
from pathlib import Path
from typing import Any, NamedTuple

# The variable of an element in a comprehension or a loop, and the list's type, by the element's type.
VARIABLE = {"int": "n", "str": "w"}
LIST_OF = {"int": "numbers", "str": "words"}
ELEMENT = {"numbers": ("number", "numbers"), "words": ("word", "words")}
# What stands for a missing element, in code and in words.
MISSING = {"numbers": ("0", "0"), "words": ("''", "an empty string")}


# The changes whose result is worth sorting by.
_MEASURES = ("absolute", "square", "last_digit", "length", "vowels", "occurrences", "digit_count", "word_count")


class Operation(NamedTuple):
    """One operation.

    Attributes:
        name: a word or two for it; with the types, what it is known by.
        takes, gives: types (types.TYPES).
        code: equal expressions in `{0}`, `{1}` … and what types.OPEN leaves open.
        noun: what it gives, as a noun phrase; for what gives a bool, a clause: "{0} is even".
        do: what is done to "it" or "them", as an imperative; none where it can't be said so.
        full: the first operand mustn't be empty.
        length: "same" where as many elements come out as go in, "" where that isn't known.
        keep, each, fold: what a loop does to an element: the condition under which it's kept, the expression that it
            becomes, and (start, statement with {total}) that takes it in.
        body: statements that end in `return`, in place of an expression.
    """

    name: str
    takes: tuple[str, ...]
    gives: str
    code: tuple[str, ...]
    noun: tuple[str, ...]
    do: tuple[str, ...] = ()
    full: bool = False
    length: str = ""
    keep: str = ""
    each: str = ""
    fold: tuple[str, str] = ("", "")
    body: tuple[str, ...] = ()

    @property
    def open(self) -> tuple[str, ...]:
        """What it leaves open, by the names of types.OPEN."""
        text = " ".join((*self.code, *self.noun, *self.body))
        return tuple(letter for letter in "khct" if f"{{{letter}}}" in text)


class Predicate(NamedTuple):
    """What is true of an element or isn't: a row of predicates.toml, which says what its fields are."""

    name: str
    of: str
    code: str
    singular: tuple[str, ...]
    plural: tuple[str, ...]
    negation: tuple[str, ...]
    adjective: str = ""


class Transform(NamedTuple):
    """What an element becomes: a row of changes.toml, which says what its fields are."""

    name: str
    of: str
    gives: str
    code: tuple[str, ...]
    noun: tuple[str, ...]
    each: tuple[str, ...]
    do: tuple[str, ...]


def of_elements() -> list[Operation]:
    """All operations that follow from predicates and changes."""
    predicates = [Predicate(**row) for row in _rows("vocabulary/predicates.toml")]
    changes = [Transform(**row) for row in _rows("vocabulary/changes.toml")]
    found = [each for predicate in predicates for each in (_asked(predicate), *_filters(predicate))]
    found += [each for change in changes for each in (_changed(change), _mapped(change), *_by(change))]
    return found


def of_collections() -> list[Operation]:
    """Those on whole lists, texts and dictionaries."""
    lists = [Operation(**_about(kind, row)) for kind in ELEMENT for row in _rows("vocabulary/lists.toml")]
    rows = [
        *_rows("vocabulary/numbers.toml"),
        *_rows("vocabulary/words.toml"),
        *_rows("vocabulary/texts.toml"),
        *_rows("vocabulary/dictionaries.toml"),
    ]
    return lists + [Operation(**row) for row in rows]


def of_numbers() -> list[Operation]:
    """Arithmetic and small algorithms."""
    rows = [*_rows("vocabulary/arithmetic.toml"), *_rows("vocabulary/algorithms.toml")]
    return [Operation(**row) for row in rows]


def _rows(file: str) -> list[dict[str, Any]]:
    """The rows of a file: the fields of each, lists as tuples."""
    tables = tomllib.loads((Path(__file__).parent / file).read_text(encoding="utf-8"))
    return [
        {"name": name, "code": ()} | {key: _tuple(value) for key, value in row.items()} for name, row in tables.items()
    ]


def _tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _about(kind: str, row: dict[str, Any]) -> dict[str, Any]:
    """A row of lists.toml for the lists of one kind."""
    one, many = ELEMENT[kind]
    code, words = MISSING[kind]
    element = {"numbers": "int", "words": "str"}[kind]

    def told(text: str) -> str:
        text = {"list": kind, "element": element}.get(text, text)
        return text.replace("<one>", one).replace("<many>", many).replace("<none>", code).replace("<nothing>", words)

    return {
        key: tuple(map(told, value)) if isinstance(value, tuple) else told(value) if isinstance(value, str) else value
        for key, value in row.items()
    }


def _asked(predicate: Predicate) -> Operation:
    code = predicate.code.replace("{x}", "{0}")
    clauses = tuple(f"{{0}} {verb}" for verb in predicate.singular)
    return Operation(predicate.name, (predicate.of,), "bool", (code,), clauses)


def _filters(predicate: Predicate) -> list[Operation]:
    kind = LIST_OF[predicate.of]
    one, many = ELEMENT[kind]
    n = VARIABLE[predicate.of]
    code = predicate.code.replace("{x}", n)
    negated = f"{n} % 2" if predicate.name == "even" else f"not ({code})"
    those = [f"the {many} of {{0}} that {verb}" for verb in predicate.plural]
    those += [
        f"those {many} in {{0}} which {predicate.plural[0]}",
        f"every {one} of {{0}} that {predicate.singular[0]}",
    ]
    if predicate.adjective:
        those += [f"the {predicate.adjective} {many} in {{0}}", f"all {predicate.adjective} {many} of {{0}}"]
    others = tuple(f"the {many} of {{0}} that {verb}" for verb in predicate.negation)
    counted = tuple(f"how many {many} of {{0}} {verb}" for verb in predicate.plural)
    counted += (f"the number of {predicate.adjective or ''} {many} in {{0}}".replace("  ", " "),) * bool(
        predicate.adjective
    )
    a = f"a {one} of {{0}}"
    return [
        Operation(
            f"{predicate.name}_{many}",
            (kind,),
            kind,
            (f"[{n} for {n} in {{0}} if {code}]", f"list(filter(lambda {n}: {code}, {{0}}))"),
            tuple(those),
            tuple(f"keep only those that {verb}" for verb in predicate.plural),
            keep=code,
        ),
        Operation(
            f"not_{predicate.name}_{many}",
            (kind,),
            kind,
            (f"[{n} for {n} in {{0}} if {negated}]",),
            (*others, f"{{0}} without the {many} that {predicate.plural[0]}"),
            tuple(f"drop those that {verb}" for verb in predicate.plural),
            keep=negated,
        ),
        Operation(
            f"count_{predicate.name}",
            (kind,),
            "int",
            (f"sum(1 for {n} in {{0}} if {code})", f"len([{n} for {n} in {{0}} if {code}])"),
            counted,
            tuple(f"count those that {verb}" for verb in predicate.plural),
            keep=code,
            fold=("0", "{total} += 1"),
        ),
        Operation(
            f"any_{predicate.name}",
            (kind,),
            "bool",
            (f"any({code} for {n} in {{0}})",),
            (f"any {one} of {{0}} {predicate.singular[0]}", f"at least one {one} in {{0}} {predicate.singular[-1]}"),
        ),
        Operation(
            f"all_{predicate.name}",
            (kind,),
            "bool",
            (f"all({code} for {n} in {{0}})",),
            (f"all {many} of {{0}} {predicate.plural[0]}", f"every {one} in {{0}} {predicate.singular[-1]}"),
        ),
        Operation(
            f"first_{predicate.name}",
            (kind,),
            predicate.of,
            (f"next(({n} for {n} in {{0}} if {code}), {'0' if predicate.of == 'int' else repr('')})",),
            (
                f"the first {one} of {{0}} that {predicate.singular[0]}, or "
                f"{'0' if predicate.of == 'int' else 'an empty string'} if there is none",
                f"{a} that {predicate.singular[-1]}: the first one, or {'0' if predicate.of == 'int' else repr('')} "
                "without any",
            ),
        ),
    ]


def _changed(change: Transform) -> Operation:
    code = tuple(each.replace("{x}", "{0}") for each in change.code)
    return Operation(
        change.name, (change.of,), change.gives, code, change.noun, tuple(do.replace("{0}", "it") for do in change.do)
    )


def _mapped(change: Transform) -> Operation:
    kind, n = LIST_OF[change.of], VARIABLE[change.of]
    one, many = ELEMENT[kind]
    code = change.code[0].replace("{x}", n)
    noun = [f"{{0}} with every {one} {each}" for each in change.each]
    noun += [f"a list of {{0}}, each {one} {change.each[0]}", f"the {many} of {{0}}, each {change.each[-1]}"]
    noun += [f"the list of {each.replace('{0}', f'each {one}')} in {{0}}" for each in change.noun[:1]]
    return Operation(
        f"{change.name}_each",
        (kind,),
        LIST_OF[change.gives],
        (f"[{code} for {n} in {{0}}]", f"list(map(lambda {n}: {code}, {{0}}))"),
        tuple(noun),
        tuple(do.replace("{0}", f"each {one}") for do in change.do),
        length="same",
        each=code,
    )


def _by(change: Transform) -> list[Operation]:
    """Sorting and choosing by what becomes of the elements, where that is a number."""
    if change.name not in _MEASURES:
        return []
    kind, n = LIST_OF[change.of], VARIABLE[change.of]
    one, many = ELEMENT[kind]
    value = change.noun[0].replace("{0}", "a " + one) if change.of == "int" else change.noun[0].replace("{0}", "it")
    key = f"key=lambda {n}: {change.code[0].replace('{x}', n)}"
    key = "key=len" if change.name == "length" else "key=abs" if change.name == "absolute" else key
    its = change.noun[0].replace("{0}", "each")
    return [
        Operation(
            f"sort_by_{change.name}",
            (kind,),
            kind,
            (f"sorted({{0}}, {key})",),
            (f"{{0}} sorted by {its}", f"the {many} of {{0}}, ordered by {value}"),
            (f"sort them by {its}",),
            length="same",
        ),
        Operation(
            f"most_{change.name}",
            (kind,),
            change.of,
            (f"max({{0}}, {key})",),
            (f"the {one} of {{0}} for which {change.noun[0].replace('{0}', 'it')} is largest",),
            full=True,
        ),
        Operation(
            f"least_{change.name}",
            (kind,),
            change.of,
            (f"min({{0}}, {key})",),
            (f"the {one} of {{0}} for which {change.noun[0].replace('{0}', 'it')} is smallest",),
            full=True,
        ),
    ]
