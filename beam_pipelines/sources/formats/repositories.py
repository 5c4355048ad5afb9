"""What a git repository holds at its HEAD, and when each file changed, through libgit2.

git itself is never run: it would obey the repository's own configuration, which may name programs to run.
"""

import os
from collections.abc import Iterator, Sequence
from contextlib import suppress

import pygit2
from pygit2.enums import BranchType, RepositoryOpenFlag, SortMode

from opencoder_jax.beam_pipelines.languages.attributes import NAME, Attributes
from opencoder_jax.beam_pipelines.sources.formats.members import SKIPPED_FOLDERS, Damaged, printable

_MAIN = ("main", "master", "trunk", "develop")
_MOST_FILES = 5_000_000  # of one commit
_LONGEST_PATH = 4096
DAMAGED = (pygit2.GitError, LookupError, ValueError, OSError)  # what libgit2's findings become

# Whoever owns the files: nothing in them is executed.
pygit2.settings.owner_validation = False


def open_repository(folder: str) -> pygit2.Repository:
    """The repository in a folder itself, checked out or bare. Raises pygit2.GitError, or the like."""
    return pygit2.Repository(folder, RepositoryOpenFlag.NO_SEARCH)


def is_repository(folder: str) -> bool:
    """Whether a folder is meant to be a repository, sound or not."""
    held = {name for name in (".git", "HEAD", "objects", "refs") if os.path.lexists(os.path.join(folder, name))}
    return ".git" in held or len(held) == 3


def repository_name(repository: pygit2.Repository, folder: str) -> str:
    """owner/name of its origin, else the folder's name."""
    for url in repository.config.get_multivar("remote.origin.url"):
        parts = [part for part in (url or "").rstrip("/").removesuffix(".git").replace(":", "/").split("/") if part]
        if len(parts) >= 2:
            return "/".join(parts[-2:])
    return os.path.basename(os.path.abspath(folder)).removesuffix(".git")


def newest_commit(repository: pygit2.Repository) -> pygit2.Commit | None:
    """HEAD's commit. Where HEAD names a branch that isn't there: main's, master's, or the first branch's; or None.

    Raises:
        pygit2.GitError: HEAD, or what it names, is damaged.
    """
    if not repository.head_is_unborn:
        return repository.head.peel(pygit2.Commit)
    for kind in (BranchType.LOCAL, BranchType.REMOTE):
        names = repository.listall_branches(kind)
        for name in sorted(names, key=lambda name: (name.rpartition("/")[2] not in _MAIN, name)):
            return repository.lookup_branch(name, kind).peel(pygit2.Commit)
    return None


def tree_entries(tree: pygit2.Tree) -> Iterator[tuple[bytes, pygit2.Object | Damaged]]:
    """The paths below a tree with their entries, in order; of folders that hold no source the folder alone.

    Raises:
        Damaged: there are more than anyone has, as in a tree that holds another ten times, and that another …
    """
    waiting = [(b"", tree)]
    number = 0
    while waiting:
        folder, tree = waiting.pop()
        below = []
        try:
            entries = list(tree)
        except DAMAGED as error:
            yield folder, Damaged(str(error))
            continue
        for entry in entries:
            number += 1
            if number > _MOST_FILES or len(folder) > _LONGEST_PATH:
                raise Damaged(f"more than {_MOST_FILES} files, or a path of more than {_LONGEST_PATH} bytes")
            path = folder + (entry.raw_name or b"")
            if isinstance(entry, pygit2.Tree) and entry.name not in SKIPPED_FOLDERS:
                below.append((path + b"/", entry))
            else:
                yield path, entry
        waiting += reversed(below)


def attributes_of(entries: Sequence[tuple[bytes, object]]) -> Attributes:
    """What the repository says of its files' languages."""
    attributes = Attributes()
    for path, entry in entries:
        if path.rpartition(b"/")[2] == NAME.encode() and isinstance(entry, pygit2.Blob):
            with suppress(*DAMAGED):  # which its own row tells
                attributes.add(printable(path), entry.data)
    return attributes


def commit_times(repository: pygit2.Repository, commit: pygit2.Commit, paths: set[bytes]) -> dict[bytes, int]:
    """When each path changed last on the first-parent line, seconds since 1970; memory is that of the paths."""
    times: dict[bytes, int] = {}
    missing = set(paths)
    walk = repository.walk(commit.id, SortMode.TOPOLOGICAL)
    walk.simplify_first_parent()
    last = 0
    with suppress(*DAMAGED):  # where a history was cut, as in a shallow clone, or breaks: what is left came with it
        for commit in walk:
            last = commit.commit_time
            parent = commit.parents[0]
            for delta in repository.diff(parent, commit).deltas:
                if delta.new_file.raw_path in missing:
                    missing.remove(delta.new_file.raw_path)
                    times[delta.new_file.raw_path] = commit.commit_time
            if not missing:
                break
    return times | dict.fromkeys(missing, last)
