"""Safetensors, read and written a tensor at a time, without mapping files into the memory.

A file is the length of a header (8 bytes, little endian), the header (JSON: of each tensor its dtype, shape and place
in what follows), and the tensors' bytes. Large models are several files, and `model.safetensors.index.json` says which
tensor lies in which.
"""

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from math import prod
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

import ml_dtypes
import numpy as np

from opencoder_jax.files import read_at, read_json, write_json
from opencoder_jax.recipe import UserError

DTYPES = {
    "F32": np.dtype(np.float32),
    "F16": np.dtype(np.float16),
    "BF16": np.dtype(ml_dtypes.bfloat16),
}
CODES = {dtype.name: code for code, dtype in DTYPES.items()}
SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"
SHARD_BYTES = 5_000_000_000  # as Hugging Face's own files
_MOST_HEADER = 100_000_000  # the format's own limit


class Entry(NamedTuple):
    """Where a tensor lies."""

    file: Path
    dtype: np.dtype
    shape: tuple[int, ...]
    start: int  # in the file


class SafetensorsFolder:
    """The tensors of a Hugging Face folder.

    Attributes:
        shapes: of the tensors, by their names.
        dtypes: the names of their dtypes: float32, float16 or bfloat16.
    """

    def __init__(self, directory: Path) -> None:
        """Raises UserError: there are no weights, or a file is missing or damaged, or a tensor there twice."""
        self._entries: dict[str, Entry] = {}
        index = directory / INDEX
        if index.exists():
            places = _index(index)
            for shard in sorted(set(places.values())):
                if not (directory / shard).is_file():
                    raise UserError(f"{index} names {shard}, which isn't there: download the folder again")
                self._add(directory / shard)
            if missing := sorted(places.keys() - self._entries.keys()):
                raise UserError(f"{index} names the tensor {missing[0]}, which {places[missing[0]]} doesn't have")
        else:
            files = sorted(directory.glob("*.safetensors"))
            if not files:
                raise UserError(f"{directory}: no weights: neither {SINGLE} nor {INDEX}")
            for file in files:
                self._add(file)
        self.shapes: Mapping[str, tuple[int, ...]] = {name: entry.shape for name, entry in self._entries.items()}
        self.dtypes: Mapping[str, str] = {name: entry.dtype.name for name, entry in self._entries.items()}

    def read(self, name: str, start: int = 0, stop: int | None = None) -> np.ndarray:
        """A tensor, or some of its rows, in its own dtype."""
        entry = self._entries[name]
        rows = range(entry.shape[0])[start:stop]
        row = prod(entry.shape[1:]) * entry.dtype.itemsize
        with entry.file.open("rb") as file:
            content = read_at(file.fileno(), entry.start + rows.start * row, entry.start + rows.stop * row)
        return np.frombuffer(content, entry.dtype).reshape(len(rows), *entry.shape[1:])

    def _add(self, file: Path) -> None:
        for name, entry in _header(file):
            if name in self._entries:
                raise UserError(f"{file}: the tensor {name} is also in {self._entries[name].file.name}")
            self._entries[name] = entry


def _index(file: Path) -> dict[str, str]:
    """Which file each tensor lies in."""
    found = read_json(file)
    places = found.get("weight_map") if isinstance(found, dict) else None
    if not isinstance(places, dict) or not places:
        raise UserError(f"{file}: no weight_map there: download the folder again")
    for name in places.values():
        if not isinstance(name, str) or Path(name).name != name:
            raise UserError(f"{file}: names {name!r}, which isn't a file beside it")
    return places


def _header(file: Path) -> Iterator[tuple[str, Entry]]:
    """The tensors of a file. Raises UserError for a damaged one."""
    size = file.stat().st_size
    with file.open("rb") as content:
        length = int.from_bytes(content.read(8), "little")
        if size < 8 or length > min(size - 8, _MOST_HEADER):
            raise UserError(f"{file}: not a safetensors file, or a truncated one ({size:,} bytes)")
        try:
            header = json.loads(content.read(length), object_pairs_hook=_no_doubles)
            header.pop("__metadata__", None)
            found = [
                (name, each["dtype"], tuple(each["shape"]), *each["data_offsets"]) for name, each in header.items()
            ]
            covered = 0
            for name, _, shape, start, stop in sorted(found, key=lambda one: one[3:]):
                if start != covered or stop < start or any(not isinstance(n, int) or n < 0 for n in shape):
                    raise ValueError(f"the place of {name} is wrong")
                covered = stop
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            raise UserError(f"{file}: not a safetensors file, or a damaged one ({error})") from None
    if size != 8 + length + covered:
        raise UserError(f"{file}: truncated, or damaged: it has {size:,} bytes of {8 + length + covered:,}")
    for name, code, shape, start, stop in found:
        if code not in DTYPES:
            raise UserError(f"{file}: {name} is of dtype {code}; only {', '.join(DTYPES)} are read")
        if prod(shape) * DTYPES[code].itemsize != stop - start:
            raise UserError(f"{file}: {name} has {stop - start:,} bytes, which isn't {code} of the shape {list(shape)}")
        yield name, Entry(file, DTYPES[code], shape, 8 + length + start)


def _no_doubles(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"{next(name for name in names if names.count(name) > 1)} is there twice")
    return found


class SafetensorsWriter:
    """Writes the files of a model, in a `with` statement; tensors may come in any order, and in pieces."""

    def __init__(
        self,
        directory: Path,
        tensors: Mapping[str, tuple[str, tuple[int, ...]]],
        shard_bytes: int = SHARD_BYTES,
    ) -> None:
        """Opens the files and writes their headers.

        Args:
            tensors: of each its dtype's name and its shape; the files have them in this order.
            shard_bytes: the most that a file has of them, but for a tensor that has more itself.
        """
        self._stack = ExitStack()
        shards: list[dict[str, int]] = [{}]
        for name, (dtype, shape) in tensors.items():
            size = prod(shape) * DTYPES[CODES[dtype]].itemsize
            if shards[-1] and sum(shards[-1].values()) + size > shard_bytes:
                shards.append({})
            shards[-1][name] = size
        self._tensors = tensors
        self._places: dict[str, tuple[int, int]] = {}  # the open file, and where the tensor begins in it
        index: dict[str, str] = {}
        for number, shard in enumerate(shards, 1):
            file = SINGLE if len(shards) == 1 else f"model-{number:05}-of-{len(shards):05}.safetensors"
            index |= dict.fromkeys(shard, file)
            self._begin(directory / file, shard)
        if len(shards) > 1:
            total = sum(sum(shard.values()) for shard in shards)
            write_json(directory / INDEX, {"metadata": {"total_size": total}, "weight_map": index})

    def _begin(self, path: Path, sizes: Mapping[str, int]) -> None:
        header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
        start = 0
        for name, size in sizes.items():
            dtype, shape = self._tensors[name]
            header[name] = {"dtype": CODES[dtype], "shape": shape, "data_offsets": [start, start + size]}
            start += size
        content = json.dumps(header, separators=(",", ":")).encode()
        content += b" " * (-len(content) % 8)
        file = self._stack.enter_context(path.open("wb"))
        file.write(len(content).to_bytes(8, "little") + content)
        file.flush()
        for name in sizes:
            self._places[name] = file.fileno(), 8 + len(content) + header[name]["data_offsets"][0]

    def write(self, name: str, rows: np.ndarray, start: int = 0) -> None:
        """Writes a tensor, or its rows from `start` on, rounded to the tensor's dtype.

        Raises:
            OSError: the disk is full, for one.
            UserError: a number is too large for the dtype.
        """
        dtype, shape = self._tensors[name]
        try:
            with np.errstate(over="raise"):
                content = np.ascontiguousarray(rows, DTYPES[CODES[dtype]]).view(np.uint8).reshape(-1)
        except FloatingPointError:
            raise UserError(f"{name} has numbers that are too large for {dtype}; take another --dtype") from None
        file, offset = self._places[name]
        offset += start * prod(shape[1:]) * DTYPES[CODES[dtype]].itemsize
        while len(content):
            written = os.pwrite(file, content.data, offset)
            content, offset = content[written:], offset + written

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._stack:
            if error is None:
                for file in {file for file, _ in self._places.values()}:
                    os.fsync(file)
