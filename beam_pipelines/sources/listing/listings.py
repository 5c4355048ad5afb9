"""Listings: what each shard of the output will be made of, and what tells whether any of it has changed.

A document's shard follows from its id, and in a shard files stand in the order of their ids: neither the order of the
inputs nor that of a folder shows in what is written. On this machine all is listed in this process and held in memory.
Workers of a cluster list as many folders at once as there are, sort the files of a shard, and write its listing beside
the output; the process that submits holds a line a shard.
"""

import json
import secrets
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import PurePosixPath
from typing import Any, NamedTuple

import apache_beam as beam
import xxhash

from opencoder_jax.beam_pipelines.core.documents import shard_of
from opencoder_jax.beam_pipelines.core.engines.failures import explained
from opencoder_jax.beam_pipelines.core.runner import BeamOptions, SameVersion
from opencoder_jax.beam_pipelines.core.storage import Directory
from opencoder_jax.beam_pipelines.sources.formats.members import Unit
from opencoder_jax.beam_pipelines.sources.listing.folders import File, Folder, Root, listed, top_of, walk
from opencoder_jax.beam_pipelines.sources.listing.workers import answers
from opencoder_jax.recipe import UserError

_AT_ONCE = 1000  # folders, about, that are left to workers; the process that submits lists those above them
_LINES = 10_000  # files that travel together
_PASSED = -1  # where a shard's number stands: counts of what was passed over
_REPORT = "report.json"


class Listing(NamedTuple):
    """What is to be collected.

    Attributes:
        units: a shard each: its size, what tells a change of it, and the folder that holds the list of its files.
        passed: counts of what was passed over.
        endings: how many files end in what.
        files: of each unit, in memory; None where they are written already.
    """

    units: list[Unit]
    passed: Counter[str]
    endings: Counter[str]
    files: list[list[File]] | None

    def write(self, folder: Directory) -> list[Unit]:
        """The units, whose files are listed in a folder."""
        if self.files is None:
            return self.units
        for unit, files in zip(self.units, self.files, strict=True):
            write_list(folder, unit.name, files)
        return [unit._replace(directory=folder.uri) for unit in self.units]


@contextmanager
def list_folders(
    roots: Sequence[Root], max_file_bytes: int, max_corpus_bytes: int, shards: int, output: str, options: BeamOptions
) -> Iterator[Listing]:
    """The files below the roots by the shards of the output; what workers wrote of it is removed in the end.

    Args:
        max_file_bytes: larger files are dropped.
        max_corpus_bytes: see `list_files`; with a limit this process lists, as it goes by the order of all files.

    Raises:
        UserError: as `list_files`.
    """
    if options.is_local() or max_corpus_bytes:
        files, passed = list_files(roots, max_file_bytes, max_corpus_bytes)
        files.sort(key=lambda file: file.identifier)
        yield _in_memory(files, passed, shards)
        return
    # A name of its own: whether the output has an owner already, only the stage will see.
    folder = Directory(output).child("listing").child(secrets.token_hex(8))
    try:
        with explained("list"):
            yield _by_workers(roots, max_file_bytes, shards, folder, options)
    finally:
        folder.remove_tree()


def list_files(
    roots: Sequence[Root], max_file_bytes: int, max_corpus_bytes: int = 0
) -> tuple[list[File], Counter[str]]:
    """The files below the roots: the repositories of a root from the smallest, their files in the order of their ids.

    Args:
        max_file_bytes: larger files are dropped.
        max_corpus_bytes: the list ends before the file that makes the corpus larger; 0 for no limit.

    Returns:
        The files, and counts of the folders and files that were passed over.

    Raises:
        UserError: a root is missing or no folder, there is no file at all, or two files would be one document.
    """
    files: list[File] = []
    passed: Counter[str] = Counter()
    for root in roots:
        found = list(walk(top_of(root), max_file_bytes, passed))
        sizes: Counter[str] = Counter()
        for file in found:
            sizes[file.repository] += file.size
        files += sorted(found, key=lambda file: (sizes[file.repository], file.repository, file.identifier))
    if not files:
        raise _nothing(roots)
    _refuse_clash(files)
    total = 0
    for index, file in enumerate(files if max_corpus_bytes else ()):
        total += file.size if file.wanted else 0
        if total > max_corpus_bytes:
            passed["files beyond max_corpus_bytes"] = len(files) - index
            return files[:index], passed
    return files, passed


def _nothing(roots: Sequence[Root]) -> UserError:
    return UserError(f"input {', '.join(root.folder for root in roots)}: no files in it")


def _refuse_clash(files: Iterable[File]) -> None:
    """Raises UserError where two files would be one document."""
    seen: dict[str, File] = {}
    for file in files:
        if (other := seen.setdefault(file.identifier, file)) is not file:
            raise UserError(
                f"{other.location} and {file.location} are both {file.path} of a repository {file.repository}; "
                "collect them in two runs, or rename a folder"
            )


def _in_memory(files: Sequence[File], passed: Counter[str], shards: int) -> Listing:
    lists: list[list[File]] = [[] for _ in range(shards)]
    for file in files:
        lists[shard_of(file.identifier, shards)].append(file)
    units = [listing_unit(shard, shards, members) for shard, members in enumerate(lists)]
    return Listing(units, passed, endings_of(files), lists)


def listing_unit(shard: int, shards: int, files: Sequence[File]) -> Unit:
    """A listing of files as a unit: what tells a change of one is its size and its time."""
    state = xxhash.xxh3_128()
    for file in files:
        state.update(repr(file._replace(location="", source="")).encode())
    size = sum(file.size for file in files if file.wanted)
    return Unit("", f"{shard:05d}-of-{shards:05d}", size, state.hexdigest())


def endings_of(files: Iterable[File]) -> Counter[str]:
    """How many files have which ending, or which name where they have none."""
    paths = (PurePosixPath(file.path) for file in files)
    return Counter(path.suffix or path.name for path in paths)


def write_list(folder: Directory, name: str, files: Iterable[File]) -> None:
    """Writes files, a line each."""
    with folder.atomic(name) as stream:
        stream.write("".join(f"{json.dumps(file)}\n" for file in files).encode())


def _by_workers(
    roots: Sequence[Root], max_file_bytes: int, shards: int, folder: Directory, options: BeamOptions
) -> Listing:
    passed: Counter[str] = Counter()
    files: list[File] = []
    waiting = [top_of(root) for root in roots]
    above = 0
    while waiting and len(waiting) < _AT_ONCE and above < _AT_ONCE:  # the uppermost folders first
        found, below = listed(waiting.pop(0), max_file_bytes, passed)
        files += found
        waiting += below
        above += 1
    step = ListFolders(max_file_bytes, shards)
    known = [*step.packed(files, passed), *((shard, "") for shard in range(shards))]
    with options.pipeline(0.0) as pipeline:
        folders = pipeline | "folders" >> beam.Create(waiting) | "on all workers" >> beam.Reshuffle()
        found = folders | "list" >> beam.ParDo(SameVersion(step))
        _ = (
            (found, pipeline | "known" >> beam.Create(known))
            | "all" >> beam.Flatten()
            | "by shard" >> beam.GroupByKey()
            | "write" >> beam.Map(write_shard_list, shards, folder)
            | "together" >> beam.GroupByKey()
            | "report" >> beam.Map(_write_report, folder)
        )
    report = answers(folder, _REPORT)
    if not report["endings"]:
        raise _nothing(roots)
    units = [Unit(*unit) for unit in report["units"]]
    return Listing(units, Counter(report["passed"]), Counter(report["endings"]), None)


class ListFolders(beam.DoFn):
    """Folder -> (shard, lines of its files), for all below the folder, and (-1, what was passed over)."""

    def __init__(self, max_file_bytes: int, shards: int) -> None:
        super().__init__()
        self.max_file_bytes = max_file_bytes
        self.shards = shards

    def process(self, folder: Folder) -> Iterator[tuple[int, str]]:
        passed: Counter[str] = Counter()
        files: list[File] = []
        for file in walk(folder, self.max_file_bytes, passed):
            files.append(file)
            if len(files) == _LINES:
                yield from self.packed(files, Counter())
                files = []
        yield from self.packed(files, passed)

    def packed(self, files: Iterable[File], passed: Counter[str]) -> Iterator[tuple[int, str]]:
        """Files by shards, and counts."""
        lines: dict[int, list[str]] = {}
        for file in files:
            lines.setdefault(shard_of(file.identifier, self.shards), []).append(json.dumps(file))
        yield from ((shard, "\n".join(some)) for shard, some in lines.items())
        if passed:
            yield _PASSED, json.dumps(passed)


def write_shard_list(element: tuple[int, Iterable[str]], shards: int, folder: Directory) -> tuple[int, dict[str, Any]]:
    """(shard, lines of its files) -> (0, what the submitting process has to know); writes the list.

    Raises:
        UserError: two files would be one document.
    """
    shard, blocks = element
    if shard == _PASSED:
        return 0, {"passed": sum((Counter(json.loads(block)) for block in blocks), Counter[str]())}
    files = [File(*json.loads(line)) for block in blocks for line in block.splitlines()]
    files.sort(key=lambda file: (file.identifier, file.location))
    _refuse_clash(files)
    unit = listing_unit(shard, shards, files)._replace(directory=folder.uri)
    write_list(folder, unit.name, files)
    return 0, {"unit": unit, "endings": endings_of(files)}


def _write_report(element: tuple[int, Iterable[dict[str, Any]]], folder: Directory) -> None:
    units: list[Unit] = []
    passed, endings = Counter[str](), Counter[str]()
    for report in element[1]:
        units += [report["unit"]] if "unit" in report else []
        passed.update(report.get("passed", {}))
        endings.update(report.get("endings", {}))
    folder.write_json(_REPORT, {"units": sorted(units), "passed": passed, "endings": dict(endings.most_common(100))})
