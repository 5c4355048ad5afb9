"""Tasks without a language model: typed compositions of basic operations, in words, with programs that were run.

An endless stream, verified and reproducible: an item is a function of the seed and its number. Each has a sentence that
says what to do in one of many ways, several equivalent programs, and the results of all of them on inputs of growing
size, which must agree. What is held out for evaluation is told in tasks.py.

Cost: about 5 ms of one core an item.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import apache_beam as beam
import pyarrow as pa

from opencoder_jax.beam_pipelines.core.documents import SCHEMA, ShardWriter, batches_of, document_id, shard_name
from opencoder_jax.beam_pipelines.core.manifest import Manifest, Tally, merge_tallies, tally_documents
from opencoder_jax.beam_pipelines.core.runner import BeamOptions
from opencoder_jax.beam_pipelines.core.stage import Stage, gather_reports, report_shard, run_shards
from opencoder_jax.beam_pipelines.core.storage import Directory
from opencoder_jax.beam_pipelines.synthesis.grammar import forms
from opencoder_jax.beam_pipelines.synthesis.grammar.items import Item, item
from opencoder_jax.beam_pipelines.synthesis.grammar.tasks import SCOPES
from opencoder_jax.benchmarks.problems import OWN, Benchmark
from opencoder_jax.checks import at_least, between, check, one_of
from opencoder_jax.recipe import configurable

PROBLEMS = "problems.jsonl"
_BYTES, _SPEED = 500, 0.1  # bytes of an item, about; MB of them a second on a core


@configurable
@dataclass(frozen=True)
class GrammarConfig:
    """Which items are written, and how.

    Attributes:
        items: how many.
        form: "programs" with docstrings; "questions" about programs, and for some; "tasks" that a program answers.
        scope: "full"; or "small": common operations, at most two in a task, for a miniature.
        seed: of the draws. The same seed gives the same items in every form.
        shards: of the output.
    """

    items: int = 10_000
    form: str = "tasks"
    scope: str = "full"
    seed: int = 0
    shards: int = 8

    def __post_init__(self) -> None:
        check(self, items=at_least(1), form=one_of("programs", "questions", "tasks"))
        check(self, scope=one_of(*SCOPES), shards=between(1, 99_999))


def items(
    seed: int, numbers: Iterator[int], held_out: bool, counts: Counter[str], scope: str = "full"
) -> Iterator[Item]:
    """The items of these numbers that are held out or aren't; what becomes of the others is counted."""
    taken = frozenset(problem.entry_point for problem in Benchmark.read(OWN).problems)
    for number in numbers:
        found = item(seed, number, taken, SCOPES[scope])
        if isinstance(found, str):
            counts[f"not asked: {found}"] += 1
        elif found.task.held_out is not held_out:
            counts["held out" if found.task.held_out else "not held out"] += 1
        else:
            yield found


class WriteItems(beam.DoFn):
    """Writes a shard: the items whose number has the shard's remainder, until there are enough."""

    def __init__(self, config: GrammarConfig, output: str) -> None:
        self.config = config
        self.output = output

    def process(self, shard: int) -> Iterator[int]:
        directory, config = Directory(self.output), self.config
        wanted = len(range(shard, config.items, config.shards))
        counts: Counter[str] = Counter()
        found = items(config.seed, _numbers(shard, config.shards), False, counts, config.scope)
        rows = [_document(config, each) for each, _ in zip(found, range(wanted), strict=False)]
        tallies: list[Tally] = [{"count": dict(counts)}]
        with ShardWriter(directory, shard_name("documents", shard, config.shards)) as writer:
            for batch in batches_of(pa.Table.from_pylist(rows, schema=SCHEMA)):
                writer.write(batch)
                tallies.append(tally_documents("out", batch))
        report_shard(directory, shard, merge_tallies(tallies), writer.names)
        yield shard


def _numbers(first: int, step: int) -> Iterator[int]:
    while True:
        yield first
        first += step


def _document(config: GrammarConfig, made: Item) -> dict[str, Any]:
    text, path = forms.text(config.form, made), f"{config.seed}/{made.number}/{config.form}"
    return {
        "id": document_id("grammar", path),
        "text": text,
        "path": path,
        "repository": "grammar",
        "stars": 0,
        "commit_time": 0,
        "language": "Python",
        "kind": "synthetic" if config.form == "programs" else "chat",
        "license": "",
        "source": "grammar",
        "url": "",
        "bytes": len(text.encode()),
    }


def run(*, output: str, config: GrammarConfig, options: BeamOptions) -> Manifest:
    """Writes items for training."""

    def work(directory: Directory) -> tuple[Tally, dict[str, str]]:
        step = WriteItems(config, output)
        run_shards("grammar", directory, step, config.shards, options, config.items * _BYTES, _SPEED)
        return gather_reports(directory, config.shards)

    roots = ((__name__, "run"), (__name__, WriteItems.__name__))
    return Stage("grammar", __name__, config, (), output, roots).run(work, options)
