"""The stage of a source: what a reader finds in a unit of the input is a shard of the output.

A unit is a file or a repository of many documents. A reader goes through it and yields a row for each thing that it
finds (builder.py). Rows are written batch by batch in the reader's order (batches.py), so that the same units give the
same bytes, and a unit may be larger than the memory. A shard is called by its unit, and what was made of a unit stays
for as long as its content, the recipe and the code do: another unit more or less, or one that was mended, changes no
other.
"""

import json
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, NamedTuple

import apache_beam as beam
import xxhash

from opencoder_jax.beam_pipelines.core.manifest import QUARANTINE, Manifest, Tally
from opencoder_jax.beam_pipelines.core.runner import BeamOptions
from opencoder_jax.beam_pipelines.core.stage import Stage, gather_reports, report_shard, run_shards
from opencoder_jax.beam_pipelines.core.storage import Directory
from opencoder_jax.beam_pipelines.sources.builder import Row, document
from opencoder_jax.beam_pipelines.sources.formats.batches import batches, fault, guarded, unique, write_batches
from opencoder_jax.beam_pipelines.sources.formats.clashes import REASON, Shard, settle
from opencoder_jax.beam_pipelines.sources.formats.members import Damaged, Late, Untrusted
from opencoder_jax.beam_pipelines.sources.inputs import Unit
from opencoder_jax.beam_pipelines.sources.stars import with_digest
from opencoder_jax.checks import between, check
from opencoder_jax.recipe import UserError, configurable

# Makes rows of a unit as its configuration says: a function that can be imported.
Reader = Callable[[Unit, Any], Iterable[Row | Late]]

OTHERS = "others"  # the label of what no reader is for


@configurable
@dataclass(frozen=True)
class QuarantineConfig:
    """How much may be broken.

    Attributes:
        max_share: of the units, or of what is in them, that may be in quarantine; a larger one is an error, once all
            the rest is done.
    """

    max_share: float = 0.01

    def __post_init__(self) -> None:
        check(self, max_share=between(0, 1))


USUAL = QuarantineConfig()


class Portion(NamedTuple):
    """What becomes a shard: a unit, or all that no reader is for."""

    label: str
    units: tuple[Unit, ...]


def parts_of(units: Sequence[Unit]) -> list[Portion]:
    """The shards of some units, which are called by the units' names."""
    found = [Portion(_label(unit.name), (unit,)) for unit in units if not unit.reason]
    others = tuple(unit for unit in units if unit.reason)
    return found + [Portion(OTHERS, others)] * bool(others)


def _label(name: str) -> str:
    """For people, with a digest that makes it no other unit's; the numbers that `collect` gives stay."""
    if re.fullmatch(r"\d{5}-of-\d{5}", name):
        return name
    readable = re.sub(r"[^A-Za-z0-9._]+", "_", name)[-60:].strip("._")
    return f"{readable}-{xxhash.xxh3_64_hexdigest(name.encode('utf-8', 'surrogateescape'))}"


class WriteUnit(beam.DoFn):
    """Writes the documents, drops and faults of a unit, and a report."""

    def __init__(self, parts: Sequence[Portion], reader: Reader, config: Any, output: str) -> None:
        self.parts = parts
        self.reader = reader
        self.config = config
        self.output = output

    def process(self, shard: int) -> Iterator[int]:
        directory = Directory(self.output)
        part = self.parts[shard]
        try:
            rows = chain.from_iterable(guarded(unit, self._rows(unit)) for unit in part.units)
            written = write_batches(directory, part.label, batches(unique(rows)))
        except Untrusted as error:
            unit = part.units[0]
            written = write_batches(directory, part.label, batches([fault(unit, "", error, unit.size)]))
        report_shard(directory, _content(part), *written)
        yield shard

    def _rows(self, unit: Unit) -> Iterable[Row | Late]:
        if not unit.reason:
            return self.reader(unit, self.config)
        return [document("", unit.name, b"", reason=unit.reason, detail=unit.name, size=unit.size)]


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
    parts = parts_of(units)
    step = WriteUnit(parts, reader, config, directory.uri)
    reports = [_content(part) for part in parts]
    run_shards(name, directory, step, reports, options, sum(unit.size for unit in units), speed)
    return gather_reports(directory, len(parts))


def settle_units(
    directory: Directory, units: Sequence[Unit], reader: Reader, config: Any, options: BeamOptions, documents: int
) -> tuple[Tally, dict[str, str]]:
    """Gives no two documents of what `write_units` wrote one id: of units that have the same, the first keeps it."""
    parts = parts_of(units)
    shards = [
        Shard(number, part.label, part.units[0].name, _content(part))
        for number, part in enumerate(parts)
        if part.label != OTHERS
    ]
    settle(directory, shards, WriteUnit(parts, reader, config, directory.uri), documents, options)
    return gather_reports(directory, len(parts))


def told(reasons: dict[str, int]) -> str:
    """Why documents were dropped, for a message."""
    return ", ".join(f"{reason} {count}" for reason, count in sorted(reasons.items())) or "nothing at all"


@dataclass(frozen=True)
class UnitsPlan:
    """The configuration and what it was applied to: the manifest's `config`."""

    config: Any
    units: dict[str, str]  # what tells a unit's content, by its name

    @classmethod
    def of(cls, config: Any, units: Sequence[Unit]) -> "UnitsPlan":
        """Where a unit lies, or a table of stars, doesn't matter."""
        return cls(with_digest(config), {part.label: _content(part) for part in parts_of(units)})


def _content(part: Portion) -> str:
    return xxhash.xxh3_64_hexdigest(repr([unit._replace(directory="") for unit in part.units]).encode())


def collect_units(
    module: str,
    units: Sequence[Unit],
    reader: Reader,
    config: Any,
    output: str,
    options: BeamOptions,
    speed: float = 20.0,
    quarantine: QuarantineConfig = USUAL,
    own_ids: bool = False,
) -> Manifest:
    """Writes a stage directory with a shard a unit.

    Args:
        module: the source's; the stage is called by its last part.
        reader: gets a unit and the configuration.
        config: a dataclass, or None.
        speed: megabytes a second on one core, about.
        own_ids: no two units can hold documents of one repository and path, so nobody has to look for them.

    Raises:
        UserError: no unit holds a document, or, once all that can be read was, more is in quarantine than may be.
    """
    name = module.rpartition(".")[2]

    def work(directory: Directory) -> tuple[Tally, dict[str, str]]:
        tally, files = write_units(name, directory, units, reader, config, options, speed)
        if not tally.get("out"):
            found = told(tally.get("drop", {}).get("documents", {}))
            names = ", ".join(unit.name for unit in units[:5])
            raise UserError(f"{name}: no document in {names}; dropped as {found}{first_fault(directory, files)}")
        if not own_ids and sum(not unit.reason for unit in units) > 1:
            documents = sum(tally["out"]["documents"].values())
            tally, files = settle_units(directory, units, reader, config, options, documents)
        return tally, files

    plan = UnitsPlan.of(config, units)
    manifest = Stage(name, module, plan, (), output, parts=tuple(plan.units.values())).run(work, options)
    if lost := manifest.table("drop", "documents").get(REASON):
        what = f"{lost} documents have the repository and path of one in an earlier unit"
        print(f"{name}: {what}; its drops name them ({REASON})", file=sys.stderr)
    tell_quarantine(manifest, output, len(units), quarantine)
    return manifest


def tell_quarantine(manifest: Manifest, output: str, units: int, config: QuarantineConfig) -> None:
    """Says what is in quarantine, if anything is.

    Raises:
        UserError: it's more than may be.
    """
    things = manifest.total(QUARANTINE, "documents")
    if not things:
        return
    whole, seen = manifest.total(QUARANTINE, "units"), manifest.total("in", "documents")
    kinds = told(manifest.table(QUARANTINE, "documents"))
    where = f"{output.rstrip('/')}/{QUARANTINE}"
    said = f"{manifest.stage}: {things} of {seen} in quarantine, {whole} of {units} units as a whole ({kinds})"
    if max(things / seen, whole / max(1, units)) <= config.max_share:
        print(f"{said}: see {where}", file=sys.stderr)
        return
    raise UserError(
        f"{said}, more than {config.max_share:.2%} of either{first_fault(Directory(output), manifest.files)}; the "
        f"rest is done; mend or remove what {where} names, or allow more: --gin.QuarantineConfig.max_share=…"
    )


def first_fault(directory: Directory, files: Iterable[str]) -> str:
    """The first line of the quarantine, for a message; nothing where there's none."""
    first = min((name for name in files if name.startswith(f"{QUARANTINE}/")), default=None)
    if first is None:
        return ""
    unit, path, exception, message = json.loads(directory.read_bytes(first).split(b"\n", 1)[0]).values()
    if exception in (Damaged.__name__, Untrusted.__name__):
        return f"; {unit}: damaged or cut short ({path}{': ' if path else ''}{message}); fetch it again"
    return f"; {unit}{'/' if path else ''}{path}: {message} ({exception})"
