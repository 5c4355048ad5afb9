"""Collects source files from tar, zip and 7z archives, without unpacking them.

    python -m beam_pipelines archives --archives=downloads --output=runs/archives

Read are tar (.tar, also packed by gzip, bzip2, xz or Zstandard; .crate, .gem), zip (.zip .jar .whl .egg …) and .7z, in
folders of folders too; what an archive is, its first bytes tell. It's a repository of its name, and the time of a
member its commit time. Members are read one after the other in the archive's order and never written by their names.

An archive from a stranger is hostile until shown otherwise: links, devices, absolute names and names with `..` are
counted drops, no more than `max_file_bytes` of a member are ever unpacked whatever its head says, and no more than
`max_archive_bytes` of an archive. What is damaged goes to quarantine, what stands before and behind it is kept.
"""

import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import pyarrow as pa

from opencoder_jax.beam_pipelines.core.manifest import Manifest
from opencoder_jax.beam_pipelines.core.runner import BeamOptions
from opencoder_jax.beam_pipelines.core.storage import Directory
from opencoder_jax.beam_pipelines.sources.builder import Row, document
from opencoder_jax.beam_pipelines.sources.formats.members import SKIPPED_FOLDERS, Late, Member, unsafe
from opencoder_jax.beam_pipelines.sources.formats.sevens import seven_members
from opencoder_jax.beam_pipelines.sources.formats.streams import Readable, unpacked
from opencoder_jax.beam_pipelines.sources.formats.tars import tar_members
from opencoder_jax.beam_pipelines.sources.formats.zips import zip_members
from opencoder_jax.beam_pipelines.sources.inputs import Unit, list_units
from opencoder_jax.beam_pipelines.sources.stars import read_stars
from opencoder_jax.beam_pipelines.sources.units import USUAL, QuarantineConfig, collect_units
from opencoder_jax.checks import at_least, check
from opencoder_jax.recipe import configurable

SPEED = 20.0  # megabytes of archive a second on one core

ENDINGS = (
    *(".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tbz", ".tar.xz", ".txz", ".tar.zst", ".tzst", ".crate", ".gem"),
    *(".zip", ".jar", ".war", ".aar", ".whl", ".egg", ".nupkg", ".vsix", ".xpi", ".7z"),
)
_PACKED = {b"\x1f\x8b": "gz", b"BZh": "bz2", b"\xfd7zXZ\0": "xz", b"\x28\xb5\x2f\xfd": "zst"}
_SEVEN = b"7z\xbc\xaf\x27\x1c"
_GEM, _GEM_BYTES = "data.tar.gz", 256_000_000  # the archive within a gem, and how large it may be


@configurable
@dataclass(frozen=True)
class ArchivesConfig:
    """What is collected.

    Attributes:
        max_file_bytes: larger members are dropped; OpenCoder's 8 MB.
        max_archive_bytes: an archive is left at this sum of unpacked bytes; the rest is one drop, `archive_too_large`.
        detect_encodings: decodes files, too, whose encoding only their statistics tell (GBK, Shift-JIS, KOI8-R, UTF-16
            without a mark …), and UTF-8 with some bytes that are none, which are lost and counted.
        stars_table: see stars.py; without it, and for an archive that it lacks, stars are 0.
    """

    max_file_bytes: int = 8_000_000
    max_archive_bytes: int = 100_000_000_000
    detect_encodings: bool = False
    stars_table: str = ""

    def __post_init__(self) -> None:
        check(self, max_file_bytes=at_least(1), max_archive_bytes=at_least(1))


class _TooLarge(Exception):
    """An archive has unpacked to all that it may."""


class _Limited:
    """A stream that ends by _TooLarge."""

    def __init__(self, stream: Readable, most: int) -> None:
        self.stream = stream
        self.left = most

    def read(self, size: int, /) -> bytes:
        data = self.stream.read(size)
        self.left -= len(data)
        if self.left < 0:
            raise _TooLarge
        return data


def repository_of(name: str) -> str:
    """An archive's name without what tells its format."""
    ending = max((ending for ending in ENDINGS if name.lower().endswith(ending)), key=len, default="")
    return name[: len(name) - len(ending)]


def named_apart(units: Sequence[Unit]) -> list[Unit]:
    """Archives that would be one repository, as a.tar and a.zip, are called by their whole names, which is told."""
    names = [unit.name for unit in units if not unit.reason]
    whole: set[str] = set()
    while True:
        called = {name: name if name in whole else repository_of(name) for name in names}
        numbers = Counter(called.values())
        clashes = [name for name in names if numbers[called[name]] > 1]
        if not clashes:
            break
        whole.update(clashes)  # which may be what a third one is called without its ending
    if whole:
        some = ", ".join(sorted(whole)[:4]) + (" …" if len(whole) > 4 else "")
        print(f"archives: {some} are called so in whole, as without their endings they are one name", file=sys.stderr)
    return [unit._replace(label=unit.name) if unit.name in whole else unit for unit in units]


def read_archive(archive: Unit, config: ArchivesConfig) -> Iterator[Row | Late]:
    """The members of an archive as documents and drops."""
    repository = archive.label or repository_of(archive.name)
    stars = read_stars(config.stars_table).get(repository_of(archive.name), 0)
    read = 0
    try:
        with Directory(archive.directory).fetch(archive.name) as stream:
            for member in _members(stream, archive.name, config):
                if any(part in SKIPPED_FOLDERS for part in member.name.split("/")[:-1]):
                    yield {"passed": "skipped file"}
                    continue
                read += member.size if member.size <= config.max_file_bytes else 0
                if read > config.max_archive_bytes:
                    raise _TooLarge
                make = partial(_row, member, archive.name, repository, stars, config)
                yield Late(member.name, make, member.size)
    except _TooLarge:
        yield document(
            repository,
            "",
            b"",
            reason="archive_too_large",
            detail=f"{archive.name}: the rest of it wasn't read",
            size=0,
        )


def _members(stream: pa.NativeFile, name: str, config: ArchivesConfig) -> Iterator[Member]:
    head = stream.read(8)
    stream.seek(0)
    if head.startswith((b"PK\3\4", b"PK\5\6")) or (head[:2] != b"\x1f\x8b" and name.lower().endswith(".zip")):
        yield from zip_members(stream)
    elif head.startswith(_SEVEN) or name.lower().endswith(".7z"):
        yield from seven_members(stream, config.max_file_bytes, config.max_archive_bytes)
    else:
        kind = next((kind for mark, kind in _PACKED.items() if head.startswith(mark)), None)
        source = unpacked(stream, kind) if kind else stream
        found = tar_members(_Limited(source, config.max_archive_bytes))
        yield from _of_gem(found, config) if name.lower().endswith(".gem") else found


def _of_gem(found: Iterator[Member], config: ArchivesConfig) -> Iterator[Member]:
    """The members of a gem: those of the archive in it, and what stands beside that."""
    for member in found:
        if member.name != _GEM or member.size > _GEM_BYTES:
            yield member
            continue
        inner = unpacked(pa.BufferReader(member.read(member.size)), "gz")
        yield from tar_members(_Limited(inner, config.max_archive_bytes))


def _row(member: Member, archive: str, repository: str, stars: int, config: ArchivesConfig) -> Row:
    limit = config.max_file_bytes
    content, size = b"", member.size
    reason = "unsafe_path" if unsafe(member.name) else member.reason
    if not reason:
        content = member.read(limit + 1)
        reason = "too_large" if size > limit else ""
    return document(
        repository,
        member.name.removeprefix("./"),
        b"" if reason else content,
        source=archive,
        max_bytes=limit,
        reason=reason,
        detail=f"{size} bytes in {archive}" if reason in ("", "too_large") else archive,
        size=size,
        stars=stars,
        commit_time=member.time,
        detect_encodings=config.detect_encodings,
    )


def run(
    archives: Sequence[str],
    output: str,
    config: ArchivesConfig,
    options: BeamOptions,
    quarantine: QuarantineConfig = USUAL,
) -> Manifest:
    """Collects archives.

    Args:
        archives: a tar, zip or 7z archive, or a folder of them

    Raises:
        UserError: an input is missing or holds no archive, or too many are damaged.
    """
    units = named_apart(list_units(archives, ENDINGS, output, options))
    return collect_units(__name__, units, read_archive, config, output, options, SPEED, quarantine, own_ids=True)
