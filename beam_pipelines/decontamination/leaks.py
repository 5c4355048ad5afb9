"""What a document gives away: the kernel of decontamination, and what it counts as a leak."""

import json
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from typing import Any, NamedTuple

import pyarrow as pa

from opencoder_jax.beam_pipelines.core.maps import Drop, Result, keep_rows
from opencoder_jax.beam_pipelines.core.storage import Directory
from opencoder_jax.beam_pipelines.decontamination.plain import origins, plain
from opencoder_jax.beam_pipelines.decontamination.shared import share, shared
from opencoder_jax.beam_pipelines.decontamination.solutions import SolutionIndex
from opencoder_jax.beam_pipelines.decontamination.words import WORD, Leak, NameIndex, WordIndex, cut
from opencoder_jax.benchmarks.problems import OWN, Benchmark, Fields, Problem, known_fields
from opencoder_jax.checks import at_least, between, check
from opencoder_jax.recipe import configurable
from opencoder_jax.tokenization import chat

INDEX = "index.shared"  # a file of the output while documents are read

_SHOWN = 2_000  # characters of a match that are kept for review
_OTHERS = 50  # problems that a removal names besides the first


@configurable
@dataclass(frozen=True)
class DecontaminateConfig:
    """What counts as a leak.

    Attributes:
        benchmarks: files of evaluation problems, JSON lines (also .gz, .zst), or names of the project's own.
        texts, solutions, tests: the fields of a problem that hold what is asked, programs, and tests; None for those of
            the formats that opencoder_jax/benchmarks/problems.py knows.
        ngram: words a gram (10 in the paper).
        shared_ngrams: different grams of one text that a document must hold; 2 are 11 words in a row. With 1, as the
            paper may have meant it, a quotation of ten words is enough.
        distinct_words: different words that a gram must hold to count (ours, as all that follows).
        telling_words: how many of them must say something: no number, no keyword, no built-in function.
        boilerplate: problems of one benchmark that may have a gram; what more of them have doesn't count.
        entry_point_length, entry_point_words: characters and words (`has_close_elements` has three) that an entry point
            must have to count by its name alone. OpenCoder took every name: 1 and 1.
        solution_tokens: tokens that a solution must have to count whatever its names are.
        edit_tokens: tokens of a solution for which one edit is forgiven.
    """

    benchmarks: tuple[str, ...] = (OWN,)
    texts: tuple[str, ...] | None = None
    solutions: tuple[str, ...] | None = None
    tests: tuple[str, ...] | None = None
    ngram: int = 10
    shared_ngrams: int = 2
    distinct_words: int = 6
    telling_words: int = 4
    boilerplate: int = 10
    entry_point_length: int = 16
    entry_point_words: int = 3
    solution_tokens: int = 10
    edit_tokens: int = 30

    def __post_init__(self) -> None:
        if not self.benchmarks:
            raise ValueError("benchmarks is empty: name the files of the problems that must not leak")
        counts = ("shared_ngrams", "boilerplate", "solution_tokens", "edit_tokens")
        check(self, distinct_words=between(1, self.ngram), **dict.fromkeys(counts, at_least(1)))

    def fields(self) -> Fields:
        """The fields of a problem."""
        given = zip((self.texts, self.solutions, self.tests), known_fields(), strict=True)
        return Fields(*(known if named is None else tuple(named) for named, known in given))

    def read(self) -> tuple[Benchmark, ...]:
        """The benchmarks. Raises UserError naming the file and line that is wrong."""
        return tuple(Benchmark.read(name, self.fields()) for name in self.benchmarks)


class Indices(NamedTuple):
    """All that documents are compared with.

    Attributes:
        tasks: benchmark and task of each problem.
    """

    tasks: list[tuple[str, str]]
    words: WordIndex
    solutions: SolutionIndex
    names: NameIndex

    @classmethod
    def of(cls, problems: Sequence[Problem], config: DecontaminateConfig) -> "Indices":
        limits = (config.ngram, config.shared_ngrams, config.distinct_words, config.telling_words, config.boilerplate)
        return cls(
            [(problem.benchmark, problem.task) for problem in problems],
            WordIndex(problems, *limits),
            SolutionIndex(problems, config.solution_tokens, config.edit_tokens),
            NameIndex(problems, config.entry_point_length, config.entry_point_words),
        )


@dataclass(frozen=True)
class Decontaminate:
    """The kernel: drops documents that leak a problem.

    Attributes:
        benchmarks: the problems. Workers don't get them: …
        output: … where this is a directory, the indices are made once, before workers start, and lie in a file there.
    """

    config: DecontaminateConfig
    benchmarks: tuple[Benchmark, ...]
    output: str = ""

    @cached_property
    def problems(self) -> list[Problem]:
        return [problem for benchmark in self.benchmarks for problem in benchmark.problems]

    @cached_property
    def indices(self) -> Indices:
        return Indices.of(self.problems, self.config)

    @cached_property
    def _shared(self) -> dict[str, Any]:
        share(self.indices, Directory(self.output), INDEX)
        return {"config": self.config, "output": self.output}

    def __getstate__(self) -> dict[str, Any]:
        return self._shared if self.output else {"config": self.config, "benchmarks": self.benchmarks, "output": ""}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        if "benchmarks" not in state:
            self.__dict__.update(benchmarks=(), indices=shared(Directory(self.output), INDEX), _shared=state)

    def __call__(self, documents: pa.RecordBatch) -> Result:
        kinds = documents.column("kind").to_pylist()
        texts = [_spoken(kind, text) for kind, text in zip(kinds, documents.column("text").to_pylist(), strict=True)]
        drops = [self._drop(row, texts[row], found) for row, found in self.leaks(texts)]
        return Result(keep_rows(documents, drops), drops)

    def leaks(self, texts: Sequence[str]) -> Iterator[tuple[int, list[Leak]]]:
        """What each text that leaks anything gives away, in the order of texts; starts and stops count characters."""
        read = [plain(text) for text in texts]
        words, offsets = cut(read)
        coded = [text.encode() for text in read]
        found: dict[int, list[Leak]] = defaultdict(list)
        for row, leak in self.indices.words.leaks(words, offsets):
            found[row].append(_in_characters(read[row], leak))
        for row, leak in self.indices.solutions.leaks(coded):
            start, stop = (len(coded[row][:offset].decode()) for offset in (leak.start, leak.stop))
            found[row].append(leak._replace(start=start, stop=stop))
        for row, leak in self.indices.names.leaks(words, offsets):
            found[row].append(_in_characters(read[row], leak))
        for row, leaks in sorted(found.items()):
            places = origins(texts[row], *(place for leak in leaks for place in leak[2:]))
            pairs = zip(leaks, places[::2], places[1::2], strict=True)
            yield row, [leak._replace(start=start, stop=stop) for leak, start, stop in pairs]

    def _drop(self, row: int, text: str, leaks: Sequence[Leak]) -> Drop:
        first = leaks[0]
        benchmark, task = self.indices.tasks[first.problem]
        others = {": ".join(self.indices.tasks[leak.problem]): None for leak in leaks if leak.problem != first.problem}
        evidence = {
            "benchmark": benchmark,
            "task": task,
            "line": text.count("\n", 0, first.start) + 1,
            "text": text[first.start : min(first.stop, first.start + _SHOWN)],
            "others": list(others)[:_OTHERS],
        }
        return Drop(row, f"benchmark_{first.rule}", json.dumps(evidence, ensure_ascii=False))


def _in_characters(text: str, leak: Leak) -> Leak:
    """Where the words of a leak lie in a plain text."""
    spans = [match.span() for match in islice(WORD.finditer(text), leak.start, leak.stop)]
    return leak._replace(start=spans[0][0], stop=spans[-1][1])


def _spoken(kind: str, text: str) -> str:
    """What a document says: a conversation is JSON, in which line breaks are letters."""
    if kind != "chat":
        return text
    try:
        return "\n".join(message["content"] for message in chat.parse(text))
    except ValueError:
        return text
