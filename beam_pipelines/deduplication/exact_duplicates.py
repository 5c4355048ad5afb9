"""Exact duplicates: of documents with the same SHA-256, the one with most stars, then the latest commit, is kept.

OpenCoder, section 2.1.1: this alone removes about 75 % of raw GitHub files, and comes before any cleaning.
`ExactDuplicatesConfig.level` compares files, whole repositories or chunks (levels.py).
"""

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import apache_beam as beam
import numpy as np

from opencoder_jax.beam_pipelines.core.manifest import Manifest
from opencoder_jax.beam_pipelines.core.runner import BeamOptions
from opencoder_jax.beam_pipelines.core.shuffles import NODE, by_segment, pack, run_starts, sort_rows, star_edges, unpack
from opencoder_jax.beam_pipelines.core.spill import GroupPacked
from opencoder_jax.beam_pipelines.core.stage import main, require_inputs
from opencoder_jax.beam_pipelines.core.storage import Directory
from opencoder_jax.beam_pipelines.deduplication.duplicates import deduplicate
from opencoder_jax.beam_pipelines.deduplication.levels import DuplicatesConfig, read_units
from opencoder_jax.recipe import configurable

KEYS = 2  # the first 128 bits of the hash


@configurable
@dataclass(frozen=True)
class ExactDuplicatesConfig(DuplicatesConfig):
    """Nothing of its own: see DuplicatesConfig."""


class HashUnits(beam.DoFn):
    """A shard -> (segment, packed rows of [hash, node]); at the level of repositories, segments of their names."""

    def __init__(self, source: Directory, names: list[str], config: ExactDuplicatesConfig) -> None:
        self.source = source
        self.names = names
        self.config = config

    def process(self, shard: int) -> Iterator[tuple[int, bytes]]:
        for units in read_units(self.source, self.names[shard], shard, self.config):
            hashes = [hashlib.sha256(units.texts.text(place)).digest()[:16] for place in range(len(units.nodes))]
            keys = np.frombuffer(b"".join(hashes), "<u8").astype(np.uint64).reshape(-1, KEYS)
            if self.config.level == "repository":
                units.nodes[:, -1] = units.repositories
            place = units.nodes[:, -1] if self.config.level == "repository" else keys[:, 0]
            yield from by_segment(np.column_stack([keys, units.nodes]), place, self.config.segments)


def hash_repositories(element: tuple[int, Iterable[bytes]], segments: int) -> Iterator[tuple[int, bytes]]:
    """(segment of repositories, packed rows of their files) -> (segment, packed rows of [hash, node]), one each."""
    table = unpack(element[1], KEYS + NODE)
    table = table[np.lexsort([table[:, 1], table[:, 0], table[:, -1]])]  # a repository's contents, in their order
    starts = np.flatnonzero(run_starts(table[:, -1:]))
    rows = []
    for files in np.split(table, starts[1:]):
        digest = np.frombuffer(hashlib.sha256(pack(files[:, :KEYS])).digest()[:16], "<u8").astype(np.uint64)
        rows.append(np.concatenate([digest, sort_rows(files[:, KEYS:])[0]]))
    found = np.array(rows, np.uint64).reshape(-1, KEYS + NODE)
    yield from by_segment(found, found[:, 0], segments)


def stars_of_segment(element: tuple[int, Iterable[bytes]]) -> bytes:
    """(segment, packed rows) -> packed edges. Equal hashes are an equivalence, so these stars are whole clusters."""
    return pack(star_edges(unpack(element[1], KEYS + NODE), KEYS).reshape(-1, 2 * NODE))


def run(inputs: Sequence[str], output: str, config: ExactDuplicatesConfig, options: BeamOptions) -> Manifest:
    """Writes the input's documents without exact duplicates."""
    require_inputs("exact_duplicates", inputs, "documents")

    def find(shards: Any, source: Directory, names: list[str], group: GroupPacked) -> Any:
        rows = shards | "hash" >> beam.ParDo(HashUnits(source, names, config))
        if config.level == "repository":
            files = rows | "group by repository" >> group
            rows = files | "hash repositories" >> beam.FlatMap(hash_repositories, config.segments)
        return rows | "group by hash" >> group | "stars" >> beam.Map(stars_of_segment)

    return deduplicate("exact_duplicates", __name__, find, 400.0, inputs[0], output, config, options)


if __name__ == "__main__":
    main("opencoder_jax.beam_pipelines.deduplication.exact_duplicates")
