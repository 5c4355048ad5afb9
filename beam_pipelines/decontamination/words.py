"""Problems by their words: runs of ten words shared with a problem, and names that only a problem's function has.

A word is a run of ASCII letters, digits, underscores and non-ASCII characters of a plain text (plain.py), in lower
case; all else only separates words, so neither comment marks nor indentation nor line breaks matter, and a prompt is
found in its translations to other programming languages (MultiPL-E), which keep its sentences. A character of a script
without spaces is half a word.

A run must tell something: `0, 0, 0, …`, `for i in range(n): for j in range(n)`, `1 2 3 4 5 6 7 8 9 10` are everybody's.
And one that many problems of a benchmark have is its boilerplate ("The first line of the input contains …"), as are
licences and the like for all (boilerplate.toml).
"""

import re
import tomllib
from collections import defaultdict
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np

from opencoder_jax.beam_pipelines.decontamination.lookup import Lookup
from opencoder_jax.beam_pipelines.decontamination.plain import SPACELESS, plain
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

# Numbers, days and months.
_COUNTED = frozenset(
    b"zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen "
    b"eighteen nineteen twenty thirty forty fifty sixty seventy eighty ninety hundred thousand million billion "
    b"trillion first second third fourth fifth sixth seventh eighth ninth tenth i ii iii iv v vi vii viii ix x xi xii "
    b"monday tuesday wednesday thursday friday saturday sunday mon tue tues wed thu thur thurs fri sat sun january "
    b"february march april may june july august september october november december jan feb mar apr jun jul aug sep "
    b"sept oct nov dec".split()
)

# What everybody has: passages, names of functions in lower case, programs.
BOILERPLATE: dict[str, list[str]] = tomllib.loads(
    Path(__file__).with_name("boilerplate.toml").read_text(encoding="utf-8")
)

_BASE = np.uint64(0x9E3779B97F4A7C15)
_AT_ONCE = 1_000  # problems whose words are in memory together


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


class Grams(NamedTuple):
    """Those of one length: their hashes, and the passages that have key n: `passages[bounds[n] : bounds[n + 1]]`."""

    lookup: Lookup
    bounds: np.ndarray
    passages: np.ndarray


class WordIndex:
    """The telling grams of all problems, by their hashes. A passage is a text, a solution or the tests of a problem.

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
        parts = [
            _grams_of(problems[first : first + _AT_ONCE], first, size, distinct, telling, shortest)
            for first in range(0, len(problems), _AT_ONCE)
        ]
        owners = np.concatenate([np.empty(0, np.int32), *(part.owners for part in parts)])
        first = np.cumsum([0, *(len(part.owners) for part in parts)])
        passages = np.concatenate(
            [np.empty(0, np.int32), *(part.passages + np.int32(at) for part, at in zip(parts, first, strict=False))]
        )
        hashes, words = (
            np.concatenate([np.empty(0, kind), *(getattr(part, name) for part in parts)])
            for name, kind in (("hashes", np.uint64), ("words", np.uint8))
        )
        numbers: dict[str, int] = {}
        benchmarks = np.array([numbers.setdefault(each.benchmark, len(numbers)) for each in problems], np.int32)
        stale = _in_many(hashes, owners[passages], benchmarks, boilerplate)
        kept = ~np.isin(hashes, np.append(stale, _quoted(size)))
        hashes, passages, words = hashes[kept], passages[kept], words[kept]
        self.owners = owners
        self.needed = np.minimum(np.bincount(passages, minlength=len(owners)), shared).astype(np.uint8)
        self.grams: dict[int, Grams] = {}
        for count in np.unique(words).tolist():
            order = np.flatnonzero(words == count)
            order = order[np.argsort(hashes[order], kind="stable")]
            keys, bounds = np.unique(hashes[order], return_index=True)
            self.grams[count] = Grams(Lookup(keys), np.append(bounds, len(order)), passages[order])

    def leaks(self, words: np.ndarray, offsets: np.ndarray) -> Iterator[tuple[int, Leak]]:
        """(document, leak) of every problem that a document shares enough grams with; the longest run of shared words.

        Args:
            words, offsets: of plain texts, as `cut` returns them.

        Starts and stops count words of the document.
        """
        hits: dict[tuple[int, int], set[tuple[int, int]]] = defaultdict(set)  # by document and passage: grams
        ranges: dict[tuple[int, int], list[tuple[int, int]]] = defaultdict(list)
        combined, size = words, 1
        for wanted, (lookup, bounds, passages) in self.grams.items():
            while size < wanted:
                combined = combined[:-1] * _BASE + words[size:]
                size += 1
            indices, keys = lookup.find(combined)
            documents = np.searchsorted(offsets, indices, side="right") - 1
            inside = indices + wanted <= offsets[documents + 1]
            found = (each[inside].tolist() for each in (indices - offsets[documents], keys, documents))
            for start, key, document in zip(*found, strict=True):
                for passage in passages[bounds[key] : bounds[key + 1]].tolist():
                    hits[document, passage].add((wanted, key))
                    ranges[document, passage].append((start, start + wanted))
        seen = set()
        for document, passage in sorted(hits, key=lambda pair: (pair[0], ranges[pair][0], pair[1])):
            problem = int(self.owners[passage])
            if len(hits[document, passage]) >= self.needed[passage] and (document, problem) not in seen:
                seen.add((document, problem))
                run = max(_joined(ranges[document, passage]), key=lambda run: run[1] - run[0])
                yield document, Leak("ngram", problem, *run)


class NameIndex:
    """Entry points that are unmistakable: long, and of several words; in snake case or written together."""

    def __init__(self, problems: Sequence[Problem], length: int, parts: int) -> None:
        self.names: dict[int, int] = {}
        for number, problem in enumerate(problems):
            name = problem.called
            if name.lower() in BOILERPLATE["names"]:
                continue
            if len(name) >= length and len(name_parts(name)) >= parts:
                # has_close_elements is hasCloseElements elsewhere.
                for form in {name.lower(), name.lower().replace("_", "")}:
                    for word in cut([form])[0].tolist():
                        self.names.setdefault(word, number)
        self._lookup = Lookup(np.unique(np.array(list(self.names), np.uint64)))

    def leaks(self, words: np.ndarray, offsets: np.ndarray) -> Iterator[tuple[int, Leak]]:
        """The problems whose name a document holds, in its order; as WordIndex has it."""
        seen = set()
        for place in self._lookup.find(words)[0].tolist():
            document = int(np.searchsorted(offsets, place, side="right")) - 1
            problem = self.names[int(words[place])]
            if (document, problem) not in seen:
                seen.add((document, problem))
                start = place - int(offsets[document])
                yield document, Leak("entry_point", problem, start, start + 1)


def cut(texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """The words of plain texts: their hashes, one text after the other, and where each text's begin."""
    return grams([text.lower().encode() for text in texts], 1)


def name_parts(name: str) -> list[str]:
    """The words of a name: has_close_elements, hasCloseElements."""
    return re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[^\W\d_]+", name)


class _Passages(NamedTuple):
    """Some problems' grams, each once a passage.

    Attributes:
        owners: int32 [passages], their problems.
        hashes, passages, words: uint64, int32, uint8 [grams]: each gram, whose it is, how many words it has.
    """

    owners: np.ndarray
    hashes: np.ndarray
    passages: np.ndarray
    words: np.ndarray


class _Kinds(dict[str, int]):
    """What a word is: 1 if it tells something, + 2 if it's a character of a script without spaces."""

    def __missing__(self, word: str) -> int:
        plain_word = word.encode()
        tells = len(plain_word) > 1 and not word[0].isdigit() and plain_word not in COMMON | _COUNTED
        self[word] = kind = tells + 2 * (SPACELESS.fullmatch(word) is not None)
        return kind


def _grams_of(
    problems: Sequence[Problem], first: int, size: int, distinct: int, telling: int, shortest: int
) -> _Passages:
    """The grams of all passages of some problems, of which `first` is the number of the first."""
    texts, owners = [], []
    for number, problem in enumerate(problems, first):
        for text in dict.fromkeys((*problem.texts, *problem.tests, *programs(problem))):
            texts.append(plain(text).lower())
            owners.append(number)
    words, offsets = cut(texts)
    known = _Kinds()
    kinds = np.array([known[word] for text in texts for word in WORD.findall(text)], np.uint8)
    passage = np.repeat(np.arange(len(texts), dtype=np.int32), np.diff(offsets))
    # A gram goes on from its first word until it weighs enough, in half words; a text that doesn't is one.
    weights = np.append(0, np.cumsum(np.where(kinds & 2, 1, 2)))
    ends = np.searchsorted(weights, weights[:-1] + 2 * size)
    whole = weights[offsets[1:]] - weights[offsets[:-1]]
    alone = np.flatnonzero((whole < 2 * size) & (whole >= 2 * shortest))
    ends[offsets[alone]] = offsets[alone + 1]
    starts = np.flatnonzero(ends <= offsets[passage + 1])
    counts = ends[starts] - starts
    # Where each word stood last before; a word is new to a gram if that's before the gram.
    order = np.lexsort((words, passage))
    again = (words[order[1:]] == words[order[:-1]]) & (passage[order[1:]] == passage[order[:-1]])
    before = np.full(len(words), -1)
    before[order[1:][again]] = order[:-1][again]
    names = [cut([f"{problem.called.lower()} candidate"])[0] for problem in problems]
    called = np.array([(name[0], name[-1]) for name in names], np.uint64)[np.array(owners, np.int64)[passage] - first]
    own = (words == called[:, 0]) | (words == called[:, 1])
    hashes = np.zeros(len(starts), np.uint64)
    different, tell, calls = (np.zeros(len(starts), np.int32) for _ in range(3))
    for index in range(int(counts.max(initial=0))):
        inside = np.flatnonzero(counts > index)
        at = starts[inside] + index
        hashes[inside] = hashes[inside] * _BASE + words[at]
        new = before[at] < starts[inside]
        different[inside] += new
        tell[inside] += new & (kinds[at] & 1 > 0)
        calls[inside] += own[at]
    weight = weights[starts + counts] - weights[starts]
    kept = (weight < 2 * size) | (different >= distinct)
    kept &= (calls > 0) | (tell * 2 * size >= telling * weight)
    hashes, passage, counts = hashes[kept], passage[starts[kept]], counts[kept].astype(np.uint8)
    order = np.lexsort((hashes, passage))
    hashes, passage, counts = hashes[order], passage[order], counts[order]
    once = np.append(True, (hashes[1:] != hashes[:-1]) | (passage[1:] != passage[:-1]))[: len(hashes)]
    return _Passages(np.array(owners, np.int32), hashes[once], passage[once], counts[once])


def _in_many(hashes: np.ndarray, problems: np.ndarray, benchmarks: np.ndarray, limit: int) -> np.ndarray:
    """The grams that more than `limit` problems of one benchmark have."""
    order = np.lexsort((problems, benchmarks[problems], hashes))
    hashes, problems = hashes[order], problems[order]
    same = (hashes[1:] == hashes[:-1]) & (problems[1:] == problems[:-1])
    once = np.append(True, ~same)[: len(hashes)]
    hashes, benchmark = hashes[once], benchmarks[problems[once]]
    if len(hashes) <= limit:
        return hashes[:0]
    # In this order a benchmark's problems that have a gram stand together.
    far = (hashes[limit:] == hashes[: len(hashes) - limit]) & (benchmark[limit:] == benchmark[: len(hashes) - limit])
    return np.unique(hashes[limit:][far])


def _quoted(size: int) -> np.ndarray:
    """The grams of what everybody quotes."""
    return _grams_of([Problem("", "", "", texts=tuple(BOILERPLATE["passages"]))], 0, size, 1, 0, size).hashes


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
