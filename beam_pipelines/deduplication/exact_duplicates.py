"""Exact duplicates: of documents with the same SHA-256, the one with most stars, then the latest commit, is kept.

OpenCoder, section 2.1.1: this alone removes about 75 % of raw GitHub files, and comes before any cleaning.
`ExactDuplicatesConfig.level` compares files, whole repositories or chunks (levels.py).
"""

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import apache_beam as beam
import numpy as np

from opencoder_jax.beam_pipelines.core.manifest import Manifest
from opencoder_jax.beam_pipelines.core.runner import BeamOptions
from opencoder_jax.beam_pipelines.core.shuffles import (
    NODE,
    GroupPacked,
    by_segment,
    pack,
    run_starts,
    sort_rows,
    unpack,
)
from opencoder_jax.beam_pipelines.core.storage import Directory
from opencoder_jax.beam_pipelines.deduplication.duplicates import deduplicate, stars
from opencoder_jax.beam_pipelines.deduplication.levels import DuplicatesConfig, Units, read_units
from opencoder_jax.recipe import configurable

KEYS = 2  # the first 128 bits of the hash


@configurable
@dataclass(frozen=True)
class ExactDuplicatesConfig(DuplicatesConfig):
    """Nothing of its own: see DuplicatesConfig."""


def hash_units(units: Units, config: ExactDuplicatesConfig) -> Iterator[tuple[int, bytes]]:
    """Units -> (segment, packed rows of [hash, node]); at the level of repositories, segments of their names."""
    hashes = [hashlib.sha256(units.texts.text(index)).digest()[:16] for index in range(len(units.nodes))]
    keys = np.frombuffer(b"".join(hashes), "<u8").astype(np.uint64).reshape(-1, KEYS)
    nodes, segments = units.nodes, keys[:, 0]
    if config.level == "repository":
        nodes, segments = np.column_stack([nodes[:, :-1], units.repositories]), units.repositories
    yield from by_segment(np.column_stack([keys, nodes]), segments, config.segments)


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


def run(documents: str, output: str, config: ExactDuplicatesConfig, options: BeamOptions) -> Manifest:
    """Writes the documents without exact duplicates.

    Args:
        documents: the directory of the documents.
    """

    def find(shards: Any, source: Directory, names: list[str], group: GroupPacked) -> Any:
        units = shards | "read" >> beam.FlatMap(read_units, source, names, config)
        rows = units | "hash" >> beam.FlatMap(hash_units, config)
        if config.level == "repository":
            files = rows | "group by repository" >> group
            rows = files | "hash repositories" >> beam.FlatMap(hash_repositories, config.segments)
        # Equal hashes are an equivalence, so the stars of a segment are whole clusters.
        return rows | "group by hash" >> group | "stars" >> beam.Map(stars, KEYS)

    return deduplicate("exact_duplicates", __name__, find, 400.0, documents, output, config, options)
