"""Collects the source files of git repositories as they are at HEAD, checked out or bare.

    python -m beam_pipelines git_repositories --repositories=/path/to/clones --output=runs/git

The files of HEAD's tree are read, not those of a work tree: the same commit gives the same documents. A repository's
name is that of its origin ("owner/name"), else of its folder; a file's commit time that of the last commit on the
first-parent line that changed it, as the keep rule of duplicates wants it (the latest, of equal stars).

Everything is read through libgit2. git itself is never run: it would obey the repository's own configuration, which may
name programs to run.
"""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import pygit2
from pygit2.enums import FileMode, RepositoryOpenFlag, SortMode

from opencoder_jax.beam_pipelines.core.manifest import Manifest
from opencoder_jax.beam_pipelines.core.runner import BeamOptions
from opencoder_jax.beam_pipelines.languages.attributes import NAME, Attributes
from opencoder_jax.beam_pipelines.sources.builder import SKIPPED_FOLDERS, Row, document
from opencoder_jax.beam_pipelines.sources.inputs import Unit
from opencoder_jax.beam_pipelines.sources.stars import read_stars
from opencoder_jax.beam_pipelines.sources.units import collect_units
from opencoder_jax.checks import at_least, check
from opencoder_jax.recipe import UserError, configurable

SPEED = 20.0  # megabytes of packed objects a second on one core

# Whoever owns the files: nothing in them is executed.
pygit2.settings.owner_validation = False


@configurable
@dataclass(frozen=True)
class GitConfig:
    """What is collected.

    Attributes:
        max_file_bytes: larger files are dropped; OpenCoder's 8 MB.
        stars_table: see stars.py; without it, and for a repository that it lacks, stars are 0.
    """

    max_file_bytes: int = 8_000_000
    stars_table: str = ""

    def __post_init__(self) -> None:
        check(self, max_file_bytes=at_least(1))


def open_repository(folder: str) -> pygit2.Repository | None:
    """The repository in a folder itself, checked out or bare; None where it's none."""
    if not (os.path.exists(os.path.join(folder, ".git")) or os.path.exists(os.path.join(folder, "HEAD"))):
        return None
    try:
        return pygit2.Repository(folder, RepositoryOpenFlag.NO_SEARCH)
    except pygit2.GitError:
        return None


def repository_name(repository: pygit2.Repository, folder: str) -> str:
    """owner/name of its origin, else the folder's name."""
    for url in repository.config.get_multivar("remote.origin.url"):
        parts = [part for part in (url or "").rstrip("/").removesuffix(".git").replace(":", "/").split("/") if part]
        if len(parts) >= 2:
            return "/".join(parts[-2:])
    return os.path.basename(os.path.abspath(folder)).removesuffix(".git")


def list_repositories(inputs: Sequence[str]) -> list[Unit]:
    """The repositories of all inputs by their names.

    Raises:
        UserError: an input is missing, holds no repository with a commit, or two repositories have one name.
    """
    found: dict[str, Unit] = {}
    for given in inputs:
        if not os.path.isdir(given):
            raise UserError(f"input {given}: no such folder")
        for folder in list(_folders(given, 2)):
            repository = open_repository(folder)
            if repository is None or repository.is_empty or repository.head_is_unborn:
                continue
            name = repository_name(repository, folder)
            unit = Unit(os.path.abspath(folder), name, _packed_bytes(repository.path), str(repository.head.target))
            if (other := found.setdefault(name, unit)).directory != unit.directory:
                raise UserError(f"{other.directory} and {folder} are both {name}; leave one of them out")
        if not any(unit.directory.startswith(os.path.abspath(given)) for unit in found.values()):
            raise UserError(f"input {given}: no git repository with a commit, here or two levels below")
    return [found[name] for name in sorted(found)]


def _folders(folder: str, levels: int) -> Iterator[str]:
    """A repository's folder, or those one and two levels below a folder that is none."""
    if open_repository(folder) is not None:
        yield folder
    elif levels:
        for entry in sorted(os.scandir(folder), key=lambda entry: entry.name):
            if entry.is_dir(follow_symlinks=False):
                yield from _folders(entry.path, levels - 1)


def _packed_bytes(folder: str) -> int:
    packs = os.path.join(folder, "objects", "pack")
    return sum(entry.stat().st_size for entry in os.scandir(packs)) if os.path.isdir(packs) else 0


def tree_entries(repository: pygit2.Repository) -> Iterator[tuple[str, pygit2.Object]]:
    """The paths of HEAD's tree with their entries, in order; folders that hold no source are passed over."""
    waiting = [("", repository.head.peel(pygit2.Tree))]
    while waiting:
        folder, tree = waiting.pop()
        below = []
        for entry in tree:
            path = f"{folder}{entry.name}"
            if isinstance(entry, pygit2.Tree):
                if entry.name not in SKIPPED_FOLDERS:
                    below.append((f"{path}/", entry))
            else:
                yield path, entry
        waiting += reversed(below)


def attributes_of(entries: Sequence[tuple[str, pygit2.Object]]) -> Attributes:
    """What the repository says of its files' languages."""
    attributes = Attributes()
    for path, entry in entries:
        if path.rpartition("/")[2] == NAME and isinstance(entry, pygit2.Blob):
            attributes.add(path, entry.data)
    return attributes


def commit_times(repository: pygit2.Repository, paths: set[str]) -> dict[str, int]:
    """When each path changed last on the first-parent line, seconds since 1970; memory is that of the paths."""
    times: dict[str, int] = {}
    missing = set(paths)
    walk = repository.walk(repository.head.peel(pygit2.Commit).id, SortMode.TOPOLOGICAL)
    walk.simplify_first_parent()
    last = 0
    for commit in walk:
        last = commit.commit_time
        try:
            parent = commit.parents[0]
        except (LookupError, pygit2.GitError):
            break  # the first commit, or where a shallow clone was cut: what is left came with it
        changed = repository.diff(parent, commit)
        for delta in changed.deltas:
            if delta.new_file.path in missing:
                missing.remove(delta.new_file.path)
                times[delta.new_file.path] = commit.commit_time
        if not missing:
            break
    return times | dict.fromkeys(missing, last)


def read_repository(unit: Unit, config: GitConfig) -> Iterator[Row]:
    """The files of a repository as documents and drops."""
    stars = read_stars(config.stars_table).get(unit.name, 0)
    try:
        repository = open_repository(unit.directory)
        if repository is None:
            raise UserError(f"{unit.directory}: the repository is gone")
        entries = list(tree_entries(repository))
        attributes = attributes_of(entries)
        times = commit_times(repository, {path for path, _ in entries})
        for path, entry in entries:
            content, reason = b"", ""
            if entry.filemode == FileMode.LINK:
                reason = "symbolic_link"
            elif isinstance(entry, pygit2.Blob):
                content = entry.data
            else:
                reason = "submodule"
            yield document(
                unit.name,
                path,
                content,
                source="git",
                language=attributes.language(path),
                max_bytes=config.max_file_bytes,
                reason=reason,
                stars=stars,
                commit_time=times[path],
            )
    except (pygit2.GitError, KeyError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{unit.directory}: damaged ({reason}); clone it again") from None


def run(repositories: Sequence[str], output: str, config: GitConfig, options: BeamOptions) -> Manifest:
    """Collects git repositories.

    Args:
        repositories: a repository, or a folder with repositories one or two levels below it

    Raises:
        UserError: an input is missing, holds no repository, or is damaged.
    """
    return collect_units(__name__, list_repositories(repositories), read_repository, config, output, options, SPEED)
