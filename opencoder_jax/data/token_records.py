"""Token records: tokenised documents on disk, readable at random by numpy and in order by TFDS and SeqIO.

A directory holds TFRecord shards `records-train.tfrecord-00000-of-00004` of tf.train.Example messages with two
features, `tokens` (int32) and `loss_mask` (uint8, 1 where a token is trained on), both as raw little-endian bytes; the
two files that TFDS wants (`features.json`, `dataset_info.json`); the `tokenizer.model` that made the tokens; and beside
each shard an index, `records-train.index-00000-of-00004.npy`: int64 [records, 3], the byte offset of the tokens in the
shard, their number, and the record's CRC. `metadata.json` closes the directory: it holds the digests of the indices and
of the tokenizer, so that a directory that was mixed from two is refused.

A token costs 5 bytes, a record about 70 more. Messages are framed by hand, for their layout follows from the number of
tokens alone: neither TensorFlow nor protobuf is needed to write or to read, and reading is one slice of a memory map.
Every record that is read is checked against its CRC.
"""

import hashlib
import io
import json
import mmap
import struct
from collections.abc import Iterable, Sequence
from functools import lru_cache
from pathlib import Path
from tokenize import TokenError
from typing import BinaryIO

import google_crc32c
import numpy as np

from opencoder_jax.recipe import UserError

METADATA = "metadata.json"
TOKENIZER = "tokenizer.model"

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

# A TFRecord: the message's length, the CRC of that, the message, the CRC of the message.
_HEADER = 12
_FOOTER = 4

# Processes may hold about a thousand open files, and data sets may have more shards.
_OPEN_SHARDS = 256


def shard_names(shard: int, shards: int) -> tuple[str, str]:
    """The file names of a shard and of its index."""
    return f"records-train.tfrecord-{shard:05d}-of-{shards:05d}", f"records-train.index-{shard:05d}-of-{shards:05d}.npy"


class ShardWriter:
    """Writes the records of one shard to a binary stream; its index is known at the end.

    The bytes are a function of the records alone. Giving the file its name once it's whole is the caller's part.
    """

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._end = 0
        self._rows: list[tuple[int, int, int]] = []

    def write(self, tokens: np.ndarray, loss_mask: np.ndarray | None = None) -> None:
        """Appends a record.

        Args:
            tokens: integers [n], n >= 1, each from 0 to 2**31 - 1.
            loss_mask: 0 or 1 [n], 1 where the token is a target of training; by default all are.

        Raises:
            ValueError: the arrays are empty, differ in length, or hold other values.
        """
        mask = np.ones(len(tokens), np.uint8) if loss_mask is None else np.asarray(loss_mask)
        values = np.asarray(tokens)
        if values.ndim != 1 or len(values) == 0 or values.shape != mask.shape:
            raise ValueError(
                f"a record needs tokens [n] and loss_mask [n], n >= 1; got {values.shape} and {mask.shape}"
            )
        if values.min() < 0 or values.max() >= 2**31 or mask.min() < 0 or mask.max() > 1:
            raise ValueError("tokens must lie in 0 .. 2**31 - 1 and the loss mask be 0 or 1")
        before, between = _frame(len(values))
        message = before + values.astype("<i4").tobytes() + between + mask.astype(np.uint8).tobytes()
        crc = _masked_crc(message)
        self._stream.write(_header(len(message)) + message + struct.pack("<I", crc))
        self._rows.append((self._end + _HEADER + len(before), len(values), crc))
        self._end += _HEADER + len(message) + _FOOTER

    def index(self) -> np.ndarray:
        """int64 [records, 3] of what was written so far: offset of the tokens, their number, the CRC."""
        return np.array(self._rows, np.int64).reshape(-1, 3)


def index_bytes(index: np.ndarray) -> bytes:
    """An index as the content of its .npy file."""
    stream = io.BytesIO()
    np.save(stream, index.astype("<i8"))
    return stream.getvalue()


def metadata_files(indices: Sequence[np.ndarray], tokenizer_model: bytes) -> dict[str, bytes]:
    """The files that complete a directory, by name; `indices` are those of all its shards, in order."""
    records = [len(index) for index in indices]
    message_bytes = sum(_shard_bytes(index) - len(index) * (_HEADER + _FOOTER) for index in indices)
    info = {
        "name": "records",
        "version": "1.0.0",
        "fileFormat": "tfrecord",
        "splits": [
            {
                "name": "train",
                "filepathTemplate": "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}",
                "numBytes": str(message_bytes),
                "shardLengths": [str(count) for count in records],
            }
        ],
    }
    metadata = {
        "records": records,
        "tokens": sum(int(index[:, 1].sum()) for index in indices),
        "fingerprint": _fingerprint(indices),
        "tokenizer": hashlib.sha256(tokenizer_model).hexdigest(),
    }
    return {
        "features.json": _json(_FEATURES),
        "dataset_info.json": _json(info),
        TOKENIZER: tokenizer_model,
        METADATA: _json(metadata),
    }


def write_records(
    directory: str | Path, shards: Sequence[Iterable[tuple[np.ndarray, np.ndarray | None]]], tokenizer_model: bytes
) -> None:
    """Writes a whole local directory from each shard's (tokens, loss mask) pairs: for tokens made elsewhere."""
    root = Path(directory)
    root.mkdir(parents=True, exist_ok=True)
    indices = []
    for shard, records in enumerate(shards):
        name, index_name = shard_names(shard, len(shards))
        with open(root / name, "wb") as stream:
            writer = ShardWriter(stream)
            for tokens, loss_mask in records:
                writer.write(tokens, loss_mask)
        indices.append(writer.index())
        (root / index_name).write_bytes(index_bytes(indices[-1]))
    for name, content in metadata_files(indices, tokenizer_model).items():
        (root / name).write_bytes(content)


class TokenRecords:
    """A directory of token records, read at random.

    Records are numbered through the shards in order. Only their lengths are held in memory, 24 bytes a record.

    Attributes:
        directory: where they lie.
        shards: number of files.
        lengths: int64 [records], the number of tokens of each.
        tokens: their sum.
        fingerprint: hexadecimal digest of all records' places, lengths and CRCs.
        tokenizer_fingerprint: SHA-256, in hexadecimal, of the tokenizer model that made them.
    """

    def __init__(
        self, directory: Path, indices: list[np.ndarray], tokenizer_fingerprint: str, fingerprint: str
    ) -> None:
        """Use `TokenRecords.open`."""
        self.directory = directory
        self.shards = len(indices)
        self.tokenizer_fingerprint = tokenizer_fingerprint
        self.fingerprint = fingerprint
        index = np.concatenate(indices)
        self._offsets, self.lengths, self._crcs = (np.ascontiguousarray(column) for column in index.T)
        self.tokens = int(self.lengths.sum())
        self._first_records = np.cumsum([0, *map(len, indices)])
        self._paths = [directory / shard_names(shard, self.shards)[0] for shard in range(self.shards)]
        self._maps = lru_cache(_OPEN_SHARDS)(_map)
        # Consecutive rows often cut the same long document.
        self._recent = lru_cache(4)(self._read)

    @classmethod
    def open(cls, directory: str | Path) -> "TokenRecords":
        """Opens a directory and checks that it's whole.

        Raises:
            UserError: the directory, a shard or an index is missing, truncated or of another data set, or the tokenizer
                beside the records isn't the one that made them.
        """
        root = Path(directory)
        try:
            metadata = json.loads((root / METADATA).read_bytes())
            shards, fingerprint = len(metadata["records"]), str(metadata["fingerprint"])
            expected = str(metadata["tokenizer"])
            tokenizer = hashlib.sha256((root / TOKENIZER).read_bytes()).hexdigest()
        except (FileNotFoundError, NotADirectoryError) as error:
            raise UserError(
                f"{error.filename}: missing, so {root} isn't a finished directory of token records; "
                "make it with python -m beam_pipelines.tokens.records"
            ) from None
        except (ValueError, KeyError, TypeError):
            raise UserError(f"{root / METADATA}: damaged; make the token records again") from None
        if tokenizer != expected:
            raise UserError(
                f"{root / TOKENIZER}: not the tokenizer that made these records "
                f"(SHA-256 {tokenizer[:12]}…, expected {expected[:12]}…); put the right one back"
            )
        indices = [_load_index(root / shard_names(shard, shards)[1]) for shard in range(shards)]
        if [len(index) for index in indices] != metadata["records"] or _fingerprint(indices) != fingerprint:
            raise UserError(f"{root}: its indices don't belong to its {METADATA}; make the token records again")
        for shard, index in enumerate(indices):
            _check_size(root / shard_names(shard, shards)[0], _shard_bytes(index))
        if sum(map(len, indices)) == 0:
            raise UserError(f"{root}: holds no records")
        return cls(root, indices, tokenizer, fingerprint)

    def __len__(self) -> int:
        return len(self.lengths)

    def read(self, record: int) -> tuple[np.ndarray, np.ndarray]:
        """Tokens int32 [n] and loss mask uint8 [n] of a record; both read-only.

        Raises:
            IndexError: there is no such record.
            UserError: the shard's bytes aren't those that were written; the message names the file and the offset.
        """
        if not 0 <= record < len(self.lengths):
            raise IndexError(f"{self.directory}: record {record} of {len(self.lengths)}")
        return self._recent(int(record))

    def _read(self, record: int) -> tuple[np.ndarray, np.ndarray]:
        count = int(self.lengths[record])
        before, between = _frame(count)
        path = self._paths[int(np.searchsorted(self._first_records, record, side="right")) - 1]
        start = int(self._offsets[record]) - len(before) - _HEADER
        length = _message_bytes(count)
        raw = self._maps(path)[start : start + _HEADER + length + _FOOTER]
        message = raw[_HEADER:-_FOOTER]
        sound = (
            raw[:_HEADER] == _header(length)
            and raw[-_FOOTER:] == struct.pack("<I", int(self._crcs[record]))
            and _masked_crc(message) == int(self._crcs[record])
        )
        if not sound:
            raise UserError(
                f"{path}: damaged record {record} at byte {start} (its CRC is wrong); write the shard again"
            )
        tokens = np.frombuffer(message, "<i4", count, len(before))
        return tokens, np.frombuffer(message, np.uint8, count, len(before) + 4 * count + len(between))


def _load_index(path: Path) -> np.ndarray:
    try:
        index = np.load(path, allow_pickle=False)
    except FileNotFoundError:
        raise UserError(f"{path}: missing; make the token records again") from None
    except (ValueError, EOFError, SyntaxError, TokenError):  # what NumPy's reader of headers raises
        raise UserError(f"{path}: damaged; make the token records again") from None
    if index.dtype != np.int64 or index.ndim != 2 or index.shape[1] != 3:
        raise UserError(f"{path}: not an index of token records")
    return index


def _check_size(path: Path, size: int) -> None:
    if not path.exists():
        raise UserError(f"{path}: missing; make the token records again")
    if path.stat().st_size != size:
        raise UserError(f"{path}: not {size} bytes as its index says: truncated or replaced; make the records again")


def _shard_bytes(index: np.ndarray) -> int:
    """The length of a shard's file: where its last record ends."""
    if len(index) == 0:
        return 0
    offset, count = int(index[-1, 0]), int(index[-1, 1])
    return offset - len(_frame(count)[0]) + _message_bytes(count) + _FOOTER


def _map(path: Path) -> mmap.mmap:
    with open(path, "rb") as file:
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)


@lru_cache(1 << 16)
def _frame(count: int) -> tuple[bytes, bytes]:
    """The bytes of a message before its tokens and between tokens and loss mask, for a number of tokens."""
    token_entry, mask_entry = _entry(b"tokens", 4 * count), _entry(b"loss_mask", count)
    features = len(token_entry) + 4 * count + len(mask_entry) + count
    return b"\x0a" + _varint(features) + token_entry, mask_entry


def _entry(name: bytes, size: int) -> bytes:
    """The head of an entry in tf.train.Features' map: name -> Feature{bytes_list{value}}, up to the value's bytes."""
    value = b"\x0a" + _varint(size)
    bytes_list = b"\x0a" + _varint(len(value) + size) + value
    feature = b"\x12" + _varint(len(bytes_list) + size) + bytes_list
    key = b"\x0a" + _varint(len(name)) + name
    return b"\x0a" + _varint(len(key) + len(feature) + size) + key + feature


def _message_bytes(count: int) -> int:
    before, between = _frame(count)
    return len(before) + 4 * count + len(between) + count


def _varint(value: int) -> bytes:
    """A protobuf varint: seven bits a byte, the lowest first."""
    encoded = bytearray()
    while value > 127:
        encoded.append(value & 127 | 128)
        value >>= 7
    return bytes([*encoded, value])


def _header(length: int) -> bytes:
    packed = struct.pack("<Q", length)
    return packed + struct.pack("<I", _masked_crc(packed))


def _masked_crc(data: bytes) -> int:
    """TFRecord's checksum: CRC-32C, rotated and shifted so that it isn't the CRC of data that hold CRCs."""
    crc = google_crc32c.value(data)
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def _fingerprint(indices: Sequence[np.ndarray]) -> str:
    hasher = hashlib.sha256()
    for index in indices:
        hasher.update(struct.pack("<Q", len(index)) + index.astype("<i8").tobytes())
    return hasher.hexdigest()


def _json(value: object) -> bytes:
    return (json.dumps(value, indent=1, sort_keys=True) + "\n").encode()
