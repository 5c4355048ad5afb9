"""Collects source files from tar and zip archives, without unpacking them.

    python -m opencoder_jax.beam_pipelines.sources.archives --input=downloads --output=runs/archives

`--input` is a folder or an archive and may be repeated: .tar (also .gz, .bz2, .xz; .tgz), .zip (also .jar, .whl). An
archive is a repository of its name, and the time of a member its commit time. Members are read one after the other in
the archive's order and never written anywhere.

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
from dataclasses import dataclass
from typing import IO, NamedTuple

from opencoder_jax.beam_pipelines.core.documents import document_id
from opencoder_jax.beam_pipelines.core.manifest import Manifest
from opencoder_jax.beam_pipelines.core.runner import BeamOptions
from opencoder_jax.beam_pipelines.core.stage import main
from opencoder_jax.beam_pipelines.core.storage import Directory
from opencoder_jax.beam_pipelines.languages.detect import HEAD_BYTES, identify
from opencoder_jax.beam_pipelines.sources.collect import SKIPPED_FOLDERS, text_of
from opencoder_jax.beam_pipelines.sources.stars import read_stars, with_digest
from opencoder_jax.beam_pipelines.sources.units import Row, Unit, collect_units
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
        for name in ("max_file_bytes", "max_archive_bytes"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)} must be at least 1")


class Member(NamedTuple):
    """A file in an archive.

    Attributes:
        name: as the archive has it.
        size: that the archive claims.
        time: seconds since 1970.
        reason: why it's dropped unread, if it is.
        content: where to read it.
    """

    name: str
    size: int
    time: int
    reason: str = ""
    content: IO[bytes] | None = None


def list_archives(inputs: Sequence[str]) -> list[Unit]:
    """The archives of all inputs by their names.

    Raises:
        UserError: an input is missing or holds no archive, or two archives have one name.
    """
    found: dict[str, Unit] = {}
    for given in inputs:
        parent, _, last = given.rstrip("/").rpartition("/")
        if last.endswith(TAR + ZIP) and Directory(parent or ".").exists(last):
            names, folder = [last], parent or "."
        else:
            names, folder = [name for name in Directory(given).names() if name.endswith(TAR + ZIP)], given
            if not names:
                there = Directory(given).exists()
                wrong = f"no file ends in {', '.join(TAR + ZIP)}" if there else "no such file or folder"
                raise UserError(f"input {given}: {wrong}")
        for name in names:
            unit = Unit(folder, name, Directory(folder).size(name))
            if (other := found.setdefault(name, unit)) is not unit:
                raise UserError(f"{other.directory} and {folder} both hold {name}; collect them in two runs")
    return [found[name] for name in sorted(found)]


@dataclass(frozen=True)
class ReadArchive:
    """The members of an archive as documents and drops."""

    config: ArchivesConfig

    def __call__(self, archive: Unit) -> Iterator[Row]:
        repository = archive.name
        for ending in sorted(TAR + ZIP, key=len, reverse=True):
            repository = repository.removesuffix(ending)
        stars = read_stars(self.config.stars_table).get(repository, 0)
        unpacked = 0
        try:
            with Directory(archive.directory).read(archive.name) as stream:
                members = _zip_members if archive.name.endswith(ZIP) else _tar_members
                for member in members(stream, archive.name, self.config.max_file_bytes):
                    row = self._row(member, archive.name, repository, stars)
                    unpacked += row["bytes"]
                    if unpacked > self.config.max_archive_bytes:
                        yield _drop(row, "archive_too_large", f"{archive.name}: the rest of it wasn't read")
                        return
                    yield row
        except _DAMAGED as error:
            reason = " ".join(str(error).split()) or type(error).__name__
            place = f"{archive.directory}/{archive.name}"
            raise UserError(f"{place}: damaged or cut short ({reason}); fetch it again") from None

    def _row(self, member: Member, archive: str, repository: str, stars: int) -> Row:
        path = member.name.removeprefix("./")
        language = identify(path)
        row: Row = {
            "id": document_id(repository, path),
            "path": path,
            "repository": repository,
            "language": language.name,
            "bytes": member.size,
        }
        if member.reason:
            return _drop(row, member.reason, archive)
        if member.content is None:
            return _drop(row, "too_large", f"{member.size} bytes in {archive}")
        data = member.content.read(self.config.max_file_bytes + 1)  # whatever it claims
        if len(data) < member.size:
            raise EOFError(f"{path} ends early")
        text, language, reason, _ = text_of(data, identify(path, data[:HEAD_BYTES]), self.config.max_file_bytes)
        row |= {"language": language.name, "bytes": len(data)}
        if not reason and not text.strip():
            reason = "empty"
        if reason:
            return _drop(row, reason, f"{len(data)} bytes in {archive}")
        return row | {
            "text": text,
            "stars": stars,
            "commit_time": max(0, member.time),
            "kind": language.kind,
            "license": "",
            "source": archive,
            "url": "",
            "bytes": len(text.encode()),
        }


def _drop(row: Row, reason: str, detail: str) -> Row:
    kept = {name: row[name] for name in ("id", "path", "repository", "language", "bytes")}
    return kept | {"reason": reason, "detail": detail}


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
            head = Member(path, member.size, int(member.mtime), _unsafe(path))
            if head.reason:
                yield head
            elif member.issym() or member.islnk():
                yield head._replace(reason="symbolic_link")
            elif not member.isreg():
                yield head._replace(reason="unreadable")  # a device or a pipe
            else:
                yield head._replace(content=archive.extractfile(member) if member.size <= limit else None, reason="")
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
            time = timegm((*member.date_time, 0, 0, 0))
            head = Member(member.filename, member.file_size, time, _unsafe(member.filename))
            if head.reason:
                yield head
            elif (member.external_attr >> 16) & 0o170000 == 0o120000:
                yield head._replace(reason="symbolic_link")
            elif member.flag_bits & 1:
                yield head._replace(reason="encrypted")
            elif member.file_size > limit:
                yield head
            else:
                try:
                    content = archive.open(member)
                except NotImplementedError:  # a compression that Python doesn't know
                    yield head._replace(reason="unreadable")
                    continue
                with content:
                    yield head._replace(content=content)


def run(inputs: Sequence[str], output: str, config: ArchivesConfig, options: BeamOptions) -> Manifest:
    """Collects the archives `inputs`.

    Raises:
        UserError: an input is missing, holds no archive, or is damaged.
    """
    if not inputs:
        raise UserError("archives: give --input=DIR, a folder of tar and zip archives")
    units = list_archives(inputs)
    return collect_units("archives", __name__, units, ReadArchive(config), with_digest(config), output, options, SPEED)


if __name__ == "__main__":
    main("opencoder_jax.beam_pipelines.sources.archives")
