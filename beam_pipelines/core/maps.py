"""Stages that are maps: a kernel is handed one record batch after the other, and what it returns is written.

Kernels are plain functions on Arrow data and know nothing of Beam. What a shard becomes depends on nothing else, and is
called as it is: with more input, or other, only those shards are made whose content is new.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import zip_longest
from types import MappingProxyType
from typing import Any, NamedTuple

import apache_beam as beam
import pyarrow as pa
import xxhash

from opencoder_jax.beam_pipelines.core.documents import DROP_SCHEMA, ShardWriter, beside, read_shard
from opencoder_jax.beam_pipelines.core.manifest import Manifest, Tally, merge_tallies, tally_documents, tally_drops
from opencoder_jax.beam_pipelines.core.runner import BeamOptions
from opencoder_jax.beam_pipelines.core.stage import Stage, gather_reports, report_shard, run_shards, shards_of
from opencoder_jax.beam_pipelines.core.storage import Directory
from opencoder_jax.recipe import UserError


class Drop(NamedTuple):
    """A row of the input batch that a kernel doesn't keep."""

    row: int
    reason: str
    detail: str = ""


class Result(NamedTuple):
    """What a kernel makes of a batch: the rows that it keeps (of any schema), the others with reasons, counters."""

    table: pa.RecordBatch
    drops: Sequence[Drop] = ()
    counts: Mapping[str, int] = MappingProxyType({})


Kernel = Callable[..., Result]


def map_stage(
    name: str,
    kernel: Kernel,
    inputs: Sequence[str],
    output: str,
    config: Any,
    options: BeamOptions,
    table: str = "documents",
    input_tables: Sequence[str] = (),
    megabytes_per_second: float = 40.0,
    threads: bool = False,
) -> Manifest:
    """Maps a kernel over shards of documents, batch by batch.

    Args:
        kernel: called with one batch of each input, aligned row by row; picklable. It sees at least one batch a shard,
            which may be empty. Its configuration must be part of `config`.
        inputs: stage directories with equally many shards and rows: documents, then side tables.
        table: what the output's shards are called.
        input_tables: what the inputs' shards are called, where it isn't "documents".
        megabytes_per_second: the kernel's speed on one core, about.
        threads: the kernel releases Python's lock, so threads of one process do instead of several.
    """
    module = getattr(kernel, "__module__", None) or type(kernel).__module__
    tables = [*input_tables, *["documents"] * (len(inputs) - len(input_tables))]

    manifests = [Manifest.read(source) for source in inputs]
    names = [shards_of(*each) for each in zip(inputs, manifests, tables, strict=True)]
    if len({len(shards) for shards in names}) != 1:
        raise UserError(f"{name}: inputs differ in shards: {dict(zip(inputs, map(len, names), strict=True))}")
    parts = [content_of(manifests, shards) for shards in zip(*names, strict=True)]

    def work(directory: Directory) -> tuple[Tally, dict[str, str]]:
        size = manifests[0].total("out", "bytes")
        step = MapShard(kernel, list(inputs), names, parts, output, table)
        run_shards(name, directory, step, parts, options, size, megabytes_per_second, threads=threads)
        return gather_reports(directory, len(parts))

    roots = ((module, getattr(kernel, "__name__", type(kernel).__name__)), (__name__, MapShard.__name__))
    return Stage(name, module, config, tuple(inputs), output, roots, tuple(parts)).run(work, options)


def content_of(inputs: Sequence[Manifest], shards: Sequence[str]) -> str:
    """A digest of a shard of every input, and of what they are called."""
    told = [(shard, manifest.files[shard]) for manifest, shard in zip(inputs, shards, strict=True)]
    return xxhash.xxh3_128_hexdigest(repr(told).encode())


class MapShard(beam.DoFn):
    """Reads a shard of every input in step, calls the kernel on each batch, writes the result and a report."""

    def __init__(
        self, kernel: Kernel, inputs: list[str], names: list[list[str]], parts: list[str], output: str, table: str
    ) -> None:
        self.kernel = kernel
        self.inputs = inputs
        self.names = names
        self.parts = parts
        self.output = output
        self.table = table

    def process(self, shard: int) -> Iterator[int]:
        directory = Directory(self.output)
        name = self.names[0][shard]
        tally: Tally = {}
        with (
            ShardWriter(directory, beside(name, self.table)) as kept,
            ShardWriter(directory, beside(name, "drops")) as dropped,
        ):
            for batches in self._aligned(shard):
                documents = batches[0]
                try:
                    result = self.kernel(*batches)
                except (UserError, OSError):
                    raise
                except Exception as error:  # which documents they were is all that a message can tell
                    place = f"{self.inputs[0]}/{self.names[0][shard]}"
                    raise RuntimeError(f"{place}: {type(error).__name__}: {error}") from error
                drops = drop_table(documents, result.drops)
                out = result.table if self.table == "documents" else keep_rows(documents, result.drops)
                kept.write(result.table)
                if drops.num_rows:
                    dropped.write(drops)
                tally = merge_tallies(
                    [
                        tally,
                        tally_documents("in", documents),
                        tally_documents("out", out),
                        tally_drops(drops),
                        {"count": dict(result.counts)},
                        self._made(documents, result),
                    ]
                )
        report_shard(directory, self.parts[shard], tally, [*kept.names, *dropped.names])
        yield shard

    def _made(self, documents: pa.RecordBatch, result: Result) -> Tally:
        """What a kernel whose documents are new ones (`makes_documents`) has read and made."""
        if not getattr(self.kernel, "makes_documents", False):
            return {}
        read, made = documents.num_rows - len(result.drops), result.table.num_rows
        return {"read": {"documents": {self.table: read}}, "made": {"documents": {self.table: made}}}

    def _aligned(self, shard: int) -> Iterator[tuple[pa.RecordBatch, ...]]:
        """The batches of all inputs in step."""
        pairs = list(zip(self.inputs, self.names, strict=True))
        sources = [read_shard(Directory(source), shards[shard]) for source, shards in pairs]
        for batches in zip_longest(*sources):
            if len({None if batch is None else batch.num_rows for batch in batches}) != 1:
                places = " and ".join(f"{source}/{shards[shard]}" for source, shards in pairs)
                raise UserError(f"{places} differ in rows: they aren't about the same documents")
            yield batches


def drop_table(documents: pa.RecordBatch, drops: Sequence[Drop]) -> pa.RecordBatch:
    """The drops of a batch as rows of DROP_SCHEMA."""
    rows = pa.array([drop.row for drop in drops], pa.int64())
    columns = [documents.column(name).take(rows) for name in DROP_SCHEMA.names[:5]]
    reasons = pa.array([drop.reason for drop in drops], pa.string())
    details = pa.array([drop.detail for drop in drops], pa.string())
    return pa.RecordBatch.from_arrays([*columns, reasons, details], schema=DROP_SCHEMA)


def keep_rows(documents: pa.RecordBatch, drops: Sequence[Drop]) -> pa.RecordBatch:
    """The batch without its dropped rows."""
    if not drops:
        return documents
    gone = {drop.row for drop in drops}
    return documents.take(pa.array([row for row in range(documents.num_rows) if row not in gone], pa.int64()))
