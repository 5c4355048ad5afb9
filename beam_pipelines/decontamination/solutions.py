"""Problems by their solutions, however variables, arguments and functions are called.

A program is its tokens (lexer.py). A token is what it says, but a name of the program's own is only how far back it
stood last (Baker's parameterised matching, 1993): `for x in xs` and `for item in data` are the same, `for x in x` is
not. Names behind a dot, keywords, built-in functions where they're called, and words in quotes of their own keep what
they say.

Grams of tokens hash so, with names that count only within the gram. A document holds a solution if it has all its grams
in a row, or, one edit for so many tokens forgiven, nearly all of them near one another. To search, each solution of e
edits is cut into e+1 parts: a document that differs in e tokens still has one part as it is, so one gram of each part,
the rarest, is all that we look up for every document.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numba import njit

from opencoder_jax.beam_pipelines.decontamination.lexer import lex
from opencoder_jax.beam_pipelines.decontamination.lookup import Lookup
from opencoder_jax.beam_pipelines.decontamination.names import bound_names
from opencoder_jax.beam_pipelines.decontamination.plain import plain
from opencoder_jax.beam_pipelines.decontamination.programs import programs
from opencoder_jax.beam_pipelines.decontamination.words import BOILERPLATE, COMMON, Leak
from opencoder_jax.benchmarks.problems import Problem

GRAM = 10  # tokens

_BASE = np.uint64(0xC2B2AE3D27D4EB4F)
# What stands for a name: how many tokens ago it stood last, 0 if not within the gram.
_DISTANCES = np.random.PCG64(0x5EED).random_raw(GRAM)


def token_grams(values: np.ndarray) -> np.ndarray:
    """uint64 [max(0, n - GRAM + 1)]: the grams of tokens."""
    hashes: np.ndarray = _token_grams(values)
    return hashes


@njit(cache=True, nogil=True)
def _token_grams(values):  # type: ignore[no-untyped-def]
    back = np.zeros(len(values), np.uint8)  # how many tokens ago a name stood last, if less than GRAM
    for place in range(len(values)):
        if values[place] < 0:
            for distance in range(1, min(GRAM, place + 1)):
                if values[place - distance] == values[place]:
                    back[place] = distance
                    break
    hashes = np.zeros(max(0, len(values) - GRAM + 1), np.uint64)
    for start in range(len(hashes)):
        value = np.uint64(0)
        for index in range(GRAM):
            distance = back[start + index]
            said = np.uint64(values[start + index])
            if values[start + index] < 0:
                said = _DISTANCES[distance if distance <= index else 0]
            value = value * _BASE + said
        hashes[start] = value ^ value >> np.uint64(29)
    return hashes


class Fingerprint(NamedTuple):
    """A solution: its problem, its grams in order, and how many edits are forgiven."""

    problem: int
    grams: np.ndarray
    edits: int


class SolutionIndex:
    """The solutions of all problems.

    Args:
        shortest: tokens; a shorter solution is anybody's once its names are gone.
        an_edit: tokens for which one edit is forgiven.
    """

    def __init__(self, problems: Sequence[Problem], shortest: int, an_edit: int) -> None:
        found: list[Fingerprint] = []
        seen = {token_grams(lex([program.encode()]).values[:-1]).tobytes() for program in BOILERPLATE["programs"]}
        for number, problem in enumerate(problems):
            for program in programs(problem):
                code = plain(program).encode()
                bound = frozenset(name.encode() for name in bound_names(program)) & COMMON
                # As anyone reads it, and with built-in names that it takes for its own (`sum = 0`), also as functions.
                for names, own_calls in dict.fromkeys(((frozenset[bytes](), True), (bound, True), (bound, False))):
                    values = lex([code], names, own_calls).values[:-1]
                    grams = token_grams(values)
                    if len(values) >= max(shortest, GRAM) and grams.tobytes() not in seen:
                        seen.add(grams.tobytes())
                        found.append(Fingerprint(number, grams, len(values) // an_edit))
        # Few arrays instead of many small ones: a process maps them from a file (shared.py) at no cost.
        self._problems = np.array([one.problem for one in found], np.int32)
        self._edits = np.array([one.edits for one in found], np.int32)
        self._grams = np.concatenate([np.empty(0, np.uint64), *(one.grams for one in found)])
        self._offsets = np.cumsum([0, *(len(one.grams) for one in found)])
        spread = _Spread(np.concatenate([np.empty(0, np.uint64), *(np.unique(one.grams) for one in found)]))
        anchors = [(int(one.grams[at]), which, at) for which, one in enumerate(found) for at in _anchors(one, spread)]
        anchors.sort()
        hashes = np.array([anchor[0] for anchor in anchors], np.uint64)
        self._anchors = np.array([anchor[1:] for anchor in anchors], np.int64).reshape(-1, 2)
        keys, first = np.unique(hashes, return_index=True)
        self._bounds = np.append(first, len(hashes))
        self._lookup = Lookup(keys)

    def _solution(self, which: int) -> Fingerprint:
        grams = self._grams[self._offsets[which] : self._offsets[which + 1]]
        return Fingerprint(int(self._problems[which]), grams, int(self._edits[which]))

    def leaks(self, texts: Sequence[bytes]) -> Iterator[tuple[int, Leak]]:
        """(document, leak) of every solution that a plain text holds; its start and stop count bytes."""
        tokens = lex(texts)
        offsets, grams = tokens.offsets, token_grams(tokens.values)
        seen = set()
        for index, key in zip(*(found.tolist() for found in self._lookup.find(grams)), strict=True):
            for which, anchor in self._anchors[self._bounds[key] : self._bounds[key + 1]].tolist():
                document = int(np.searchsorted(offsets, index, side="right")) - 1
                solution = self._solution(which)
                if (document, solution.problem) in seen:
                    continue
                first, stop = int(offsets[document]), int(offsets[document + 1]) - 1
                start = index - anchor
                if _holds(
                    grams[first : max(first, stop - GRAM + 1)], tokens.values[first:stop], solution, start - first
                ):
                    seen.add((document, solution.problem))
                    begin = max(first, start)
                    end = min(begin + len(solution.grams) + GRAM - 1, stop) - 1
                    yield (
                        document,
                        Leak("solution", solution.problem, int(tokens.starts[begin]), int(tokens.stops[end])),
                    )


class _Spread:
    """In how many solutions each gram stands."""

    def __init__(self, grams: np.ndarray) -> None:
        self._keys, self._counts = np.unique(grams, return_counts=True)

    def __call__(self, grams: np.ndarray) -> np.ndarray:
        counts: np.ndarray = self._counts[np.searchsorted(self._keys, grams)]
        return counts


def _anchors(solution: Fingerprint, spread: _Spread) -> Iterator[int]:
    """Where the rarest gram of each part of a solution begins."""
    tokens, parts = len(solution.grams) + GRAM - 1, solution.edits + 1
    counts = spread(solution.grams)
    for part in range(parts):
        first, stop = tokens * part // parts, tokens * (part + 1) // parts - GRAM + 1
        yield first + int(np.argmin(counts[first : max(stop, first + 1)]))


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
    return bool(_missing(solution.grams, near) <= solution.edits * GRAM)


@njit(cache=True, nogil=True)
def _missing(grams, near):  # type: ignore[no-untyped-def]
    """How many different grams of a solution are not among those of a place."""
    wanted, there = np.sort(grams), np.sort(near)
    missing, at = 0, 0
    for index in range(len(wanted)):
        if index and wanted[index] == wanted[index - 1]:
            continue
        while at < len(there) and there[at] < wanted[index]:
            at += 1
        missing += at == len(there) or there[at] != wanted[index]
    return missing
