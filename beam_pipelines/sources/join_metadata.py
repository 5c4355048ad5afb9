"""Rebuilds a corpus from its metadata alone: joins rows of (repository, path) with documents that have the text.

    python -m beam_pipelines join_metadata --metadata=RefineCode-code-corpus-meta --corpus=runs/stack \\
        --output=runs/rebuilt

OpenCoder released which files RefineCode's code is made of, 336,845,710 rows of repository and path, but not their
text. The corpus is the documents of any source: The Stack by `tables`, clones by `git_repositories`. A document stays
as its source wrote it; of several with one repository and path, the one with the most stars, then the latest commit, is
taken.

Each row is a document or a counted drop: broken_json, no_place (without repository or path), no_repository (the corpus
has nothing of it), no_path (it has other files of it), repeated (an earlier row names the same file). A table that is
damaged, or lacks a column, goes to quarantine; of one that ends early the rows before that count. Counters say how many
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
    PRIORITY_COLUMNS,
    addresses,
    document_id,
    empty,
    priorities,
    read_shard,
    read_shard_columns,
    unpack_addresses,
)
from opencoder_jax.beam_pipelines.core.manifest import Manifest, Tally
from opencoder_jax.beam_pipelines.core.runner import BeamOptions
from opencoder_jax.beam_pipelines.core.shuffles import by_segment, pack, run_starts, sort_rows, unpack
from opencoder_jax.beam_pipelines.core.stage import FollowReports, Stage, gather_reports, input_shards, report_shard
from opencoder_jax.beam_pipelines.core.storage import Directory
from opencoder_jax.beam_pipelines.languages.detect import by_name
from opencoder_jax.beam_pipelines.sources.builder import Row, document, written
from opencoder_jax.beam_pipelines.sources.formats.batches import RowBatch, batches, fault, guarded, write_batches
from opencoder_jax.beam_pipelines.sources.formats.members import Damaged, Unit, Untrusted, printable
from opencoder_jax.beam_pipelines.sources.formats.rows import TABLES, integer
from opencoder_jax.beam_pipelines.sources.formats.streams import PACKED, unpacked
from opencoder_jax.beam_pipelines.sources.inputs import list_units, rows_of
from opencoder_jax.beam_pipelines.sources.units import (
    USUAL,
    QuarantineConfig,
    UnitsPlan,
    first_fault,
    tell_quarantine,
    told,
)
from opencoder_jax.checks import Requirement, check, power_of_two
from opencoder_jax.recipe import UserError, configurable

SPEED = 60.0  # megabytes of corpus a second on one core

_REPOSITORY, _ID, _ADDRESS = 0, slice(1, 3), 4  # columns of what is shuffled; column 3 is its own:
ROW = 5  # … a row's recorded size
DOCUMENT = 5  # … a document's priority
FOUND = 2  # columns of what the join says: (document, recorded size) or (row of metadata, index into REASONS)
REASONS = ("no_repository", "no_path", "repeated")
_ROWS = 10_000  # of metadata that are hashed at a time
_MOST_BYTES = 2**63 - 1  # that a row may say


@configurable
@dataclass(frozen=True)
class JoinMetadataConfig:
    """Which columns the metadata has; the defaults are those of RefineCode's release.

    Attributes:
        repository, path: the columns that name a file; a slash before the path doesn't count.
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
        column = Requirement(bool, "the name of a column")
        check(self, repository=column, path=column, segments=power_of_two())


def named_files(table: Unit, config: JoinMetadataConfig) -> Iterator[Row]:
    """The rows of a table of metadata, and at its end a row of the quarantine if it can't be read, or not to its end.

    Returns:
        Of each row `repository` and `path`, "" where it names none, `bytes`, `language`, and `broken`, why it has none
        of these.
    """
    try:
        yield from guarded(table, () if table.reason else _named(table, config))
    except Untrusted as error:
        yield fault(table, "", error, table.size)


def _named(table: Unit, config: JoinMetadataConfig) -> Iterator[Row]:
    _refuse_untrusted(table)
    columns = {name: getattr(config, name) for name in ("repository", "path", "bytes", "language")}
    for _, row in rows_of(table, columns, ("repository", "path")):
        known: dict[str, Any] = {} if isinstance(row, str) else row
        yield {
            "repository": _text(known.get("repository")).strip("/"),
            "path": _text(known.get("path")).lstrip("/"),
            "bytes": min(max(0, integer(known.get("bytes"))), _MOST_BYTES),
            "language": _text(known.get("language")),
            "broken": row if isinstance(row, str) else "",
        }


def _refuse_untrusted(table: Unit) -> None:
    """Raises Untrusted for a packed table whose checksum denies what it holds; its rows are used as they are read."""
    packed = table.name.lower().rpartition(".")[2]
    if packed not in PACKED:
        return
    with Directory(table.directory).fetch(table.name) as stream:
        content = unpacked(stream, packed)
        try:
            while content.read(1 << 20):
                pass
        except Untrusted:
            raise
        except Damaged:
            pass  # it ends early, as its rows will say


def _text(value: Any) -> str:
    """A field as documents have it."""
    return written(printable(value) if isinstance(value, bytes) else str(value or ""))


def hash_rows(table: int, tables: Sequence[Unit], config: JoinMetadataConfig) -> Iterator[tuple[int, bytes]]:
    """The number of a table of metadata -> (segment, packed rows of ROW columns)."""

    def segments() -> Iterator[tuple[int, bytes]]:
        rows = np.array(hashed, np.uint64).reshape(-1, ROW)
        return by_segment(rows, rows[:, _REPOSITORY], config.segments)

    first = int(addresses(table, 1)[0])
    hashed: list[tuple[int, ...]] = []
    for number, row in enumerate(named_files(tables[table], config)):
        if "quarantine" in row or not (row["repository"] and row["path"]):
            continue
        identifier = int(document_id(row["repository"], row["path"]), 16)
        hashed.append((_hash(row["repository"]), identifier >> 64, identifier % 2**64, row["bytes"], first + number))
        if len(hashed) == _ROWS:
            yield from segments()
            hashed = []
    yield from segments()


def hash_documents(shard: int, corpus: Sequence[tuple[str, str]], segments: int) -> Iterator[tuple[int, bytes]]:
    """The number of a shard of the corpus -> (segment, packed rows of DOCUMENT columns)."""
    directory, name = corpus[shard]
    documents = read_shard_columns(Directory(directory), name, [*PRIORITY_COLUMNS, "repository"])
    hashes = np.array([_hash(repository) for repository in documents.column("repository").to_pylist()], np.uint64)
    ranks = priorities(documents)
    table = np.column_stack([hashes, ranks[:, 1:], ranks[:, 0], addresses(shard, len(hashes))])
    return by_segment(table, hashes, segments)


def _hash(repository: str) -> int:
    return xxhash.xxh3_64_intdigest(repository.encode("utf-8", "surrogateescape"))


def join(rows: np.ndarray, documents: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Finds the document of each row of metadata.

    Args:
        rows: uint64 [rows, ROW].
        documents: uint64 [documents, DOCUMENT], all of the repositories of the rows among them.

    Returns:
        uint64 [taken, FOUND], addresses of documents and recorded sizes; uint64 [dropped, FOUND], addresses of rows
        and indices into REASONS.
    """
    kinds = np.repeat([np.uint64(0), np.uint64(1)], [len(documents), len(rows)])
    both = np.concatenate([documents, rows])
    ranks = np.where(kinds == 0, both[:, 3], 0)
    # Runs of one file: its documents from the best, then the rows that name it from the first.
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
        holders, numbers = unpack_addresses(found[:, 0])
        for holder in np.unique(holders).tolist():
            here = holders == holder
            yield offset + holder, pack(np.column_stack([numbers[here].astype(np.uint64), found[here, 1]]))


def write_found(
    element: tuple[int, Iterable[bytes]],
    corpus: Sequence[tuple[str, str]],
    tables: Sequence[Unit],
    output: str,
    config: JoinMetadataConfig,
) -> Iterator[int]:
    """Writes a shard of documents, or the drops of a table of metadata, and a report; not twice."""
    number, values = element
    directory = Directory(output)
    if not directory.child("reports").exists(f"{number:05d}.json"):
        found = sort_rows(unpack(values, FOUND))
        if number < len(corpus):
            tally, names = write_batches(
                directory, f"{number:05d}-of-{len(corpus):05d}", _documents(*corpus[number], found)
            )
        else:
            table = number - len(corpus)
            label = f"metadata-{table:05d}-of-{len(tables):05d}"
            drops = _drops(tables[table], dict(found.tolist()), config)
            tally, names = write_batches(directory, label, batches(drops), documents=False)
        report_shard(directory, number, tally, names)
    yield number


def _documents(source: str, name: str, found: np.ndarray) -> Iterator[RowBatch]:
    """The documents of a shard of the corpus that were found, as they are there."""
    rows, sizes = found.astype(np.int64).T
    first = 0
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
        yield RowBatch(documents, empty(DROP_SCHEMA), counts)


def _drops(table: Unit, reasons: Mapping[int, int], config: JoinMetadataConfig) -> Iterator[Row]:
    """The rows of a table that have no document. `reasons`: row -> index into REASONS."""
    if table.reason:
        yield document("", table.name, b"", reason=table.reason, detail=table.name, size=table.size)
    for number, row in enumerate(named_files(table, config)):
        if "quarantine" in row:
            yield row
        elif number in reasons or not (row["repository"] and row["path"]):
            language = by_name(row["language"])
            reason = REASONS[reasons[number]] if number in reasons else "broken_json" if row["broken"] else "no_place"
            yield document(
                row["repository"],
                row["path"],
                "",
                language=None if language.kind == "unknown" else language,
                reason=reason,
                detail=row["broken"] or f"{table.name}, row {number}",
                size=row["bytes"],
            )


def run(
    metadata: Sequence[str],
    corpus: Sequence[str],
    output: str,
    config: JoinMetadataConfig,
    options: BeamOptions,
    quarantine: QuarantineConfig = USUAL,
) -> Manifest:
    """Writes the documents that the metadata names.

    Args:
        metadata: tables of repositories and paths, such as RefineCode's: a Parquet or JSON file, or a folder
        corpus: documents with text, of any source

    Raises:
        UserError: the metadata or the corpus is missing, no row has a text, or too much is damaged.
    """
    tables = list_units(metadata, TABLES, output, options)
    # In an order of their own, so that that of the inputs doesn't show.
    stages = sorted(corpus, key=lambda stage: Manifest.read(stage).fingerprint)
    shards = [(stage, name) for stage in stages for name in input_shards(stage)]
    total = len(shards) + len(tables)

    def work(directory: Directory) -> tuple[Tally, dict[str, str]]:
        size = sum(Manifest.read(stage).total("out", "bytes") for stage in stages)
        progress = FollowReports("join_metadata", directory.child("reports"), total, size)
        with progress, options.pipeline(size / 1e6 / SPEED) as pipeline:
            numbers = pipeline | "tables" >> beam.Create(range(len(tables)))
            rows = numbers | "hash rows" >> beam.FlatMap(hash_rows, tables, config)
            numbers = pipeline | "shards" >> beam.Create(range(len(shards)))
            documents = numbers | "hash documents" >> beam.FlatMap(hash_documents, shards, config.segments)
            found = (rows, documents) | "by repository" >> beam.CoGroupByKey()
            found = found | "join" >> beam.FlatMap(join_segment, len(shards))
            every = pipeline | "every output" >> beam.Create([(number, b"") for number in range(total)])
            outputs = (found, every) | "all" >> beam.Flatten() | "by output" >> beam.GroupByKey()
            _ = outputs | "write" >> beam.FlatMap(write_found, shards, tables, output, config)
        tally, files = gather_reports(directory, total)
        if not tally.get("out"):
            reasons = told(tally.get("drop", {}).get("documents", {}))
            raise UserError(
                f"join_metadata: no row of {', '.join(metadata)} has its text in the corpus; dropped as {reasons}"
                f"{first_fault(directory, files)}"
            )
        return tally, files

    stage = Stage("join_metadata", __name__, UnitsPlan.of(config, tables), tuple(stages), output)
    manifest = stage.run(work, options)
    tell_quarantine(manifest, output, sum(not table.reason for table in tables), quarantine)
    return manifest
