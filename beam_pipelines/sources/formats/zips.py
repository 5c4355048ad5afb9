"""The members of a zip archive, by its directory: stored, deflated, bzip2, LZMA and Zstandard; zip64 too.

Python's zipfile reads the whole directory at once, and refuses it for one name that is no UTF-8 or one date of month 0.
Here each entry is a member of its own, and no more of it is unpacked than is asked for.
"""

import bz2
import lzma
import struct
import zlib
from calendar import timegm
from collections.abc import Callable, Iterator
from typing import IO, NamedTuple, cast

import pyarrow as pa
import zstandard

from opencoder_jax.beam_pipelines.sources.formats.members import Damaged, Member, Untrusted, printable, seconds
from opencoder_jax.beam_pipelines.sources.formats.streams import WINDOW, Inflate, Parts, Readable

_ENTRY, _LOCAL, _END, _END_64, _LOCATOR = (b"PK" + bytes(kind) for kind in ((1, 2), (3, 4), (5, 6), (6, 6), (6, 7)))
_MOST = 0xFFFF  # bytes of a comment, a name or an extra field
_UNKNOWN = 0xFFFFFFFF  # a number that stands in the field of zip64


class _Entry(NamedTuple):
    name: str
    flags: int
    method: int
    time: int
    crc: int
    packed: int
    size: int
    link: bool
    at: int  # where its own header begins


class _Section:
    """Some bytes of a file, to be read forwards."""

    def __init__(self, stream: pa.NativeFile, at: int, size: int) -> None:
        self.stream = stream
        self.at = at
        self.end = at + size

    def read(self, size: int, /) -> bytes:
        data = _read(self.stream, self.at, min(size, self.end - self.at))
        self.at += len(data)
        return data


def zip_members(stream: pa.NativeFile) -> Iterator[Member]:
    """The members of a zip in the order of its directory.

    Raises:
        Damaged: it has no directory, as one that was cut short, or less of it than it says.
    """
    at, end, number, shift = _directory(stream)
    for found in range(number):
        head = _read(stream, at, 46)
        lengths = struct.unpack("<HHH", head[28:34]) if len(head) == 46 and head[:4] == _ENTRY else (_MOST, 0, 0)
        rest = _read(stream, at + 46, sum(lengths))
        at += 46 + sum(lengths)
        if at > end:
            raise Damaged(f"its directory holds {found} of {number} members")
        entry = _entry(head, rest[: lengths[0]], rest[lengths[0] : lengths[0] + lengths[1]])
        if not entry.name.endswith("/"):
            yield _member(stream, entry, shift)


def _read(stream: pa.NativeFile, at: int, size: int) -> bytes:
    if at >= stream.size():
        return b""
    stream.seek(at)
    return bytes(stream.read(size))


def _directory(stream: pa.NativeFile) -> tuple[int, int, int, int]:
    """Where the directory begins and ends, how many members it has, and by how much its offsets are too small."""
    size = stream.size()
    first = max(0, size - _MOST - 22)
    tail = _read(stream, first, size - first)
    place = tail.rfind(_END)
    if place < 0 or len(tail) < place + 22:
        raise Damaged("no directory of a zip at its end: it's cut short, or none")
    number, length, offset = struct.unpack("<HLL", tail[place + 10 : place + 20])
    end = first + place
    locator = _read(stream, end - 20, 20) if end >= 20 else b""
    if locator[:4] == _LOCATOR and (number == 0xFFFF or _UNKNOWN in (length, offset)):
        end -= 20 + 56  # behind anything that stands before the archive, the offset that it tells is too small
        record = _read(stream, end, 56) if end >= 0 else b""
        if record[:4] != _END_64:
            raise Damaged("its directory's end isn't where it says")
        number, length, offset = struct.unpack("<QQQ", record[32:56])
    start = end - length
    if start < 0 or start < offset:
        raise Damaged("its directory isn't where it says")
    return start, end, number, start - offset


def _entry(head: bytes, name: bytes, extra: bytes) -> _Entry:
    flags, method, clock, day, crc, packed, size = struct.unpack("<HHHHLLL", head[8:28])
    mode, at = struct.unpack("<LL", head[38:46])
    numbers = {"size": size, "packed": packed, "at": at}
    while len(extra) >= 4:
        kind, length = struct.unpack("<HH", extra[:4])
        if kind == 1:
            wide = extra[4 : 4 + length]
            for field in [field for field, number in numbers.items() if number == _UNKNOWN]:
                if len(wide) >= 8:
                    numbers[field], wide = int.from_bytes(wide[:8], "little"), wide[8:]
        extra = extra[4 + length :]
    try:
        text = name.decode("utf-8")  # most of those that aren't said to be UTF-8 are all the same
    except UnicodeDecodeError:
        text = printable(name) if flags & 0x800 else name.decode("cp437")
    link = (mode >> 16) & 0o170000 == 0o120000
    return _Entry(text, flags, method, _time(day, clock), crc, link=link, **numbers)


def _time(day: int, clock: int) -> int:
    """MS-DOS's date and time, taken for UTC; 0 where there's no such day."""
    year, month, date = 1980 + (day >> 9), (day >> 5) & 15, day & 31
    if not (1 <= month <= 12 and 1 <= date <= 31):
        return 0
    return seconds(timegm((year, month, date, clock >> 11, (clock >> 5) & 63, (clock & 31) * 2)))


def _member(stream: pa.NativeFile, entry: _Entry, shift: int) -> Member:
    reason = "symbolic_link" if entry.link else "encrypted" if entry.flags & 1 else ""
    if not reason and entry.method not in _METHODS:
        reason = "unreadable"  # a compression that nothing here knows

    def read(most: int) -> bytes:
        local = _read(stream, entry.at + shift, 30)
        if len(local) < 30 or local[:4] != _LOCAL:
            raise Damaged("its header isn't where the directory says")
        start = entry.at + shift + 30 + sum(struct.unpack("<HH", local[26:30]))
        return _content(_METHODS[entry.method](_Section(stream, start, entry.packed)), entry, most)

    return Member(entry.name, entry.size, entry.time, reason, read)


def _content(source: Readable, entry: _Entry, most: int) -> bytes:
    wanted = min(entry.size, most)
    parts: list[bytes] = []
    try:
        while wanted > 0 and (data := source.read(wanted)):
            parts.append(data)
            wanted -= len(data)
    except (Untrusted, zstandard.ZstdError) as error:  # only this member can't be trusted
        raise Damaged(str(error)) from None
    content = b"".join(parts)
    if wanted:
        raise Damaged(f"ends early, after {len(content)} of {entry.size} bytes")
    if entry.size <= most and zlib.crc32(content) != entry.crc:
        raise Damaged("its checksum is another")
    return content


def _lzma(section: _Section) -> Readable:
    head = section.read(9)
    if len(head) < 9 or head[4] >= 225:
        raise Damaged("no LZMA")
    window = int.from_bytes(head[5:9], "little")
    if window > WINDOW:
        raise Damaged(f"needs {window} bytes to be unpacked")
    digit = head[4]
    chain = {"id": lzma.FILTER_LZMA1, "lc": digit % 9, "lp": digit // 9 % 5, "pb": digit // 45, "dict_size": window}
    return Parts(section, lambda: lzma.LZMADecompressor(lzma.FORMAT_RAW, filters=[chain]))


_METHODS: dict[int, Callable[[_Section], Readable]] = {
    0: lambda section: section,
    8: lambda section: Parts(section, lambda: Inflate(-15)),
    12: lambda section: Parts(section, bz2.BZ2Decompressor),
    14: _lzma,
    93: lambda section: zstandard.ZstdDecompressor(max_window_size=WINDOW).stream_reader(cast(IO[bytes], section)),
}
