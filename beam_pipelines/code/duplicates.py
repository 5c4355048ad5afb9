"""What exact and near duplicates share: verdicts, and the stage that applies them.

Finding duplicates shuffles hashes, never text. It ends in verdicts: beside each shard of documents a shard with one
row a document, which names the copy that is kept in its place and the size of their cluster (null and 1: it's kept).
Applying them is an ordinary map over documents and verdicts. The keeper stays readable in the drops.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import apache_beam as beam
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from beam_pipelines.columnar import NODE, pack, sort_rows, unpack
from beam_pipelines.documents import id_text, one_batch, read_shard_columns, shard_name, unpack_addresses, write_shard
from beam_pipelines.manifest import Manifest, Tally
from beam_pipelines.runner import BeamOptions
from beam_pipelines.stage import (
    Drop,
    Progress,
    Result,
    Stage,
    gather_reports,
    input_shards,
    keep_rows,
    map_stage,
    report_shard,
)
from beam_pipelines.storage import Directory

VERDICT_SCHEMA = pa.schema([("bytes", pa.int64()), ("keeper", pa.string()), ("cluster", pa.int64())])

# Makes of shard numbers the packed edges (best copy, other copy) of all clusters, one star a cluster.
FindStars = Callable[[Any, Directory, list[str]], Any]


def deduplicate(
    name: str,
    module: str,
    find: FindStars,
    megabytes_per_second: float,
    source: str,
    output: str,
    config: Any,
    options: BeamOptions,
) -> Manifest:
    """Finds duplicates in a stage directory and writes the documents without them, in two steps that resume apart.

    Args:
        find: `find(collection of shard numbers, input directory, shard names)` -> collection of packed star edges.
        megabytes_per_second: the speed of `find` on one core, about.
    """
    verdicts = f"{output.rstrip('/')}/verdicts"
    names = input_shards(source)
    size = Manifest.read(source).total("out", "bytes")

    def work(directory: Directory) -> tuple[Tally, dict[str, str]]:
        documents = Directory(source)
        reports = directory.child("reports")
        reports.remove_tree()
        seconds = size / 1e6 / megabytes_per_second
        with Progress(f"{name}: find", reports, len(names), size), options.pipeline(seconds) as pipeline:
            shards = pipeline | "shards" >> beam.Create(range(len(names)))
            losers = find(shards, documents, names) | "by shard" >> beam.FlatMap(losers_by_shard)
            every = pipeline | "every shard" >> beam.Create([(shard, b"") for shard in range(len(names))])
            _ = (
                (losers, every)
                | "all" >> beam.Flatten()
                | "verdicts of a shard" >> beam.GroupByKey()
                | "write" >> beam.ParDo(WriteVerdicts(source, names, directory.uri))
            )
        return gather_reports(directory, len(names))

    Stage(f"{name}_verdicts", module, config, (source,), verdicts).run(work)
    inputs = [source, verdicts]
    return map_stage(name, apply_verdicts, inputs, output, config, options, input_tables=["documents", "verdicts"])


def losers_by_shard(edges: bytes) -> Iterator[tuple[int, bytes]]:
    """Packed star edges -> (shard, packed rows of [row, cluster size, id of the kept copy])."""
    table = unpack([edges], 2 * NODE).reshape(-1, 2, NODE)
    keepers, others = table[:, 0], table[:, 1]
    _, cluster, members = np.unique(keepers[:, NODE - 1], return_inverse=True, return_counts=True)
    shards, rows = unpack_addresses(others[:, NODE - 1])
    losers = np.column_stack([rows.astype(np.uint64), (members[cluster] + 1).astype(np.uint64), keepers[:, 1:3]])
    for shard in np.unique(shards).tolist():
        yield shard, pack(losers[shards == shard])


class WriteVerdicts(beam.DoFn):
    """Writes the verdicts of one shard, cut into batches as its documents are."""

    def __init__(self, source: str, names: list[str], output: str) -> None:
        self.source = source
        self.names = names
        self.output = output

    def process(self, element: tuple[int, Iterable[bytes]]) -> Iterator[int]:
        shard, values = element
        table = read_shard_columns(Directory(self.source), self.names[shard], ["bytes"])
        keeper: list[str | None] = [None] * table.num_rows
        cluster = np.ones(table.num_rows, np.int64)
        for row, size, *identifier in sort_rows(unpack(values, 4)):
            keeper[int(row)] = id_text(np.array(identifier))
            cluster[int(row)] = size
        verdicts = pa.table([table.column("bytes"), pa.array(keeper, pa.string()), cluster], schema=VERDICT_SCHEMA)
        directory = Directory(self.output)
        name = shard_name("verdicts", shard, len(self.names))
        write_shard(
            directory, name, aligned_batches(verdicts, Directory(self.source), self.names[shard]), VERDICT_SCHEMA
        )
        report_shard(directory, shard, {}, [name])
        yield shard


def aligned_batches(table: pa.Table, source: Directory, name: str) -> list[pa.RecordBatch]:
    """Cuts a table into batches of as many rows as those of a shard."""
    with source.read(name) as stream:
        metadata = pq.ParquetFile(stream).metadata
        sizes = [metadata.row_group(group).num_rows for group in range(metadata.num_row_groups)]
    starts = np.cumsum([0, *sizes])
    return [one_batch(table.slice(start, size)) for start, size in zip(starts, sizes, strict=False)]


def apply_verdicts(documents: pa.RecordBatch, verdicts: pa.RecordBatch) -> Result:
    """Drops the documents that another copy stands for; the drop's detail is the id of that copy."""
    keepers: Sequence[str | None] = verdicts.column("keeper").to_pylist()
    drops = [Drop(row, "duplicate", keeper) for row, keeper in enumerate(keepers) if keeper is not None]
    return Result(keep_rows(documents, drops), drops)
