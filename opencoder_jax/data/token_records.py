"""Token records: tokenised documents on disk, readable at random by numpy and in order by TFDS and SeqIO.

A directory holds, for each shard:

    records-train.tfrecord-00000-of-00004    tf.train.Example messages with two features, `tokens` (int32) and
                                             `loss_mask` (uint8, 1 where a token is trained on), both as raw
                                             little-endian bytes
    records-train.index-00000-of-00004.npy   int64 [2, records + 1]: where each record begins, and the last ends, in
                                             bytes of the shard and in tokens of the shard
    records-train.crc32c-00000-of-00004      uint32, little-endian: CRC-32C of each 16 KiB of the index, then of the
                                             shard

and the two files that TFDS wants (`features.json`, `dataset_info.json`), those of the tokenizer that made the tokens,
and `metadata.json`, which closes the directory: every shard's sizes and the digest of its checksums.

Nothing of a corpus's size is held in memory or read when a directory is opened. The index is mapped; a token is found
by a binary search in it. What is read is checked against the checksums, they against metadata.json: a chain that shows
a damaged block as well as a file of another data set, at the cost of reading whole blocks. (A record's own CRC, which
TensorFlow checks, would cost reading all of a long document for each row that is cut from it.)

A token costs 5 bytes, a record about 90 more. Messages are framed by hand, for their layout follows from the number of
tokens alone: neither TensorFlow nor protobuf is needed to write or to read.
"""

import hashlib
import io
import json
import mmap
import os
import struct
from array import array
from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from itertools import accumulate, pairwise
from pathlib import Path
from typing import BinaryIO, NamedTuple

import google_crc32c
import numpy as np

from opencoder_jax.data.tfrecord import FOOTER, HEADER, array_offsets, frame, header, masked_crc
from opencoder_jax.files import read_at
from opencoder_jax.recipe import UserError
from opencoder_jax.tokenization import tokenizer_files
from opencoder_jax.tokenization.tokenizer_files import TOKENIZER

METADATA = "metadata.json"

# Bytes under one checksum: about what a row of 4096 tokens takes.
BLOCK = 1 << 14

Pairs = Iterable[tuple[np.ndarray, np.ndarray | None]]  # a shard's records: tokens, loss mask

_FEATURES = {
    "pythonClassName": "tensorflow_datasets.core.features.features_dict.FeaturesDict",
    "featuresDict": {
        "features": {
            name: {
                "pythonClassName": "tensorflow_datasets.core.features.tensor_feature.Tensor",
                "tensor": {"shape": {"dimensions": ["-1"]}, "dtype": dtype, "encoding": "bytes"},
            }
            for name, dtype in (("tokens", "int32"), ("loss_mask", "uint8"))
        }
    },
}

# What numpy writes before the numbers of an index, however many there are.
_INDEX_HEADER = 128

# Processes may hold about a thousand open files, and data sets may have more shards; a shard takes three.
_OPEN_SHARDS = 128


class ShardNames(NamedTuple):
    """The names of a shard's files."""

    tokens: str
    places: str
    checksums: str


def shard_names(shard: int, shards: int) -> ShardNames:
    """The file names of a shard."""
    which = f"{shard:05d}-of-{shards:05d}"
    return ShardNames(
        f"records-train.tfrecord-{which}", f"records-train.index-{which}.npy", f"records-train.crc32c-{which}"
    )


class ShardSummary(NamedTuple):
    """What metadata.json says of a shard."""

    records: int
    tokens: int
    bytes: int
    checksums: str  # digest of the file of checksums, in hexadecimal


class RecordWriter:
    """Writes the records of one shard to a binary stream; its side files are known at the end.

    The bytes are a function of the records alone. Giving the files their names once they're whole is the caller's part.
    """

    def __init__(self, stream: BinaryIO, vocabulary: int = 2**31) -> None:
        self._stream, self._vocabulary = stream, vocabulary
        self._bytes = array("q", [0])
        self._tokens = array("q", [0])
        self._checksums = _Checksums()

    def write(self, tokens: np.ndarray, loss_mask: np.ndarray | None = None) -> None:
        """Appends a record.

        Args:
            tokens: integers [n], n >= 1, each from 0 and below `vocabulary`.
            loss_mask: 0 or 1 [n], 1 where the token is a target of training; by default all are.

        Raises:
            ValueError: the arrays are empty, differ in length, or hold other values.
        """
        mask = np.ones(len(tokens), np.uint8) if loss_mask is None else np.asarray(loss_mask)
        values = np.asarray(tokens)
        if values.ndim != 1 or len(values) == 0 or values.shape != mask.shape:
            shapes = f"{values.shape} and {mask.shape}"
            raise ValueError(f"a record needs tokens [n] and loss_mask [n], n >= 1; got {shapes}")
        whole = values.dtype.kind in "iu" and mask.dtype.kind in "biu"  # a cast would round what isn't
        if not whole or values.min() < 0 or values.max() >= self._vocabulary or mask.min() < 0 or mask.max() > 1:
            got = f"{values.dtype} from {values.min()} to {values.max()}, and {mask.min()} to {mask.max()}"
            raise ValueError(f"tokens that lie in a record are below {self._vocabulary}, its mask is 0 or 1; got {got}")
        before, between = frame(len(values))
        message = before + values.astype("<i4").tobytes() + between + mask.astype(np.uint8).tobytes()
        record = header(len(message)) + message + struct.pack("<I", masked_crc(message))
        self._stream.write(record)
        self._checksums.extend(record)
        self._bytes.append(self._bytes[-1] + len(record))
        self._tokens.append(self._tokens[-1] + len(values))

    def finish(self) -> tuple[bytes, bytes]:
        """The content of the index and of the file of checksums of what was written."""
        stream = io.BytesIO()
        np.save(stream, np.array([self._bytes, self._tokens], "<i8"))
        index = stream.getvalue()
        of_index = _Checksums()
        of_index.extend(index)
        return index, of_index.content() + self._checksums.content()


def summarise(index: BinaryIO, checksums: bytes) -> ShardSummary:
    """The summary of a shard, from the ends of its index and its checksums."""
    records = (index.seek(0, os.SEEK_END) - _INDEX_HEADER) // 16 - 1
    ends = []
    for place in (records, 2 * records + 1):
        index.seek(_INDEX_HEADER + 8 * place)
        ends.append(int.from_bytes(index.read(8), "little"))
    return ShardSummary(records, ends[1], ends[0], _digest(checksums))


def metadata_files(shards: Sequence[ShardSummary], tokenizer: Mapping[str, bytes]) -> dict[str, bytes]:
    """The files that complete a directory, by name, from all its shards' summaries in order; the tokenizer's too."""
    message_bytes = sum(shard.bytes - shard.records * (HEADER + FOOTER) for shard in shards)
    info = {
        "name": "records",
        "version": "1.0.0",
        "fileFormat": "tfrecord",
        "splits": [
            {
                "name": "train",
                "filepathTemplate": "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}",
                "numBytes": str(message_bytes),
                "shardLengths": [str(shard.records) for shard in shards],
            }
        ],
    }
    metadata = {
        "shards": [list(shard) for shard in shards],
        "records": sum(shard.records for shard in shards),
        "tokens": sum(shard.tokens for shard in shards),
        "fingerprint": _fingerprint(shards),
        "tokenizer": tokenizer_files.fingerprint(tokenizer),
    }
    return {
        "features.json": _json(_FEATURES),
        "dataset_info.json": _json(info),
        **tokenizer,
        METADATA: _json(metadata),
    }


def write_records(directory: str | Path, shards: Sequence[Pairs], tokenizer_model: bytes, vocabulary: int) -> None:
    """Writes a folder of tokens made elsewhere by a tokenizer of `vocabulary` ids. Raises as `RecordWriter.write`."""
    (root := Path(directory)).mkdir(parents=True, exist_ok=True)
    summaries = []
    for shard, records in enumerate(shards):
        names = shard_names(shard, len(shards))
        with open(root / names.tokens, "wb") as stream:
            writer = RecordWriter(stream, vocabulary)
            for tokens, loss_mask in records:
                writer.write(tokens, loss_mask)
        index, checksums = writer.finish()
        (root / names.places).write_bytes(index)
        (root / names.checksums).write_bytes(checksums)
        summaries.append(summarise(io.BytesIO(index), checksums))
    for name, content in metadata_files(summaries, {TOKENIZER: tokenizer_model}).items():
        (root / name).write_bytes(content)


class TokenRecords:
    """A directory of token records, read at random.

    Records and tokens are numbered through the shards in order. Memory is O(shards), and at most 128 shards are open.

    Attributes:
        directory: where they lie.
        shards: number of shards.
        first_records: the number of the first record of each shard, and the number of all records.
        tokens: number of tokens.
        fingerprint: hexadecimal digest that stands for all bytes of the records.
        tokenizer_fingerprint: SHA-256, in hexadecimal, of the tokenizer model that made them.
    """

    def __init__(self, directory: Path, shards: Sequence[ShardSummary], tokenizer_fingerprint: str) -> None:
        """Use `TokenRecords.open`."""
        self.directory = directory
        self.shards = len(shards)
        self.tokenizer_fingerprint = tokenizer_fingerprint
        self.fingerprint = _fingerprint(shards)
        self.first_records = [0, *accumulate(shard.records for shard in shards)]
        self._first_token = [0, *accumulate(shard.tokens for shard in shards)]
        self.tokens = self._first_token[-1]

        verified: set[int] = set()

        def open_shard(number: int) -> _Shard:
            shard = _Shard(directory, shard_names(number, len(shards)), shards[number])
            if number not in verified:
                shard.verify(shards[number].checksums)
                verified.add(number)
            return shard

        self._shard = lru_cache(_OPEN_SHARDS)(open_shard)

    @classmethod
    def open(cls, directory: str | Path) -> "TokenRecords":
        """Opens a directory and checks that all files are there, in their sizes.

        Raises:
            UserError: the directory or a file is missing, truncated or of another data set, or the tokenizer beside the
                records isn't the one that made them.
        """
        root = Path(directory)
        try:
            metadata = json.loads((root / METADATA).read_bytes())
            shards = [ShardSummary(*shard) for shard in metadata["shards"]]
            sound = _fingerprint(shards) == metadata["fingerprint"]
            expected = str(metadata["tokenizer"])
            tokenizer = tokenizer_files.fingerprint(tokenizer_files.read_tokenizer(root))
        except (FileNotFoundError, NotADirectoryError) as error:
            raise UserError(
                f"{error.filename}: missing, so {root} isn't a finished directory of token records; "
                "make it with python -m beam_pipelines records"
            ) from None
        except (ValueError, KeyError, TypeError):
            sound = False
        if not sound:
            raise UserError(f"{root / METADATA}: damaged, or of another version; make the token records again")
        if tokenizer != expected:
            raise UserError(
                f"{root / TOKENIZER}: not the tokenizer that made these records "
                f"(SHA-256 {tokenizer[:12]}…, expected {expected[:12]}…); put the right one back"
            )
        for number, shard in enumerate(shards):
            for name, size in zip(shard_names(number, len(shards)), _sizes(shard), strict=True):
                _check_size(root / name, size)
        if sum(shard.records for shard in shards) == 0:
            raise UserError(f"{root}: holds no records")
        return cls(root, shards, tokenizer)

    def __len__(self) -> int:
        return self.first_records[-1]

    def start(self, record: int) -> int:
        """How many tokens come before a record. `start(len(records))` is their number."""
        if record == len(self):
            return self.tokens
        number, row = self._find(self.first_records, record)
        return self._first_token[number] + int(self._shard(number).entries(row, row + 1)[1, 0])

    def lengths(self, first: int, stop: int) -> np.ndarray:
        """int64 [stop - first]: the number of tokens of each record in a range."""
        lengths = [np.zeros(0, np.int64)]
        while first < stop:
            number, row = self._find(self.first_records, first)
            end = min(stop, self.first_records[number + 1])
            lengths.append(np.diff(self._shard(number).entries(row, row + end - first + 1)[1]))
            first = end
        return np.concatenate(lengths)

    def record_at(self, position: int) -> int:
        """The record that holds the token of this number."""
        number, offset = self._find(self._first_token, position)
        return self.first_records[number] + self._shard(number).row_at(offset)

    def read(self, record: int, start: int = 0, stop: int | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Tokens int32 [n] and loss mask uint8 [n] of a record, or of its tokens `start` to `stop`; both read-only.

        Raises:
            IndexError: there is no such record.
            UserError: the shard's bytes aren't those that were written; the message names the file and the offset.
        """
        number, row = self._find(self.first_records, record)
        return self._shard(number).read(row, start, stop)

    def read_from(self, position: int, tokens: np.ndarray, loss_mask: np.ndarray) -> list[int]:
        """Reads on through as many records as it takes, without reading a whole record where a part will do.

        Args:
            position: number of the first token.
            tokens: int32 [n], n <= the number of tokens from `position` on; is filled.
            loss_mask: uint8 [n]; is filled.

        Returns:
            Where in `tokens` records begin.

        Raises:
            UserError: see `read`.
        """
        begins: list[int] = []
        filled = 0
        while filled < len(tokens):
            number, offset = self._find(self._first_token, position + filled)
            stop = min(len(tokens), filled + self._first_token[number + 1] - position - filled)
            found = self._shard(number).read_from(offset, tokens[filled:stop], loss_mask[filled:stop])
            begins += [filled + begin for begin in found]
            filled = stop
        return begins

    def _find(self, firsts: list[int], place: int) -> tuple[int, int]:
        """The shard of a record or a token, and its number there."""
        if not 0 <= place < firsts[-1]:
            kind = "record" if firsts is self.first_records else "token"
            raise IndexError(f"{self.directory}: {kind} {place} of {firsts[-1]}")
        number = bisect_right(firsts, place) - 1
        return number, place - firsts[number]


class _Shard:
    """An open shard. Side files are mapped, records are read: a mapped file that ends early kills the process."""

    def __init__(self, directory: Path, names: ShardNames, summary: ShardSummary) -> None:
        self._path, self._index_path = directory / names.tokens, directory / names.places
        for name, size in zip(names, _sizes(summary), strict=True):
            _check_size(directory / name, size)
        self._checksums_path = directory / names.checksums
        self._file = open(self._path, "rb", buffering=0)
        self._index, self._of_all = _map(self._index_path), _map(self._checksums_path)
        self._entries = self._index[_INDEX_HEADER:].view("<i8").reshape(2, -1)
        self._of_index, self._of_records = np.split(self._of_all.view("<u4"), [_blocks(len(self._index))])
        self._size = summary.bytes

    def verify(self, digest: str) -> None:
        """Raises UserError unless the checksums, on which everything else rests, are those of this data set."""
        if _digest(self._of_all.data) != digest:
            raise UserError(f"{self._checksums_path}: damaged, or of another data set; make the token records again")

    def entries(self, first: int, stop: int) -> np.ndarray:
        """int64 [2, stop - first]: where these records begin, in bytes and in tokens."""
        width = self._entries.shape[1]
        for row in (0, 1):
            begin, end = (_INDEX_HEADER + 8 * (row * width + place) for place in (first, stop))
            for block in range(begin // BLOCK, (end - 1) // BLOCK + 1):
                content = self._index[block * BLOCK : (block + 1) * BLOCK]
                if google_crc32c.value(content) != self._of_index[block]:
                    raise _damaged(self._index_path, block)
        return self._entries[:, first:stop]

    def row_at(self, offset: int) -> int:
        """The record that holds a token of the shard; not checked yet."""
        return int(np.searchsorted(self._entries[1], offset, side="right")) - 1

    def read(self, row: int, start: int = 0, stop: int | None = None) -> tuple[np.ndarray, np.ndarray]:
        entries = self.entries(row, row + 2)
        count = int(entries[1, 1] - entries[1, 0])
        start, stop, _ = slice(start, stop).indices(count)
        if start >= stop:
            return np.zeros(0, np.int32), np.zeros(0, np.uint8)
        tokens, mask = array_offsets(int(entries[0, 0]), count)
        if tokens + 4 * stop + 2 * BLOCK < mask + start:  # far apart
            wanted = self._read(tokens + 4 * start, tokens + 4 * stop), self._read(mask + start, mask + stop)
        else:
            both = self._read(tokens + 4 * start, mask + stop)
            wanted = both[: 4 * (stop - start)], both[start - stop :]
        return wanted[0].view("<i4"), wanted[1]

    def read_from(self, offset: int, tokens: np.ndarray, loss_mask: np.ndarray) -> list[int]:
        """As `TokenRecords.read_from`, within the shard."""
        end = offset + len(tokens)
        first = self.row_at(offset)
        last = int(np.searchsorted(self._entries[1, first:], end, side="left")) + first - 1
        begins, token_begins = (row.tolist() for row in self.entries(first, last + 2))
        if not token_begins[0] <= offset < token_begins[1] or not token_begins[-2] < end <= token_begins[-1]:
            raise UserError(f"{self._index_path}: damaged: its numbers don't rise; make the token records again")
        counts = [after - before for before, after in pairwise(token_begins)]
        parts = [array_offsets(begin, count) for begin, count in zip(begins, counts, strict=False)]
        # Everything lies in one stretch but the mask of the last record, whose rest of tokens may be long.
        skip, keep = offset - token_begins[0], end - token_begins[-2]
        base = parts[0][0] + 4 * skip
        stretch = self._read(base, parts[-1][0] + 4 * keep)
        filled = 0
        for count, (token_part, mask_part) in zip(counts[:-1], parts[:-1], strict=True):
            stop = filled + count - skip
            token_part += 4 * skip - base
            tokens[filled:stop] = stretch[token_part : token_part + 4 * (count - skip)].view("<i4")
            mask_part -= base
            loss_mask[filled:stop] = stretch[mask_part + skip : mask_part + count]
            filled, skip = stop, 0
        tokens[filled:] = stretch[parts[-1][0] + 4 * skip - base :].view("<i4")
        loss_mask[filled:] = self._read(parts[-1][1] + skip, parts[-1][1] + keep)
        return [begin - offset for begin in token_begins[:-1] if begin >= offset]

    def _read(self, start: int, stop: int) -> np.ndarray:
        """uint8 [stop - start]: bytes of the shard, checked."""
        first, last = start // BLOCK, (stop - 1) // BLOCK
        base, end = first * BLOCK, min((last + 1) * BLOCK, self._size)
        content = np.frombuffer(read_at(self._file.fileno(), base, end), np.uint8)
        if len(content) != end - base:
            raise UserError(f"{self._path}: ends at byte {base + len(content)}, in the middle; put the whole file back")
        for block in range(first, last + 1):
            begin = block * BLOCK - base
            if google_crc32c.value(content[begin : begin + BLOCK]) != self._of_records[block]:
                raise _damaged(self._path, block)
        return content[start - base : stop - base]


def _map(path: Path) -> np.ndarray:
    """uint8 [bytes of the file], mapped."""
    with open(path, "rb") as file:
        return np.frombuffer(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ), np.uint8)


class _Checksums:
    """CRC-32C of each block of a stream."""

    def __init__(self) -> None:
        self._done = array("I")
        self._crc = 0
        self._filled = 0  # bytes of the block that is still open

    def extend(self, data: bytes) -> None:
        while data:
            piece, data = data[: BLOCK - self._filled], data[BLOCK - self._filled :]
            self._crc = google_crc32c.extend(self._crc, piece)
            self._filled += len(piece)
            if self._filled == BLOCK:
                self._done.append(self._crc)
                self._crc = self._filled = 0

    def content(self) -> bytes:
        """The checksums as they stand in the file, of the open block too."""
        return np.array([*self._done, *([self._crc] if self._filled else [])], "<u4").tobytes()


def _damaged(path: Path, block: int) -> UserError:
    return UserError(
        f"{path}: damaged between byte {block * BLOCK} and {(block + 1) * BLOCK} (the CRC is wrong); "
        "put the right file back, or make the token records again"
    )


def _check_size(path: Path, size: int) -> None:
    try:
        found = path.stat().st_size
    except FileNotFoundError:
        raise UserError(f"{path}: missing; make the token records again") from None
    if found != size:
        raise UserError(
            f"{path}: has {found} bytes and not {size}: truncated or replaced; make the token records again"
        )


def _sizes(shard: ShardSummary) -> tuple[int, int, int]:
    """The bytes of a shard's files: records, index, checksums."""
    index = _INDEX_HEADER + 16 * (shard.records + 1)
    return shard.bytes, index, 4 * (_blocks(index) + _blocks(shard.bytes))


def _blocks(size: int) -> int:
    return -(-size // BLOCK)


def _digest(content: bytes | memoryview) -> str:
    return hashlib.blake2b(content, digest_size=16).hexdigest()


def _fingerprint(shards: Sequence[ShardSummary]) -> str:
    return hashlib.sha256(json.dumps([list(shard) for shard in shards]).encode()).hexdigest()


def _json(value: object) -> bytes:
    return (json.dumps(value, indent=1, sort_keys=True) + "\n").encode()
