"""Sources whose input comes in files or repositories of many documents: a shard of the output for each of them.

A reader goes through one unit and yields a row for each thing that it finds there: a document (documents.SCHEMA) or a
drop with its reason (DROP_SCHEMA). Rows are written batch by batch in the reader's order, so that the same units give
the same bytes, and a unit may be larger than the memory.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import apache_beam as beam
import pyarrow as pa

from opencoder_jax.beam_pipelines.core.documents import BATCH_BYTES, DROP_SCHEMA, SCHEMA, ShardWriter, empty, shard_name
from opencoder_jax.beam_pipelines.core.manifest import Manifest, Tally, merge_tallies, tally_documents, tally_drops
from opencoder_jax.beam_pipelines.core.runner import BeamOptions
from opencoder_jax.beam_pipelines.core.stage import Stage, gather_reports, report_shard, run_shards
from opencoder_jax.beam_pipelines.core.storage import Directory
from opencoder_jax.recipe import UserError

Row = dict[str, Any]
Batch = tuple[pa.RecordBatch, pa.RecordBatch, dict[str, int]]  # documents, drops, counters
_ROWS = 10_000  # of drops and tiny documents, which fill no batch by their bytes


class Unit(NamedTuple):
    """A file or repository of the input.

    Attributes:
        directory: that holds it.
        name: in that directory.
        size: in bytes.
        state: what else tells whether it changed: a commit, a time.
    """

    directory: str
    name: str
    size: int
    state: str = ""


# Makes rows of a unit; picklable.
Reader = Callable[[Unit], Iterator[Row]]


class ReadUnit(beam.DoFn):
    """Writes the documents and drops of a unit, and a report."""

    def __init__(self, units: Sequence[Unit], reader: Reader, output: str) -> None:
        self.units = units
        self.reader = reader
        self.output = output

    def process(self, shard: int) -> Iterator[int]:
        write_rows(Directory(self.output), shard, len(self.units), _batches(self.reader(self.units[shard])))
        yield shard


def write_rows(directory: Directory, shard: int, shards: int, batches: Iterable[Batch]) -> None:
    """Writes the documents and drops of a shard batch by batch, and its report."""
    tally: Tally = {}
    with (
        ShardWriter(directory, shard_name("documents", shard, shards)) as kept,
        ShardWriter(directory, shard_name("drops", shard, shards)) as dropped,
    ):
        for documents, drops, counts in batches:
            if documents.num_rows:
                kept.write(documents)
            if drops.num_rows:
                dropped.write(drops)
            seen = [tally_documents("in", documents), tally_documents("in", drops)]
            seen += [tally_documents("out", documents), tally_drops(drops), {"count": counts}]
            tally = merge_tallies([tally, *seen])
        if not kept.names:
            kept.write(empty())
    report_shard(directory, shard, tally, [*kept.names, *dropped.names])


def _batches(rows: Iterator[Row]) -> Iterator[Batch]:
    batch: list[Row] = []
    size = 0
    for row in rows:
        batch.append(row)
        size += row["bytes"] if "text" in row else 0
        if size >= BATCH_BYTES or len(batch) >= _ROWS:
            yield _parted(batch)
            batch, size = [], 0
    if batch:
        yield _parted(batch)


def _parted(rows: list[Row]) -> Batch:
    documents = pa.RecordBatch.from_pylist([row for row in rows if "reason" not in row], SCHEMA)
    return documents, pa.RecordBatch.from_pylist([row for row in rows if "reason" in row], DROP_SCHEMA), {}


@dataclass(frozen=True)
class UnitsPlan:
    """The configuration and what it was applied to: the manifest's `config`."""

    config: Any
    units: tuple[tuple[str, int, str], ...]


def collect_units(
    name: str,
    module: str,
    units: Sequence[Unit],
    reader: Reader,
    config: Any,
    output: str,
    options: BeamOptions,
    megabytes_per_second: float,
) -> Manifest:
    """Writes a stage directory with a shard a unit.

    Raises:
        UserError: a unit cannot be read, or no unit holds a document.
    """

    def work(directory: Directory) -> tuple[Tally, dict[str, str]]:
        step = ReadUnit(units, reader, output)
        total = sum(unit.size for unit in units)
        run_shards(name, directory, step, len(units), options, total, megabytes_per_second)
        tally, files = gather_reports(directory, len(units))
        if not tally.get("out"):
            reasons = tally.get("drop", {}).get("documents", {})
            found = ", ".join(f"{reason} {count}" for reason, count in sorted(reasons.items())) or "nothing at all"
            raise UserError(f"{name}: no document in {', '.join(unit.name for unit in units[:5])}; dropped as {found}")
        return tally, files

    plan = UnitsPlan(config, tuple((unit.name, unit.size, unit.state) for unit in units))
    return Stage(name, module, plan, (), output).run(work)
