"""Problems by their words: runs of ten words shared with a problem, and names that only a problem's function has.

Normalisation: a word is a run of ASCII letters, digits, underscores and non-ASCII characters, in lower case; all else
only separates words, so neither comment marks nor indentation nor line breaks matter, and a prompt is found in its
translations to other programming languages (MultiPL-E), which keep its sentences.

A run must tell something: `0, 0, 0, …`, `for i in range(n): for j in range(n)`, `1 2 3 4 5 6 7 8 9 10` are everybody's.
And one that many problems of a benchmark have is its boilerplate ("The first line of the input contains …").
"""

import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from opencoder_jax.beam_pipelines.decontamination.lookup import Lookup
from opencoder_jax.beam_pipelines.decontamination.programs import programs
from opencoder_jax.beam_pipelines.deduplication.minhash import grams
from opencoder_jax.benchmarks.problems import Problem

WORD = re.compile(r"(?:[0-9A-Za-z_]|[^\x00-\x7f])+")  # deduplication/minhash.py cuts the same words out of UTF-8

# What says nothing about a problem: the keywords and commonest functions of Python, and what people count by.
COMMON = frozenset(
    b"and as assert async await break class continue def del elif else except false finally for from global if import "
    b"in is lambda none nonlocal not or pass raise return true try while with yield abs all any bool bytes chr dict "
    b"enumerate filter float format input int isinstance iter len list map max min next object open ord pow print "
    b"range repr reversed round self set sorted str sum super tuple type zip".split()
)

_NUMBERS = frozenset(
    b"zero one two three four five six seven eight nine ten eleven twelve twenty thirty hundred thousand first second "
    b"third monday tuesday wednesday thursday friday saturday sunday january february march april may june july august "
    b"september october november december".split()
)

_BASE = np.uint64(0x9E3779B97F4A7C15)

Gram = bytes  # words with single spaces between


class Leak(NamedTuple):
    """What a document gives away.

    Attributes:
        rule: "ngram", "entry_point" or "solution".
        problem: its number.
        start, stop: where the match lies in the document's text.
    """

    rule: str
    problem: int
    start: int
    stop: int


class Passage(NamedTuple):
    """A text or test of a problem: how many of its grams count."""

    problem: int
    grams: int


class WordIndex:
    """The telling grams of all problems.

    Args:
        size: words a gram. A text of fewer words, but at least `shortest`, is one gram by itself.
        shared: different grams of one passage that a document must hold (or all that the passage has).
        distinct: different words that a gram must hold, …
        telling: … and how many of them must be neither numbers (`2`, `two`), nor single letters, nor in COMMON; or the
            problem's own entry point is among them.
        boilerplate: problems of one benchmark that may have a gram; what more of them have doesn't count.
    """

    def __init__(
        self,
        problems: Sequence[Problem],
        size: int,
        shared: int,
        distinct: int,
        telling: int,
        boilerplate: int,
        shortest: int = 5,
    ) -> None:
        self._shared = shared
        passages: list[tuple[int, set[Gram]]] = []
        owners: Counter[tuple[str, Gram]] = Counter()
        for number, problem in enumerate(problems):
            called = {problem.entry_point.lower().encode(), b"candidate"}
            own: set[Gram] = set()
            for text in (*problem.texts, *problem.tests, *programs(problem)):
                found = set()
                for words in _runs(text, size, shortest):
                    different = set(words)
                    needed = telling * len(words) / size
                    counts = len(words) < size or len(different) >= distinct
                    if counts and (different & called or sum(map(_tells, different)) >= needed):
                        found.add(b" ".join(words))
                passages.append((number, found))
                own |= found
            owners.update((problem.benchmark, gram) for gram in own)
        stale = {gram for (_, gram), count in owners.items() if count > boilerplate}
        self.passages = [Passage(number, len(found - stale)) for number, found in passages]
        self.grams: dict[Gram, list[int]] = defaultdict(list)
        for index, (_, found) in enumerate(passages):
            for gram in found - stale:
                self.grams[gram].append(index)
        sizes: dict[int, list[Gram]] = defaultdict(list)
        for gram in self.grams:
            sizes[gram.count(b" ") + 1].append(gram)
        self._lookups = {
            words: Lookup(np.unique(np.concatenate([_combined(gram, words) for gram in group])))
            for words, group in sorted(sizes.items())
        }

    def suspects(self, words: np.ndarray, offsets: np.ndarray) -> set[int]:
        """Documents that may hold a gram; `words` and `offsets` are what `grams(lowered texts, 1)` returns."""
        found: set[int] = set()
        combined, size = words, 1
        for wanted, lookup in self._lookups.items():
            while size < wanted:
                combined = combined[:-1] * _BASE + words[size:]
                size += 1
            indices, _ = lookup.find(combined)
            found.update(np.unique(np.searchsorted(offsets, indices, side="right") - 1).tolist())
        return found

    def leaks(self, text: str) -> Iterator[Leak]:
        """Every problem that a text shares enough grams with, with the longest run of shared words."""
        spans = [match.span() for match in WORD.finditer(text)]
        words = [text[start:stop].lower().encode() for start, stop in spans]
        hits: dict[int, dict[Gram, None]] = defaultdict(dict)
        ranges: dict[int, list[tuple[int, int]]] = defaultdict(list)
        for size in self._lookups:
            for start in range(len(words) - size + 1):
                gram = b" ".join(words[start : start + size])
                for passage in self.grams.get(gram, ()):
                    hits[passage][gram] = None
                    ranges[passage].append((start, start + size))
        problems = set()
        for passage, found in hits.items():
            problem, total = self.passages[passage]
            if len(found) >= min(self._shared, total) and problem not in problems:
                problems.add(problem)
                first, last = max(_joined(ranges[passage]), key=lambda run: run[1] - run[0])
                yield Leak("ngram", problem, spans[first][0], spans[last - 1][1])


class NameIndex:
    """Entry points that are unmistakable: long, and of several words; in snake case or written together."""

    def __init__(self, problems: Sequence[Problem], length: int, parts: int) -> None:
        self.names: dict[bytes, int] = {}
        for number, problem in enumerate(problems):
            name = problem.entry_point
            if len(name) >= length and len(name_parts(name)) >= parts:
                # has_close_elements is hasCloseElements elsewhere.
                for form in {name.lower(), name.lower().replace("_", "")}:
                    self.names.setdefault(form.encode(), number)
        keys = [grams([name], 1)[0] for name in self.names]
        self._lookup = Lookup(np.unique(np.concatenate([np.empty(0, np.uint64), *keys])))

    def suspects(self, words: np.ndarray, offsets: np.ndarray) -> set[int]:
        """Documents that may hold a name, as WordIndex has it."""
        indices, _ = self._lookup.find(words)
        return set((np.searchsorted(offsets, indices, side="right") - 1).tolist())

    def leaks(self, text: str) -> Iterator[Leak]:
        """The problems whose name a text holds, in the text's order."""
        seen = set()
        for match in WORD.finditer(text):
            problem = self.names.get(match.group().lower().encode())
            if problem is not None and problem not in seen:
                seen.add(problem)
                yield Leak("entry_point", problem, *match.span())


def name_parts(name: str) -> list[str]:
    """The words of a name: has_close_elements, hasCloseElements."""
    return re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[^\W\d_]+", name)


def _runs(text: str, size: int, shortest: int) -> Iterator[tuple[bytes, ...]]:
    words = [match.group().lower().encode() for match in WORD.finditer(text)]
    if len(words) < size:
        if len(words) >= shortest:
            yield tuple(words)
        return
    yield from zip(*(words[start:] for start in range(size)), strict=False)


def _tells(word: bytes) -> bool:
    return len(word) > 1 and not word[:1].isdigit() and word not in COMMON and word not in _NUMBERS


def _combined(gram: Gram, size: int) -> np.ndarray:
    """The hash of a gram as `suspects` makes it."""
    words, _ = grams([gram], 1)
    combined = words[:1]
    for index in range(1, size):
        combined = combined * _BASE + words[index : index + 1]
    return combined


def _joined(ranges: list[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """Ranges of words, where they overlap as one."""
    ordered = sorted(ranges)
    first, last = ordered[0]
    for (_, _), (start, stop) in pairwise(ordered):
        if start > last:
            yield first, last
            first, last = start, stop
        last = max(last, stop)
    yield first, last
