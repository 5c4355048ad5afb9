"""Decontamination: no document that gives away an evaluation problem stays in training data.

Two rules of OpenCoder (section 3.1): a 10-gram shared with a problem's text or solution, and the name of its entry
point. The paper leaves open how words are cut and how names as common as `add` are spared; here a word is a run of
letters, digits and underscores in lower case, a gram must hold some different words (else `0, 0, 0, …` would be one),
and only entry points that are long enough to be unmistakable count by name. Every removal is listed with its problem
and the matching text, so that it can be reviewed.
"""

import gzip
import json
import re
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow as pa
import xxhash

from beam_pipelines.code.minhash import shingles
from beam_pipelines.manifest import Manifest
from beam_pipelines.runner import BeamOptions
from beam_pipelines.stage import Drop, Result, keep_rows, main, map_stage, require_inputs
from opencoder_jax.recipe import UserError, configurable

_WORD = re.compile(rb"[a-z0-9_\x80-\xff]+")  # as in code/minhash.py, after lowering

# The fields of HumanEval, MBPP and their relatives that a model must not have seen.
_SECRETS = ("prompt", "canonical_solution", "text", "code", "instruction", "output")


@configurable
@dataclass(frozen=True)
class DecontaminateConfig:
    """What counts as a leak.

    Attributes:
        benchmarks: JSONL files (also .gz) of evaluation problems; relative to the working directory or the repository.
        ngram: words a gram (10 in the paper).
        distinct_words: different words that a gram must hold to count (ours).
        entry_point_length: characters that an entry point must have to count by its name alone (ours).
    """

    benchmarks: tuple[str, ...] = ("opencoder_jax/evaluation/problems.jsonl",)
    ngram: int = 10
    distinct_words: int = 6
    entry_point_length: int = 12

    def __post_init__(self) -> None:
        if not self.benchmarks:
            raise ValueError("benchmarks is empty: name the JSONL files of the problems that must not leak")
        if not 1 <= self.distinct_words <= self.ngram:
            raise ValueError(f"distinct_words must lie in 1..ngram={self.ngram}: got {self.distinct_words}")


@dataclass(frozen=True)
class Benchmark:
    """The problems of one file, as far as decontamination needs them: a digest names it wherever it lies."""

    name: str
    digest: str
    problems: tuple[tuple[str, str, str], ...]  # (task id, entry point or "", secret text)

    @classmethod
    def read(cls, path: str) -> "Benchmark":
        """Raises UserError naming the file and line."""
        place = Path(path) if Path(path).is_file() else Path(__file__).resolve().parent.parent / path
        if not place.is_file():
            raise UserError(f"benchmark file {path}: no such file")
        data = place.read_bytes()
        try:
            content = gzip.decompress(data) if place.suffix == ".gz" else data
        except (OSError, EOFError, zlib.error) as error:
            raise UserError(f"benchmark file {path}: can't be unpacked ({error})") from None
        problems = []
        for number, line in enumerate(content.split(b"\n"), 1):
            if not line.strip():
                continue
            try:
                problem = json.loads(line)
            except ValueError:
                problem = None
            if not isinstance(problem, dict):
                raise UserError(f"{path}:{number}: not a JSON object")
            secrets = [problem[field] for field in _SECRETS if isinstance(problem.get(field), str)]
            if not secrets:
                raise UserError(f"{path}:{number}: has none of the fields {', '.join(_SECRETS)}")
            task = str(problem.get("task_id", f"line {number}"))
            problems.append((task, str(problem.get("entry_point") or ""), "\n".join(secrets)))
        return cls(place.name, xxhash.xxh3_128_hexdigest(data), tuple(problems))


@dataclass(frozen=True)
class Identity:
    """The configuration as the manifest holds it: files by name and content, not by place."""

    benchmarks: tuple[tuple[str, str], ...]
    ngram: int
    distinct_words: int
    entry_point_length: int


@dataclass(frozen=True)
class Decontaminate:
    """The kernel: drops documents that share a gram or a telling name with a problem."""

    config: DecontaminateConfig
    benchmarks: tuple[Benchmark, ...]

    @cached_property
    def grams(self) -> dict[bytes, str]:
        """Telling grams, words joined by spaces -> task id."""
        found: dict[bytes, str] = {}
        for benchmark in self.benchmarks:
            for task, _, secret in benchmark.problems:
                for gram in word_grams(secret, self.config.ngram):
                    if len(set(gram)) >= self.config.distinct_words:
                        found.setdefault(b" ".join(gram), task)
        return found

    @cached_property
    def gram_hashes(self) -> np.ndarray:
        return np.sort(shingles(list(self.grams), self.config.ngram)[0])

    @cached_property
    def entry_points(self) -> dict[str, str]:
        """Telling entry points -> task id."""
        problems = [problem for benchmark in self.benchmarks for problem in benchmark.problems]
        return {name: task for task, name, _ in problems if len(name) >= self.config.entry_point_length}

    def __call__(self, documents: pa.RecordBatch) -> Result:
        texts: list[str] = documents.column("text").to_pylist()
        hashes, offsets = shingles([text.lower().encode() for text in texts], self.config.ngram)
        hits = np.concatenate([[0], np.cumsum(np.isin(hashes, self.gram_hashes))])
        suspects = set(np.flatnonzero(hits[offsets[1:]] > hits[offsets[:-1]]).tolist())
        drops = []
        for row, text in enumerate(texts):
            shared = self._shared_gram(text) if row in suspects else None
            named = self.entry_points.keys() & set(re.findall(r"\w+", text))
            if shared is not None:
                drops.append(Drop(row, "benchmark_ngram", f"{self.grams[shared]}: {shared.decode()}"))
            elif named:
                name = min(named)
                drops.append(Drop(row, "benchmark_entry_point", f"{self.entry_points[name]}: {name}"))
        return Result(keep_rows(documents, drops), drops)

    def _shared_gram(self, text: str) -> bytes | None:
        grams = (b" ".join(gram) for gram in word_grams(text, self.config.ngram))
        return next((gram for gram in grams if gram in self.grams), None)


def word_grams(text: str, size: int) -> Iterator[tuple[bytes, ...]]:
    """All runs of `size` words of a text, in lower case."""
    words = _WORD.findall(text.lower().encode())
    return zip(*(words[place:] for place in range(size)), strict=False)


def run(inputs: Sequence[str], output: str, config: DecontaminateConfig, options: BeamOptions) -> Manifest:
    """Writes the input's documents without those that leak a problem of `config.benchmarks`."""
    require_inputs("decontaminate", inputs, "documents")
    benchmarks = tuple(Benchmark.read(path) for path in config.benchmarks)
    identity = Identity(
        tuple((benchmark.name, benchmark.digest) for benchmark in benchmarks),
        config.ngram,
        config.distinct_words,
        config.entry_point_length,
    )
    kernel = Decontaminate(config, benchmarks)
    return map_stage("decontaminate", kernel, inputs, output, identity, options, megabytes_per_second=10.0)


if __name__ == "__main__":
    main("beam_pipelines.decontaminate")
