"""What a git repository holds at its HEAD, and when each file changed, through libgit2.

git itself is never run: it would obey the repository's own configuration, which may name programs to run.
"""

import glob
import hashlib
import os
import zlib
from collections.abc import Iterator, Sequence, Set
from contextlib import suppress

import pygit2
from pygit2.enums import BranchType, RepositoryOpenFlag, SortMode

from opencoder_jax.beam_pipelines.languages.attributes import NAME, Attributes
from opencoder_jax.beam_pipelines.sources.formats.members import SKIPPED_FOLDERS, Damaged, printable

_MAIN = ("main", "master", "trunk", "develop")
_MOST_FILES = 5_000_000  # of one commit
_LONGEST_PATH = 4096
_CHECKSUM = 20  # SHA-1, the end of an index; repositories of SHA-256 are refused by libgit2
DAMAGED = (pygit2.GitError, LookupError, ValueError, OSError, Damaged)  # what libgit2's findings become, and ours

# Whoever owns the files: nothing in them is executed.
pygit2.settings.owner_validation = False


def open_repository(folder: str) -> pygit2.Repository:
    """The repository in a folder itself, checked out or bare. Raises pygit2.GitError, or the like.

    An index that is damaged leads from one object to another, and libgit2 takes what it finds there for what it asked
    for. So indexes are held against their checksums; what is damaged in a pack itself costs the objects that lie there.
    """
    repository = pygit2.Repository(folder, RepositoryOpenFlag.NO_SEARCH)
    packs = os.path.join(repository.path, "objects", "pack")
    for name in sorted(os.listdir(packs)) if os.path.isdir(packs) else ():
        if name.endswith(".idx") or name == "multi-pack-index":
            with open(os.path.join(packs, name), "rb") as file:
                size = os.fstat(file.fileno()).st_size
                digest, left = hashlib.sha1(), size - _CHECKSUM
                while left > 0 and (part := file.read(min(left, 2**20))):
                    digest.update(part)
                    left -= len(part)
                if file.read() != digest.digest():
                    raise Damaged(f"{name} is damaged")
    return repository


def broken_blobs(repository: pygit2.Repository) -> frozenset[str]:
    """The contents, by their ids, that lie in files of their own and don't end: cut off by a full disk or a crash.

    Nobody may read them: libgit2 waits for ever for what is missing.

    Raises:
        Damaged: a commit or a folder is so; who walks the repository would meet it.
    """
    found = set()
    for folder in _object_folders(os.path.join(repository.path, "objects")):
        for file in sorted(glob.glob(f"{glob.escape(folder)}/[0-9a-f][0-9a-f]/{'[0-9a-f]' * 38}")):
            name = "".join(file.rsplit(os.sep, 2)[1:])
            if (kind := _kind_of_broken(file)) == b"blob":
                found.add(name)
            elif kind is not None:
                raise Damaged(f"object {name} is damaged")
    return frozenset(found)


def _object_folders(folder: str) -> list[str]:
    """Where a repository's objects lie: its own folder, and those that it borrows from."""
    folders = [folder]
    for each in folders:  # which grows
        with suppress(OSError), open(os.path.join(each, "info", "alternates"), "rb") as file:
            lines = (os.fsdecode(line) for line in file.read(2**20).splitlines() if line and not line.startswith(b"#"))
            folders += [path for line in lines if (path := os.path.realpath(os.path.join(each, line))) not in folders]
    return folders


def _kind_of_broken(file: str) -> bytes | None:
    """What an object says that it is, though its stream is damaged or doesn't end; None of a sound one."""
    stream, start = zlib.decompressobj(), b""
    try:
        with open(file, "rb") as content:
            while not stream.eof and (part := stream.unconsumed_tail or content.read(2**16)):
                made = stream.decompress(part, 2**20)
                start = start or made
        if stream.eof:
            return None
    except (OSError, zlib.error):
        pass
    return start.partition(b" ")[0]


def is_repository(names: Set[str]) -> bool:
    """Whether a folder that holds such names is meant to be a repository, sound or not.

    A bucket has no empty folders, as `refs` is where all are packed.
    """
    return ".git" in names or ({"HEAD", "objects"} <= names and not names.isdisjoint({"refs", "packed-refs"}))


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


def tree_entries(tree: pygit2.Tree, broken: Set[str] = frozenset()) -> Iterator[tuple[bytes, pygit2.Object | Damaged]]:
    """The paths below a tree with their entries, in order; of folders that hold no source the folder alone.

    Args:
        tree: a commit's.
        broken: contents that can't be read, by their ids.

    Raises:
        Damaged: there are more than anyone has, as in a tree that holds another ten times, and that another …
    """
    waiting: list[tuple[bytes, pygit2.Tree, frozenset[pygit2.Oid]]] = [(b"", tree, frozenset())]
    number = 0
    while waiting:
        folder, tree, above = waiting.pop()
        if tree.id in above:  # by a damaged index: no sound tree can hold itself
            yield folder.rstrip(b"/"), Damaged("a folder that holds itself")
            continue
        above |= {tree.id}
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
            if str(entry.id) in broken:
                yield path, Damaged("its content is cut off")
            elif isinstance(entry, pygit2.Tree) and entry.name not in SKIPPED_FOLDERS:
                below.append((path + b"/", entry, above))
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
