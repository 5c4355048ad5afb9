"""Collects the source files of git repositories as they are at HEAD, checked out or bare.

    python -m opencoder_jax.beam_pipelines.sources.git_repositories --input=/path/to/clones --output=runs/git

`--input` is a repository, or a folder with repositories one or two levels below it, and may be repeated. The files of
HEAD's tree are read, not those of a work tree: the same commit gives the same documents. A repository's name is that of
its origin ("owner/name"), else of its folder; a file's commit time that of the last commit on the first-parent line
that changed it, as the keep rule of duplicates wants it (the latest, of equal stars).

Everything is read through libgit2. git itself is never run: it would obey the repository's own configuration, which may
name programs to run.
"""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import pygit2
from pygit2.enums import RepositoryOpenFlag, SortMode

from opencoder_jax.beam_pipelines.core.documents import document_id
from opencoder_jax.beam_pipelines.core.manifest import Manifest
from opencoder_jax.beam_pipelines.core.runner import BeamOptions
from opencoder_jax.beam_pipelines.core.stage import main
from opencoder_jax.beam_pipelines.languages.detect import HEAD_BYTES, identify
from opencoder_jax.beam_pipelines.sources.collect import SKIPPED_FOLDERS, text_of
from opencoder_jax.beam_pipelines.sources.stars import read_stars, with_digest
from opencoder_jax.beam_pipelines.sources.units import Row, Unit, collect_units
from opencoder_jax.recipe import UserError, configurable

SPEED = 20.0  # megabytes of packed objects a second on one core

_LINK, _SUBMODULE = 0o120000, 0o160000

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
        if self.max_file_bytes < 1:
            raise ValueError(f"max_file_bytes={self.max_file_bytes} must be at least 1")


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
        folders = list(_folders(given, 2))
        for folder in folders:
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


def commit_times(repository: pygit2.Repository, paths: set[str]) -> dict[str, int]:
    """When each path changed last on the first-parent line, seconds since 1970; memory is that of the paths."""
    times: dict[str, int] = {}
    missing = set(paths)
    walk = repository.walk(repository.head.peel(pygit2.Commit).id, SortMode.TOPOLOGICAL)
    walk.simplify_first_parent()
    last = 0
    for commit in walk:
        last = commit.commit_time
        parent = next(iter(_parents(commit)), None)
        if parent is None:
            break  # the first commit, or where a shallow clone was cut: what is left came with it
        changed = repository.diff(parent, commit)
        for delta in changed.deltas:
            if delta.new_file.path in missing:
                missing.remove(delta.new_file.path)
                times[delta.new_file.path] = commit.commit_time
        if not missing:
            break
    return times | dict.fromkeys(missing, last)


def _parents(commit: pygit2.Commit) -> list[pygit2.Commit]:
    try:
        return list(commit.parents)
    except (KeyError, pygit2.GitError):  # a parent that a shallow clone left out
        return []


@dataclass(frozen=True)
class ReadRepository:
    """The files of a repository as documents and drops."""

    config: GitConfig

    def __call__(self, unit: Unit) -> Iterator[Row]:
        stars = read_stars(self.config.stars_table).get(unit.name, 0)
        try:
            repository = open_repository(unit.directory)
            if repository is None:
                raise UserError(f"{unit.directory}: the repository is gone")
            entries = list(tree_entries(repository))
            times = commit_times(repository, {path for path, _ in entries})
            for path, entry in entries:
                yield self._row(unit.name, path, entry, times.get(path, 0), stars)
        except (pygit2.GitError, KeyError) as error:
            reason = " ".join(str(error).split())
            raise UserError(f"{unit.directory}: damaged ({reason}); clone it again") from None

    def _row(self, repository: str, path: str, entry: pygit2.Object, time: int, stars: int) -> Row:
        mode = entry.filemode
        data = entry.data if isinstance(entry, pygit2.Blob) and mode not in (_LINK, _SUBMODULE) else b""
        language = identify(path, data[:HEAD_BYTES])
        text, language, reason, _ = text_of(data, language, self.config.max_file_bytes)
        if mode == _LINK:
            reason = "symbolic_link"
        elif mode == _SUBMODULE or not isinstance(entry, pygit2.Blob):
            reason = "submodule"
        elif not reason and not text.strip():
            reason = "empty"
        row: Row = {
            "id": document_id(repository, path),
            "path": path,
            "repository": repository,
            "language": language.name,
            "bytes": len(data),
        }
        if reason:
            return row | {"reason": reason, "detail": f"{len(data)} bytes"}
        return row | {
            "text": text,
            "stars": stars,
            "commit_time": max(0, time),
            "kind": language.kind,
            "license": "",
            "source": "git",
            "url": "",
            "bytes": len(text.encode()),
        }


def run(inputs: Sequence[str], output: str, config: GitConfig, options: BeamOptions) -> Manifest:
    """Collects the repositories `inputs`.

    Raises:
        UserError: an input is missing, holds no repository, or is damaged.
    """
    if not inputs:
        raise UserError("git_repositories: give --input=DIR, a repository or a folder of repositories")
    units = list_repositories(inputs)
    reader, plan = ReadRepository(config), with_digest(config)
    return collect_units("git_repositories", __name__, units, reader, plan, output, options, SPEED)


if __name__ == "__main__":
    main("opencoder_jax.beam_pipelines.sources.git_repositories")
