"""The Document: one Arrow schema for every source, and how documents lie in files.

A stage directory holds its documents in Parquet shards, `documents-00000-of-00008.parquet` and so on. A document's
address is (shard, row); it's packed into one unsigned integer, shard:24 | row:40, wherever a shuffle carries it. Of
copies, OpenCoder keeps the one with the most stars, then the latest commit (paper section 2.1.1, deduplication); the
smallest id makes that order total, so that every runner and worker count keeps the same copy.

Text is read and written in record batches of about 4 MB: large enough that a kernel's cost per call vanishes, small
enough that a worker holds a few of them. Batches are cut by bytes, so their number doesn't depend on the machine.
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import xxhash

from opencoder_jax.beam_pipelines.core.manifest import open_finished
from opencoder_jax.beam_pipelines.core.storage import Directory

SCHEMA = pa.schema(
    [
        ("id", pa.string()),  # 32 hexadecimal digits: document_id(repository, path)
        ("text", pa.large_string()),
        ("path", pa.string()),  # relative to its repository, with forward slashes
        ("repository", pa.string()),
        ("stars", pa.int64()),
        ("commit_time", pa.int64()),  # seconds since 1970, 0 where unknown
        ("language", pa.string()),  # linguist's name
        ("kind", pa.string()),  # code | data | text | web | synthetic | chat
        ("license", pa.string()),
        ("source", pa.string()),  # where it came from: a folder's name, a data set, a stage
        ("url", pa.string()),
        ("bytes", pa.int64()),  # of the text in UTF-8
        ("encoding", pa.string()),  # its file was in, by Python's name; null where it never was in a file
    ]
)

# What was dropped, and why: beside every shard of documents stands a shard of drops.
DROP_SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("path", pa.string()),
        ("repository", pa.string()),
        ("language", pa.string()),
        ("bytes", pa.int64()),
        ("reason", pa.string()),
        ("detail", pa.string()),  # the evidence that a reviewer wants to see
    ]
)

BATCH_BYTES = 4_000_000

ROW_BITS = 40


def document_id(repository: str, path: str) -> str:
    """128 bits of the document's place, in hexadecimal: the same file gets the same id in every run."""
    return xxhash.xxh3_128_hexdigest(f"{repository}\0{path}".encode("utf-8", "surrogateescape"))


def shard_of(identifier: str, shards: int) -> int:
    """The shard that a document belongs to: uniform, and independent of what else is collected."""
    return int(identifier[:8], 16) % shards


def addresses(shard: int, rows: int, first_row: int = 0) -> np.ndarray:
    """Packed addresses, uint64 [rows], of consecutive rows of a shard."""
    return (np.uint64(shard) << np.uint64(ROW_BITS)) + np.arange(first_row, first_row + rows, dtype=np.uint64)


def unpack_addresses(packed: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Shards and rows, int64 each, of packed addresses."""
    return (packed >> np.uint64(ROW_BITS)).astype(np.int64), (packed & np.uint64((1 << ROW_BITS) - 1)).astype(np.int64)


# What `priorities` reads: whoever reads documents to compare them needs these columns.
PRIORITY_COLUMNS = ("id", "stars", "commit_time")


def priorities(documents: pa.RecordBatch | pa.Table) -> np.ndarray:
    """uint64 [rows, 3]: of two copies, the one whose row is lexicographically smaller is kept.

    The first column decides; the other two tell documents apart and must stay the id.

    The columns are ~(stars | commit time) and the two halves of the id. Stars and commit times are capped at 32 bits.
    """
    stars = np.clip(documents.column("stars").to_numpy(), 0, 2**32 - 1).astype(np.uint64)
    times = np.clip(documents.column("commit_time").to_numpy(), 0, 2**32 - 1).astype(np.uint64)
    ids = [bytes.fromhex(identifier) for identifier in documents.column("id").to_pylist()]
    halves = np.frombuffer(b"".join(ids), ">u8").astype(np.uint64).reshape(-1, 2)
    return np.column_stack([~((stars << np.uint64(32)) | times), halves])


def id_text(halves: np.ndarray) -> str:
    """The id whose two halves are the last columns of a priority."""
    return f"{int(halves[0]):016x}{int(halves[1]):016x}"


def shard_name(table: str, shard: int, shards: int) -> str:
    """`documents-00003-of-00008.parquet` for table "documents"."""
    return f"{table}-{shard:05d}-of-{shards:05d}.parquet"


def beside(shard: str, table: str) -> str:
    """The shard of another table that tells of the same documents: it has the same label."""
    return f"{table}-{shard.partition('-')[2]}"


def batches_of(table: pa.Table | pa.RecordBatch) -> Iterator[pa.RecordBatch]:
    """Cuts a table into record batches of about BATCH_BYTES of text, at least one."""
    if isinstance(table, pa.RecordBatch):
        table = pa.Table.from_batches([table])
    table = table.combine_chunks()
    ends = np.cumsum(table.column("bytes").to_numpy()) if table.num_rows else np.zeros(0, np.int64)
    groups = ends // BATCH_BYTES
    cuts = np.flatnonzero(np.diff(groups, prepend=groups[:1])).tolist()
    for start, stop in zip([0, *cuts], [*cuts, table.num_rows], strict=True):
        yield one_batch(table.slice(start, stop - start))


class ShardWriter:
    """Writes one Parquet shard, a row group a batch, under a temporary name that is then renamed.

    The file begins with the first batch, so that a shard without any leaves none; leaving the `with` block by an error
    leaves none either. No more than a batch is held in memory. The bytes are a function of the batches and of pyarrow's
    version alone.
    """

    def __init__(self, directory: Directory, name: str) -> None:
        self.directory = directory
        self.name = name
        self.names: list[str] = []  # the name, once there is a file
        self._open = ExitStack()
        self._writer: pq.ParquetWriter | None = None

    def __enter__(self) -> "ShardWriter":
        return self

    def __exit__(self, *error: Any) -> None:
        self._open.__exit__(*error)

    def write(self, batch: pa.RecordBatch) -> None:
        """Appends a row group; all batches have the schema of the first."""
        if self._writer is None:
            stream = self._open.enter_context(self.directory.atomic(self.name))
            # Texts are all different: a dictionary of them only costs time, to the writer and to every reader.
            repeated = [field.name for field in batch.schema if field.type != pa.large_string()]
            writer = pq.ParquetWriter(
                stream,
                batch.schema,
                compression="zstd",
                use_dictionary=repeated if len(repeated) < len(batch.schema) else True,
            )
            self._writer = self._open.enter_context(writer)
            self.names = [self.name]
        self._writer.write_batch(batch.cast(self._writer.schema), row_group_size=max(1, batch.num_rows))


def write_shard(directory: Directory, name: str, batches: Iterable[pa.RecordBatch], schema: pa.Schema) -> None:
    """Writes the batches of a shard; one without rows where there are none."""
    with ShardWriter(directory, name) as shard:
        for batch in batches:
            shard.write(batch.cast(schema))
        if not shard.names:
            shard.write(empty(schema))


def read_shard(directory: Directory, name: str, columns: Sequence[str] | None = None) -> Iterator[pa.RecordBatch]:
    """The batches of a shard as they were written, of all columns or of some in the order given."""
    with open_finished(directory, name) as stream:
        file = pq.ParquetFile(stream)
        schema = file.schema_arrow
        if columns is not None:
            schema = pa.schema([schema.field(column) for column in columns])
        for group in range(file.num_row_groups):
            yield one_batch(file.read_row_group(group, columns=schema.names).select(schema.names).cast(schema))
        if file.num_row_groups == 0:
            yield one_batch(schema.empty_table())


def read_shard_columns(directory: Directory, name: str, columns: list[str]) -> pa.Table:
    """Some columns of a whole shard: what the report and the shuffles need, without the text."""
    with open_finished(directory, name) as stream:
        return pq.read_table(stream, columns=columns)


def empty(schema: pa.Schema = SCHEMA) -> pa.RecordBatch:
    """A batch without rows."""
    return one_batch(schema.empty_table())


def one_batch(table: pa.Table) -> pa.RecordBatch:
    """All rows of a table as one batch, also where there are none."""
    batches = table.combine_chunks().to_batches()
    if batches:
        return batches[0]
    return pa.RecordBatch.from_arrays([pa.array([], field.type) for field in table.schema], schema=table.schema)
