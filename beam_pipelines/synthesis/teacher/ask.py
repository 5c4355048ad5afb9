"""Asks a teacher about seeds: exercises with solutions and tests, problems that a package solves, or grades of pages.

The answers are for the stage `validate`, which keeps what running them bears out; grades are for `grades`. Killed
anywhere, the same command goes on: every answer stands in `--answers`, a directory that only grows, that any number of
runs may share one after the other, and from which the whole stage comes out again without a server. Asking is one
process with many threads, whatever runs Beam: it waits, and computes next to nothing.

Cost: what the teacher takes; about 2,000 answers a second where they are recorded.
"""

import json
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from opencoder_jax.beam_pipelines.core.documents import SCHEMA, ShardWriter, document_id, read_shard, shard_name
from opencoder_jax.beam_pipelines.core.manifest import Manifest, Tally, merge_tallies, tally_documents, tally_drops
from opencoder_jax.beam_pipelines.core.maps import Drop, drop_table
from opencoder_jax.beam_pipelines.core.runner import BeamOptions
from opencoder_jax.beam_pipelines.core.stage import Stage, gather_reports, input_shards, report_shard
from opencoder_jax.beam_pipelines.core.storage import Directory
from opencoder_jax.beam_pipelines.synthesis.teacher.conversations import CONVERSATIONS, Row, Talk
from opencoder_jax.beam_pipelines.synthesis.teacher.teacher import NoAnswerError, Teacher, TeacherConfig
from opencoder_jax.checks import at_least, check, one_of, or_none
from opencoder_jax.clients.recorded_answers import RecordedAnswers
from opencoder_jax.progress import Progress
from opencoder_jax.recipe import configurable


@configurable
@dataclass(frozen=True)
class AskConfig:
    """What is asked about the seeds.

    Attributes:
        pipeline: "educational": seeds are snippets; "package": they are what `signatures` writes; or "pages": they are
            pages of a crawl (`sample` draws some of them), to be graded.
        solutions: of an exercise: the first comes with its tests, the others know neither.
        most_seeds: how many seeds are asked about, each shard's first ones; all where it's None.
        subject: what pages are graded for.
    """

    pipeline: str = "educational"
    solutions: int = 3
    most_seeds: int | None = None
    subject: str = "programming, software and computer science"

    def __post_init__(self) -> None:
        check(self, pipeline=one_of(*CONVERSATIONS), solutions=at_least(1), most_seeds=or_none(at_least(1)))


@dataclass(frozen=True)
class AskedConfig:
    """What the answers depend on, for the manifest: neither the server's address nor what it costs."""

    ask: AskConfig
    model: str
    sampling: dict[str, float]


def answered(seed: Row, teacher: Teacher, config: AskConfig) -> dict[str, Any] | str:
    """The document that comes of a seed, or why none does."""
    try:
        record = CONVERSATIONS[config.pipeline](Talk(teacher.ask, seed, config.solutions, config.subject))
    except NoAnswerError as reason:
        return str(reason)
    about = {"pipeline": config.pipeline, "teacher": teacher.model, **record}
    text = json.dumps(about, ensure_ascii=True, sort_keys=True)  # an answer may hold half a character
    path = f"{seed['path']}#{config.pipeline}"
    change = {"id": document_id(seed["repository"], path), "path": path, "text": text, "kind": "synthetic"}
    return {**seed, **change, "source": config.pipeline, "bytes": len(text)}


def run(
    documents: str, answers: str, output: str, ask: AskConfig, teacher: TeacherConfig, options: BeamOptions
) -> Manifest:
    """Writes a document of each seed that a teacher answered: its task, solutions and tests as JSON.

    Args:
        documents: the seeds.
        answers: where every answer is recorded; may hold those of other runs.
    """

    def work(directory: Directory) -> tuple[Tally, dict[str, str]]:
        names = input_shards(documents)
        done = set(directory.child("reports").names())
        total = Manifest.read(documents).total("out", "documents")
        with (
            RecordedAnswers(Path(answers)) as record,
            Progress("ask", total, "seeds") as progress,
            ThreadPoolExecutor(teacher.at_once) as threads,
        ):
            asked = Teacher(teacher, record)
            try:
                for shard, name in enumerate(names):
                    if f"{shard:05d}.json" in done:
                        continue
                    quota = None if ask.most_seeds is None else len(range(shard, ask.most_seeds, len(names)))
                    _shard(
                        Directory(documents), directory, (shard, len(names), name), quota, asked, ask, threads, progress
                    )
            finally:
                threads.shutdown(cancel_futures=True)  # what is on its way is waited for, and recorded
                said = f"paid now: {asked.paid.told(teacher)}; recorded before: {asked.known.told(teacher)}"
                print(f"ask: {said}", file=sys.stderr)
        return gather_reports(directory, len(names))

    sampling = {name: getattr(teacher, name) for name in ("temperature", "top_p", "max_tokens", "seed", "tries")}
    config = AskedConfig(ask, teacher.model, sampling)
    return Stage("ask", __name__, config, (documents,), output, ((__name__, "answered"),)).run(work, options)


def _shard(
    source: Directory,
    output: Directory,
    place: tuple[int, int, str],
    quota: int | None,
    teacher: Teacher,
    config: AskConfig,
    threads: ThreadPoolExecutor,
    progress: Progress,
) -> None:
    """Asks about a shard's seeds, `quota` of them at most, and writes what came of them."""
    shard, shards, name = place
    counted, tokens = teacher.counts.copy(), teacher.spent()
    tallies: list[Tally] = []
    with (
        ShardWriter(output, shard_name("documents", shard, shards)) as kept,
        ShardWriter(output, shard_name("drops", shard, shards)) as dropped,
    ):
        for seeds in read_shard(source, name):
            wanted = seeds.num_rows if quota is None else min(quota, seeds.num_rows)
            quota = None if quota is None else quota - wanted
            rows, drops = [], [Drop(row, "not asked about") for row in range(wanted, seeds.num_rows)]
            found = threads.map(lambda seed: answered(seed, teacher, config), seeds.slice(0, wanted).to_pylist())
            for row, each in enumerate(found):
                if isinstance(each, str):
                    drops.append(Drop(row, each))
                else:
                    rows.append(each)
                progress.update_to(progress.done + 1)
            made, lost = pa.RecordBatch.from_pylist(rows, schema=SCHEMA), drop_table(seeds, drops)
            kept.write(made)
            if lost.num_rows:
                dropped.write(lost)
            tallies += [tally_documents("in", seeds), tally_documents("out", made), tally_drops(lost)]
    now = teacher.spent()
    counts = dict(teacher.counts - counted)
    counts |= {"tokens: read": now.read - tokens.read, "tokens: written": now.written - tokens.written}
    tally = merge_tallies([*tallies, {"count": counts}])
    report_shard(output, shard, tally, [*kept.names, *dropped.names])
