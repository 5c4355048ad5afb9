"""What exact and near duplicates share: verdicts, and the stage that applies them.

Finding duplicates shuffles hashes, never text. It ends in verdicts: beside each shard of documents a shard with one
row a document, which names the copy that is kept in its place and the size of their cluster (null and 1: it's kept).
Applying them is an ordinary map over documents and verdicts. The keeper stays readable in the drops. Beside the
verdicts stands a table of the largest clusters, and their manifest counts documents by the size of their cluster: what
the guards against a bad configuration read before anything is written over.
"""

import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import apache_beam as beam
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from opencoder_jax.beam_pipelines.core.documents import (
    addresses,
    beside,
    id_text,
    one_batch,
    read_shard_columns,
    shard_name,
    unpack_addresses,
    write_shard,
)
from opencoder_jax.beam_pipelines.core.manifest import Manifest, Tally, digest, open_finished
from opencoder_jax.beam_pipelines.core.maps import Drop, Result, keep_rows, map_stage
from opencoder_jax.beam_pipelines.core.runner import BeamOptions
from opencoder_jax.beam_pipelines.core.shuffles import (
    NODE,
    GroupPacked,
    by_segment,
    pack,
    run_starts,
    sort_rows,
    star_edges,
    unpack,
)
from opencoder_jax.beam_pipelines.core.stage import FollowReports, Stage, gather_reports, input_shards, report_shard
from opencoder_jax.beam_pipelines.core.storage import Directory
from opencoder_jax.beam_pipelines.deduplication.levels import (
    CHUNK_BITS,
    DuplicatesConfig,
    chunks,
    repository_hashes,
)
from opencoder_jax.recipe import UserError

VERDICT_SCHEMA = pa.schema([("bytes", pa.int64()), ("keeper", pa.string()), ("cluster", pa.int64())])
# At the level of chunks: which of a document's chunks are lost, and the document that keeps each.
CHUNK_FIELDS = [("chunks", pa.list_(pa.int32())), ("keepers", pa.list_(pa.string()))]
CHUNK_SCHEMA = pa.schema([*VERDICT_SCHEMA, *(pa.field(*field) for field in CHUNK_FIELDS)])
CLUSTER_SCHEMA = pa.schema([("keeper", pa.string()), ("cluster", pa.int64())])

LARGEST = 100  # clusters in their table
APPLY_SPEED = 250.0  # MB/s of a core that reads documents and writes those that stay
_LOSER = 5  # columns of a loser: address or row, the keeper's priority, the cluster's size

# What the verdicts don't depend on: another guard doesn't look for duplicates again.
GUARDS = ("alarm_share", "abort_share", "abort_documents")


def deduplicate(
    name: str,
    module: str,
    find: Callable[[Any, Directory, list[str], GroupPacked], Any],
    megabytes_per_second: float,
    source: str,
    output: str,
    config: DuplicatesConfig,
    options: BeamOptions,
    found_in: Sequence[str] = (),
) -> Manifest:
    """Finds duplicates in a stage directory and writes the documents without them, in two steps that resume apart.

    Args:
        find: `find(collection of shards' numbers, the documents, their shards, how to group packed rows)` -> collection
            of packed edges (best copy, other copy), of each cluster one star.
        megabytes_per_second: the speed of `find` on one core, about.
        found_in: the stage directories that `find` reads beside the documents.
    """
    verdicts = f"{output.rstrip('/')}/verdicts"
    threads = config.level != "chunk"  # cutting chunks is Python; the rest is Arrow's and compiled code
    names = input_shards(source)
    size = Manifest.read(source).total("out", "bytes")

    def work(directory: Directory) -> tuple[Tally, dict[str, str]]:
        documents = Directory(source)
        reports = directory.child("reports")
        reports.remove_tree()
        seconds = size / 1e6 / megabytes_per_second
        with (
            directory.scratch("shuffle") as shuffle,
            FollowReports(f"{name}: find", reports, len(names), size),
            options.pipeline(seconds, threads) as pipeline,
        ):
            group = GroupPacked(shuffle if options.is_local() else None)
            shards = pipeline | "shards" >> beam.Create(range(len(names)))
            edges = find(shards, documents, names, group)
            if config.level == "repository":
                losers = documents_of_repositories(edges, shards, documents, names, config.segments)
            else:
                losers = edges | "by shard" >> beam.FlatMap(losers_by_shard)
            every = pipeline | "every shard" >> beam.Create([(shard, b"") for shard in range(len(names))])
            _ = (
                (losers, every)
                | "all" >> beam.Flatten()
                | "verdicts of a shard" >> beam.GroupByKey()
                | "write" >> beam.Map(write_verdicts, documents, names, directory, config.level)
            )
        tally, files = gather_reports(directory, len(names))
        clusters = shard_name("clusters", 0, 1)
        write_shard(directory, clusters, [largest_clusters(directory, sorted(files))], CLUSTER_SCHEMA)
        return tally, files | {clusters: digest(directory, clusters)}

    unguarded = replace(config, **{name: getattr(DuplicatesConfig, name) for name in GUARDS})
    found = Stage(f"{name}_verdicts", module, unguarded, (source, *found_in), verdicts).run(work, options)
    guard(name, found, config)
    kernel = ApplyToChunks(config.chunk_tokens, config.tokenizer) if config.level == "chunk" else apply_verdicts
    side = ["documents", "verdicts"]
    return map_stage(name, kernel, [source, verdicts], output, config, options, "documents", side, APPLY_SPEED, threads)


def stars(element: tuple[int, Iterable[bytes]], keys: int) -> bytes:
    """(segment, packed rows of [keys, node]) -> packed edges from the best of all with equal keys to each other one."""
    return pack(star_edges(unpack(element[1], keys + NODE), keys).reshape(-1, 2 * NODE))


def guard(name: str, verdicts: Manifest, config: DuplicatesConfig) -> None:
    """Announces a suspiciously large cluster.

    Raises:
        UserError: a source would lose nearly all of its documents.
    """
    documents = verdicts.total("count", "documents")
    largest = max(map(int, verdicts.table("count", "cluster")), default=1)
    if documents >= config.abort_documents and largest > config.alarm_share * documents:
        print(
            f"{name}: the largest cluster has {largest} of {documents} documents: look at the table of clusters in the "
            "verdicts, whether its members are alike",
            file=sys.stderr,
        )
    lost = verdicts.table("count", "lost")
    for source, count in sorted(verdicts.table("count", "documents").items()):
        if count >= config.abort_documents and lost.get(source, 0) > config.abort_share * count:
            raise UserError(
                f"{name}: source {source!r} would lose {lost[source]} of its {count} documents; if they are copies of "
                f"others, allow it with --gin.{type(config).__name__}.abort_share=1.0"
            )


def losers_of(edges: bytes) -> np.ndarray:
    """Packed star edges -> uint64 [losers, 5]: address, the keeper's priority, the size of the cluster."""
    table = unpack([edges], 2 * NODE).reshape(-1, 2, NODE)
    keepers, others = table[:, 0], table[:, 1]
    _, cluster, members = np.unique(keepers[:, NODE - 1], return_inverse=True, return_counts=True)
    return np.column_stack([others[:, NODE - 1], keepers[:, :3], (members[cluster] + 1).astype(np.uint64)])


def losers_by_shard(edges: bytes) -> Iterator[tuple[int, bytes]]:
    """Packed star edges -> (shard, packed rows of [row, the keeper's priority, the size of the cluster])."""
    yield from split_by_shard(losers_of(edges))


def split_by_shard(losers: np.ndarray) -> Iterator[tuple[int, bytes]]:
    """Rows that begin with an address -> (shard, packed rows that begin with a row's number)."""
    shards, rows = unpack_addresses(losers[:, 0])
    table = np.column_stack([rows.astype(np.uint64), losers[:, 1:]])
    for shard in np.unique(shards).tolist():
        yield shard, pack(table[shards == shard])


def documents_of_repositories(edges: Any, shards: Any, source: Directory, names: list[str], segments: int) -> Any:
    """Edges between repositories -> (shard, packed rows) of all documents of those that lose."""

    def addressed(shard: int) -> Iterator[tuple[int, bytes]]:
        hashes = repository_hashes(read_shard_columns(source, names[shard], ["repository"]))
        yield from by_segment(np.column_stack([hashes, addresses(shard, len(hashes))]), hashes, segments)

    def by_repository(packed: bytes) -> Iterator[tuple[int, bytes]]:
        losers = losers_of(packed)
        yield from by_segment(losers, losers[:, 0], segments)

    lost = edges | "losing repositories" >> beam.FlatMap(by_repository)
    members = shards | "documents of repositories" >> beam.FlatMap(addressed)
    return (lost, members) | "join" >> beam.CoGroupByKey() | "by shard" >> beam.FlatMap(join_documents)


def join_documents(element: tuple[int, tuple[Iterable[bytes], Iterable[bytes]]]) -> Iterator[tuple[int, bytes]]:
    """Losing repositories and addresses of documents by repository, of one segment -> (shard, packed rows)."""
    _, (lost, members) = element
    losers, documents = first_of_each(unpack(lost, _LOSER)), unpack(members, 2)
    if len(losers) == 0 or len(documents) == 0:
        return
    index = np.minimum(np.searchsorted(losers[:, 0], documents[:, 0]), len(losers) - 1)
    found = losers[index, 0] == documents[:, 0]
    yield from split_by_shard(np.column_stack([documents[found, 1], losers[index[found], 1:]]))


def first_of_each(losers: np.ndarray) -> np.ndarray:
    """One row for each first column, that of the best keeper: where any bucket decides, several may have spoken."""
    losers = sort_rows(losers)
    return losers[run_starts(losers[:, :1])]


def write_verdicts(
    element: tuple[int, Iterable[bytes]], documents: Directory, names: list[str], output: Directory, level: str
) -> None:
    """(shard, packed losers) -> its verdicts, cut into batches as its documents are."""
    shard, values = element
    table = read_shard_columns(documents, names[shard], ["bytes", "source"])
    losers = first_of_each(unpack(values, _LOSER))
    keepers = [id_text(identifier) for identifier in losers[:, 2:4]]
    sizes = losers[:, 4].astype(np.int64)
    verdicts = chunk_verdicts if level == "chunk" else document_verdicts
    columns, lost = verdicts(table.num_rows, losers[:, 0].astype(np.int64), keepers, sizes)
    found = pa.table([table.column("bytes"), *columns], CHUNK_SCHEMA if level == "chunk" else VERDICT_SCHEMA)
    name = beside(names[shard], "verdicts")
    write_shard(output, name, aligned_batches(found, documents, names[shard]), found.schema)
    sources = table.column("source").to_pylist()
    tally = {
        "documents": Counter(sources),
        "lost": Counter(sources[row] for row in lost.tolist()),
        "cluster": Counter(map(str, sizes.tolist())),
    }
    report_shard(output, shard, {"count": tally}, [name])


def document_verdicts(
    rows: int, lost: np.ndarray, keepers: list[str], sizes: np.ndarray
) -> tuple[list[pa.Array], np.ndarray]:
    """The columns of VERDICT_SCHEMA after the first, and which documents are lost."""
    keeper = np.full(rows, None, object)
    keeper[lost] = keepers
    cluster = np.ones(rows, np.int64)
    cluster[lost] = sizes
    return [pa.array(keeper, pa.string()), pa.array(cluster)], lost


def chunk_verdicts(
    rows: int, lost: np.ndarray, keepers: list[str], sizes: np.ndarray
) -> tuple[list[pa.Array], np.ndarray]:
    """The columns of CHUNK_SCHEMA after the first, and which documents lose their first chunk.

    A document's keeper and cluster are those of its largest lost chunk; how many chunks it has isn't known here.
    """
    owner, number = lost >> CHUNK_BITS, lost & ((1 << CHUNK_BITS) - 1)
    chunks_of: list[list[int]] = [[] for _ in range(rows)]
    keepers_of: list[list[str]] = [[] for _ in range(rows)]
    keeper: list[str | None] = [None] * rows
    cluster = np.ones(rows, np.int64)
    for row, chunk, kept, size in zip(owner.tolist(), number.tolist(), keepers, sizes.tolist(), strict=True):
        chunks_of[row].append(chunk)
        keepers_of[row].append(kept)
        if size > cluster[row]:
            keeper[row], cluster[row] = kept, size
    lists = [pa.array(each, kind) for each, (_, kind) in zip((chunks_of, keepers_of), CHUNK_FIELDS, strict=True)]
    return [pa.array(keeper, pa.string()), pa.array(cluster), *lists], owner[number == 0]


def largest_clusters(directory: Directory, names: list[str]) -> pa.RecordBatch:
    """The largest clusters of some shards of verdicts, the largest first: rows of CLUSTER_SCHEMA."""
    largest: dict[str, int] = {}
    for name in names:
        table = read_shard_columns(directory, name, ["keeper", "cluster"])
        for keeper, size in set(zip(*(column.to_pylist() for column in table.columns), strict=True)):
            if keeper is not None:
                largest[keeper] = max(size, largest.get(keeper, 0))
        largest = dict(sorted(largest.items(), key=lambda item: (-item[1], item[0]))[:LARGEST])
    return pa.RecordBatch.from_arrays(
        [pa.array(largest.keys(), pa.string()), pa.array(largest.values(), pa.int64())], schema=CLUSTER_SCHEMA
    )


def aligned_batches(table: pa.Table, source: Directory, name: str) -> list[pa.RecordBatch]:
    """Cuts a table into batches of as many rows as those of a shard."""
    with open_finished(source, name) as stream:
        metadata = pq.ParquetFile(stream).metadata
        sizes = [metadata.row_group(group).num_rows for group in range(metadata.num_row_groups)]
    starts = np.cumsum([0, *sizes])
    return [one_batch(table.slice(start, size)) for start, size in zip(starts, sizes, strict=False)]


def apply_verdicts(documents: pa.RecordBatch, verdicts: pa.RecordBatch) -> Result:
    """Drops the documents that another copy stands for; the drop's detail is the id of that copy."""
    keepers: Sequence[str | None] = verdicts.column("keeper").to_pylist()
    drops = [Drop(row, "duplicate", keeper) for row, keeper in enumerate(keepers) if keeper is not None]
    return Result(keep_rows(documents, drops), drops)


@dataclass(frozen=True)
class ApplyToChunks:
    """Cuts documents as they were when duplicates were looked for, and joins the chunks that no other one stands for.

    A document of which no chunk is left is dropped; the chunks and bytes that others lose are counted.
    """

    tokens: int
    tokenizer: str

    def __call__(self, documents: pa.RecordBatch, verdicts: pa.RecordBatch) -> Result:
        drops, counts = [], {"chunks removed": 0, "bytes of chunks removed": 0}
        texts, sizes = documents.column("text").to_pylist(), documents.column("bytes").to_pylist()
        lost_chunks, keepers_of = (verdicts.column(name).to_pylist() for name, _ in CHUNK_FIELDS)
        for row, (lost, keepers) in enumerate(zip(lost_chunks, keepers_of, strict=True)):
            if not lost:
                continue
            pieces = chunks(texts[row].encode(), self.tokens, self.tokenizer)
            if len(lost) == len(pieces):
                drops.append(Drop(row, "duplicate", keepers[0]))
                continue
            kept = b"".join(piece for number, piece in enumerate(pieces) if number not in set(lost))
            counts["chunks removed"] += len(lost)
            counts["bytes of chunks removed"] += sizes[row] - len(kept)
            texts[row], sizes[row] = kept.decode(), len(kept)
        for name, values in (("text", texts), ("bytes", sizes)):
            index = documents.schema.get_field_index(name)
            field = documents.schema.field(index)
            documents = documents.set_column(index, field, pa.array(values, field.type))
        return Result(keep_rows(documents, drops), drops, counts)
