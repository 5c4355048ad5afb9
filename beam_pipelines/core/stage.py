"""One stage: reads directories, writes one, and can be killed at any moment.

A stage directory is finished when it holds `stage.json` (manifest.py). A stage whose manifest still describes it isn't
run again; one that is run again says why. While it runs, each finished shard leaves a report in `reports/`; a stage
that was killed redoes only the shards that have none. The same input gives the same bytes, whatever the runner and the
number of workers.

Most stages are maps (maps.py). The others use `Stage` itself.
"""

import json
import re
import sys
import threading
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from contextvars import ContextVar
from dataclasses import asdict, dataclass, replace
from typing import Any, NamedTuple

import apache_beam as beam

from opencoder_jax.beam_pipelines.core.engines.failures import explained
from opencoder_jax.beam_pipelines.core.manifest import (
    MANIFEST,
    PARTS,
    PLAN,
    QUARANTINE,
    Manifest,
    Tally,
    changes,
    check_balance,
    digest,
    merge_tallies,
)
from opencoder_jax.beam_pipelines.core.owner import is_owner, owned
from opencoder_jax.beam_pipelines.core.runner import BeamOptions, SameVersion
from opencoder_jax.beam_pipelines.core.storage import Directory
from opencoder_jax.code_version import code_version
from opencoder_jax.files import WRITING
from opencoder_jax.progress import Progress
from opencoder_jax.recipe import UserError

_PLAN: ContextVar[tuple[str, int, int] | None] = ContextVar("plan", default=None)  # of a cluster's job
_READERS = 32  # reports of a bucket that are read at a time
_TOLD = 8  # reasons to run a stage again, of which there may be one a unit


@dataclass(frozen=True)
class Stage:
    """A stage that is about to run.

    Attributes:
        name: what it's called in manifests, progress and reports.
        module: the module whose code it is.
        config: a frozen dataclass.
        inputs: finished stage directories.
        output: the directory to write.
        roots: the definitions, as (module, name), whose code makes its bytes; the module's `run` by default.
        parts: where what it makes depends on each part of its input alone: what tells the content of each, by which its
            reports are called. So with other parts only those are made that weren't.
    """

    name: str
    module: str
    config: Any
    inputs: tuple[str, ...]
    output: str
    roots: tuple[tuple[str, str], ...] = ()
    parts: tuple[str, ...] | None = None

    def run(self, work: Callable[[Directory], tuple[Tally, dict[str, str]]], options: BeamOptions) -> Manifest:
        """Runs `work(output directory)` unless the output is up to date.

        Of a finished stage that lost some of its files, only the shards that these belong to are made again.

        Args:
            work: writes the files, and returns the tally and the files' digests.
            options: name the stages whose older output is accepted as it is.

        Raises:
            UserError: an input isn't finished, the output is no place for a stage (whatever lies there stays), or
                another process writes there.
        """
        head = self._head()
        directory = Directory(self.output)
        if any(directory.same_as(Directory(source)) for source in self.inputs):
            raise UserError(f"{self.output}: is an input too; name another directory for the output")
        found = _look(directory, head)
        if found.manifest and found.up_to_date and not found.leftovers:
            print(f"{self.name}: up to date", file=sys.stderr)
            return found.manifest
        with owned(directory):
            return self._run(work, head, directory, options)

    def _run(
        self,
        work: Callable[[Directory], tuple[Tally, dict[str, str]]],
        head: dict[str, Any],
        directory: Directory,
        options: BeamOptions,
    ) -> Manifest:
        """As `run`, by the directory's owner."""
        found = _look(directory, head)
        manifest, stale = found.manifest, found.stale
        if manifest:
            accepted = {self.name, self.output.rstrip("/").rsplit("/", 1)[-1]} & set(options.accept)
            if stale and not found.missing and accepted:
                print(f"{self.name}: accepted as it is, though {'; '.join(stale)}", file=sys.stderr)
                manifest = replace(manifest, **head, accepted=[*manifest.accepted, *stale])
                manifest.write(directory)
                stale = []
            if not stale and not found.missing:
                print(f"{self.name}: up to date", file=sys.stderr)
                _tidy(directory)
                return manifest
            why = [*stale, *found.missing.values()]
            more = f"; and {len(why) - _TOLD} more" if len(why) > _TOLD else ""
            print(f"{self.name}: runs again: {'; '.join(why[:_TOLD])}{more}", file=sys.stderr)
            if not stale and self._mended(work, manifest, directory, found.missing):
                return manifest
        if not (directory.exists(PLAN) and directory.read_sealed(PLAN) == head):
            if self.parts is not None and _differs_in_parts(directory, head):
                _keep_parts(directory, head, set(self.parts))
            else:
                _start_over(directory, head)
        directory.remove(MANIFEST)
        tally, files = self._work(work, directory)
        sizes = _sizes(directory)
        if gone := sorted(files.keys() - sizes.keys()):
            raise UserError(f"{self.output}/{gone[0]}: vanished while {self.name} ran; run the same command again")
        manifest = Manifest(**head, tally=tally, files=files, sizes={name: sizes[name] for name in files}, stale=stale)
        manifest.write(directory)
        _tidy(directory)
        return manifest

    def _mended(
        self,
        work: Callable[[Directory], tuple[Tally, dict[str, str]]],
        manifest: Manifest,
        directory: Directory,
        missing: Iterable[str],
    ) -> bool:
        """Makes what a finished stage has lost; whether the files are again what its manifest says.

        The manifest stays, and tells `run_shards` which shards are still there.
        """
        for name in missing:
            directory.remove(name)
        known = _reported(directory) if self.parts is not None else {}
        directory.child("reports").remove_tree()
        if known:
            lost = set(missing)
            kept = {key: report for key, report in known.items() if not report["files"].keys() & lost}
            directory.write_sealed(PARTS, kept)
        _, files = self._work(work, directory)
        if files == manifest.files:
            _tidy(directory)
            return True
        print(f"{self.name}: comes out otherwise than before, so all of it is made again", file=sys.stderr)
        return False

    def _work(
        self, work: Callable[[Directory], tuple[Tally, dict[str, str]]], directory: Directory
    ) -> tuple[Tally, dict[str, str]]:
        """As `work`; what was made of each part is kept beside it."""
        with explained(self.name):
            tally, files = work(directory)
        check_balance(self.name, tally)
        if self.parts is not None:
            # It has a seal of its own, and is no file of the manifest: its keys tell of files' times, too.
            directory.write_sealed(PARTS, _reported(directory))
        return tally, files

    def _head(self) -> dict[str, Any]:
        config = json.loads(json.dumps(asdict(self.config)))
        inputs = [Manifest.read(directory).fingerprint for directory in self.inputs]
        code = code_version(*(self.roots or ((self.module, "run"),)))
        return {"stage": self.name, "config": config, "code": code, "inputs": inputs}


class _Found(NamedTuple):
    """What lies in an output: its manifest, why that is out of date, which files it lost and how, and what to tidy."""

    manifest: Manifest | None
    stale: list[str]
    missing: dict[str, str]
    leftovers: bool

    @property
    def up_to_date(self) -> bool:
        return not self.stale and not self.missing


def _look(directory: Directory, head: dict[str, Any]) -> _Found:
    """Raises UserError for a directory that something else than a stage has written."""
    sizes = directory.sizes()
    others = [name for name in sizes if not name.endswith(WRITING) and not is_owner(name)]
    if others and not sizes.keys() & {MANIFEST, PLAN}:
        raise UserError(f"{directory.uri}: holds other files, such as {min(others)}; name an empty or a new directory")
    leftovers = any(name == PLAN or name.endswith(WRITING) or is_owner(name) for name in sizes)
    leftovers = leftovers or directory.exists("reports")
    if MANIFEST not in sizes:
        return _Found(None, [], {}, leftovers)
    try:
        manifest = Manifest.read(directory.uri)
    except UserError:
        if directory.exists(MANIFEST):
            raise
        return _Found(None, [], {}, True)  # its owner is just beginning anew
    missing = {}
    sizes = _sizes(directory)
    for name in sorted(manifest.files):
        size = manifest.sizes.get(name)
        if name not in sizes:
            missing[name] = f"{name} is missing"
        elif size is not None and size != sizes[name]:
            missing[name] = f"{name} has {sizes[name]} bytes and not {size}"
    return _Found(manifest, changes(manifest, head), missing, leftovers)


def _start_over(directory: Directory, head: dict[str, Any]) -> None:
    """Empties a directory for a new plan. Killed on the way it's a stage directory still, but nothing in it counts."""
    directory.write_json(PLAN, {**dict.fromkeys(head), "started": False})
    directory.remove(MANIFEST)
    for name in directory.names():
        if name != PLAN and not is_owner(name):
            directory.remove(name)
    directory.child("reports").remove_tree()
    directory.child(QUARANTINE).remove_tree()
    directory.write_sealed(PLAN, head)


def _sizes(directory: Directory) -> dict[str, int]:
    """The bytes of each file that a manifest may name."""
    kept = directory.child(QUARANTINE).sizes()
    return directory.sizes() | {f"{QUARANTINE}/{name}": size for name, size in kept.items()}


def _reported(directory: Directory) -> dict[str, Any]:
    """The reports of a stage's parts by what they are called, finished or not; without those that are damaged."""
    found: dict[str, Any] = {}
    reports = directory.child("reports")
    with suppress(UserError, FileNotFoundError):
        found |= directory.read_sealed(PARTS)
    for name, report in _each_report(reports):
        key = name.removesuffix(".json")
        found.pop(key, None)
        with suppress(UserError):
            if key != name and (what := report()):  # an empty one: it's begun anew
                found[key] = what
    return found


def _differs_in_parts(directory: Directory, head: dict[str, Any]) -> bool:
    """Whether what lies there is of the same stage, recipe and code, and at most of another input."""
    name = PLAN if directory.exists(PLAN) else MANIFEST
    if not directory.exists(name):
        return False
    there = directory.read_sealed(name)

    def apart(known: dict[str, Any]) -> list[Any]:
        config = {**(known.get("config") or {}), "units": None}
        return [config, known.get("stage"), known.get("code")]

    return apart(there) == apart(head)


def _keep_parts(directory: Directory, head: dict[str, Any], wanted: set[str]) -> None:
    """Removes what was made of other parts. Killed on the way, it's begun again."""
    sizes = _sizes(directory).keys()
    known = {key: report for key, report in _reported(directory).items() if key in wanted}
    kept = {key: report for key, report in known.items() if report["files"].keys() <= sizes}
    directory.write_json(PLAN, {**head, "started": False})
    directory.remove(MANIFEST)
    directory.write_sealed(PARTS, kept)
    directory.child("reports").remove_tree()
    for name in sizes - {name for report in kept.values() for name in report["files"]}:
        if name not in (PLAN, PARTS) and not is_owner(name):
            directory.remove(name)
    if not directory.child(QUARANTINE).names():
        directory.child(QUARANTINE).remove_tree()
    directory.write_sealed(PLAN, head)


def _tidy(directory: Directory) -> None:
    """Removes what only an unfinished stage needs, and what attempts that were killed have left."""
    directory.child("reports").remove_tree()
    directory.remove(PLAN)
    for name in directory.names():
        if name.endswith(WRITING):
            directory.remove(name)


def input_shards(directory: str, table: str = "documents") -> list[str]:
    """The names of an input's shards, in order.

    Raises:
        UserError: the stage isn't finished, or it's one that writes something else.
    """
    return shards_of(directory, Manifest.read(directory), table)


def shards_of(directory: str, manifest: Manifest, table: str) -> list[str]:
    """As `input_shards`, of a stage whose manifest is read."""
    if names := manifest.shards(table):
        return names
    raise UserError(f"{directory}: holds no {table}; it was written by the stage {manifest.stage}")


def run_shards(
    name: str,
    directory: Directory,
    step: beam.DoFn,
    shards: int | Sequence[str],
    options: BeamOptions,
    total_bytes: int,
    megabytes_per_second: float,
    threads: bool = False,
) -> None:
    """Runs a DoFn over the shard numbers that have no report yet, with a progress bar in bytes of input.

    The DoFn ends each shard with `report_shard`.

    Args:
        shards: how many there are, or what their reports are called.
    """
    reports = directory.child("reports")
    if isinstance(shards, int):
        _report_what_is_left(directory, shards)
        shards = [f"{shard:05d}" for shard in range(shards)]
    done = _reported(directory).keys()
    missing = [shard for shard, report in enumerate(shards) if report not in done]
    if not missing:
        return
    seconds = total_bytes / 1e6 / megabytes_per_second
    with FollowReports(name, reports, len(shards), total_bytes, done), options.pipeline(seconds, threads) as pipeline:
        _ = (
            pipeline
            | beam.Create(missing)
            | name >> beam.ParDo(step if options.is_local() else OfPlan(SameVersion(step), directory))
        )


class OfPlan(beam.DoFn):
    """A step for workers of a cluster, which goes on only as long as its output is made by the plan of its submitter.

    A job outlives a submitter that was killed. Once another recipe has begun there, what it still makes is wrong.
    """

    def __init__(self, step: beam.DoFn, directory: Directory) -> None:
        super().__init__()
        self.step = step
        self.directory = directory
        self.plan = _plan_of(directory)

    def setup(self) -> None:
        self.step.setup()

    def process(self, element: Any) -> list[Any]:
        """As the step's; `report_shard` finds its plan."""
        _refuse_other_plan(self.directory, self.plan)
        outer = _PLAN.set(self.plan)
        try:
            return list(self.step.process(element) or ())
        finally:
            _PLAN.reset(outer)

    def teardown(self) -> None:
        self.step.teardown()


def _plan_of(directory: Directory) -> tuple[str, int, int]:
    """What tells a plan from one that begins later: to read it would take long where it names a million units."""
    name = PLAN if directory.exists(PLAN) else MANIFEST
    return name, directory.size(name), directory.changed(name)


def _refuse_other_plan(directory: Directory, plan: tuple[str, int, int]) -> None:
    if _plan_of(directory) != plan:
        raise UserError(f"{directory.uri}: another command has begun there anew, or finished; this job ends")


def _report_what_is_left(directory: Directory, shards: int) -> None:
    """Where a finished stage is mended: a report for each shard whose files are all there.

    Who asks for the sum of all tallies gets at least the manifest's.
    """
    if not directory.exists(MANIFEST):
        return
    manifest, there = Manifest.read(directory.uri), set(directory.names())
    parts: dict[int, list[str]] = {}
    for name in manifest.files:
        if (part := re.search(r"-(\d+)-of-(\d+)", name)) and int(part[2]) == shards:
            parts.setdefault(int(part[1]), []).append(name)
    tally = manifest.tally
    for shard, names in parts.items():
        if there.issuperset(names):
            report_shard(directory, shard, tally, names)
            tally = {}


def report_shard(directory: Directory, shard: int | str, tally: Tally, names: Sequence[str]) -> None:
    """Marks a shard as finished. `names` are the files that it wrote."""
    files = {name: digest(directory, name) for name in names}
    report = shard if isinstance(shard, str) else f"{shard:05d}"
    if plan := _PLAN.get():
        _refuse_other_plan(directory, plan)
    directory.child("reports").write_sealed(f"{report}.json", {"tally": tally, "files": files})


def gather_reports(directory: Directory, shards: int) -> tuple[Tally, dict[str, str]]:
    """The sum of all shards' tallies, and all their files' digests.

    Raises:
        UserError: shards have no report: the pipeline ended without running, as a dry run does.
    """
    reports = _reported(directory).values()
    if len(reports) != shards:
        raise UserError(f"{directory.uri}: {shards - len(reports)} of {shards} shards weren't written; run it again")
    files = {name: value for report in reports for name, value in report["files"].items()}
    return merge_tallies(report["tally"] for report in reports), files


def _each_report(reports: Directory) -> Iterator[tuple[str, Callable[[], Any]]]:
    """The names of reports, and what returns or raises what is read; of a bucket many are asked for at a time."""
    with ThreadPoolExecutor(1 if reports.local() else _READERS) as pool:
        waiting = [(name, pool.submit(reports.read_sealed, name).result) for name in reports.names()]
        yield from waiting


class FollowReports:
    """Shows the progress of a stage in bytes: follows the reports as they appear, whichever worker writes them."""

    def __init__(
        self, name: str, reports: Directory, shards: int, total_bytes: int, done: Collection[str] = ()
    ) -> None:
        """`done`: what the reports are called of shards that were made before, and may have none here."""
        self.done = set(done)
        self.progress = Progress(name, total_bytes, "B")
        self.reports = reports
        self.shards = shards
        self.total_bytes = total_bytes
        self.ended = threading.Event()
        self.thread = threading.Thread(target=self._follow, daemon=True)

    def __enter__(self) -> None:
        self._update()
        self.thread.start()

    def __exit__(self, *_: object) -> None:
        self.ended.set()
        self.thread.join()
        self._update()
        self.progress.close()

    def _follow(self) -> None:
        took = 0.0
        while not self.ended.wait(max(0.5, 10 * took)):  # a list of a bucket's 99,999 reports takes seconds
            began = time.monotonic()
            self._update()
            took = time.monotonic() - began

    def _update(self) -> None:
        there = {name.removesuffix(".json") for name in self.reports.names() if name.endswith(".json")}
        self.progress.update_to(int(self.total_bytes * len(self.done | there) / self.shards))
