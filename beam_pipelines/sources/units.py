"""The stage of a source, and the one batcher: what a reader finds in a unit of the input is a shard of the output.

A unit is a file or a repository of many documents. A reader goes through it and yields a row for each thing that it
finds (builder.py). Rows are written batch by batch in the reader's order, so that the same units give the same bytes,
and a unit may be larger than the memory.
"""

from collections import Counter
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
from opencoder_jax.beam_pipelines.sources.builder import Row
from opencoder_jax.beam_pipelines.sources.inputs import Unit
from opencoder_jax.beam_pipelines.sources.stars import with_digest
from opencoder_jax.recipe import UserError

BATCH_ROWS = 10_000  # of drops and tiny documents, which fill no batch by their bytes


# Makes rows of a unit as its configuration says: a function that can be imported.
Reader = Callable[[Unit, Any], Iterable[Row]]


class RowBatch(NamedTuple):
    """Rows that are written together."""

    documents: pa.RecordBatch  # of SCHEMA
    drops: pa.RecordBatch  # of DROP_SCHEMA
    counts: dict[str, int]  # of encodings that aren't UTF-8


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
    return RowBatch(pa.RecordBatch.from_pylist(documents, SCHEMA), drops, counts)


def write_batches(directory: Directory, shard: int, shards: int, found: Iterable[RowBatch]) -> tuple[Tally, list[str]]:
    """Writes the documents and drops of a shard batch by batch; the tally and the names of its files."""
    tally: Tally = {}
    with (
        ShardWriter(directory, shard_name("documents", shard, shards)) as kept,
        ShardWriter(directory, shard_name("drops", shard, shards)) as dropped,
    ):
        for documents, drops, counts in found:
            for writer, batch in ((kept, documents), (dropped, drops)):
                if batch.num_rows:
                    writer.write(batch)
            seen = [tally_documents("in", documents), tally_documents("in", drops)]
            seen += [tally_documents("out", documents), tally_drops(drops), {"count": counts}]
            tally = merge_tallies([tally, *seen])
        if not kept.names:
            kept.write(empty())
    return tally, [*kept.names, *dropped.names]


class WriteUnit(beam.DoFn):
    """Writes the documents and drops of a unit, and a report."""

    def __init__(self, units: Sequence[Unit], reader: Reader, config: Any, output: str) -> None:
        self.units = units
        self.reader = reader
        self.config = config
        self.output = output

    def process(self, shard: int) -> Iterator[int]:
        directory = Directory(self.output)
        found = batches(self.reader(self.units[shard], self.config))
        report_shard(directory, shard, *write_batches(directory, shard, len(self.units), found))
        yield shard


def write_units(
    name: str,
    directory: Directory,
    units: Sequence[Unit],
    reader: Reader,
    config: Any,
    options: BeamOptions,
    speed: float,
) -> tuple[Tally, dict[str, str]]:
    """Writes a shard a unit; the tally and the files' digests of all. `speed`: megabytes a second on one core."""
    step = WriteUnit(units, reader, config, directory.uri)
    run_shards(name, directory, step, len(units), options, sum(unit.size for unit in units), speed)
    return gather_reports(directory, len(units))


def told(reasons: dict[str, int]) -> str:
    """Why documents were dropped, for a message."""
    return ", ".join(f"{reason} {count}" for reason, count in sorted(reasons.items())) or "nothing at all"


@dataclass(frozen=True)
class UnitsPlan:
    """The configuration and what it was applied to: the manifest's `config`."""

    config: Any
    units: tuple[tuple[str, int, str], ...]

    @classmethod
    def of(cls, config: Any, units: Sequence[Unit]) -> "UnitsPlan":
        """Where a unit lies, or a table of stars, doesn't matter."""
        return cls(with_digest(config), tuple((unit.name, unit.size, unit.state) for unit in units))


def collect_units(
    module: str,
    units: Sequence[Unit],
    reader: Reader,
    config: Any,
    output: str,
    options: BeamOptions,
    speed: float = 20.0,
) -> Manifest:
    """Writes a stage directory with a shard a unit.

    Args:
        module: the source's; the stage is called by its last part.
        reader: gets a unit and the configuration.
        config: a dataclass, or None.
        speed: megabytes a second on one core, about.

    Raises:
        UserError: a unit cannot be read, or no unit holds a document.
    """
    name = module.rpartition(".")[2]

    def work(directory: Directory) -> tuple[Tally, dict[str, str]]:
        tally, files = write_units(name, directory, units, reader, config, options, speed)
        if not tally.get("out"):
            found = told(tally.get("drop", {}).get("documents", {}))
            raise UserError(f"{name}: no document in {', '.join(unit.name for unit in units[:5])}; dropped as {found}")
        return tally, files

    return Stage(name, module, UnitsPlan.of(config, units), (), output).run(work, options)
