"""Problems by their solutions, however variables, arguments and functions are called.

A program is its tokens without comments, docstrings, line breaks, parentheses, commas and quotes, so that no formatter
and no indentation matters, and neither does it whether a plain text (plain.py) holds the program itself or the string
that holds it. A token is what it says, but a name of the program's own is only how far back it stood last (Baker's
parameterised matching, 1993): `for x in xs` and `for item in data` are the same, `for x in x` is not. Names behind a
dot, keywords, built-in functions where they're called, and words in quotes of their own keep what they say.

Grams of tokens hash so, with names that count only within the gram. A document holds a solution if it has all its grams
in a row, or, one edit for so many tokens forgiven, nearly all of them near one another. To search, each solution of e
edits is cut into e+1 parts: a document that differs in e tokens still has one part as it is, so one gram of each part,
the rarest, is all that we look up for every document.
"""

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import xxhash

from opencoder_jax.beam_pipelines.decontamination.lookup import Lookup
from opencoder_jax.beam_pipelines.decontamination.plain import plain
from opencoder_jax.beam_pipelines.decontamination.programs import bound_names, programs
from opencoder_jax.beam_pipelines.decontamination.words import COMMON, Leak
from opencoder_jax.benchmarks.problems import Problem

GRAM = 10  # tokens

_NAMED = rb"[A-Za-z_\x80-\xff][A-Za-z0-9_\x80-\xff]*+"
_DOCSTRING = rb'[bfruBFRU]{0,2}+"""(?:[^"\\]++|\\.|"(?!""))*+"""'
LEXER = re.compile(
    b"|".join(
        [
            # Names and symbols first: they are most tokens. Each begins with what it can't do without, to fail fast.
            _NAMED + rb"(?![\"'])\(?+",
            rb"\." + _NAMED + rb"\(?+",
            rb"[{};,][ \t]*+//[^\n]*+",  # a comment, since no division begins so
            rb"[^\s(),;\"'`\\/#A-Za-z_0-9\x80-\xff]",
            rb"[0-9][0-9A-Za-z_.]*+",
            rb"\n[ \t]*+(?:" + _DOCSTRING + rb"|" + _DOCSTRING.replace(b'"', b"'") + rb"|//[^\n]*+)",
            rb"[\"'][A-Za-z0-9_\x80-\xff]++[\"']",
            rb"[bfruBFRU][bfruBFRU]?+[\"']",  # what a string begins with
            _NAMED,
            rb"\#[^\n]*+",
            # Several words behind Python's division, or C's comment.
            rb"//[ \t]*+[A-Za-z]++,?[ \t]++(?!(?:if|for|and|or|else|in|is|not)\b)[A-Za-z][^\n]*+",
            rb"/\*(?:[^*]++|\*(?!/)){0,500}+\*/",
            rb"/",
        ]
    ),
    re.DOTALL,
)

# A token's value is negative for a name, 0 for what doesn't count, 2 between documents; of others, odd for what goes on
# with an expression.
_NAME = -(1 << 63)
_SKIP, _BORDER = 0, 2
_GOES_ON = frozenset(b"+-*/%&|^<>=!.?")
_KEPT_TOKENS, _LONGEST_KEPT = 1_000_000, 64
# Functions that Python has built in are names elsewhere: only what is called is one. These aren't anywhere.
_KEYWORDS = COMMON - frozenset(
    b"abs all any bytes chr dict enumerate filter format input isinstance iter len list map max min next object open "
    b"ord pow print range repr reversed round set sorted str sum tuple type zip".split()
)

_BASE = np.uint64(0xC2B2AE3D27D4EB4F)
# What stands for a name: how many tokens ago it stood last, 0 if not within the gram.
_DISTANCES = np.random.PCG64(0x5EED).random_raw(GRAM)


class _Values(dict[bytes, int]):
    """The values of tokens, worked out when first asked for."""

    def __missing__(self, token: bytes) -> int:
        value = _value(token)
        if len(token) <= _LONGEST_KEPT:
            if len(self) >= _KEPT_TOKENS:
                self.clear()
            self[token] = value
        return value


def _value(token: bytes) -> int:
    first, last = token[:1], token[-1:]
    if first in (b"\n", b"#", b";", b",") or (first == b"/" and len(token) > 1):
        return _SKIP
    if first in (b"{", b"}"):
        return _hash(first)
    if last in (b'"', b"'"):
        return _hash(b'"' + token[1:-1]) if first in (b'"', b"'") else _SKIP
    if first.isalpha() or first == b"_" or first >= b"\x80":
        name = token.removesuffix(b"(")
        literal = name in (_KEYWORDS if name == token else COMMON) or name in (b"True", b"False", b"None")
        return _hash(name) if literal else _hash(name) | _NAME
    if first == b".":
        return _hash(token.removesuffix(b"("))
    if first.isdigit() and b"." in token:  # 1. and 1.0, 2.50 and 2.5
        token = token.rstrip(b"0")
    return _hash(token.removesuffix(b".") if first.isdigit() else token)


def _hash(token: bytes) -> int:
    return (xxhash.xxh3_64_intdigest(token) >> 2 | 2) << 1 | (token[0] in _GOES_ON)


_VALUES = _Values()


def lex(text: bytes, bound: frozenset[bytes] = frozenset()) -> np.ndarray:
    """int64, the values of a program's tokens. `bound` are names although they are keywords or built-in functions."""
    tokens = LEXER.findall(text)
    if bound:
        names = {token: token.removesuffix(b"(") for token in set(tokens)}
        values = {token: _hash(name) | _NAME if name in bound else _VALUES[token] for token, name in names.items()}
        found = [values[token] for token in tokens]
        said = np.array(found, np.int64)
    else:
        said = np.fromiter(map(_VALUES.__getitem__, tokens), np.int64, len(tokens))
    return said[said != _SKIP]


def spans(text: bytes) -> list[tuple[int, int]]:
    """Where the tokens of `lex` lie."""
    return [match.span() for match in LEXER.finditer(text) if _VALUES[match.group()] != _SKIP]


def token_grams(values: np.ndarray) -> np.ndarray:
    """uint64 [max(0, n - GRAM + 1)]: the grams of tokens."""
    count = len(values) - GRAM + 1
    if count < 1:
        return np.empty(0, np.uint64)
    names = values < 0
    back = np.zeros(len(values), np.uint8)
    for distance in range(GRAM - 1, 0, -1):  # the nearest overwrites
        np.copyto(back[distance:], distance, where=(values[distance:] == values[:-distance]) & names[distance:])
    said = np.where(names, _DISTANCES[back], values.view(np.uint64))
    hashes = np.zeros(count, np.uint64)
    for index in range(GRAM):
        hashes *= _BASE
        hashes += np.where(back[index : index + count] <= index, said[index : index + count], _DISTANCES[0])
    return hashes ^ hashes >> np.uint64(29)


@dataclass(frozen=True)
class Fingerprint:
    """A solution: its problem, its grams in order and as a set, and how many edits are forgiven."""

    problem: int
    grams: np.ndarray
    distinct: np.ndarray
    edits: int


class SolutionIndex:
    """The solutions of all problems.

    Args:
        shortest: tokens; a shorter solution is anybody's once its names are gone.
        an_edit: tokens for which one edit is forgiven.
    """

    def __init__(self, problems: Sequence[Problem], shortest: int, an_edit: int) -> None:
        self.solutions: list[Fingerprint] = []
        seen = set()
        for number, problem in enumerate(problems):
            for program in programs(problem):
                code = plain(program).encode()
                bound = frozenset(name.encode() for name in bound_names(program))
                # Both with built-in names that it takes for its own (`sum = 0`) and as anyone would read them.
                for values in (lex(code), lex(code, bound)):
                    grams = token_grams(values)
                    if len(values) >= max(shortest, GRAM) and grams.tobytes() not in seen:
                        seen.add(grams.tobytes())
                        self.solutions.append(Fingerprint(number, grams, np.unique(grams), len(values) // an_edit))
        spread = Counter(gram for solution in self.solutions for gram in solution.distinct.tolist())
        anchors = sorted(
            (int(solution.grams[index]), which, index)
            for which, solution in enumerate(self.solutions)
            for index in _anchors(solution, spread)
        )
        hashes = np.array([anchor[0] for anchor in anchors], np.uint64)
        self._anchors = np.array([anchor[1:] for anchor in anchors], np.int64).reshape(-1, 2)
        keys, first = np.unique(hashes, return_index=True)
        self._bounds = np.append(first, len(hashes))
        self._lookup = Lookup(keys)

    def leaks(self, texts: Sequence[bytes]) -> Iterator[tuple[int, Leak]]:
        """(document, leak) of every solution that a plain text holds; its start and stop count bytes."""
        tokens = [lex(text) for text in texts]
        border = np.array([_BORDER], np.int64)
        offsets = np.cumsum([0, *(len(values) + 1 for values in tokens)])
        grams = token_grams(np.concatenate([border[:0], *(part for values in tokens for part in (values, border))]))
        seen = set()
        for index, key in zip(*(found.tolist() for found in self._lookup.find(grams)), strict=True):
            for which, anchor in self._anchors[self._bounds[key] : self._bounds[key + 1]].tolist():
                document = int(np.searchsorted(offsets, index, side="right")) - 1
                solution = self.solutions[which]
                if (document, solution.problem) in seen:
                    continue
                first, stop = int(offsets[document]), int(offsets[document + 1]) - GRAM
                start = index - anchor
                if _holds(grams[first:stop], tokens[document], solution, start - first):
                    seen.add((document, solution.problem))
                    begin = max(0, start - first)
                    end = min(begin + len(solution.grams) + GRAM - 1, len(tokens[document]))
                    where = spans(texts[document])
                    yield document, Leak("solution", solution.problem, where[begin][0], where[end - 1][1])


def _anchors(solution: Fingerprint, spread: Counter[int]) -> Iterator[int]:
    """Where the rarest gram of each part of a solution begins."""
    tokens, parts = len(solution.grams) + GRAM - 1, solution.edits + 1
    grams = solution.grams.tolist()
    for part in range(parts):
        first, stop = tokens * part // parts, tokens * (part + 1) // parts - GRAM + 1
        yield min(range(first, max(stop, first + 1)), key=lambda index: spread[grams[index]])


def _holds(grams: np.ndarray, tokens: np.ndarray, solution: Fingerprint, start: int) -> bool:
    """Whether a document's grams and tokens hold a solution that would begin at `start`."""
    length = len(solution.grams)
    if solution.edits == 0:
        if start < 0 or not np.array_equal(grams[start : start + length], solution.grams):
            return False
        after = tokens[start + length + GRAM - 1 :][:1]  # `return x + y - 1` isn't `return x + y`
        return not (len(after) and after[0] > 0 and after[0] & 1)
    slack = length // 2
    near = grams[max(0, start - slack) : start + length + slack]
    found = int(np.isin(solution.distinct, near).sum())
    return found >= len(solution.distinct) - solution.edits * GRAM
