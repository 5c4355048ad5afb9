"""Checkpoints of parameters, written and read a piece at a time: for models larger than the memory.

What is written is a checkpoint as any other (checkpoints.py), with its checksums and its seal, but for its chunks: no
larger than a layer of a weight, or a part of a table.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import tensorstore as ts

from opencoder_jax.parallel.seals import seal

Place = tuple[slice, ...]  # of a piece in its array
Pieces = Callable[[], Iterator[tuple[Place, np.ndarray]]]


class Streamed(NamedTuple):
    """An array of float32 that is made while it is written.

    Attributes:
        chunk: the shape of its chunks, which the pieces should be made of.
        pieces: makes them; together they are the array.
    """

    shape: tuple[int, ...]
    chunk: tuple[int, ...]
    pieces: Pieces


def write(checkpoint: Path, parameters: Mapping[str, Any]) -> None:
    """Writes a checkpoint of parameters, one after the other, and seals it.

    Args:
        parameters: nested as the decoder's attributes; the leaves are Streamed.

    Raises:
        OSError, ValueError: the disk is full, for one; what was written stays.
    """
    is_leaf = lambda leaf: isinstance(leaf, Streamed)  # noqa: E731
    leaves = jax.tree_util.tree_leaves_with_path(parameters, is_leaf=is_leaf)
    empty = jax.tree.map(lambda _: jnp.zeros(1), parameters, is_leaf=is_leaf)
    with ocp.Checkpointer(ocp.CompositeCheckpointHandler()) as writer:
        # Orbax makes the checkpoint with arrays of one number each, which are replaced.
        writer.save(checkpoint.absolute(), args=ocp.args.Composite(parameters=ocp.args.StandardSave(empty)))
    sums = {}
    for keys, leaf in leaves:
        path = [key.key for key in keys]
        sums[".".join(("parameters", *path))] = _fill(_spec(checkpoint, path), leaf)
    with ocp.Checkpointer(ocp.JsonCheckpointHandler()) as writer:
        writer.save(checkpoint.absolute() / "sums", sums)
    seal(checkpoint)


def word_sum(piece: np.ndarray) -> int:
    """The checksum of contiguous float32, see checkpoints.py; that of an array is the sum of its pieces'."""
    return int(piece.view(np.uint32).sum(dtype=np.uint32))


def _fill(spec: dict[str, Any], leaf: Streamed) -> int:
    """Writes an array, and gives its checksum."""
    metadata = {
        "shape": leaf.shape,
        "chunks": leaf.chunk,
        "dtype": "<f4",
        "dimension_separator": ".",
        "compressor": {"id": "zstd", "level": 1},
    }
    # Zeros are stored, too: where a chunk is missing, the checkpoint is damaged.
    spec = spec | {"metadata": metadata, "store_data_equal_to_fill_value": True}
    array, total = ts.open(ts.Spec(spec), create=True, delete_existing=True).result(), 0
    for place, piece in leaf.pieces():
        piece = np.ascontiguousarray(piece, np.float32)
        total += word_sum(piece)
        array[place].write(piece, can_reference_source_data_indefinitely=True).result()
    return total % 2**32


def _spec(checkpoint: Path, path: Sequence[str]) -> dict[str, Any]:
    """An array of the parameters, as Orbax lays it out: Zarr in a database of all of them."""
    base = {"driver": "file", "path": f"{checkpoint.absolute()}/parameters/"}
    return {
        "driver": "zarr",
        "kvstore": {"driver": "ocdbt", "base": base, "path": f"{'.'.join(path)}/"},
        # Each chunk is asked for once.
        "context": {"cache_pool": {"total_bytes_limit": 0}},
    }


class StoredArray:
    """An array of a checkpoint, of which pieces are read.

    Attributes:
        shape: of the whole.
        chunk: of what is stored together; reading a part of it reads it all.
    """

    def __init__(self, checkpoint: Path, path: Sequence[str]) -> None:
        """Raises ValueError or OSError where there's no such array."""
        self._array = ts.open(ts.Spec(_spec(checkpoint, path)), open=True, read=True).result()
        self.shape = tuple(self._array.shape)
        self.chunk: tuple[int, ...] = tuple(self._array.chunk_layout.read_chunk.shape or self.shape)  # type: ignore[arg-type]

    def read(self, place: Place) -> np.ndarray:
        """A piece, float32. Raises ValueError for a damaged one."""
        return self._array[place].read().result()
