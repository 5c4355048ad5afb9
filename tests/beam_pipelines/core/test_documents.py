"""Documents: addresses, priorities, and shards that read back as they were written."""

import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from opencoder_jax.beam_pipelines.core import documents
from opencoder_jax.beam_pipelines.core.documents import (
    BATCH_BYTES,
    SCHEMA,
    addresses,
    batches_of,
    document_id,
    id_text,
    priorities,
    read_shard,
    read_shard_columns,
    shard_of,
    unpack_addresses,
    write_shard,
)
from opencoder_jax.beam_pipelines.core.storage import Directory

Batch = Callable[..., pa.RecordBatch]


def test_an_id_is_the_place_of_the_document() -> None:
    assert document_id("a/b", "c.py") == "75d7f45437520b81d13e7e5f9c0a18b7"  # ids are written into data: never another
    assert document_id("a", "b/c.py") != document_id("a/b", "c.py")
    assert len(document_id("r", "odd\udcff name")) == 32  # a file name that isn't UTF-8


def test_documents_are_spread_evenly_over_shards() -> None:
    counts = np.bincount([shard_of(document_id("r", str(n)), 8) for n in range(8000)], minlength=8)
    assert abs(counts - 1000).max() < 5 * np.sqrt(1000)


@given(st.integers(0, 2**24 - 1), st.integers(0, 2**40 - 4))
def test_addresses_unpack_to_what_was_packed(shard: int, row: int) -> None:
    shards, rows = unpack_addresses(addresses(shard, 3, row))
    assert shards.tolist() == [shard] * 3
    assert rows.tolist() == [row, row + 1, row + 2]


ROWS = st.tuples(
    st.integers(0, 5) | st.integers(0, 2**32 - 1),
    st.integers(0, 5) | st.integers(0, 2**32 - 1),
    st.binary(min_size=16, max_size=16).map(bytes.hex),
)


@given(st.lists(ROWS))
def test_the_smallest_priority_has_most_stars_then_the_latest_commit_then_the_smallest_id(
    rows: list[tuple[int, int, str]],
) -> None:
    stars, times, ids = zip(*rows, strict=True) if rows else ((), (), ())
    table = pa.table({"id": pa.array(ids, "string"), "stars": pa.array(stars, "int64"), "commit_time": times})
    keys = priorities(table)
    order = sorted(range(len(rows)), key=lambda row: keys[row].tolist())
    assert [rows[row] for row in order] == sorted(rows, key=lambda row: (-row[0], -row[1], row[2]))
    assert [id_text(key[1:]) for key in keys] == list(ids)


def test_priorities_of_impossible_values_are_those_of_the_nearest_possible_one(batch: Batch) -> None:
    keys = priorities(batch({"text": "", "stars": -1}, {"text": "", "stars": 2**40}, {"text": "", "stars": 2**32 - 1}))
    assert (~keys[:, 0] >> np.uint64(32)).tolist() == [0, 2**32 - 1, 2**32 - 1]


def test_batches_are_cut_by_bytes_and_lose_nothing(batch: Batch) -> None:
    sizes = [0, 3, BATCH_BYTES // 2, BATCH_BYTES // 2, 7, BATCH_BYTES, 2 * BATCH_BYTES, 0, 1]
    whole = batch(*({"text": "", "path": str(number), "bytes": size} for number, size in enumerate(sizes)))
    cut = list(batches_of(whole))
    assert pa.Table.from_batches(cut).equals(pa.Table.from_batches([whole]))
    for part in cut:
        assert sum(part.column("bytes").to_pylist()[1:]) < BATCH_BYTES  # the first may be large by itself
    assert [part.num_rows for part in batches_of(documents.empty())] == [0]


def test_a_shard_reads_back_batch_by_batch_and_its_bytes_depend_on_nothing_else(tmp_path: Path, batch: Batch) -> None:
    texts = ["", "größe = '中'\n", "a\0b", "x" * 100_000]
    given_batches = [batch(*texts), documents.empty(), batch(texts[1])]
    for name in ("one", "two"):
        write_shard(Directory(str(tmp_path / name)), "documents.parquet", given_batches, SCHEMA)
    assert (tmp_path / "one/documents.parquet").read_bytes() == (tmp_path / "two/documents.parquet").read_bytes()

    found = list(read_shard(Directory(str(tmp_path / "one")), "documents.parquet"))
    assert [part.num_rows for part in found] == [4, 0, 1]
    assert all(part.equals(given) for part, given in zip(found, given_batches, strict=True))
    columns = read_shard_columns(Directory(str(tmp_path / "one")), "documents.parquet", ["path"])
    assert columns.to_pydict() == {"path": ["0.py", "1.py", "2.py", "3.py", "0.py"]}


def test_slices_of_a_batch_are_written_as_copies_of_it_are(tmp_path: Path, batch: Batch) -> None:
    """Arrow slices share their parent's buffers: none of the parent may get into the file."""
    texts = [str(random.Random(number).random()) for number in range(20)]
    directory = Directory(str(tmp_path))
    slice_ = batch(*texts).slice(5, 10)
    write_shard(directory, "slice", [slice_], SCHEMA)
    write_shard(directory, "copy", [pa.RecordBatch.from_pylist(slice_.to_pylist(), schema=SCHEMA)], SCHEMA)
    assert (tmp_path / "slice").read_bytes() == (tmp_path / "copy").read_bytes()


def test_a_shard_without_batches_reads_as_one_empty_batch(tmp_path: Path) -> None:
    write_shard(Directory(str(tmp_path)), "none", [], SCHEMA)
    (only,) = read_shard(Directory(str(tmp_path)), "none")
    assert only.num_rows == 0
    assert only.schema == SCHEMA
