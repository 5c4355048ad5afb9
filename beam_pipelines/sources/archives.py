"""Collects source files from tar and zip archives, without unpacking them.

    python -m beam_pipelines archives --archives=downloads --output=runs/archives

Read are .tar (also .gz, .bz2, .xz; .tgz) and .zip (also .jar, .whl). An archive is a repository of its name, and the
time of a member its commit time. Members are read one after the other in the archive's order and never written
anywhere.

An archive from a stranger is hostile until shown otherwise: links, devices, absolute names and names with `..` are
counted drops, no more than `max_file_bytes` of a member are ever unpacked whatever its head says, and no more than
`max_archive_bytes` of an archive.
"""

import bz2
import gzip
import lzma
import tarfile
import zipfile
import zlib
from calendar import timegm
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import IO, NamedTuple

from opencoder_jax.beam_pipelines.core.documents import DROP_SCHEMA
from opencoder_jax.beam_pipelines.core.manifest import Manifest
from opencoder_jax.beam_pipelines.core.runner import BeamOptions
from opencoder_jax.beam_pipelines.core.storage import Directory
from opencoder_jax.beam_pipelines.sources.builder import SKIPPED_FOLDERS, Row, document
from opencoder_jax.beam_pipelines.sources.inputs import Unit, list_units
from opencoder_jax.beam_pipelines.sources.stars import read_stars
from opencoder_jax.beam_pipelines.sources.units import collect_units
from opencoder_jax.checks import at_least, check
from opencoder_jax.recipe import UserError, configurable

SPEED = 20.0  # megabytes of archive a second on one core

TAR = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz")
ZIP = (".zip", ".jar", ".whl")

_DAMAGED = (tarfile.TarError, zipfile.BadZipFile, EOFError, OSError, zlib.error, lzma.LZMAError)


@configurable
@dataclass(frozen=True)
class ArchivesConfig:
    """What is collected.

    Attributes:
        max_file_bytes: larger members are dropped; OpenCoder's 8 MB.
        max_archive_bytes: an archive is left at this sum of unpacked bytes; the rest is one drop, `archive_too_large`.
        stars_table: see stars.py; without it, and for an archive that it lacks, stars are 0.
    """

    max_file_bytes: int = 8_000_000
    max_archive_bytes: int = 100_000_000_000
    stars_table: str = ""

    def __post_init__(self) -> None:
        check(self, max_file_bytes=at_least(1), max_archive_bytes=at_least(1))


class Member(NamedTuple):
    """A file in an archive."""

    name: str  # as the archive has it
    size: int  # that the archive claims
    time: int  # seconds since 1970
    reason: str  # why it's dropped unread, if it is
    content: IO[bytes] | None  # to be read, unless it's larger than a file may be


def read_archive(archive: Unit, config: ArchivesConfig) -> Iterator[Row]:
    """The members of an archive as documents and drops."""
    repository = archive.name
    for ending in sorted(TAR + ZIP, key=len, reverse=True):
        repository = repository.removesuffix(ending)
    stars = read_stars(config.stars_table).get(repository, 0)
    members = _zip_members if archive.name.endswith(ZIP) else _tar_members
    unpacked = 0
    try:
        with Directory(archive.directory).read(archive.name) as stream:
            for member in members(stream, archive.name, config.max_file_bytes):
                row = _row(member, archive.name, repository, stars, config.max_file_bytes)
                unpacked += row["bytes"]
                if unpacked > config.max_archive_bytes:
                    detail = f"{archive.name}: the rest of it wasn't read"
                    drop = {name: row[name] for name in DROP_SCHEMA.names[:5]}
                    yield drop | {"reason": "archive_too_large", "detail": detail}
                    return
                yield row
    except _DAMAGED as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        path = f"{archive.directory}/{archive.name}"
        raise UserError(f"{path}: damaged or cut short ({reason}); fetch it again") from None


def _row(member: Member, archive: str, repository: str, stars: int, limit: int) -> Row:
    content, reason, size = b"", member.reason, member.size
    if member.content is not None:
        content = member.content.read(limit + 1)  # whatever it claims
        if len(content) < size:
            raise EOFError(f"{member.name} ends early")
        size = len(content)
    return document(
        repository,
        member.name.removeprefix("./"),
        content,
        source=archive,
        max_bytes=limit,
        reason=reason or ("too_large" if member.content is None else ""),
        detail=archive if reason else f"{size} bytes in {archive}",
        size=size,
        stars=stars,
        commit_time=member.time,
    )


def _unsafe(name: str) -> str:
    """Why a name is no path inside an archive, if it's none."""
    parts = name.replace("\\", "/").split("/")
    return "unsafe_path" if name.startswith(("/", "\\")) or ".." in parts or "\0" in name or ":" in parts[0] else ""


def _skipped(name: str) -> bool:
    return any(part in SKIPPED_FOLDERS for part in name.split("/")[:-1])


def _tar_members(stream: IO[bytes], name: str, limit: int) -> Iterator[Member]:
    unpack = {"gz": gzip.open, "tgz": gzip.open, "bz2": bz2.open, "tbz2": bz2.open, "xz": lzma.open, "txz": lzma.open}
    opened = unpack.get(name.rpartition(".")[2])
    source = _Tail(opened(stream) if opened else stream)  # type: ignore[operator]
    # "r|": as a stream, forwards only, so that nothing of it is kept.
    with tarfile.open(fileobj=source, mode="r|") as archive:  # type: ignore[call-overload]
        for member in archive:
            archive.members.clear()  # tarfile keeps a list of all
            if member.isdir() or _skipped(member.name):
                continue
            path = member.name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
            reason = _unsafe(path)
            if not reason and not member.isreg():  # else a device or a pipe
                reason = "symbolic_link" if member.issym() or member.islnk() else "unreadable"
            content = archive.extractfile(member) if not reason and member.size <= limit else None
            yield Member(path, member.size, int(member.mtime), reason, content)
    if source.tail.strip(b"\0"):
        raise EOFError("no mark of its end")  # which tarfile doesn't miss


class _Tail:
    """A stream that remembers the block which it read last: a tar ends with blocks of zeros."""

    def __init__(self, stream: IO[bytes]) -> None:
        self.stream = stream
        self.tail = b"not read"

    def read(self, size: int) -> bytes:
        data = self.stream.read(size)
        if data:
            self.tail = data[-512:]
        return data


def _zip_members(stream: IO[bytes], _: str, limit: int) -> Iterator[Member]:
    with zipfile.ZipFile(stream) as archive:
        for member in archive.infolist():
            if member.is_dir() or _skipped(member.filename):
                continue
            reason, content = _unsafe(member.filename), None
            if not reason and (member.external_attr >> 16) & 0o170000 == 0o120000:
                reason = "symbolic_link"
            elif not reason and member.flag_bits & 1:
                reason = "encrypted"
            elif not reason and member.file_size <= limit:
                try:
                    content = archive.open(member)
                except NotImplementedError:  # a compression that Python doesn't know
                    reason = "unreadable"
            with content or nullcontext():
                time = timegm((*member.date_time, 0, 0, 0))
                yield Member(member.filename, member.file_size, time, reason, content)


def run(archives: Sequence[str], output: str, config: ArchivesConfig, options: BeamOptions) -> Manifest:
    """Collects archives.

    Args:
        archives: a tar or zip archive, or a folder of them

    Raises:
        UserError: an input is missing, holds no archive, or is damaged.
    """
    return collect_units(__name__, list_units(archives, TAR + ZIP), read_archive, config, output, options, SPEED)
