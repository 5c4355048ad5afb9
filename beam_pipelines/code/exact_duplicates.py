"""Exact duplicates: of documents with the same SHA-256, the one with most stars, then the latest commit, is kept.

OpenCoder, section 2.1.1: this alone removes about 75 % of raw GitHub files, and comes before any cleaning.
"""

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import apache_beam as beam
import numpy as np

from beam_pipelines.code.duplicates import deduplicate
from beam_pipelines.columnar import NODE, by_segment, pack, star_edges, unpack
from beam_pipelines.documents import addresses, priorities, read_shard_columns
from beam_pipelines.manifest import Manifest
from beam_pipelines.runner import BeamOptions
from beam_pipelines.stage import main, require_inputs
from beam_pipelines.storage import Directory
from opencoder_jax.recipe import configurable

KEYS = 2  # the first 128 bits of the hash


@configurable
@dataclass(frozen=True)
class ExactDuplicatesConfig:
    """segments: parts of the shuffle, a power of two; aim at 10 to 100 MB each (48 bytes a document)."""

    segments: int = 16

    def __post_init__(self) -> None:
        if self.segments < 1 or self.segments & (self.segments - 1):
            raise ValueError(f"segments must be a power of two: got {self.segments}")


class HashDocuments(beam.DoFn):
    """A shard -> (segment, packed rows of [hash, node])."""

    def __init__(self, source: Directory, names: list[str], segments: int) -> None:
        self.source = source
        self.names = names
        self.segments = segments

    def process(self, shard: int) -> Iterator[tuple[int, bytes]]:
        table = read_shard_columns(self.source, self.names[shard], ["id", "text", "stars", "commit_time"])
        if table.num_rows == 0:
            return
        hashes = [hashlib.sha256(text.as_buffer()).digest()[:16] for text in table.column("text")]
        keys = np.frombuffer(b"".join(hashes), "<u8").astype(np.uint64).reshape(-1, KEYS)
        rows = np.column_stack([keys, priorities(table), addresses(shard, table.num_rows)])
        yield from by_segment(rows, keys[:, 0], self.segments)


def stars_of_segment(element: tuple[int, Iterable[bytes]]) -> bytes:
    """(segment, packed rows) -> packed edges. Equal hashes are an equivalence, so these stars are whole clusters."""
    return pack(star_edges(unpack(element[1], KEYS + NODE), KEYS).reshape(-1, 2 * NODE))


def run(inputs: Sequence[str], output: str, config: ExactDuplicatesConfig, options: BeamOptions) -> Manifest:
    """Writes the input's documents without exact duplicates."""
    require_inputs("exact_duplicates", inputs, "documents")

    def find(shards: Any, source: Directory, names: list[str]) -> Any:
        rows = shards | "hash" >> beam.ParDo(HashDocuments(source, names, config.segments))
        return rows | "group by hash" >> beam.GroupByKey() | "stars" >> beam.Map(stars_of_segment)

    return deduplicate("exact_duplicates", __name__, find, 100.0, inputs[0], output, config, options)


if __name__ == "__main__":
    main("beam_pipelines.code.exact_duplicates")
