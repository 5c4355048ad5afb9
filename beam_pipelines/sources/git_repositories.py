"""Collects the source files of git repositories as they are at HEAD, checked out or bare.

    python -m beam_pipelines git_repositories --repositories=/path/to/clones --output=runs/git

The files of HEAD's tree are read, not those of a work tree: the same commit gives the same documents. A repository's
name is that of its origin ("owner/name"), else of its folder; a file's commit time that of the last commit on the
first-parent line that changed it, as the keep rule of duplicates wants it (the latest, of equal stars).

Everything is read through libgit2 (formats/repositories.py); git itself is never run. Of a repository in a bucket a
worker makes a copy first, to know its commit and again to read it.
"""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

import pygit2
from pygit2.enums import FileMode

from opencoder_jax.beam_pipelines.core.manifest import Manifest
from opencoder_jax.beam_pipelines.core.runner import LOCAL, BeamOptions
from opencoder_jax.beam_pipelines.core.stores.systems import Unreachable, passed_over
from opencoder_jax.beam_pipelines.core.stores.trees import (
    FOLDER,
    LINK,
    base_name,
    entries,
    is_remote,
    kind_of,
    on_this_machine,
)
from opencoder_jax.beam_pipelines.languages.detect import Language
from opencoder_jax.beam_pipelines.sources.builder import Row, document
from opencoder_jax.beam_pipelines.sources.formats.members import Damaged, Late, Unit, printable
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
from opencoder_jax.beam_pipelines.sources.listing.workers import looked_at
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


def list_repositories(inputs: Sequence[str], output: str = "", options: BeamOptions = LOCAL) -> list[Unit]:
    """The repositories of all inputs by their names, however deep, also behind links; those without a commit too.

    Args:
        output: of the stage; on a cluster, workers that open the repositories write there for a moment.

    Raises:
        UserError: an input is missing, holds no repository with a commit, or two repositories have one name.
    """
    found: dict[str, Unit] = {}
    for given in inputs:
        if kind_of(given) != FOLDER:
            raise UserError(f"input {given}: no such folder")
        units = looked_at(
            _known, [Unit(*each, 0) for each in _folders(given, base_name(given), set())], output, options
        )
        for unit in units:
            if (other := found.setdefault(unit.name, unit)).directory != unit.directory:
                raise UserError(f"{other.directory} and {unit.directory} are both {unit.name}; leave one of them out")
        if all(unit.reason for unit in units):
            raise UserError(f"input {given}: no git repository with a commit, here or below")
    return [found[name] for name in sorted(found)]


def _known(unit: Unit) -> Unit:
    """A repository by its own name and its commit; of one that can't be read, nothing is known but where it lies."""
    try:
        with _opened(unit.directory) as (folder, repository):
            broken_blobs(repository)  # the walk to the newest commit must not meet what is broken
            name = repository_name(repository, folder)
            if (commit := newest_commit(repository)) is None:
                return unit._replace(reason="no_commit")
            return unit._replace(name=name, size=_packed_bytes(repository.path), state=str(commit.id))
    except Unreachable:
        raise
    except DAMAGED as error:
        return unit._replace(state=type(error).__name__)  # its reader will say so again


@contextmanager
def _opened(place: str) -> Iterator[tuple[str, pygit2.Repository]]:
    """A repository and the folder of this machine that it lies in."""
    with on_this_machine(place) as folder:
        if folder != place:  # a bucket has no empty folders, and libgit2 wants to see these
            inner = f"{folder}/.git" if os.path.isdir(f"{folder}/.git") else folder
            for name in ("objects", "refs"):
                os.makedirs(f"{inner}/{name}", exist_ok=True)
        yield folder, open_repository(folder)


def _folders(folder: str, name: str, seen: set[str]) -> Iterator[tuple[str, str]]:
    """A repository's place and its path from the input's folder on, or those below a folder that is none.

    Each comes once, whatever links lead to it.
    """
    place = folder.rstrip("/") if is_remote(folder) else os.path.abspath(folder)
    real = place if is_remote(folder) else os.path.realpath(folder)
    if real in seen:
        return
    seen.add(real)
    with passed_over():
        found = entries(place)
        if is_repository({each.name for each in found}):
            yield place, name
            return
        for each in found:
            if each.kind == FOLDER or (each.kind == LINK and kind_of(f"{place}/{each.name}") == FOLDER):
                yield from _folders(f"{place}/{each.name}", f"{name}/{each.name}", seen)


def _packed_bytes(folder: str) -> int:
    packs = os.path.join(folder, "objects", "pack")
    return sum(entry.stat().st_size for entry in os.scandir(packs)) if os.path.isdir(packs) else 0


def read_repository(unit: Unit, config: GitConfig) -> Iterator[Row | Late]:
    """The files of a repository as documents and drops."""
    stars = read_stars(config.stars_table).get(unit.name, 0)
    with _opened(unit.directory) as (_, repository):
        broken = broken_blobs(repository)
        commit = newest_commit(repository)
        if commit is None:
            raise Damaged("the repository is gone")
        held = list(tree_entries(commit.peel(pygit2.Tree), broken))
        attributes = attributes_of(held)
        times = commit_times(repository, commit, {path for path, _ in held})
        for path, entry in held:
            name = printable(path)
            if isinstance(entry, pygit2.Tree):
                yield {"passed": f"skipped folder {entry.name}"}
            else:
                language = attributes.language(name)
                make = partial(_row, repository, entry, unit.name, name, language, times[path], stars, config)
                yield Late(name, make)


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
    units = list_repositories(repositories, output, options)
    return collect_units(__name__, units, read_repository, config, output, options, SPEED, quarantine, own_ids=True)
