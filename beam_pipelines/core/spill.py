"""A shuffle of packed rows whose values lie in files: the runner groups only where they are.

A local runner holds what it groups in this process, encoded, in several copies at once: near duplicates shuffle 640
bytes a document. Runners of clusters have a shuffle of their own, on disks.
"""

import uuid
from collections.abc import Iterable
from contextlib import ExitStack
from typing import Any

import apache_beam as beam
import pyarrow as pa

from opencoder_jax.beam_pipelines.core.storage import Directory

Place = tuple[str, int, int]  # file, offset, bytes


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
