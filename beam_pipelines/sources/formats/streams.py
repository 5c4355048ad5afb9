"""Compressed streams, unpacked block by block: gzip, bzip2, xz and Zstandard, each of one part or of several.

A stream is read forwards, and no more is unpacked than is asked for. What a damaged one gave before its checksum
failed is `Untrusted`; one that only ends early gave what it held (`Damaged`). A window larger than 128 MB is refused:
memory is the reader's to give.
"""

import bz2
import lzma
import zlib
from collections.abc import Callable
from typing import Any, Protocol

import pyarrow as pa

from opencoder_jax.beam_pipelines.sources.formats.members import Damaged, Untrusted

_BLOCK = 1 << 16  # bytes that are read at once
WINDOW = 1 << 27


class Readable(Protocol):
    """What gives its bytes from the first to the last, as many as are asked for or fewer."""

    def read(self, size: int, /) -> bytes: ...


class Inflate:
    """zlib's object with the interface of bz2's and lzma's."""

    def __init__(self, wbits: int) -> None:
        self.object = zlib.decompressobj(wbits)

    def decompress(self, data: bytes, size: int) -> bytes:
        return self.object.decompress(self.object.unconsumed_tail + data, size)

    @property
    def eof(self) -> bool:
        return self.object.eof

    @property
    def needs_input(self) -> bool:
        return not self.object.unconsumed_tail

    @property
    def unused_data(self) -> bytes:
        return self.object.unused_data


_PARTS: dict[str, Callable[[], Any]] = {
    "gz": lambda: Inflate(31),  # with gzip's header and checksum
    "bz2": bz2.BZ2Decompressor,
    "xz": lambda: lzma.LZMADecompressor(memlimit=WINDOW + (1 << 24)),
}
PACKED = (*_PARTS, "zst")  # the endings of their names


def unpacked(stream: pa.NativeFile, kind: str) -> Readable:
    """What a stream of one of PACKED holds. Reading it raises Damaged or Untrusted."""
    return _Zstandard(stream) if kind == "zst" else Parts(stream, _PARTS[kind])


class Parts:
    """Unpacks a stream by bz2's or lzma's objects, one after the other."""

    def __init__(self, stream: Readable, make: Callable[[], Any]) -> None:
        self.stream = stream
        self.make = make
        self.part = make()
        self.ended = False

    def read(self, size: int, /) -> bytes:
        while not self.ended:
            try:
                if data := self._more(size):
                    return data
            except (zlib.error, lzma.LZMAError, OSError, ValueError) as error:
                raise Untrusted(f"doesn't unpack: {error}") from None
        return b""

    def _more(self, size: int) -> bytes:
        """Some bytes; none where more may follow."""
        if not self.part.eof:
            block = self.stream.read(_BLOCK) if self.part.needs_input else b""
            if self.part.needs_input and not block:
                raise Damaged("ends early")
            return bytes(self.part.decompress(block, size))
        # Zeros may fill up a part; then comes the next, or the end.
        rest = self.part.unused_data.lstrip(b"\0")
        while not rest and (block := self.stream.read(_BLOCK)):
            rest = block.lstrip(b"\0")
        self.ended = not rest
        self.part = self.make()
        return bytes(self.part.decompress(rest, size)) if rest else b""


class _Zstandard:
    """Arrow's reader, which tells an early end and refuses larger windows."""

    def __init__(self, stream: pa.NativeFile) -> None:
        self.stream = pa.CompressedInputStream(stream, "zstd")

    def read(self, size: int, /) -> bytes:
        try:
            return bytes(self.stream.read(size))
        except OSError as error:
            if "truncated" in str(error).lower():
                raise Damaged("ends early") from None
            raise Untrusted(f"doesn't unpack: {error}") from None
