"""File systems by their addresses: this machine's disks, and the buckets of gs:// and s3:// through Arrow.

A bucket has no rename, and shows an object only once its upload has ended. So a file for a bucket is written on this
machine first, and sent when it's whole: an attempt's name is its upload, and what an attempt that was killed has sent
nobody ever sees. Read from front to back it's fetched first, as every single read would be a request.

Credentials are those of the machine, as the stores' own tools find them. `AWS_ENDPOINT_URL` and `STORAGE_EMULATOR_HOST`
name other servers that speak the same.
"""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from functools import cache
from pathlib import Path

import pyarrow as pa
from pyarrow import fs

from opencoder_jax.recipe import UserError

PATIENCE = 60  # seconds in which Google's storage has to answer; else a quarter of an hour would pass without a word
_BLOCK = 8 << 20  # bytes that one request brings


def located(uri: str) -> tuple[fs.FileSystem, str]:
    """The file system of a path or URI, and where it lies there.

    Raises:
        UserError: it's no address.
    """
    scheme, separator, rest = uri.partition("://")
    bucket, _, path = rest.partition("/")
    try:
        if not separator:
            return fs.FileSystem.from_uri(Path(uri).absolute().as_posix())
        if scheme not in ("gs", "s3"):
            return fs.FileSystem.from_uri(uri)
        system, root = _bucket(scheme, bucket)
    except UnicodeEncodeError:
        raise UserError(f"{uri}: a path that isn't UTF-8; rename it, or give a link to it") from None
    except pa.ArrowInvalid as error:
        raise UserError(f"{uri}: no address of a directory ({str(error).splitlines()[0]})") from None
    return system, f"{root}/{path}".rstrip("/")


@cache
def _bucket(scheme: str, bucket: str) -> tuple[fs.FileSystem, str]:
    """A bucket's file system, which keeps its connections."""
    if scheme == "gs" and (server := os.environ.get("STORAGE_EMULATOR_HOST")):
        protocol, _, host = server.rstrip("/").rpartition("://")
        where = {"scheme": protocol or "http", "endpoint_override": host, "anonymous": True}
        return fs.GcsFileSystem(**where, retry_time_limit=timedelta(seconds=PATIENCE)), bucket
    return fs.FileSystem.from_uri(
        f"{scheme}://{bucket}" + (f"?retry_limit_seconds={PATIENCE}" if scheme == "gs" else "")
    )


def is_disk(system: fs.FileSystem) -> bool:
    """Whether it has folders and renames, as disks do."""
    return isinstance(system, fs.LocalFileSystem)


class Unreachable(OSError):
    """A bucket doesn't answer, or refuses: nothing that is said of what lies there, which nobody may drop for it."""


@contextmanager
def naming(path: str) -> Iterator[None]:
    """Lets errors of a file system say which file they are about; Arrow's often don't."""
    try:
        yield
    except OSError as error:
        if error.errno and error.filename is None:
            raise OSError(error.errno, os.strerror(error.errno), path) from None
        raise


@contextmanager
def reached(path: str) -> Iterator[None]:
    """As `naming`, for what is asked of a file system and nothing else.

    Raises:
        Unreachable: for what Arrow gives no number, as answers of a network.
    """
    try:
        with naming(path):
            yield
    except OSError as error:
        if error.errno:
            raise
        raise Unreachable(f"{path}: {' '.join(str(error).split())}") from None


@contextmanager
def passed_over() -> Iterator[None]:
    """Suppresses what a file system says of one thing that can't be read, but not that it can't be reached itself."""
    try:
        yield
    except Unreachable:
        raise
    except OSError:
        pass


def look_up(system: fs.FileSystem, path: str) -> fs.FileInfo:
    """What lies there, if anything does."""
    with reached(path):
        return system.get_file_info(path)


def look_below(system: fs.FileSystem, folder: str, recursive: bool = False) -> list[fs.FileInfo]:
    """What lies in a folder, or also in its folders; nothing where it's missing."""
    with reached(folder):
        return system.get_file_info(fs.FileSelector(folder, allow_not_found=True, recursive=recursive))


def read(system: fs.FileSystem, path: str) -> pa.NativeFile:
    """A file to be read in parts; of a bucket each part is a request."""
    with reached(path):
        return system.open_input_file(path)


@contextmanager
def sent(system: fs.FileSystem, path: str) -> Iterator[pa.NativeFile]:
    """A stream whose object is in its bucket once the block has ended; an error leaves the bucket as it is."""
    with tempfile.NamedTemporaryFile() as file:
        with pa.OSFile(file.name, "wb") as stream:
            yield stream
        # One call, which no signal can end between its first byte and its last.
        with reached(path):
            fs.copy_files(file.name, path, fs.LocalFileSystem(), system, chunk_size=_BLOCK, use_threads=False)


def fetched(system: fs.FileSystem, path: str) -> pa.NativeFile:
    """A file to be read from front to back; of a bucket a copy on this machine, which nobody else sees."""
    if is_disk(system):
        return read(system, path)
    with tempfile.NamedTemporaryFile() as file, reached(path):
        fs.copy_files(path, file.name, system, fs.LocalFileSystem(), chunk_size=_BLOCK, use_threads=False)
        return pa.OSFile(file.name)  # which stays open when its name has gone
