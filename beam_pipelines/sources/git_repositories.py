"""Collects the source files of git repositories as they are at HEAD, checked out or bare.

    python -m beam_pipelines git_repositories --repositories=/path/to/clones --output=runs/git

The files of HEAD's tree are read, not those of a work tree: the same commit gives the same documents. A repository's
name is that of its origin ("owner/name"), else of its folder; a file's commit time that of the last commit on the
first-parent line that changed it, as the keep rule of duplicates wants it (the latest, of equal stars).

Everything is read through libgit2 (formats/repositories.py); git itself is never run.
"""

import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial

import pygit2
from pygit2.enums import FileMode

from opencoder_jax.beam_pipelines.core.manifest import Manifest
from opencoder_jax.beam_pipelines.core.runner import BeamOptions
from opencoder_jax.beam_pipelines.languages.detect import Language
from opencoder_jax.beam_pipelines.sources.builder import Row, document
from opencoder_jax.beam_pipelines.sources.formats.members import Damaged, Late, printable
from opencoder_jax.beam_pipelines.sources.formats.repositories import (
    DAMAGED,
    attributes_of,
    broken_blobs,
    commit_times,
    is_repository,
    newest_commit,
    open_repository,
    repository_name,
    tree_entries,
)
from opencoder_jax.beam_pipelines.sources.inputs import Unit
from opencoder_jax.beam_pipelines.sources.stars import read_stars
from opencoder_jax.beam_pipelines.sources.units import USUAL, QuarantineConfig, collect_units
from opencoder_jax.checks import at_least, check
from opencoder_jax.recipe import UserError, configurable

SPEED = 20.0  # megabytes of packed objects a second on one core


@configurable
@dataclass(frozen=True)
class GitConfig:
    """What is collected.

    Attributes:
        max_file_bytes: larger files are dropped; OpenCoder's 8 MB.
        detect_encodings: decodes files, too, whose encoding only their statistics tell (GBK, Shift-JIS, KOI8-R, UTF-16
            without a mark …), and UTF-8 with some bytes that are none, which are lost and counted.
        stars_table: see stars.py; without it, and for a repository that it lacks, stars are 0.
    """

    max_file_bytes: int = 8_000_000
    detect_encodings: bool = False
    stars_table: str = ""

    def __post_init__(self) -> None:
        check(self, max_file_bytes=at_least(1))


def list_repositories(inputs: Sequence[str]) -> list[Unit]:
    """The repositories of all inputs by their names, however deep, also behind links; those without a commit too.

    Raises:
        UserError: an input is missing, holds no repository with a commit, or two repositories have one name.
    """
    found: dict[str, Unit] = {}
    for given in inputs:
        if not os.path.isdir(given):
            raise UserError(f"input {given}: no such folder")
        units = [_unit(folder, given) for folder in _folders(given, set())]
        for unit in units:
            if (other := found.setdefault(unit.name, unit)).directory != unit.directory:
                raise UserError(f"{other.directory} and {unit.directory} are both {unit.name}; leave one of them out")
        if all(unit.reason for unit in units):
            raise UserError(f"input {given}: no git repository with a commit, here or below")
    return [found[name] for name in sorted(found)]


def _unit(folder: str, given: str) -> Unit:
    place = os.path.abspath(folder)
    try:
        repository = open_repository(folder)
        broken_blobs(repository)  # the walk to the newest commit must not meet what is broken
        name = repository_name(repository, folder)
        if (commit := newest_commit(repository)) is None:
            return Unit(place, os.path.relpath(folder, os.path.dirname(os.path.abspath(given))), 0, reason="no_commit")
        return Unit(place, name, _packed_bytes(repository.path), str(commit.id))
    except DAMAGED as error:
        # Its reader will say so again. Of its name nothing is known but where it lies.
        return Unit(place, os.path.relpath(place, os.path.dirname(os.path.abspath(given))), 0, type(error).__name__)


def _folders(folder: str, seen: set[str]) -> Iterator[str]:
    """A repository's folder, or those below a folder that is none; each once, whatever links lead to it."""
    real = os.path.realpath(folder)
    if real in seen:
        return
    seen.add(real)
    if is_repository(folder):
        yield folder
        return
    with suppress(OSError):  # a folder that can't be read
        for entry in sorted(os.scandir(folder), key=lambda entry: entry.name):
            if entry.is_dir():
                yield from _folders(entry.path, seen)


def _packed_bytes(folder: str) -> int:
    packs = os.path.join(folder, "objects", "pack")
    return sum(entry.stat().st_size for entry in os.scandir(packs)) if os.path.isdir(packs) else 0


def read_repository(unit: Unit, config: GitConfig) -> Iterator[Row | Late]:
    """The files of a repository as documents and drops."""
    stars = read_stars(config.stars_table).get(unit.name, 0)
    repository = open_repository(unit.directory)
    broken = broken_blobs(repository)
    commit = newest_commit(repository)
    if commit is None:
        raise Damaged("the repository is gone")
    entries = list(tree_entries(commit.peel(pygit2.Tree), broken))
    attributes = attributes_of(entries)
    times = commit_times(repository, commit, {path for path, _ in entries})
    for path, entry in entries:
        name = printable(path)
        if isinstance(entry, pygit2.Tree):
            yield {"passed": f"skipped folder {entry.name}"}
        else:
            language = attributes.language(name)
            yield Late(name, partial(_row, repository, entry, unit.name, name, language, times[path], stars, config))


def _row(
    repository: pygit2.Repository,
    entry: pygit2.Object | Damaged,
    name: str,
    path: str,
    language: Language | None,
    time: int,
    stars: int,
    config: GitConfig,
) -> Row:
    content, size, reason = b"", 0, ""
    if isinstance(entry, Damaged):
        raise entry
    if entry.filemode == FileMode.LINK:
        reason = "symbolic_link"
    elif not isinstance(entry, pygit2.Blob):
        reason = "submodule"
    else:
        size = repository.odb.read_header(entry.id)[1]
        if size > config.max_file_bytes:
            reason = "too_large"
        else:
            content = entry.data
    return document(
        name,
        path,
        content,
        source="git",
        language=language,
        max_bytes=config.max_file_bytes,
        reason=reason,
        size=size,
        stars=stars,
        commit_time=time,
        detect_encodings=config.detect_encodings,
    )


def run(
    repositories: Sequence[str],
    output: str,
    config: GitConfig,
    options: BeamOptions,
    quarantine: QuarantineConfig = USUAL,
) -> Manifest:
    """Collects git repositories.

    Args:
        repositories: a repository, or a folder with repositories in it, however deep

    Raises:
        UserError: an input is missing or holds no repository, or too many are damaged.
    """
    units = list_repositories(repositories)
    return collect_units(__name__, units, read_repository, config, output, options, SPEED, quarantine, own_ids=True)
