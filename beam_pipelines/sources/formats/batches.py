"""Rows as files: the documents, the drops and the quarantine of a shard, batch by batch.

Whatever a reader throws costs its unit, or the one thing in it that threw (`Late`), and no more: it's a line of
`quarantine/`, with what, where and which exception, and counted. Here alone it's caught.
"""

import errno
import json
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from typing import Any, NamedTuple

import pyarrow as pa

from opencoder_jax.beam_pipelines.core.documents import BATCH_BYTES, DROP_SCHEMA, SCHEMA, ShardWriter, empty
from opencoder_jax.beam_pipelines.core.manifest import (
    QUARANTINE,
    Tally,
    merge_tallies,
    tally_documents,
    tally_drops,
)
from opencoder_jax.beam_pipelines.core.storage import Directory
from opencoder_jax.beam_pipelines.core.stores.systems import Unreachable
from opencoder_jax.beam_pipelines.languages.detect import UNKNOWN
from opencoder_jax.beam_pipelines.sources.formats.clashes import documents_file, drops_file
from opencoder_jax.beam_pipelines.sources.formats.members import Late, Row, Unit, Untrusted

BATCH_ROWS = 10_000  # of drops and tiny documents, which fill no batch by their bytes

# What is wrong with this machine, and not with a unit.
_MACHINE = (errno.ENOSPC, errno.EDQUOT, errno.ENOMEM, errno.EMFILE, errno.ENFILE, errno.ETIMEDOUT, errno.ECONNRESET)
_MESSAGE = 1000  # characters of what an exception says


class RowBatch(NamedTuple):
    """Rows that are written together."""

    documents: pa.RecordBatch  # of SCHEMA
    drops: pa.RecordBatch  # of DROP_SCHEMA
    counts: dict[str, int]  # of encodings that aren't UTF-8, and of what was passed over
    faults: list[Row] = []  # noqa: RUF012  of `fault`; never changed


def fault(unit: Unit, path: str, error: Exception, size: int) -> Row:
    """A row of the quarantine.

    Args:
        path: in the unit; "" where the unit itself, or the rest of it, can't be read.
        size: bytes, about, that are lost by it.
    """
    kind = type(error)
    said = (isinstance(error, OSError) and error.strerror) or str(error)  # without the place on this machine
    message = " ".join(said.replace(f"{unit.directory}/", "").replace(unit.directory, unit.name).split())[:_MESSAGE]
    record = {
        "unit": unit.name,
        "path": path,
        "exception": kind.__qualname__,
        "message": message.removeprefix(f"{unit.name}: "),
    }
    return {"quarantine": record, "bytes": size}


def guarded(unit: Unit, rows: Iterable[Row | Late]) -> Iterator[Row]:
    """The rows of a unit, and one more for each thing that its reader couldn't make one of.

    Raises:
        Untrusted: none of them can be believed.
        OSError: this machine is at its end, or a bucket doesn't answer.
    """
    try:
        for found in rows:
            if isinstance(found, Late):
                try:
                    row = found.make()
                except Exception as error:
                    _pass_on(error)
                    row = fault(unit, found.path, error, found.size)
                yield row
            else:
                yield found
    except Exception as error:
        _pass_on(error)
        yield fault(unit, "", error, unit.size)


def unique(rows: Iterable[Row]) -> Iterator[Row]:
    """The rows of a unit; of documents with one id all but the first are drops, same_id."""
    seen: set[int] = set()
    for row in rows:
        if "text" in row:
            identifier = int(row["id"], 16)
            if identifier in seen:
                dropped = {name: row[name] for name in DROP_SCHEMA.names[:5]}
                yield dropped | {
                    "reason": "same_id",
                    "detail": "an earlier one of this unit has its repository and path",
                }
                continue
            seen.add(identifier)
        yield row


def _pass_on(error: Exception) -> None:
    """Raises again what isn't about one thing alone."""
    if isinstance(error, (Untrusted, Unreachable)) or (isinstance(error, OSError) and error.errno in _MACHINE):
        raise error


def batches(rows: Iterable[Row]) -> Iterator[RowBatch]:
    """Cuts rows into batches of about BATCH_BYTES of text, in their order."""
    waiting: list[Row] = []
    size = 0
    for row in rows:
        waiting.append(row)
        size += row["bytes"] if "text" in row else 0
        if size >= BATCH_BYTES or len(waiting) >= BATCH_ROWS:
            yield _batch(waiting)
            waiting, size = [], 0
    if waiting:
        yield _batch(waiting)


def _batch(rows: list[Row]) -> RowBatch:
    documents = [row for row in rows if "text" in row]
    drops = pa.RecordBatch.from_pylist([row for row in rows if "reason" in row], DROP_SCHEMA)
    counts = Counter(f"decoded {row['encoding']}" for row in documents if row.get("encoding", "utf-8") != "utf-8")
    counts.update(row["passed"] for row in rows if "passed" in row)
    for row in rows:
        counts.update(row.get("counts", {}))
    faults = [row for row in rows if "quarantine" in row]
    return RowBatch(pa.RecordBatch.from_pylist(documents, SCHEMA), drops, counts, faults)


def write_batches(
    directory: Directory, label: str, found: Iterable[RowBatch], documents: bool = True
) -> tuple[Tally, list[str]]:
    """Writes the documents, drops and faults of a shard batch by batch; the tally and the names of its files.

    Args:
        label: what the shard is called, between "documents-" and ".parquet".
        documents: a shard of them is written also where there are none.
    """
    tally: Tally = {}
    quarantine = f"{QUARANTINE}/{label}.jsonl"
    with (
        ShardWriter(directory, documents_file(label)) as kept,
        ShardWriter(directory, drops_file(label)) as dropped,
        ExitStack() as opened,
    ):
        lines = None
        for out, drops, counts, faults in found:
            for writer, batch in ((kept, out), (dropped, drops)):
                if batch.num_rows:
                    writer.write(batch)
            if faults:
                lines = lines or opened.enter_context(directory.atomic(quarantine))
                lines.write("".join(json.dumps(row["quarantine"]) + "\n" for row in faults).encode())
            seen = [tally_documents("in", out), tally_documents("in", drops), _tally_faults(faults)]
            seen += [tally_documents("out", out), tally_drops(drops), {"count": counts}]
            tally = merge_tallies([tally, *seen])
        if documents and not kept.names:
            kept.write(empty())
    names = [*kept.names, *dropped.names, *([quarantine] if lines else [])]
    for other in {drops_file(label), quarantine} - set(names):
        directory.remove(other)  # of an earlier attempt
    return tally, names


def _tally_faults(faults: list[Row]) -> Tally:
    """Things and bytes by their exceptions, under `quarantine`, and as seen; units that failed themselves apart."""
    if not faults:
        return {}
    things: Counter[str] = Counter()
    sizes: Counter[str] = Counter()
    units: Counter[str] = Counter()
    for row in faults:
        name: str = row["quarantine"]["exception"]
        things[name] += 1
        sizes[name] += row["bytes"]
        units[name] += not row["quarantine"]["path"]
    size = sum(sizes.values())
    seen: dict[str, Any] = {"documents": {UNKNOWN.name: len(faults)}, "bytes": {UNKNOWN.name: size}}
    return {"in": seen, QUARANTINE: {"documents": dict(things), "bytes": dict(sizes), "units": dict(+units)}}
