"""Decontamination: no document that gives away an evaluation problem stays in training data.

OpenCoder has two rules (section 3.1): a 10-gram shared with a problem, and the name of its entry point. The paper
leaves open how words are cut, how many grams it takes, and how names as common as `add` are spared; leaks/words.py says
how it is done here. A third rule finds solutions whose variables were renamed (leaks/solutions.py). All of a problem
counts, what is asked, its solutions and its tests, and each alone.

    python -m opencoder_jax.beam_pipelines.decontamination.decontaminate --input=DIR --output=DIR \\
        --gin.DecontaminateConfig.benchmarks="('HumanEval.jsonl.gz', 'mbpp.jsonl')"

Beside the documents it writes what it removed, for review: `removed.jsonl`, a line a document with the problem and the
matching text, and `removed.html`.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property

import pyarrow as pa

from opencoder_jax.beam_pipelines.core.manifest import Manifest
from opencoder_jax.beam_pipelines.core.maps import Drop, Result, keep_rows, map_stage
from opencoder_jax.beam_pipelines.core.runner import BeamOptions
from opencoder_jax.beam_pipelines.core.stage import main, require_inputs
from opencoder_jax.beam_pipelines.decontamination.problems import Benchmark, Fields, Problem
from opencoder_jax.beam_pipelines.decontamination.review import write_review
from opencoder_jax.beam_pipelines.decontamination.solutions import SolutionIndex
from opencoder_jax.beam_pipelines.decontamination.words import Leak, NameIndex, WordIndex
from opencoder_jax.beam_pipelines.deduplication.minhash import grams
from opencoder_jax.data import chat
from opencoder_jax.recipe import configurable

_SHOWN = 2_000  # characters of a match that are kept for review
_OTHERS = 50  # problems that a removal names besides the first


@configurable
@dataclass(frozen=True)
class DecontaminateConfig:
    """What counts as a leak.

    Attributes:
        benchmarks: files of evaluation problems, JSON lines (also .gz, .zst); relative to the working directory or the
            repository.
        texts, solutions, tests: the fields of a problem that hold what is asked, programs, and tests.
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

    benchmarks: tuple[str, ...] = ("opencoder_jax/benchmarks/problems.jsonl",)
    texts: tuple[str, ...] = (
        *("prompt", "text", "question", "instruction", "output", "description", "starter_code"),
        *("complete_prompt", "instruct_prompt", "problem", "problem_statement"),
    )
    solutions: tuple[str, ...] = ("canonical_solution", "code", "solution", "solutions", "reference_code")
    tests: tuple[str, ...] = ("test", "tests", "test_list", "challenge_test_list", "test_code", "testcase")
    ngram: int = 10
    shared_ngrams: int = 2
    distinct_words: int = 6
    telling_words: int = 4
    boilerplate: int = 10
    entry_point_length: int = 16
    entry_point_words: int = 3
    solution_tokens: int = 12
    edit_tokens: int = 30

    def __post_init__(self) -> None:
        if not self.benchmarks:
            raise ValueError("benchmarks is empty: name the JSONL files of the problems that must not leak")
        if not 1 <= self.distinct_words <= self.ngram:
            raise ValueError(f"distinct_words must lie in 1..ngram={self.ngram}: got {self.distinct_words}")
        for name in ("shared_ngrams", "boilerplate", "solution_tokens", "edit_tokens"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1: got {getattr(self, name)}")

    def read(self) -> tuple[Benchmark, ...]:
        """The benchmarks. Raises UserError naming the file and line that is wrong."""
        fields = Fields(tuple(self.texts), tuple(self.solutions), tuple(self.tests))
        return tuple(Benchmark.read(path, fields) for path in self.benchmarks)


@dataclass(frozen=True)
class Decontaminate:
    """The kernel: drops documents that leak a problem. Its indices are made once a worker."""

    config: DecontaminateConfig
    benchmarks: tuple[Benchmark, ...]

    @cached_property
    def problems(self) -> list[Problem]:
        return [problem for benchmark in self.benchmarks for problem in benchmark.problems]

    @cached_property
    def words(self) -> WordIndex:
        config = self.config
        return WordIndex(
            self.problems,
            config.ngram,
            config.shared_ngrams,
            config.distinct_words,
            config.telling_words,
            config.boilerplate,
        )

    @cached_property
    def names(self) -> NameIndex:
        return NameIndex(self.problems, self.config.entry_point_length, self.config.entry_point_words)

    @cached_property
    def solutions(self) -> SolutionIndex:
        return SolutionIndex(self.problems, self.config.solution_tokens, self.config.edit_tokens)

    def __call__(self, documents: pa.RecordBatch) -> Result:
        kinds = documents.column("kind").to_pylist()
        texts = [_spoken(kind, text) for kind, text in zip(kinds, documents.column("text").to_pylist(), strict=True)]
        drops = [self._drop(row, texts[row], found) for row, found in self.leaks(texts) if found]
        return Result(keep_rows(documents, drops), drops)

    def leaks(self, texts: Sequence[str]) -> Iterator[tuple[int, list[Leak]]]:
        """What each text that leaks anything gives away, in the order of texts; the places are characters."""
        raw = [text.encode() for text in texts]
        words, offsets = grams([text.lower().encode() for text in texts], 1)
        read = self.words.suspects(words, offsets)
        named = self.names.suspects(words, offsets)
        solved: dict[int, list[Leak]] = {}
        for row, leak in self.solutions.leaks(raw):
            start, stop = (len(raw[row][:place].decode()) for place in (leak.start, leak.stop))
            solved.setdefault(row, []).append(leak._replace(start=start, stop=stop))
        for row in sorted(read | named | solved.keys()):
            found = list(self.words.leaks(texts[row])) if row in read else []
            found += solved.get(row, [])
            found += self.names.leaks(texts[row]) if row in named else []
            if found:
                yield row, found

    def _drop(self, row: int, text: str, leaks: Sequence[Leak]) -> Drop:
        first = leaks[0]
        problem = self.problems[first.problem]
        others = {self.problems[leak.problem].name: None for leak in leaks if leak.problem != first.problem}
        evidence = {
            "benchmark": problem.benchmark,
            "task": problem.task,
            "line": text.count("\n", 0, first.start) + 1,
            "text": text[first.start : min(first.stop, first.start + _SHOWN)],
            "others": list(others)[:_OTHERS],
        }
        return Drop(row, f"benchmark_{first.rule}", json.dumps(evidence, ensure_ascii=False))


def _spoken(kind: str, text: str) -> str:
    """What a document says: a conversation is JSON, in which line breaks are letters."""
    if kind != "chat":
        return text
    try:
        return "\n".join(message["content"] for message in chat.parse(text))
    except ValueError:
        return text


@dataclass(frozen=True)
class Identity:
    """The configuration as the manifest holds it: files by name and content, not by place."""

    benchmarks: tuple[tuple[str, str], ...]
    rules: dict[str, object]


def run(inputs: Sequence[str], output: str, config: DecontaminateConfig, options: BeamOptions) -> Manifest:
    """Writes the input's documents without those that leak a problem of `config.benchmarks`."""
    require_inputs("decontaminate", inputs, "documents")
    benchmarks = config.read()
    rules = {name: value for name, value in asdict(config).items() if name != "benchmarks"}
    identity = Identity(tuple((benchmark.name, benchmark.digest) for benchmark in benchmarks), rules)
    kernel = Decontaminate(config, benchmarks)
    manifest = map_stage("decontaminate", kernel, inputs, output, identity, options, megabytes_per_second=10.0)
    write_review(output, manifest, kernel.problems)
    return manifest


if __name__ == "__main__":
    main("opencoder_jax.beam_pipelines.decontamination.decontaminate")
