"""One stage: reads directories, writes one, and can be killed at any moment.

A stage directory is finished when it holds `stage.json` (manifest.py). A stage whose manifest still describes it isn't
run again. While it runs, each finished shard leaves a report in `reports/`; a stage that was killed redoes only the
shards that have none. The same input gives the same bytes, whatever the runner and the number of workers.

Most stages are maps: `map_stage` hands a kernel one record batch after the other and writes what it returns. Kernels
are plain functions on Arrow data and know nothing of Beam. The others use `Stage` itself.
"""

import argparse
import importlib
import json
import logging
import re
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from itertools import zip_longest
from types import MappingProxyType
from typing import Any, NamedTuple

import apache_beam as beam
import pyarrow as pa
from tqdm import tqdm

from opencoder_jax.beam_pipelines.core.documents import DROP_SCHEMA, ShardWriter, read_shard, shard_name
from opencoder_jax.beam_pipelines.core.manifest import (
    MANIFEST,
    PLAN,
    Manifest,
    Tally,
    code_version,
    describe,
    digest,
    merge_tallies,
    tally_documents,
    tally_drops,
)
from opencoder_jax.beam_pipelines.core.runner import BeamOptions
from opencoder_jax.beam_pipelines.core.storage import WRITING, Directory
from opencoder_jax.recipe import UserError, build, parse_flags, run_command


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


@dataclass(frozen=True)
class Stage:
    """A stage that is about to run.

    Attributes:
        name: what it's called in manifests, progress and reports.
        module: the module whose code it is; the module and all that it imports of ours make up the code's digest.
        config: a frozen dataclass.
        inputs: finished stage directories.
        output: the directory to write.
    """

    name: str
    module: str
    config: Any
    inputs: tuple[str, ...]
    output: str

    def run(
        self, work: Callable[[Directory], tuple[Tally, dict[str, str]]], options: BeamOptions | None = None
    ) -> Manifest:
        """Runs `work(output directory)` unless the output is up to date.

        Args:
            work: writes the files, and returns the tally and the files' digests.

        Raises:
            UserError: an input isn't finished, or the output is no place for a stage; whatever lies there stays.
        """
        head = self._head()
        directory = Directory(self.output)
        names = set(directory.names())
        if MANIFEST in names:
            manifest = Manifest.read(self.output)
            if {key: getattr(manifest, key) for key in head} == head and names >= manifest.files.keys():
                print(f"{self.name}: up to date", file=sys.stderr)
                _tidy(directory)
                return manifest
        if any(directory.same_as(Directory(source)) for source in self.inputs):
            raise UserError(f"{self.output}: is an input too; name another directory for the output")
        if not names & {MANIFEST, PLAN} and not all(name.endswith(WRITING) for name in names):
            raise UserError(f"{self.output}: holds other files, such as {min(names)}; name an empty or a new directory")
        if not (PLAN in names and directory.read_json(PLAN) == head):
            _start_over(directory, head)
        directory.remove(MANIFEST)
        with _explained(self.name):
            tally, files = work(directory)
        manifest = Manifest(**head, tally=tally, files=files)
        directory.write_json(MANIFEST, asdict(manifest))
        _tidy(directory)
        return manifest

    def _head(self) -> dict[str, Any]:
        config = json.loads(json.dumps(asdict(self.config)))
        inputs = [Manifest.read(directory).fingerprint for directory in self.inputs]
        return {"stage": self.name, "config": config, "code": code_version(self.module), "inputs": inputs}


def _start_over(directory: Directory, head: dict[str, Any]) -> None:
    """Empties a directory for a new plan. Killed on the way it's a stage directory still, but nothing in it counts."""
    directory.write_json(PLAN, {})
    directory.remove(MANIFEST)
    for name in directory.names():
        if name != PLAN:
            directory.remove(name)
    directory.child("reports").remove_tree()
    directory.write_json(PLAN, head)


def _tidy(directory: Directory) -> None:
    """Removes what only an unfinished stage needs."""
    directory.child("reports").remove_tree()
    directory.remove(PLAN)


def input_shards(directory: str, table: str = "documents") -> list[str]:
    """The names of an input's shards, in order.

    Raises:
        UserError: the stage isn't finished, or it's one that writes something else.
    """
    manifest = Manifest.read(directory)
    if names := manifest.shards(table):
        return names
    raise UserError(f"{directory}: holds no {table}; it was written by the stage {manifest.stage}")


def require_inputs(name: str, inputs: Sequence[str], *contents: str) -> None:
    """Raises UserError unless there's one input directory for each of `contents`."""
    if len(inputs) != len(contents):
        directories = "one directory" if len(contents) == 1 else f"{len(contents)} directories"
        wanted = ", then the ".join(contents)
        raise UserError(f"{name} reads {directories}: got {len(inputs)} --input; give the {wanted}")


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

    def work(directory: Directory) -> tuple[Tally, dict[str, str]]:
        names = [input_shards(source, which) for source, which in zip(inputs, tables, strict=True)]
        if len({len(shards) for shards in names}) != 1:
            raise UserError(f"{name}: inputs differ in shards: {dict(zip(inputs, map(len, names), strict=True))}")
        shards = len(names[0])
        size = Manifest.read(inputs[0]).total("out", "bytes")
        step = MapShard(kernel, list(inputs), names, output, table)
        run_shards(name, directory, step, shards, options, size, megabytes_per_second, threads=threads)
        return gather_reports(directory, shards)

    return Stage(name, module, config, tuple(inputs), output).run(work)


class MapShard(beam.DoFn):
    """Reads a shard of every input in step, calls the kernel on each batch, writes the result and a report."""

    def __init__(self, kernel: Kernel, inputs: list[str], names: list[list[str]], output: str, table: str) -> None:
        self.kernel = kernel
        self.inputs = inputs
        self.names = names
        self.output = output
        self.table = table

    def process(self, shard: int) -> Iterator[int]:
        directory = Directory(self.output)
        shards = len(self.names[0])
        tally: Tally = {}
        with (
            ShardWriter(directory, shard_name(self.table, shard, shards)) as kept,
            ShardWriter(directory, shard_name("drops", shard, shards)) as dropped,
        ):
            for batches in self._aligned(shard):
                documents = batches[0]
                result = self.kernel(*batches)
                drops = drop_table(documents, result.drops)
                kept.write(result.table)
                if drops.num_rows:
                    dropped.write(drops)
                tally = merge_tallies(
                    [
                        tally,
                        tally_documents("in", documents),
                        tally_documents("out", result.table if self.table == "documents" else documents),
                        tally_drops(drops),
                        {"count": dict(result.counts)},
                    ]
                )
        report_shard(directory, shard, tally, [*kept.names, *dropped.names])
        yield shard

    def _aligned(self, shard: int) -> Iterator[tuple[pa.RecordBatch, ...]]:
        """The batches of all inputs in step."""
        pairs = list(zip(self.inputs, self.names, strict=True))
        sources = [read_shard(Directory(source), shards[shard]) for source, shards in pairs]
        for batches in zip_longest(*sources):
            if len({None if batch is None else batch.num_rows for batch in batches}) != 1:
                places = " and ".join(f"{source}/{shards[shard]}" for source, shards in pairs)
                raise UserError(f"{places} differ in rows: they aren't about the same documents")
            yield batches


def run_shards(
    name: str,
    directory: Directory,
    step: beam.DoFn,
    shards: int,
    options: BeamOptions,
    total_bytes: int,
    megabytes_per_second: float,
    threads: bool = False,
) -> None:
    """Runs a DoFn over the shard numbers that have no report yet, with a progress bar in bytes of input.

    The DoFn ends each shard with `report_shard`.
    """
    reports = directory.child("reports")
    done = {int(report.removesuffix(".json")) for report in reports.names() if report.endswith(".json")}
    missing = [shard for shard in range(shards) if shard not in done]
    if not missing:
        return
    seconds = total_bytes / 1e6 / megabytes_per_second
    with Progress(name, reports, shards, total_bytes), options.pipeline(seconds, threads) as pipeline:
        _ = pipeline | beam.Create(missing) | name >> beam.ParDo(step)


def report_shard(directory: Directory, shard: int, tally: Tally, names: Sequence[str]) -> None:
    """Marks a shard as finished. `names` are the files that it wrote."""
    files = {name: digest(directory, name) for name in names}
    directory.child("reports").write_json(f"{shard:05d}.json", {"tally": tally, "files": files})


def gather_reports(directory: Directory, shards: int) -> tuple[Tally, dict[str, str]]:
    """The sum of all shards' tallies, and all their files' digests.

    Raises:
        UserError: shards have no report: the pipeline ended without running, as a dry run does.
    """
    place = directory.child("reports")
    reports = [place.read_json(name) for name in place.names() if name.endswith(".json")]
    if len(reports) != shards:
        raise UserError(f"{directory.uri}: {shards - len(reports)} of {shards} shards weren't written; run it again")
    files = {name: value for report in reports for name, value in report["files"].items()}
    return merge_tallies(report["tally"] for report in reports), files


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


class Progress:
    """A bar in megabytes that follows the reports as they appear, whichever worker writes them."""

    def __init__(self, name: str, reports: Directory, shards: int, total_bytes: int) -> None:
        self.bar = tqdm(total=total_bytes, desc=name, unit="B", unit_scale=True, mininterval=0.5, file=sys.stderr)
        self.reports = reports
        self.shards = shards
        self.ended = threading.Event()
        self.thread = threading.Thread(target=self._follow, daemon=True)

    def __enter__(self) -> "Progress":
        self._update()
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.ended.set()
        self.thread.join()
        self._update()
        self.bar.close()

    def _follow(self) -> None:
        while not self.ended.wait(0.5):
            self._update()

    def _update(self) -> None:
        done = sum(name.endswith(".json") for name in self.reports.names())
        self.bar.update(int((self.bar.total or 0) * done / self.shards) - self.bar.n)


# The errors of a worker that are the user's to mend, not ours, as Beam wraps them.
_OS_ERRORS = "OSError|PermissionError|FileNotFoundError|FileExistsError|NotADirectoryError|IsADirectoryError"
_MENDABLE = re.compile(rf"(?:RuntimeError: )?(?:[\w.]+\.)?(?:UserError|{_OS_ERRORS}): (.*)")


@contextmanager
def _explained(name: str) -> Iterator[None]:
    """Makes one line of an error that the user can mend.

    Of a worker's error only the text of its traceback reaches the driver; the exception that ended it comes last,
    behind those that it was raised from.
    """
    try:
        yield
    except UserError as error:
        raise UserError(_without_step(str(error))) from None
    except RuntimeError as error:
        last = str(error).rsplit("Traceback (most recent call last):\n", 1)[-1]
        ending = next((line for line in last.splitlines() if not line.startswith(" ")), "")
        if mendable := _MENDABLE.match(ending):
            raise UserError(f"{name}: {_without_step(mendable[1])}") from None
        raise


def _without_step(message: str) -> str:
    return message.split(" [while running")[0]


def main(module: str) -> None:
    """The command line of a stage module: `--input=DIR --output=DIR [--gin_file=F] [--gin.X.y=z] [Beam flags]`.

    The module defines `run(inputs, output, config, options) -> Manifest`, whose `config` annotation is built by gin,
    and its docstring is the help.
    """
    run_command(lambda argv: command(module, argv))


def command(module: str, argv: list[str]) -> None:
    """`main` without the exit: raises UserError."""
    logging.getLogger("apache_beam").setLevel(logging.CRITICAL)  # it logs the traceback of every error that it raises
    stage = importlib.import_module(module)
    config_class = stage.run.__annotations__["config"]
    parser = argparse.ArgumentParser(
        prog=f"python -m {module}",
        description=(stage.__doc__ or "").strip(),
        epilog=f"Example: python -m {module} --input=runs/a --output=runs/b\nBeam's flags pass through: --runner=…",
        allow_abbrev=False,
    )
    parser.add_argument("--input", action="append", default=[], metavar="DIR", help="an input directory; repeatable")
    parser.add_argument("--output", required=True, metavar="DIR", help="the stage directory to write")
    flags, rest = parse_flags(parser, argv)
    manifest = stage.run(flags.input, flags.output, build(config_class), BeamOptions(tuple(rest)))
    print(describe(manifest))
