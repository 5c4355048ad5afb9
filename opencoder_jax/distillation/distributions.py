"""A teacher's distributions on disk: for every token of token records, what the teacher expected in its place.

A directory stands for one of token records, shard by shard:

    distributions-00000-of-00004.bin       for each token of that shard of the records the k tokens that the teacher
                                           held likeliest there: ids, the likeliest first, uint16 (uint32 where the
                                           vocabulary is larger than that), then their natural log-probabilities,
                                           float16; little-endian
    distributions-00000-of-00004.crc32c    uint32, little-endian: CRC-32C of each 16 KiB of it
    teacher.json                           closes the directory: which records, which teacher, k, and the digest of each
                                           shard's checksums

A token takes the same number of bytes everywhere, k * 4 or k * 6, so any token of any corpus is found by multiplying.
What is read is checked against the checksums, they against teacher.json. Only k of a vocabulary are kept, with their
true probabilities: what they lack to one is known to lie on the others, and the loss makes use of just that
(opencoder_jax/model/distilled_loss.py).
"""

import hashlib
import json
import os
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import BinaryIO, NamedTuple

import google_crc32c
import numpy as np

from opencoder_jax.data.token_records import BLOCK, TokenRecords
from opencoder_jax.files import WRITING, read_at, read_json, write_json, write_whole
from opencoder_jax.recipe import UserError

TEACHER = "teacher.json"
VERSION = 1

# Processes may hold about a thousand open files, and a mixture has several sources.
_OPEN_SHARDS = 64


class Layout(NamedTuple):
    """How a token's entry lies on the disk."""

    k: int
    wide: bool  # ids of four bytes, for more than 65,536 of them

    @property
    def size(self) -> int:
        """Bytes of a token."""
        return self.k * (6 if self.wide else 4)

    @property
    def id_type(self) -> str:
        return "<u4" if self.wide else "<u2"

    def pack(self, ids: np.ndarray, log_probabilities: np.ndarray) -> bytes:
        """The entries of n tokens, from [n, k] ids and [n, k] log-probabilities."""
        entries = np.empty((len(ids), self.size), np.uint8)
        split = self.size - 2 * self.k
        entries[:, :split] = np.ascontiguousarray(ids, self.id_type).view(np.uint8).reshape(len(ids), -1)
        halves = np.ascontiguousarray(log_probabilities, "<f2")
        entries[:, split:] = halves.view(np.uint8).reshape(len(ids), -1)
        return entries.tobytes()

    def unpack(self, entries: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The ids, int32 [n, k], and log-probabilities, float32 [n, k], of the bytes of n entries."""
        rows = entries.reshape(-1, self.size)
        split = self.size - 2 * self.k
        ids = np.ascontiguousarray(rows[:, :split]).view(self.id_type).astype(np.int32)
        return ids, np.ascontiguousarray(rows[:, split:]).view("<f2").astype(np.float32)


def shard_files(shard: int, shards: int) -> tuple[str, str]:
    """The names of a shard's distributions and of their checksums."""
    name = f"distributions-{shard:05d}-of-{shards:05d}"
    return f"{name}.bin", f"{name}.crc32c"


class DistributionsWriter:
    """Writes the distributions of one shard's tokens, in order; the shard is there whole once `close` returns."""

    def __init__(self, directory: Path, shard: int, shards: int, layout: Layout) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self._file, self._checksums = (directory / name for name in shard_files(shard, shards))
        self._layout = layout
        self._stream: BinaryIO = open(self._file.with_name(self._file.name + WRITING), "wb")
        self._crcs: list[int] = []
        self._open_block = b""
        self.tokens = 0

    def write(self, ids: np.ndarray, log_probabilities: np.ndarray) -> None:
        """Appends the distributions of n tokens, both [n, k], the likeliest first."""
        content = self._layout.pack(ids, log_probabilities)
        self._stream.write(content)
        self.tokens += len(ids)
        content = self._open_block + content
        whole = len(content) - len(content) % BLOCK
        self._crcs += [google_crc32c.value(content[at : at + BLOCK]) for at in range(0, whole, BLOCK)]
        self._open_block = content[whole:]

    def close(self) -> None:
        """Gives the shard its name."""
        last = [google_crc32c.value(self._open_block)] if self._open_block else []
        self._stream.flush()
        os.fsync(self._stream.fileno())
        self._stream.close()
        write_whole(self._checksums, np.array([*self._crcs, *last], "<u4").tobytes())
        os.replace(self._file.with_name(self._file.name + WRITING), self._file)


def finished(directory: Path, shard: int, shards: int) -> bool:
    """Whether a shard was written whole."""
    return all((directory / name).exists() for name in shard_files(shard, shards))


def seal(directory: Path, records: TokenRecords, teacher: str, layout: Layout) -> None:
    """Closes a directory all of whose shards are written.

    Args:
        teacher: stands for the model and for how much of a text it saw.
    """
    checksums = [(directory / shard_files(shard, records.shards)[1]).read_bytes() for shard in range(records.shards)]
    write_json(
        directory / TEACHER,
        {
            "version": VERSION,
            "k": layout.k,
            "wide": layout.wide,
            "records": records.fingerprint,
            "teacher": teacher,
            "shards": [_digest(content) for content in checksums],
        },
    )


class Distributions:
    """What a teacher expected in place of each token of some records, read at random.

    Attributes:
        directory: where they lie.
        k: how many tokens are kept of each distribution.
        fingerprint: hexadecimal digest that stands for all of it.
    """

    def __init__(self, directory: Path, layout: Layout, records: TokenRecords, digests: Sequence[str]) -> None:
        """Use `Distributions.open`."""
        self.directory = directory
        self.k = layout.k
        self._layout = layout
        self._firsts = np.array([records.start(record) for record in records.first_records], np.int64)
        self.fingerprint = hashlib.sha256(json.dumps([*layout, *digests]).encode()).hexdigest()

        def open_shard(shard: int) -> _Shard:
            size = int(self._firsts[shard + 1] - self._firsts[shard]) * layout.size
            names = shard_files(shard, len(digests))
            return _Shard(directory / names[0], directory / names[1], size, digests[shard])

        self._shard = lru_cache(_OPEN_SHARDS)(open_shard)

    @classmethod
    def open(cls, directory: Path, records: TokenRecords) -> "Distributions":
        """Opens the distributions of these records.

        Raises:
            UserError: they are missing, unfinished, damaged, or were made for other records.
        """
        about = read_json(directory / TEACHER)
        if about is None:
            raise UserError(
                f"{directory}: holds no finished distributions of a teacher; make them with python -m opencoder_jax"
                f" teach --records={records.directory} --output={directory}"
            )
        try:
            layout, digests = Layout(int(about["k"]), bool(about["wide"])), [str(each) for each in about["shards"]]
            version, made_for = int(about["version"]), str(about["records"])
        except (KeyError, TypeError, ValueError):
            raise UserError(f"{directory / TEACHER}: damaged; make the distributions again") from None
        if version > VERSION:
            raise UserError(f"{directory / TEACHER}: written by a newer release of this project; go on with that one")
        if made_for != records.fingerprint or len(digests) != records.shards:
            raise UserError(
                f"{directory}: made for other token records than {records.directory}; make the distributions again"
            )
        return cls(directory, layout, records, digests)

    def read(self, tokens: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """What was expected in the place of some tokens.

        Args:
            tokens: int64 [n]: their numbers in the records; -1: of none.

        Returns:
            Ids int32 [n, k], -1 where there's none, and natural log-probabilities float32 [n, k], -inf there.

        Raises:
            UserError: a shard is missing or damaged; the message names the file.
        """
        ids = np.full((len(tokens), self.k), -1, np.int32)
        log_probabilities = np.full((len(tokens), self.k), -np.inf, np.float32)
        shards = np.searchsorted(self._firsts, tokens, side="right") - 1
        # Stretches of tokens that follow each other, within a shard.
        breaks = np.flatnonzero((np.diff(tokens) != 1) | (np.diff(shards) != 0)) + 1
        for begin, stop in zip([0, *breaks.tolist()], [*breaks.tolist(), len(tokens)], strict=True):
            if begin < stop and tokens[begin] >= 0:
                shard = int(shards[begin])
                first = int(tokens[begin] - self._firsts[shard]) * self._layout.size
                entries = self._shard(shard).read(first, first + (stop - begin) * self._layout.size)
                ids[begin:stop], log_probabilities[begin:stop] = self._layout.unpack(entries)
        return ids, log_probabilities


class _Shard:
    """An open shard; its checksums are in memory, 4 bytes for each 16 KiB."""

    def __init__(self, path: Path, checksums: Path, size: int, digest: str) -> None:
        for file in (path, checksums):
            if not file.exists():
                raise UserError(f"{file}: missing; make the distributions again")
        content = checksums.read_bytes()
        if _digest(content) != digest or path.stat().st_size != size:
            raise UserError(f"{path}: damaged, truncated or of another teacher; make the distributions again")
        self._path, self._size = path, size
        self._checksums = np.frombuffer(content, "<u4")
        self._file = open(path, "rb", buffering=0)

    def read(self, start: int, stop: int) -> np.ndarray:
        """uint8 [stop - start], checked."""
        first, last = start // BLOCK, (stop - 1) // BLOCK
        base, end = first * BLOCK, min((last + 1) * BLOCK, self._size)
        content = np.frombuffer(read_at(self._file.fileno(), base, end), np.uint8)
        for block in range(first, last + 1):
            at = (block - first) * BLOCK
            if google_crc32c.value(content[at : at + BLOCK]) != self._checksums[block]:
                raise UserError(
                    f"{self._path}: damaged between byte {block * BLOCK} and {(block + 1) * BLOCK} (the CRC is wrong);"
                    " make the distributions again"
                )
        return content[start - base : stop - base]


def _digest(content: bytes) -> str:
    return hashlib.blake2b(content, digest_size=16).hexdigest()
