"""The members of a tar archive, read as a stream: POSIX (ustar, pax), GNU's and the oldest form.

Python's tarfile stops at the first block that it can't read and takes it for the end, and it holds names of any length
that a header claims. This reader goes on behind blocks of zeros (concatenated archives, archives that were added to)
and behind bad headers, which it counts, and holds no more than MOST of what describes a member.
"""

import re
from collections.abc import Iterator
from typing import NamedTuple

from opencoder_jax.beam_pipelines.sources.formats.members import Damaged, Member, broken, printable, seconds
from opencoder_jax.beam_pipelines.sources.formats.streams import Readable

BLOCK = 512
MOST = 1 << 20  # bytes of a long name, or of the records before a member

_AT_ONCE = 1 << 20
_OCTAL = re.compile(rb"[ \0]*([0-7]*)[ \0]*\Z")
_RECORD = re.compile(rb"(\d{1,7}) ([^=\n]+)=")
_FILES, _FOLDER, _LINKS, _SPARSE = b"0\0007", b"5", b"12", b"S"
_NAME, _LINK, _RECORDS, _EVERYWHERE = b"L", b"K", b"xX", b"g"  # what describes the member that follows, or all


class _Header(NamedTuple):
    name: bytes
    size: int
    time: int
    kind: bytes
    more: bool  # of a sparse file's map, in blocks that follow


class _Reader:
    """A stream that knows where it is."""

    def __init__(self, stream: Readable) -> None:
        self.stream = stream
        self.at = 0
        self.waiting = memoryview(b"")

    def read(self, size: int) -> bytes:
        """As many bytes, fewer only at the end."""
        parts: list[bytes] = []
        while size > 0:
            if not self.waiting:
                self.waiting = memoryview(self.stream.read(_AT_ONCE))
                if not self.waiting:
                    break
            parts.append(bytes(self.waiting[:size]))
            self.waiting = self.waiting[size:]
            size -= len(parts[-1])
            self.at += len(parts[-1])
        return b"".join(parts)

    def skip_to(self, place: int) -> None:
        """Raises Damaged where the stream ends before."""
        while self.at < place:
            if not self.read(min(place - self.at, _AT_ONCE)):
                raise Damaged(f"ends early, {place - self.at} bytes before the end of what it holds")


def tar_members(stream: Readable) -> Iterator[Member]:
    """The members of a tar in its order; what has no readable header is a member that can't be read.

    Raises:
        Damaged: it ends within a member, or without the zeros that mark its end.
        Untrusted: as the stream.
    """
    reader = _Reader(stream)
    everywhere: dict[bytes, bytes] = {}
    here: dict[bytes, bytes] = {}
    bad_from, ended = -1, False
    while block := reader.read(BLOCK):
        header = _header(block)
        if len(block) < BLOCK and block.strip(b"\0"):
            raise Damaged("ends early, within a block")
        if header is None and block.strip(b"\0"):
            bad_from, ended = (reader.at - len(block) if bad_from < 0 else bad_from), False
            continue
        if bad_from >= 0:
            yield _unknown(bad_from, reader.at - len(block))
            bad_from = -1
        ended = header is None
        if header is None:
            continue
        while header.more and len(block := reader.read(BLOCK)) == BLOCK and block[504]:
            pass
        if header.kind in _NAME + _LINK + _RECORDS + _EVERYWHERE:
            end = _end(reader.at, header.size)
            found = _described(header, reader.read(min(header.size, MOST)))
            (everywhere if header.kind == _EVERYWHERE else here).update(found)
            reader.skip_to(end)
            continue
        known = everywhere | here
        size = _octal(known[b"size"], 10) if b"size" in known else header.size
        if size is None:
            size, known[b""] = header.size, b"the records before it are malformed"
        end = _end(reader.at, size)
        if header.kind != _FOLDER and not (header.kind == b"\0" and header.name.endswith(b"/")):
            yield _member(reader, header, size, known)
        reader.skip_to(end)
        here = {}
    if bad_from >= 0:
        yield _unknown(bad_from, reader.at)
    elif not ended:
        raise Damaged("no zeros mark its end: it may be cut short")


def _end(start: int, size: int) -> int:
    """Where the block after some bytes begins."""
    return start + -(-size // BLOCK) * BLOCK


def _unknown(start: int, end: int) -> Member:
    return broken(f"bytes {start} to {end - 1}", "no member's header, or a damaged one", end - start)


def _member(reader: _Reader, header: _Header, size: int, known: dict[bytes, bytes]) -> Member:
    name = printable(known.get(b"GNU.sparse.name", known.get(b"path", header.name)))
    if b"" in known:
        return broken(name, known[b""].decode(), size)
    reason = ""
    if header.kind in _LINKS:
        reason, size = "symbolic_link", 0
    elif header.kind == _SPARSE or any(key.startswith(b"GNU.sparse.") for key in known):
        reason = "sparse"
    elif header.kind not in _FILES:
        reason = "unreadable"  # a device or a pipe
    try:
        time = seconds(float(known.get(b"mtime", header.time)))
    except ValueError:
        time = 0
    start = reader.at

    def read(most: int) -> bytes:
        assert reader.at == start, "members are read one after the other"
        content = reader.read(min(size, most))
        if len(content) < min(size, most):
            raise Damaged(f"ends early, after {len(content)} of {size} bytes")
        return content

    return Member(name, size, time, reason, read)


def _header(block: bytes) -> _Header | None:
    """What a block says of a member; None where it's no header, as its checksum tells."""
    if len(block) < BLOCK or not block.strip(b"\0"):
        return None
    told = _octal(block[148:156])
    rest = block[:148] + b" " * 8 + block[156:]
    if told is None or told not in (sum(rest), sum(rest) - 256 * sum(byte > 127 for byte in rest)):
        return None
    size = _octal(block[124:136])
    if size is None:
        return None
    name = block[:100].split(b"\0", 1)[0]
    if block[257:263] == b"ustar\0" and (prefix := block[345:500].split(b"\0", 1)[0]):
        name = prefix + b"/" + name
    kind = block[156:157]
    return _Header(name, size, _octal(block[136:148]) or 0, kind, kind == _SPARSE and block[482] != 0)


def _octal(field: bytes, base: int = 8) -> int | None:
    """A number of a header, also in GNU's binary form; None where it's none, or below zero."""
    if base == 8 and field[:1] and field[0] & 0x80:
        return int.from_bytes(bytes([field[0] & 0x7F]) + field[1:], "big") if field[0] != 0xFF else None
    if base == 10:
        return int(field) if re.fullmatch(rb"\d{1,18}", field) else None
    found = _OCTAL.match(field)
    return int(found[1] or b"0", 8) if found else None


def _described(header: _Header, data: bytes) -> dict[bytes, bytes]:
    """What a block before a member says of it; under b"" what is wrong with that."""
    if header.size > MOST:
        return {b"": b"what describes it is longer than a megabyte"}
    if header.kind == _NAME:
        return {b"path": data.split(b"\0", 1)[0]}
    if header.kind == _LINK:
        return {}
    found: dict[bytes, bytes] = {}
    at = 0
    while at < len(data) and data[at:].strip(b"\0"):
        record = _RECORD.match(data, at)
        end = at + int(record[1]) if record else 0
        if not record or end <= record.end() or data[end - 1 : end] != b"\n":
            return found | {b"": b"the records before it are malformed"}
        found[record[2]] = data[record.end() : end - 1]
        at = end
    return found
