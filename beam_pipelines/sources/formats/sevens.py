"""The members of a 7z archive, by py7zr.

A 7z is often one compressed block, which can only be unpacked from its beginning. So its members are written one after
the other to a file without a name on this machine's disk, no more of each than is asked for, and read from there.
"""

import io
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import IO

import py7zr
import pyarrow as pa
from py7zr.io import Py7zIO, WriterFactory

from opencoder_jax.beam_pipelines.sources.formats.members import Damaged, Member, broken, seconds, unsafe


class _Product(Py7zIO):
    """A member's bytes, between those of others in one file."""

    def __init__(self, shared: IO[bytes]) -> None:
        self.shared = shared
        self.start = self.end = -1
        self.whole = False

    def write(self, s: bytes | bytearray) -> int:
        if self.start < 0:
            self.start = self.shared.seek(0, 2)
        written = self.shared.write(s)
        self.end = self.shared.tell()
        return written

    def close(self) -> None:
        self.whole = True  # its checksum was right

    def read(self, size: int | None = None) -> bytes:
        self.shared.seek(max(0, self.start))
        length = self.end - self.start
        return self.shared.read(length if size is None else min(size, length))

    def seek(self, offset: int, whence: int = 0) -> int:
        return offset

    def flush(self) -> None: ...

    def size(self) -> int:
        return self.end - self.start


class _Products(WriterFactory):
    def __init__(self, shared: IO[bytes]) -> None:
        self.shared = shared
        self.made: dict[str, _Product] = {}

    def create(self, filename: str) -> Py7zIO:
        return self.made.setdefault(filename, _Product(self.shared))


def seven_members(stream: pa.NativeFile, most: int, all_of_it: int) -> Iterator[Member]:
    """The members of a 7z in its order; those larger than `most` bytes aren't unpacked.

    Raises:
        Damaged: it's none, is encrypted, was packed by what py7zr doesn't know, or holds more than `all_of_it` bytes.
    """
    try:
        with py7zr.SevenZipFile(io.BufferedReader(stream)) as archive, tempfile.TemporaryFile() as shared:
            infos = [info for info in archive.list() if not info.is_directory]
            wanted = [
                info for info in infos if info.is_file and info.uncompressed <= most and not unsafe(info.filename)
            ]
            if sum(info.uncompressed for info in wanted) > all_of_it:
                raise Damaged(f"holds more than {all_of_it} bytes")
            products, error = _Products(shared), ""
            try:
                archive.extract(targets=[info.filename for info in wanted], factory=products)
            except Exception as wrong:
                error = f"{type(wrong).__name__}: {wrong}"
            names: Counter[str] = Counter()
            for info in infos:
                number = names[info.filename]
                names[info.filename] += 1
                time = seconds(info.creationtime.timestamp()) if info.creationtime else 0
                if info not in wanted:
                    reason = "symbolic_link" if info.is_symlink else "" if info.is_file else "unreadable"
                    yield Member(info.filename, info.uncompressed, time, reason, lambda _: b"")
                    continue
                made = PurePosixPath(f"{info.filename}_{number - 1}" if number else info.filename).as_posix()
                product = products.made.get(made)
                if product and product.whole:
                    yield Member(info.filename, info.uncompressed, time, "", product.read)
                elif info.uncompressed == 0:
                    yield Member(info.filename, 0, time, "", lambda _: b"")
                else:
                    yield broken(info.filename, error or "wasn't unpacked", info.uncompressed)
    except Damaged:
        raise
    except Exception as wrong:
        raise Damaged(f"{type(wrong).__name__}: {wrong}") from None
