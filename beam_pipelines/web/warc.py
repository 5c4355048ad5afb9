"""The records of a WARC or WET file, whatever is broken in it: a damaged record costs itself.

fastwarc parses the records; here they are found and cut apart. A file that is packed by gzip, a record a member or all
of it in one, is unpacked member by member: behind a damaged one, reading goes on at the next that begins with a record.
A record counts only once what stands behind it is a record too, or the end, and its member's checksum holds. No more is
held than a record of MOST_BYTES; larger ones are passed over. A bomb costs what MOST_SKIPPED bytes cost to unpack.
"""

import re
import zlib
from collections.abc import Iterator
from typing import NamedTuple

import pyarrow as pa

from opencoder_jax.beam_pipelines.sources.formats.members import Damaged
from opencoder_jax.beam_pipelines.sources.formats.streams import Inflate

MOST_BYTES = 8_000_000  # of a record
MOST_SKIPPED = 1 << 28  # bytes that are no record, before reading goes on at another member
_LARGEST = 1 << 32  # of a record that is passed over
_BLOCK = 1 << 18  # bytes that are read or unpacked at once
_FIRST = 1 << 13  # bytes of a member that are read first
_HEAD = 1 << 16  # bytes of a record's head, at most
_GZIP = b"\x1f\x8b\x08"
_MARK = b"WARC/1."
_LENGTH = re.compile(rb"\r?\nContent-Length:[ \t]*(\d{1,15})[ \t]*\r?\n", re.I)
_HEAD_END = re.compile(rb"\r?\n\r?\n")


class Record(NamedTuple):
    """A record as it stands in the file; `place` is for people."""

    place: str
    content: bytes


class Unread(NamedTuple):
    """What is no record, or one that isn't read, and why: a reason to drop it, or damage where that is empty."""

    place: str
    why: str
    size: int  # in bytes, about
    reason: str = ""


def records(stream: pa.NativeFile) -> Iterator[Record | Unread]:
    """Goes through a file. Raises Damaged where it's none of the kind at all."""
    head = stream.read(5)
    stream.seek(0)
    if not head:
        raise Damaged("empty")
    if head.startswith(_GZIP):
        yield from _packed(stream)
    elif head == b"WARC/":
        yield from _Cut(_Plain(stream), "byte {}").records()
    else:
        raise Damaged("begins neither with a record nor with gzip")


class _Plain:
    def __init__(self, stream: pa.NativeFile) -> None:
        self.stream = stream

    def more(self) -> bytes:
        return bytes(self.stream.read(_BLOCK))


class _Member:
    """A member of a gzip file that begins at `begin`."""

    def __init__(self, stream: pa.NativeFile, begin: int) -> None:
        self.stream = stream
        self.begin = begin
        self.end = begin  # once it was read
        self.part = Inflate(31)
        self.block = _FIRST  # bytes that are read next; what lies behind the member is read again
        stream.seek(begin)

    def more(self) -> bytes:
        """Some of what it unpacks to; nothing at its end, where its checksum was right. Raises Damaged."""
        while not self.part.eof:
            block = b""
            if self.part.needs_input:
                block = self.stream.read(self.block)
                self.block = min(2 * self.block, _BLOCK)
                if not block:
                    raise Damaged("ends early")
            try:
                data = self.part.decompress(block, _BLOCK)
            except zlib.error as error:
                raise Damaged(f"doesn't unpack: {error}") from None
            if data:
                return data
        self.end = self.stream.tell() - len(self.part.unused_data)
        return b""


def _packed(stream: pa.NativeFile) -> Iterator[Record | Unread]:
    size = stream.size()
    begin = 0
    while begin < size:
        member = _Member(stream, begin)
        try:
            yield from _Cut(member, f"byte {begin} + {{}}").records()
            begin = member.end
            stream.seek(begin)
            padding = stream.read(1 << 12)
            begin += len(padding) - len(padding.lstrip(b"\0"))
        except Damaged as error:
            begin = _next_member(stream, begin + 1)
            yield Unread(f"byte {member.begin}", str(error), begin - member.begin)


def _next_member(stream: pa.NativeFile, begin: int) -> int:
    """Where from `begin` on the next member begins that holds a record; the end of the file where none does."""
    stream.seek(begin)
    data = b""
    while block := stream.read(_BLOCK):
        data += block
        at = data.find(_GZIP)
        while at >= 0:
            place = stream.tell()
            stream.seek(begin + at)
            start = stream.read(1 << 12)
            stream.seek(place)
            try:
                if Inflate(31).decompress(start, 5) == b"WARC/":
                    return begin + at
            except zlib.error:
                pass
            at = data.find(_GZIP, at + 1)
        begin, data = begin + len(data) - 2, data[-2:]
    return int(stream.size())


class _Cut:
    """Cuts a source into records; nothing but the record that is looked at is held."""

    def __init__(self, source: "_Plain | _Member", place: str) -> None:
        self.source = source
        self.place = place
        self.data = b""
        self.at = 0  # where `data` begins
        self.ended = False

    def records(self) -> Iterator[Record | Unread]:
        while self._to_text():
            begin = self.at
            where = self.place.format(begin)
            found = self._record()
            if isinstance(found, bytes):
                yield Record(where, found)
                self._drop(len(found))
                continue
            if found.reason:  # passed over
                yield found._replace(place=where)
                continue
            self._to_mark()
            yield found._replace(place=where, size=self.at - begin)

    def _record(self) -> bytes | Unread:
        """The record at which the data begins, still there; or why there is none."""
        self._fill(_HEAD)
        head = _HEAD_END.search(self.data)
        if not self.data.startswith(b"WARC/") or head is None or head.start() > _HEAD:
            return Unread("", "no record's head", 0)
        length = _LENGTH.search(self.data[: head.end()])
        if length is None:
            return Unread("", "a head without a length", 0)
        size = head.end() + int(length[1])
        if size > MOST_BYTES:
            return self._skip(size)
        if not self._fill(size):
            return Unread("", f"{len(self.data)} bytes of {size}; it ends early", 0)
        self._fill(size + 16)  # asks for the checksum, where that's the end
        if not re.match(rb"[\r\n]*(?:WARC/|\Z)", self.data[size : size + 16]):
            return Unread("", "another length than its head says", 0)
        return self.data[:size]

    def _skip(self, size: int) -> Unread:
        """Passes over a large record. Raises Damaged where it's larger than any file has."""
        if size > _LARGEST:
            raise Damaged(f"a record of {size} bytes")
        left = size
        while left > 0 and self._fill(1):
            step = min(left, len(self.data))
            self._drop(step)
            left -= step
        return Unread("", f"{size} bytes", size - left, "" if left else "too_large")

    def _to_text(self) -> bool:
        """Goes on to what is no line's end; whether there is anything. Raises Damaged where that's too far."""
        begin = self.at
        while self._fill(1):
            rest = self.data.lstrip(b"\r\n")
            self._drop(len(self.data) - len(rest))
            if rest:
                return True
            if self.at - begin > MOST_SKIPPED:
                raise Damaged(f"nothing in {self.at - begin} bytes")
        return False

    def _to_mark(self) -> None:
        """Goes on to the next thing that looks like a record. Raises Damaged where that's too far."""
        begin = self.at
        self._drop(1)
        while (found := self.data.find(_MARK)) < 0 and not self.ended:
            self._drop(max(0, len(self.data) - len(_MARK)))
            if self.at - begin > MOST_SKIPPED:
                raise Damaged(f"nothing in {self.at - begin} bytes")
            self._fill(_BLOCK)
        self._drop(found if found >= 0 else len(self.data))

    def _fill(self, size: int) -> bool:
        """Has at least so many bytes, if there are so many."""
        pieces = [self.data]
        have = len(self.data)
        while have < size and not self.ended:
            piece = self.source.more()
            self.ended = not piece
            pieces.append(piece)
            have += len(piece)
        self.data = b"".join(pieces)
        return have >= size

    def _drop(self, size: int) -> None:
        self.data = self.data[size:]
        self.at += size
