"""Archives and packed streams, member by member: Python's own readers are the oracle of what is sound."""

import bz2
import gzip
import io
import lzma
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import py7zr
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from opencoder_jax.beam_pipelines.sources.formats.members import Damaged, Member, Untrusted
from opencoder_jax.beam_pipelines.sources.formats.rows import epoch_seconds, read_rows
from opencoder_jax.beam_pipelines.sources.formats.sevens import seven_members
from opencoder_jax.beam_pipelines.sources.formats.streams import unpacked
from opencoder_jax.beam_pipelines.sources.formats.tars import tar_members
from opencoder_jax.beam_pipelines.sources.formats.zips import zip_members

MOST = 100_000
Found = list[tuple[str, int, bytes | str]]

names = st.lists(st.text(st.characters(codec="utf-8", exclude_characters="\0/\\"), min_size=1, max_size=60), min_size=1)
trees = st.dictionaries(names.map("/".join).filter(lambda name: len(name) < 250), st.binary(max_size=2000), max_size=6)


def read(members: Iterator[Member]) -> Found:
    """Names, times and contents, or what is wrong."""
    found: Found = []
    try:
        for member in members:
            try:
                found.append((member.name, member.time, member.reason or member.read(MOST)))
            except Damaged as error:
                found.append((member.name, -1, str(error)))
    except Damaged as error:
        found.append(("", -1, str(error)))
    return found


def tars(data: bytes) -> Found:
    return read(tar_members(io.BytesIO(data)))


def zips(data: bytes) -> Found:
    return read(zip_members(pa.BufferReader(data)))


def tarred(files: dict[str, bytes], kind: int = tarfile.PAX_FORMAT, **fields: float) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=kind) as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size, member.mtime = len(content), 1_700_000_000
            for field, value in fields.items():
                setattr(member, field, value)
            archive.addfile(member, io.BytesIO(content))
    return stream.getvalue()


def zipped(files: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", method) as archive:
        for name, content in files.items():
            archive.writestr(zipfile.ZipInfo(name, (2023, 11, 14, 22, 13, 20)), content)
    return stream.getvalue()


@given(trees, st.sampled_from([tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]))
@settings(max_examples=60, deadline=None)
def test_a_sound_tar_is_as_tarfile_reads_it(files: dict[str, bytes], kind: int) -> None:
    data = tarred(files, kind)
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        expected = [
            (member.name, int(member.mtime), archive.extractfile(member).read())  # type: ignore[union-attr]
            for member in archive
        ]
    # tarfile takes the slashes off the end, by which the oldest form tells folders.
    assert [(name.rstrip("/"), time, content) for name, time, content in tars(data)] == expected


@given(trees, st.sampled_from([zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA]))
@settings(max_examples=60, deadline=None)
def test_a_sound_zip_is_as_zipfile_reads_it(files: dict[str, bytes], method: int) -> None:
    files = {name: content for name, content in files.items() if not name.endswith("/")}
    for data in (zipped(files, method), b"#!/bin/sh\n" + zipped(files, method)):
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            expected = [(member.filename, 1_700_000_000, archive.read(member)) for member in archive.infolist()]
        assert zips(data) == expected


GOOD: Found = [("a.py", 1_700_000_000, b"a = 1\n"), ("b.py", 1_700_000_000, b"b = 1\n" * 100)]
FILES = {str(name): bytes(content) for name, _, content in GOOD if isinstance(content, bytes)}
LATER: Found = [("c.py", 1_700_000_000, b"c = 1\n")]


def test_a_tar_goes_on_behind_its_end_and_behind_what_is_no_header() -> None:
    first, second = tarred(FILES), tarred({"c.py": b"c = 1\n"})
    zeros = b"\0" * 512
    assert tars(first + second) == [*GOOD, *LATER]
    assert tars(second[:1024] + zeros + first) == [*LATER, *GOOD]
    bad = bytearray(first)
    bad[150] ^= 1  # of the first header's checksum
    assert [name for name, _, _ in tars(bytes(bad))] == ["bytes 0 to 1023", "b.py"]
    assert tars(b"no tar! " * 640)[0][:2] == ("bytes 0 to 5119", -1)
    for end in (700, 1100, len(first) - 10):
        *_, (_, time, said) = tars(first[:end]) if end < 2000 else [("", -1, "early")]
        assert time == -1
        assert "early" in str(said)
    whole = tarred(FILES).rstrip(b"\0")
    assert "no zeros" in str(tars(whole + b"\0" * (-len(whole) % 512))[-1][2])


@pytest.mark.parametrize(
    "time", [float("nan"), float("inf"), 1e30, -5.0, "2020", "x" * 50], ids=lambda time: str(time)[:5]
)
def test_a_tar_whose_times_are_none(time: float) -> None:
    header = tarfile.TarInfo("a.py")
    header.size, header.pax_headers = 1, {"mtime": str(time)}
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=tarfile.PAX_FORMAT) as archive:
        archive.addfile(header, io.BytesIO(b"x"))
    assert tars(stream.getvalue()) == [("a.py", 2020 if time == "2020" else 0, b"x")]


def test_what_describes_a_member_of_a_tar_is_bounded_and_checked() -> None:
    def raw(name: bytes, size: int, kind: bytes, content: bytes = b"") -> bytes:
        head = bytearray(512)
        head[:100], head[124:136], head[156:157] = name.ljust(100, b"\0"), b"%011o\0" % size, kind
        head[148:156] = b" " * 8
        head[148:156] = b"%06o\0 " % sum(head)
        return bytes(head) + content + b"\0" * (-len(content) % 512)

    member, end = raw(b"a.py", 6, b"0", b"a = 1\n"), b"\0" * 1024
    for records in (b"99 path=x\n", b"12 path", b"path=x\n", b"7 path=x\n", b"13 size=1e9\n\n"):
        assert tars(raw(b"", len(records), b"x", records) + member + end)[0][1] == -1
    assert tars(raw(b"", 12, b"x", b"11 path=x/y\n"[:12]) + member + end)[0][1] == -1
    assert tars(raw(b"", 12, b"x", b"12 path=x/y\n") + member + end) == [("x/y", 0, b"a = 1\n")]
    large = 3_000_000
    assert tars(raw(b"", large, b"L", b"n" * large) + member + end)[0][1] == -1
    assert tars(raw(b"a.py", 6, b"0", b"a = 1\n")[:124] + b"\x80" + b"\xff" * 11 + member[136:])[0][1] == -1
    names = [
        raw(name, 0, kind) for name, kind in ((b"l", b"2"), (b"h", b"1"), (b"d", b"3"), (b"s", b"S"), (b"f", b"5"))
    ]
    assert [reason for _, _, reason in tars(b"".join(names) + end)] == [
        *("symbolic_link", "symbolic_link", "unreadable", "sparse")
    ]


def test_one_bad_entry_of_a_zip_costs_itself() -> None:
    data = zipped(FILES)
    entry = data.index(b"PK\1\2")

    def changed(at: int, value: bytes) -> bytes:
        return data[: entry + at] + value + data[entry + at + len(value) :]

    second = GOOD[1:]
    assert zips(changed(16, b"\0\0\0\0")) == [("a.py", -1, "its checksum is another"), *second]
    assert zips(changed(24, b"\xff\0\0\0"))[0][2] == "ends early, after 6 of 255 bytes"
    assert zips(changed(12, b"\0\0\0\0")) == [("a.py", 0, b"a = 1\n"), *second]  # month 0
    assert zips(changed(8, b"\1\0")) == [("a.py", 1_700_000_000, "encrypted"), *second]
    assert zips(changed(10, b"\x09\0")) == [("a.py", 1_700_000_000, "unreadable"), *second]
    assert zips(changed(42, b"\xff\xff\xff\x7f"))[0][2] == "its header isn't where the directory says"
    utf8 = changed(8, b"\0\x08")
    assert zips(utf8[: entry + 46] + b"\xe9" + utf8[entry + 47 :])[0][0] == "\\xe9.py"
    assert zips(data[: entry + 60])[0][1] == -1
    assert zips(data[:entry] + data[entry + 46 :])[-1][1] == -1
    assert zips(zipped({})) == []


def test_a_zip_of_64_bits_and_of_zstandard() -> None:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive, archive.open("a.py", "w", force_zip64=True) as member:
        member.write(b"a = 1\n")
    assert [(name, content) for name, _, content in zips(stream.getvalue())] == [("a.py", b"a = 1\n")]
    packed = zstandard.compress(b"a = 1\n" * 9)
    data = zipped({"a.py": packed}, zipfile.ZIP_STORED)
    entry = data.index(b"PK\1\2")
    crc = struct.pack("<L", zlib.crc32(b"a = 1\n" * 9))
    data = data[: entry + 10] + b"\x5d\0" + data[entry + 12 : entry + 16] + crc + data[entry + 20 :]
    data = data[: entry + 24] + struct.pack("<L", 54) + data[entry + 28 :]
    assert zips(data) == [("a.py", 1_700_000_000, b"a = 1\n" * 9)]


PACK: dict[str, Callable[[bytes], bytes]] = {
    "gz": gzip.compress,
    "bz2": bz2.compress,
    "xz": lzma.compress,
    "zst": zstandard.ZstdCompressor(write_checksum=True).compress,
}


def all_of(data: bytes, kind: str) -> bytes:
    stream = unpacked(pa.BufferReader(data), kind)
    return b"".join(iter(lambda: stream.read(1 << 16), b""))


@pytest.mark.parametrize("kind", PACK)
def test_a_packed_stream(kind: str) -> None:
    text = b"".join(b"%d\n" % (number * number) for number in range(100_000))
    packed = PACK[kind](text)
    assert all_of(packed, kind) == text
    assert all_of(packed + PACK[kind](b"more"), kind) == text + b"more"
    assert all_of(PACK[kind](b""), kind) == b""
    for end in (1, len(packed) // 2, len(packed) - 1):
        with pytest.raises(Damaged, match="ends early"):
            all_of(packed[:end], kind)
    for place in range(20, len(packed) - 20, len(packed) // 7):
        flipped = bytearray(packed)
        flipped[place] ^= 16
        with pytest.raises(Damaged):
            all_of(bytes(flipped), kind)
    with pytest.raises(Untrusted):
        all_of(packed[: len(packed) // 2] + b"\xff" * 1000 + packed[len(packed) // 2 :], kind)


def test_a_stream_that_wants_much_memory_is_refused() -> None:
    packer = lzma.LZMACompressor(lzma.FORMAT_XZ, filters=[{"id": lzma.FILTER_LZMA2, "preset": 0}])
    packed = bytearray(packer.compress(b"x" * 100) + packer.flush())
    header = bytearray(packed[12:24])
    header[4] = 36  # a window of 1 GB
    header[8:12] = struct.pack("<L", zlib.crc32(bytes(header[:8])))
    with pytest.raises(Damaged):
        all_of(bytes(packed[:12] + header + packed[24:]), "xz")


def test_a_7z() -> None:
    stream = io.BytesIO()
    with py7zr.SevenZipFile(stream, "w") as archive:
        for name, content in [*FILES.items(), ("large.c", b"x" * (MOST + 1)), ("empty.py", b"")]:
            archive.writestr(content, name)
    data = stream.getvalue()

    def sevens(data: bytes) -> dict[str, bytes | str]:
        return {name: content for name, _, content in read(seven_members(pa.BufferReader(data), MOST, 10**9))}

    assert sevens(data) == FILES | {"large.c": b"", "empty.py": b""}
    told = 0
    for place in range(32, len(data), 11):
        flipped = bytearray(data)
        flipped[place] ^= 4
        for name, content in sevens(bytes(flipped)).items():
            told += isinstance(content, str)
            assert isinstance(content, str) or content in (b"", FILES.get(name))
    assert told
    assert list(sevens(data[:-5])) == [""]
    assert "more than 10 bytes" in str(read(seven_members(pa.BufferReader(data), MOST, 10))[0][2])


def parquet(columns: dict[str, pa.Array], **options: Any) -> pa.NativeFile:
    stream = io.BytesIO()
    pq.write_table(pa.table(columns), stream, **options)
    return pa.BufferReader(stream.getvalue())


def rows(stream: pa.NativeFile, name: str, *columns: str) -> list[Any]:
    return [row for _, row in read_rows(stream, name, {column: column for column in columns}, lambda _: None)]


def test_a_table_that_unpacks_to_gigabytes_is_read_in_some_megabytes() -> None:
    text = "x" * 1_000_000
    indices = pa.array(np.zeros(2000, np.int32))
    stream = parquet({"text": pa.DictionaryArray.from_arrays(indices, pa.array([text]))})
    assert stream.size() < 100_000
    before = pa.total_allocated_bytes()
    number = 0
    for number, (_, row) in enumerate(read_rows(stream, "a.parquet", {"text": "text"}, lambda _: None), 1):
        assert row["text"] == text  # type: ignore[index]
        assert pa.total_allocated_bytes() - before < 50_000_000
    assert number == 2000


def test_a_line_that_is_too_long_is_a_row_without_fields(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("opencoder_jax.beam_pipelines.sources.formats.rows._LONGEST", 3_000_000)
    lines = b'{"text": "a"}\n{"text": "' + b"x" * 5_000_000 + b'"}\r\n{"text": "b"}\r{"text": "c"}'
    found = rows(pa.BufferReader(lines), "a.jsonl", "text")
    assert found == [{"text": "a"}, "line 2: longer than 3000000 bytes", {"text": "b"}, {"text": "c"}]


def test_times_of_every_kind_are_seconds_or_none() -> None:
    moment = 1_700_000_000
    odd = pa.array([253_402_300_800 * 10**6, None, -5], pa.timestamp("us"))  # the year 10000
    for column, expected in (
        (pa.array([moment * 10**9 + 7], pa.timestamp("ns")), [moment]),
        (pa.array([moment], pa.timestamp("s", "Nowhere/Atlantis")), [moment]),
        (pa.array([19_675], pa.date32()), [19_675 * 86_400]),
        (odd, [None, None, None]),
    ):
        assert [row["t"] for row in rows(parquet({"t": column}, coerce_timestamps=None), "a.parquet", "t")] == expected
    numbers = (moment, moment * 1000, moment * 10**6, str(moment * 1000), "2023-11-14T22:13:20+00:00", float(moment))
    assert {epoch_seconds(number) for number in numbers} == {moment}
    assert [epoch_seconds(value) for value in ("?", None, float("nan"), "9999-12-31T23:59:59+99:00")] == [0] * 4


def test_a_text_that_is_no_utf8_is_its_bytes() -> None:
    latin = pa.Array.from_buffers(pa.string(), 2, pa.array([b"caf\xe9", b"ok"], pa.binary()).buffers())
    assert [row["text"] for row in rows(parquet({"text": latin}), "a.parquet", "text")] == [b"caf\xe9", "ok"]
