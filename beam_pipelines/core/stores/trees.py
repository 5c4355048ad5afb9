"""What lies in folders of disks and buckets, as they are found: by places, which are paths or URIs.

A `Directory` is what a stage reads and writes. What a source reads was made by others: with links, pipes, names that
are no UTF-8, on a disk; and in a bucket a folder is only what names have in common.
"""

import os
import stat
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import IO, NamedTuple

from pyarrow import fs

from opencoder_jax.beam_pipelines.core.stores.google import google_folder
from opencoder_jax.beam_pipelines.core.stores.systems import is_disk, located, look_below, look_up, reached

_AT_ONCE = 16  # files that are copied from a bucket
FILE, FOLDER, LINK, OTHER = "file", "folder", "link", "other"  # kinds of entries


class Found(NamedTuple):
    """Something in a folder."""

    name: str
    kind: str  # of the above; a file system's own error leaves it empty
    size: int = 0  # in bytes
    changed: int = 0  # nanoseconds since 1970


def is_remote(place: str) -> bool:
    """Whether it's reached over a network, by an address."""
    return "://" in place and not is_disk(located(place)[0])


def base_name(place: str) -> str:
    """The last part of a place."""
    return place.rstrip("/").rpartition("/")[2] if "://" in place else os.path.basename(os.path.abspath(place))


def kind_of(place: str) -> str:
    """FILE or FOLDER, also where a link leads to one; else "", as where nothing is."""
    system, path = _at(place)
    if is_disk(system):
        return FOLDER if os.path.isdir(path) else FILE if os.path.exists(path) else ""
    return _kinds(look_up(system, path).type)


def entries(folder: str) -> list[Found]:
    """What lies in a folder, by name. Raises OSError for one that isn't there or can't be read (see `opened`)."""
    system, path = _at(folder)
    if is_disk(system):
        with os.scandir(path) as found:
            return sorted(map(_disk_entry, found))
    if isinstance(system, fs.GcsFileSystem):
        named = (each for each in google_folder(path) if each[0])
        return sorted(Found(name, FOLDER if size is None else FILE, size or 0, at) for name, size, at in named)
    with reached(path):
        listed = system.get_file_info(fs.FileSelector(path))
    return sorted(_bucket_entry(info) for info in listed if info.base_name)


def files_below(folder: str) -> list[Found]:
    """All files below a folder, by their paths in it; what links lead to isn't below it, but the links are."""
    system, path = _at(folder)
    if is_disk(system):
        return sorted(_disk_files(path, ""))
    found = look_below(system, path, recursive=True)
    files = (info for info in found if info.type == fs.FileType.File)
    return sorted(_bucket_entry(info)._replace(name=info.path.removeprefix(path).lstrip("/")) for info in files)


def _disk_files(folder: str, below: str) -> Iterator[Found]:
    try:
        with os.scandir(folder) as listed:
            found = [_disk_entry(each) for each in listed]
    except OSError:
        return
    for each in found:
        if each.kind == FOLDER:
            yield from _disk_files(f"{folder}/{each.name}", f"{below}{each.name}/")
        elif not (each.kind == LINK and os.path.isdir(f"{folder}/{each.name}")):
            yield each._replace(name=f"{below}{each.name}")


@contextmanager
def opened(place: str) -> Iterator[IO[bytes]]:
    """A file to be read once, from its beginning. Raises OSError; Unreachable where that isn't the file's fault."""
    system, path = _at(place)
    if is_disk(system):
        with open(path, "rb") as file:
            yield file
        return
    with reached(path), system.open_input_file(path) as stream:
        yield stream


@contextmanager
def on_this_machine(folder: str) -> Iterator[str]:
    """The path of a folder of a disk, or of a copy of it while the block lasts, for libraries that need one."""
    system, path = _at(folder)
    if is_disk(system):
        yield path
        return
    with tempfile.TemporaryDirectory() as scratch:
        copy = os.path.join(scratch, base_name(folder))
        os.mkdir(copy)
        inside = [each.name for each in files_below(folder) if ".." not in each.name.split("/")]
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            list(pool.map(lambda name: _copy(system, f"{path}/{name}", f"{copy}/{name}"), inside))
        try:
            yield copy
        except Exception as error:  # what it says shall be the same whichever copy it was
            error.args = tuple(arg.replace(copy, folder) if isinstance(arg, str) else arg for arg in error.args)
            raise


def _copy(system: fs.FileSystem, path: str, to: str) -> None:
    os.makedirs(os.path.dirname(to), exist_ok=True)
    with reached(path):
        fs.copy_files(path, to, system, fs.LocalFileSystem(), use_threads=False)


def _at(place: str) -> tuple[fs.FileSystem, str]:
    return located(place) if "://" in place else (fs.LocalFileSystem(), place)


def _disk_entry(found: "os.DirEntry[str]") -> Found:
    try:
        status = found.stat(follow_symlinks=False)
    except OSError:
        return Found(found.name, "")
    kinds = {stat.S_IFLNK: LINK, stat.S_IFDIR: FOLDER, stat.S_IFREG: FILE}
    return Found(found.name, kinds.get(stat.S_IFMT(status.st_mode), OTHER), status.st_size, status.st_mtime_ns)


def _bucket_entry(found: fs.FileInfo) -> Found:
    return Found(found.base_name, _kinds(found.type), found.size or 0, found.mtime_ns or 0)


def _kinds(kind: fs.FileType) -> str:
    return {fs.FileType.File: FILE, fs.FileType.Directory: FOLDER}.get(kind, "")
