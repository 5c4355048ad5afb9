"""One document an id over a whole corpus: of units that hold the same one, the first keeps it.

A unit's own rows are unique already (batches.py). Between units, ids alone are compared, 24 bytes a document; where
that finds one twice, the later units' shards are written again without it. What a unit lost stays readable in its
drops, so that another run can tell what it would lose now.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

import apache_beam as beam
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from opencoder_jax.beam_pipelines.core.documents import (
    DROP_SCHEMA,
    ShardWriter,
    empty,
    id_text,
    one_batch,
)
from opencoder_jax.beam_pipelines.core.manifest import Tally, damage, merge_tallies, tally_documents, tally_drops
from opencoder_jax.beam_pipelines.core.runner import BeamOptions, SameVersion
from opencoder_jax.beam_pipelines.core.shuffles import by_segment, pack, run_starts, sort_rows, unpack
from opencoder_jax.beam_pipelines.core.stage import report_shard
from opencoder_jax.beam_pipelines.core.storage import Directory

REASON = "same_id_elsewhere"
CLASH = 3  # columns of what is shuffled: an id's two halves and a unit's number

_SEGMENT = 1 << 20  # ids that are compared at a time, about
_PLACE = DROP_SCHEMA.names[:5]  # the columns that documents and drops share


def documents_file(label: str) -> str:
    """The shard of documents of a unit."""
    return f"documents-{label}.parquet"


def drops_file(label: str) -> str:
    """The shard of drops of a unit, which not every unit has."""
    return f"drops-{label}.parquet"


class Shard(NamedTuple):
    """What a unit became."""

    number: int  # of the unit, as the step that writes it is called with
    label: str
    unit: str  # its name
    report: str  # what its report is called


def settle(
    directory: Directory, shards: Sequence[Shard], write: beam.DoFn, documents: int, options: BeamOptions
) -> None:
    """Compares the ids of all units, and takes from each what an earlier one has.

    Args:
        write: the step that writes a unit as its reader has it, and reports.
        documents: of all units, about.
    """
    segments = 1 << (documents // _SEGMENT).bit_length()

    def ids(place: int) -> Iterator[tuple[int, bytes]]:
        rows = unit_ids(directory, shards[place].label, place)
        return by_segment(rows, rows[:, 0], segments)

    def lost(element: tuple[int, Iterable[bytes]]) -> Iterator[tuple[int, bytes]]:
        losers, rows = clashes(unpack(element[1], CLASH))
        for loser in np.unique(losers).tolist():
            yield loser, pack(rows[losers == loser])

    with options.pipeline(documents / 1e6) as pipeline:
        places = range(len(shards))
        found = pipeline | "units" >> beam.Create(places) | "ids" >> beam.FlatMap(ids)
        found = found | "by id" >> beam.GroupByKey() | "lost" >> beam.FlatMap(lost)
        every = pipeline | "every unit" >> beam.Create([(place, b"") for place in places])
        units = (found, every) | "all" >> beam.Flatten() | "by unit" >> beam.GroupByKey()
        step: beam.DoFn = SettleUnit(directory, shards, write)
        _ = units | "settle" >> beam.ParDo(step if options.is_local() else SameVersion(step))


class SettleUnit(beam.DoFn):
    """(place of a unit's shard, packed ids with the units that keep them) -> the shard without these."""

    def __init__(self, directory: Directory, shards: Sequence[Shard], write: beam.DoFn) -> None:
        self.directory = directory
        self.shards = shards
        self.write = write

    def process(self, element: tuple[int, Iterable[bytes]]) -> Iterator[int]:
        place, values = element
        directory, (number, label, _, report) = self.directory, self.shards[place]
        lost = {
            id_text(row): f"{self.shards[int(row[2])].unit}, too, has its repository and path"
            for row in unpack(values, CLASH)
        }
        before, reports = lost_ids(directory, label), directory.child("reports")
        if before != lost:
            name, begun_anew = f"{report}.json", dict[str, str]()  # killed on the way, the unit is read again
            if before.keys() - lost.keys() or not reports.exists(name):
                reports.write_sealed(name, begun_anew)
                yield from self.write.process(number)  # with what it had lost, or what an attempt has left undone
            if lost:
                known = reports.read_sealed(name)
                reports.write_sealed(name, begun_anew)
                written = without_ids(directory, label, lost, known["tally"], known["files"])
                report_shard(directory, report, *written)
        yield place


def lost_ids(directory: Directory, label: str) -> dict[str, str]:
    """The ids that a unit's shard has lost to other units, with what its drops say of each."""
    if not directory.exists(drops_file(label)):
        return {}
    with directory.read(drops_file(label)) as stream:
        table = pq.read_table(stream, columns=["id", "reason", "detail"])
    table = table.filter(pc.equal(table["reason"], REASON))
    return dict(zip(table["id"].to_pylist(), table["detail"].to_pylist(), strict=True))


def unit_ids(directory: Directory, label: str, unit: int) -> np.ndarray:
    """uint64 [ids, CLASH]: the ids that a unit has, or had before it lost them to others."""
    with directory.read(documents_file(label)) as stream:
        ids = pq.read_table(stream, columns=["id"])["id"].to_pylist()
    ids += lost_ids(directory, label)
    halves = np.frombuffer(bytes.fromhex("".join(ids)), ">u8").astype(np.uint64).reshape(-1, 2)
    return np.column_stack([halves, np.full(len(ids), unit, np.uint64)])


def clashes(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Of ids that several units have: the units that lose them, and [id's halves, the unit that keeps it] of each.

    Args:
        rows: uint64 [ids, CLASH].

    Returns:
        uint64 [lost] and [lost, CLASH].
    """
    rows = sort_rows(rows)
    starts = run_starts(rows[:, :2])
    first = np.flatnonzero(starts)[np.cumsum(starts) - 1]
    return rows[~starts, 2], rows[first[~starts]]


def without_ids(
    directory: Directory, label: str, lost: Mapping[str, str], tally: Tally, files: Mapping[str, str]
) -> tuple[Tally, list[str]]:
    """Writes a unit's shards again without some of its documents, which become drops; their tally and files.

    Args:
        lost: id -> what its drop says. It has all that the unit lost before.
        tally, files: of the unit as it is, the files with their digests.

    Raises:
        RuntimeError: its files aren't what they were: they are damaged, or another attempt writes them now.
    """
    kept, dropped = documents_file(label), drops_file(label)
    for name, known in files.items():
        if why := damage(directory, name, known):
            raise RuntimeError(f"{directory.uri}/{name}: {why}")
    wanted = pa.array(lost, pa.string())
    gone, others = [], []
    if dropped in files:
        for batch in _batches(directory, dropped):
            before = pc.equal(batch.column("reason"), REASON)
            gone.append(batch.filter(before).select(_PLACE))
            others.append(batch.filter(pc.invert(before)))
    tallies: list[Tally] = []
    with ShardWriter(directory, kept) as writer:
        for batch in _batches(directory, kept):
            loses = pc.is_in(batch.column("id"), wanted)
            gone.append(batch.filter(loses).select(_PLACE))
            if (rest := batch.filter(pc.invert(loses))).num_rows:
                writer.write(rest)
                tallies.append(tally_documents("out", rest))
        if not writer.names:
            writer.write(empty(batch.schema))
        table = pa.Table.from_batches(gone).sort_by("id")
        if table["id"].to_pylist() != sorted(lost):
            raise RuntimeError(f"{directory.uri}/{kept}: lost documents that its drops don't name")
    table = table.append_column("reason", pa.array([REASON] * len(lost), pa.string()))
    table = table.append_column("detail", pa.array([lost[key] for key in sorted(lost)], pa.string()))
    with ShardWriter(directory, dropped) as writer:
        for batch in [*others, one_batch(table.cast(DROP_SCHEMA))]:
            if batch.num_rows:
                writer.write(batch)
                tallies.append(tally_drops(batch))
    rest_of = {side: counts for side, counts in tally.items() if side not in ("out", "drop")}
    return {"out": {}, **rest_of, **merge_tallies(tallies)}, sorted({*files, kept, dropped})


def _batches(directory: Directory, name: str) -> Iterator[pa.RecordBatch]:
    """The batches of a file of a stage that isn't finished, or is being mended."""
    with directory.read(name) as stream:
        file = pq.ParquetFile(stream)
        for group in range(file.num_row_groups):
            yield one_batch(file.read_row_group(group))
