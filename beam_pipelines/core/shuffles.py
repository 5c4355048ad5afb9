"""Shuffles that carry packed columns instead of elements.

Grouping one element a key costs Beam microseconds and dozens of bytes each, and one hot key stalls a worker. So a
shuffle here carries arrays: rows of uint64, cut into segments by the top bits of their key, a few kilobytes to
megabytes a value. The reducer sorts a segment and finds its runs of equal keys. Hashes make segments even, however many
documents share one key.

On one machine the values lie in files meanwhile (`GroupPacked`), and the runner groups only where they are: it holds
what it groups in this process, encoded, in several copies at once, and near duplicates shuffle 640 bytes a document.
Runners of clusters have a shuffle of their own, on disks.
"""

import uuid
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from typing import Any

import apache_beam as beam
import numpy as np
import pyarrow as pa

from opencoder_jax.beam_pipelines.core.storage import Directory

# What a duplicate carries through a shuffle: priority (documents.priorities) and packed address.
NODE = 4

Place = tuple[str, int, int]  # file, offset, bytes


def pack(table: np.ndarray) -> bytes:
    """uint64 [rows, columns] -> little-endian bytes."""
    return np.ascontiguousarray(table, "<u8").tobytes()


def unpack(values: Iterable[bytes], columns: int) -> np.ndarray:
    """The rows of all values, uint64 [rows, columns], in no particular order."""
    return np.frombuffer(b"".join(values), "<u8").astype(np.uint64).reshape(-1, columns)


def by_segment(table: np.ndarray, hashes: np.ndarray, segments: int) -> Iterator[tuple[int, bytes]]:
    """Cuts rows into `segments` (a power of two) by the top bits of their hashes: (segment, packed rows)."""
    if len(table) == 0:
        return
    place = (hashes >> np.uint64(64 - (segments.bit_length() - 1))).astype(np.int64) if segments > 1 else hashes * 0
    order = np.argsort(place, kind="stable")
    found, starts = np.unique(place[order], return_index=True)
    for segment, rows in zip(found.tolist(), np.split(order, starts[1:]), strict=True):
        yield int(segment), pack(table[rows])


def sort_rows(table: np.ndarray) -> np.ndarray:
    """Rows in lexicographic order, the first column first."""
    return table[np.lexsort(table.T[::-1])]


def run_starts(table: np.ndarray) -> np.ndarray:
    """Where runs of equal rows begin in a sorted table: bool [rows]."""
    starts = np.ones(len(table), bool)
    starts[1:] = (table[1:] != table[:-1]).any(axis=1)
    return starts


def star_edges(table: np.ndarray, keys: int) -> np.ndarray:
    """Edges between documents with equal keys, from the best of them to each other one.

    Args:
        table: [rows, keys + NODE]: key columns, then the document's node.

    Returns:
        uint64 [edges, 2, NODE]; linear in the rows however large a group is.
    """
    table = sort_rows(table)
    starts = run_starts(table[:, :keys])
    best = np.flatnonzero(starts)[np.cumsum(starts) - 1]
    others = np.flatnonzero(~starts)
    return np.stack([table[best[others], keys:], table[others, keys:]], axis=1)


def spanning_stars(edges: np.ndarray) -> np.ndarray:
    """The same connected components by the fewest edges: from the best document of each to each other one.

    Args:
        edges: uint64 [edges, 2, NODE].
    """
    if len(edges) == 0:
        return edges
    from scipy.sparse import coo_array  # loading it takes a worker half a second, and few get here
    from scipy.sparse.csgraph import connected_components

    ends = edges.reshape(-1, NODE)
    order = np.lexsort(ends.T[::-1])
    starts = run_starts(ends[order])
    nodes = ends[order][starts]  # in order of priority, so a smaller index is a better document
    index = np.empty(len(ends), np.int64)
    index[order] = np.cumsum(starts) - 1
    source, target = index.reshape(-1, 2).T
    graph = coo_array((np.ones(len(source), bool), (source, target)), shape=(len(nodes), len(nodes)))
    labels = connected_components(graph, directed=False)[1]
    first = np.full(labels.max() + 1, len(nodes))
    np.minimum.at(first, labels, np.arange(len(nodes)))
    others = np.flatnonzero(first[labels] != np.arange(len(nodes)))
    return np.stack([nodes[first[labels[others]]], nodes[others]], axis=1)


class SpanningForest(beam.CombineFn):
    """Connected components as a combiner: associative, so partial forests of workers merge into the whole one."""

    def create_accumulator(self) -> np.ndarray:
        return np.empty((0, 2, NODE), np.uint64)

    def add_input(self, accumulator: np.ndarray, element: bytes) -> np.ndarray:
        return self.merge_accumulators([accumulator, unpack([element], 2 * NODE).reshape(-1, 2, NODE)])

    def merge_accumulators(self, accumulators: Iterable[np.ndarray]) -> np.ndarray:
        return spanning_stars(np.concatenate(list(accumulators)))

    def extract_output(self, accumulator: np.ndarray) -> bytes:
        return pack(accumulator.reshape(-1, 2 * NODE))


class GroupPacked(beam.PTransform):
    """(segment, packed rows) -> (segment, all of its packed rows), like GroupByKey.

    Args:
        folder: where the values lie meanwhile; None leaves them to the runner. Who runs the pipeline empties it.
    """

    def __init__(self, folder: Directory | None) -> None:
        super().__init__()
        self.folder = folder

    def expand(self, rows: Any) -> Any:
        """Applies it."""
        if self.folder is None:
            return rows | beam.GroupByKey()
        places = rows | "to files" >> beam.ParDo(_Write(self.folder)) | beam.GroupByKey()
        return places | "from files" >> beam.Map(_read, self.folder)


class _Write(beam.DoFn):
    """(segment, packed rows) -> (segment, place); a file a bundle."""

    def __init__(self, folder: Directory) -> None:
        self.folder = folder
        self._open = ExitStack()
        self._file: tuple[str, pa.NativeFile] | None = None

    def process(self, element: tuple[int, bytes]) -> Iterable[tuple[int, Place]]:
        segment, packed = element
        if self._file is None:
            name = uuid.uuid4().hex
            self._file = name, self._open.enter_context(self.folder.atomic(name))
        name, stream = self._file
        place = (name, stream.tell(), len(packed))
        stream.write(packed)
        yield segment, place

    def finish_bundle(self) -> None:
        self._file = None
        self._open.close()


def _read(element: tuple[int, Iterable[Place]], folder: Directory) -> tuple[int, list[bytes]]:
    segment, places = element
    files: dict[str, list[tuple[int, int]]] = {}
    for name, offset, size in places:
        files.setdefault(name, []).append((offset, size))
    values = []
    for name, ranges in files.items():
        with folder.read(name) as stream:
            values += [stream.read_at(size, offset) for offset, size in ranges]
    return segment, values
