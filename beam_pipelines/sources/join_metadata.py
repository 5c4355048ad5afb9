"""Rebuilds a corpus from its metadata alone: joins rows of (repository, path) with documents that have the text.

    python -m opencoder_jax.beam_pipelines.sources.join_metadata --input=RefineCode-code-corpus-meta --input=runs/stack \\
        --output=runs/rebuilt

OpenCoder released which files RefineCode's code is made of, 336,845,710 rows of repository and path, but not their
text. Inputs that are stage directories (documents of any source: The Stack by sources.tables, clones by
sources.git_repositories) are the corpus, the others tables of metadata, in any order. A document stays as its source
wrote it; of several at one place the one with the most stars, then the latest commit, is taken.

Each row is a document or a counted drop: broken_json, no_place (without repository or path), no_repository (the corpus
has nothing of it), no_path (it has other files of it), repeated (an earlier row names the place). Counters say how many
texts have the recorded size (in the release some are smaller, as notices were removed before) and how many documents of
the corpus were left.

Hashes go through the shuffle, never text or names: 40 bytes a row and a document, keyed by repository. Each shard of
the corpus is then read once with the list of its rows and becomes a shard of the output; each file of metadata once
with that of its drops.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import apache_beam as beam
import numpy as np
import pyarrow as pa
import xxhash

from opencoder_jax.beam_pipelines.core.documents import (
    DROP_SCHEMA,
    ShardWriter,
    addresses,
    document_id,
    empty,
    priorities,
    read_shard,
    read_shard_columns,
    shard_name,
    unpack_addresses,
)
from opencoder_jax.beam_pipelines.core.manifest import (
    MANIFEST,
    PLAN,
    Manifest,
    Tally,
    merge_tallies,
    tally_documents,
    tally_drops,
)
from opencoder_jax.beam_pipelines.core.runner import BeamOptions
from opencoder_jax.beam_pipelines.core.shuffles import by_segment, pack, run_starts, sort_rows, unpack
from opencoder_jax.beam_pipelines.core.stage import (
    Stage,
    gather_reports,
    input_shards,
    main,
    report_shard,
)
from opencoder_jax.beam_pipelines.core.storage import Directory
from opencoder_jax.beam_pipelines.languages.detect import by_name, identify
from opencoder_jax.beam_pipelines.sources.rows import integer, list_tables, rows_of
from opencoder_jax.beam_pipelines.sources.units import Row, Unit, UnitsPlan
from opencoder_jax.recipe import UserError, configurable

SPEED = 60.0  # megabytes of corpus a second on one core

_REPOSITORY, _ID, _ADDRESS = 0, slice(1, 3), 4  # columns of what is shuffled; column 3 is its own:
ROW = 5  # … a row's recorded size
DOCUMENT = 5  # … a document's priority
FOUND = 2  # columns of what the join says: (document, recorded size) or (row of metadata, place in REASONS)
REASONS = ("no_repository", "no_path", "repeated")
_ROWS = 10_000  # of metadata at a time


@configurable
@dataclass(frozen=True)
class JoinMetadataConfig:
    """Which columns the metadata has; the defaults are those of RefineCode's release.

    Attributes:
        repository, path: columns of a row's place; a slash before the path doesn't count.
        bytes: the column of the recorded size; it may be missing.
        language: the column of the language, which only drops show; it may be missing.
        segments: parts of the shuffle, a power of two; aim at 10 to 100 MB each.
    """

    repository: str = "repo_name"
    path: str = "sub_path"
    bytes: str = "file_size_in_byte"
    language: str = "program_lang"
    segments: int = 16

    def __post_init__(self) -> None:
        for name in ("repository", "path"):
            if not getattr(self, name):
                raise ValueError(f"{name} must name a column")
        if self.segments < 1 or self.segments & (self.segments - 1):
            raise ValueError(f"segments must be a power of two: got {self.segments}")


def metadata_rows(file: Unit, config: JoinMetadataConfig) -> Iterator[dict[str, Any] | str]:
    """The rows of a file by the names of the configuration's fields, or why one has none."""
    columns = {name: getattr(config, name) for name in ("repository", "path", "bytes", "language")}
    return (row for _, row in rows_of(file, columns, ("repository", "path")))


def place_of(row: Mapping[str, Any] | str) -> tuple[str, str]:
    """The repository and path that a row of metadata names, "" where it doesn't."""
    if isinstance(row, str):
        return "", ""
    return str(row["repository"] or "").strip("/"), str(row["path"] or "").lstrip("/")


def repository_hashes(names: Iterable[str]) -> list[int]:
    """64 bits of each name."""
    return [xxhash.xxh3_64_intdigest(name.encode("utf-8", "surrogateescape")) for name in names]


class HashRows(beam.DoFn):
    """The number of a file of metadata -> (segment, packed rows of ROW columns)."""

    def __init__(self, files: Sequence[Unit], config: JoinMetadataConfig) -> None:
        self.files = files
        self.config = config

    def process(self, file: int) -> Iterator[tuple[int, bytes]]:
        hashed: list[tuple[int, ...]] = []
        first = int(addresses(file, 1)[0])
        for number, row in enumerate(metadata_rows(self.files[file], self.config)):
            repository, path = place_of(row)
            if isinstance(row, str) or not (repository and path):
                continue
            identifier = int(document_id(repository, path), 16)
            size = max(0, integer(row["bytes"]))
            hashed.append(
                (*repository_hashes([repository]), identifier >> 64, identifier % 2**64, size, first + number)
            )
            if len(hashed) == _ROWS:
                yield from self._segments(hashed)
                hashed = []
        yield from self._segments(hashed)

    def _segments(self, hashed: list[tuple[int, ...]]) -> Iterator[tuple[int, bytes]]:
        table = np.array(hashed, np.uint64).reshape(-1, ROW)
        yield from by_segment(table, table[:, _REPOSITORY], self.config.segments)


class HashDocuments(beam.DoFn):
    """The number of a shard of the corpus -> (segment, packed rows of DOCUMENT columns)."""

    def __init__(self, corpus: Sequence[tuple[str, str]], segments: int) -> None:
        self.corpus = corpus
        self.segments = segments

    def process(self, shard: int) -> Iterator[tuple[int, bytes]]:
        directory, name = self.corpus[shard]
        documents = read_shard_columns(Directory(directory), name, ["id", "repository", "stars", "commit_time"])
        hashes = np.array(repository_hashes(documents.column("repository").to_pylist()), np.uint64)
        ranks = priorities(documents)
        table = np.column_stack([hashes, ranks[:, 1:], ranks[:, 0], addresses(shard, len(hashes))])
        yield from by_segment(table, hashes, self.segments)


def join(rows: np.ndarray, documents: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Finds the document of each row of metadata.

    Args:
        rows: uint64 [rows, ROW].
        documents: uint64 [documents, DOCUMENT], all of the repositories of the rows among them.

    Returns:
        uint64 [taken, FOUND], addresses of documents and recorded sizes; uint64 [dropped, FOUND], addresses of rows
        and places in REASONS.
    """
    kinds = np.repeat([np.uint64(0), np.uint64(1)], [len(documents), len(rows)])
    both = np.concatenate([documents, rows])
    ranks = np.where(kinds == 0, both[:, 3], 0)
    # Runs of one place: its documents from the best, then the rows that name it from the first.
    order = np.lexsort([both[:, _ADDRESS], ranks, kinds, *both[:, _ID].T[::-1]])
    both, is_row = both[order], kinds[order] == 1
    starts = run_starts(both[:, _ID])
    heads = np.flatnonzero(starts)[np.cumsum(starts) - 1]
    first = is_row.copy()
    first[1:] &= starts[1:] | ~is_row[:-1]
    has_text = ~is_row[heads]
    taken = first & has_text
    known = np.isin(both[:, _REPOSITORY], documents[:, _REPOSITORY])
    reasons = np.where(~first, REASONS.index("repeated"), np.where(known, REASONS.index("no_path"), 0))
    dropped = is_row & ~taken
    return (
        np.column_stack([both[heads[taken], _ADDRESS], both[taken, 3]]),
        np.column_stack([both[dropped, _ADDRESS], reasons[dropped].astype(np.uint64)]),
    )


def join_segment(
    element: tuple[int, tuple[Iterable[bytes], Iterable[bytes]]], shards: int
) -> Iterator[tuple[int, bytes]]:
    """What was hashed of a segment -> (shard of the corpus, or `shards` + file of metadata; packed FOUND columns)."""
    rows, documents = element[1]
    tables = join(unpack(rows, ROW), unpack(documents, DOCUMENT))
    for found, offset in zip(tables, (0, shards), strict=True):
        places, numbers = unpack_addresses(found[:, 0])
        for place in np.unique(places).tolist():
            here = places == place
            yield offset + place, pack(np.column_stack([numbers[here].astype(np.uint64), found[here, 1]]))


class WriteFound(beam.DoFn):
    """Writes a shard of documents, or the drops of a file of metadata, and a report; not twice."""

    def __init__(
        self, corpus: Sequence[tuple[str, str]], files: Sequence[Unit], output: str, config: JoinMetadataConfig
    ) -> None:
        self.corpus = corpus
        self.files = files
        self.output = output
        self.config = config

    def process(self, element: tuple[int, Iterable[bytes]]) -> Iterator[int]:
        number, values = element
        directory = Directory(self.output)
        if not directory.child("reports").exists(f"{number:05d}.json"):
            found = sort_rows(unpack(values, FOUND))
            if number < len(self.corpus):
                tally, names = self._documents(directory, number, found)
            else:
                tally, names = self._drops(directory, number - len(self.corpus), found)
            report_shard(directory, number, tally, names)
        yield number

    def _documents(self, directory: Directory, shard: int, found: np.ndarray) -> tuple[Tally, list[str]]:
        source, name = self.corpus[shard]
        rows, sizes = found.astype(np.int64).T
        tally: Tally = {}
        first = 0
        with ShardWriter(directory, shard_name("documents", shard, len(self.corpus))) as kept:
            for batch in read_shard(Directory(source), name):
                here = slice(*np.searchsorted(rows, [first, first + batch.num_rows]))
                documents = batch.take(pa.array(rows[here] - first))
                first += batch.num_rows
                same = int((documents.column("bytes").to_numpy() == sizes[here]).sum())
                counts = {
                    "of the recorded size": same,
                    "of another size": documents.num_rows - same,
                    "left in the corpus": batch.num_rows - documents.num_rows,
                }
                sides = [tally_documents(side, documents) for side in ("in", "out")]
                tally = merge_tallies([tally, *sides, {"count": counts}])
                if documents.num_rows:
                    kept.write(documents)
            if not kept.names:
                kept.write(empty())
        return tally, kept.names

    def _drops(self, directory: Directory, file: int, found: np.ndarray) -> tuple[Tally, list[str]]:
        reasons = dict(zip(*found.T.tolist(), strict=True))
        tally: Tally = {}
        with ShardWriter(directory, shard_name("drops", file, len(self.files))) as dropped:
            for batch in _batches(self._dropped_rows(self.files[file], reasons)):
                tally = merge_tallies([tally, tally_documents("in", batch), tally_drops(batch)])
                dropped.write(batch)
        return tally, dropped.names

    def _dropped_rows(self, file: Unit, reasons: Mapping[int, int]) -> Iterator[Row]:
        for number, row in enumerate(metadata_rows(file, self.config)):
            repository, path = place_of(row)
            if isinstance(row, str):
                reason, detail = "broken_json", row
            else:
                reason, detail = "no_place", f"{file.name}, row {number}"
            if repository and path:
                if number not in reasons:
                    continue
                reason = REASONS[reasons[number]]
            known = {} if isinstance(row, str) else row
            language = by_name(str(known.get("language") or ""))
            yield {
                "id": document_id(repository, path),
                "path": path,
                "repository": repository,
                "language": language.name if language.kind != "unknown" else identify(path).name,
                "bytes": max(0, integer(known.get("bytes"))),
                "reason": reason,
                "detail": detail,
            }


def _batches(rows: Iterator[Row]) -> Iterator[pa.RecordBatch]:
    batch: list[Row] = []
    for row in rows:
        batch.append(row)
        if len(batch) == _ROWS:
            yield pa.RecordBatch.from_pylist(batch, DROP_SCHEMA)
            batch = []
    if batch:
        yield pa.RecordBatch.from_pylist(batch, DROP_SCHEMA)


def run(inputs: Sequence[str], output: str, config: JoinMetadataConfig, options: BeamOptions) -> Manifest:
    """Writes the documents that the metadata names.

    Raises:
        UserError: the metadata or the corpus is missing, a table is damaged or lacks a column, or no row has a text.
    """
    stages = [given for given in inputs if any(Directory(given).exists(name) for name in (MANIFEST, PLAN))]
    tables = [given for given in inputs if given not in stages]
    if not stages or not tables:
        raise UserError(
            "join_metadata: give --input=DIR twice or more: tables of metadata, such as RefineCode's, and stages that "
            f"hold documents with text; there is no {'stage' if tables or not inputs else 'table'}"
        )
    files = list_tables(tables)
    # In an order of their own, so that that of the inputs doesn't show.
    stages.sort(key=lambda stage: Manifest.read(stage).fingerprint)
    corpus = [(stage, name) for stage in stages for name in input_shards(stage)]
    total = len(corpus) + len(files)

    def work(directory: Directory) -> tuple[Tally, dict[str, str]]:
        size = sum(Manifest.read(stage).total("out", "bytes") for stage in stages)
        progress = Progress("join_metadata", directory.child("reports"), total, size)
        with progress, options.pipeline(size / 1e6 / SPEED) as pipeline:
            rows = (
                pipeline
                | "files" >> beam.Create(range(len(files)))
                | "hash rows" >> beam.ParDo(HashRows(files, config))
            )
            shards = pipeline | "shards" >> beam.Create(range(len(corpus)))
            documents = shards | "hash documents" >> beam.ParDo(HashDocuments(corpus, config.segments))
            found = (rows, documents) | "by repository" >> beam.CoGroupByKey()
            found = found | "join" >> beam.FlatMap(join_segment, len(corpus))
            every = pipeline | "every output" >> beam.Create([(number, b"") for number in range(total)])
            outputs = (found, every) | "all" >> beam.Flatten() | "by output" >> beam.GroupByKey()
            _ = outputs | "write" >> beam.ParDo(WriteFound(corpus, files, output, config))
        tally, written = gather_reports(directory, total)
        if not tally.get("out"):
            reasons = ", ".join(f"{reason} {count}" for reason, count in sorted(tally["drop"]["documents"].items()))
            raise UserError(
                f"join_metadata: no row of {', '.join(tables)} has its text in the corpus; dropped as {reasons}"
            )
        return tally, written

    plan = UnitsPlan(config, tuple((file.name, file.size, file.state) for file in files))
    return Stage("join_metadata", __name__, plan, tuple(stages), output).run(work)


if __name__ == "__main__":
    main("opencoder_jax.beam_pipelines.sources.join_metadata")
