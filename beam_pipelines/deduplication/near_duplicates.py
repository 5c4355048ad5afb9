"""Near duplicates: MinHash over word 5-grams, 2048 permutations in 16 bands of 128 rows (OpenCoder, section 2.1.1).

Two documents are candidates when all 128 rows of a band agree, which happens with probability 1-(1-J^128)^16 at
Jaccard similarity J: 2 % at 0.95, 71 % at 0.98, 99 % at 0.99. So this removes near copies, not similar programs.
Candidates aren't verified. Of each cluster the document with most stars, then the latest commit, is kept. What a
cluster is, `rule` says:

- components: all that are connected through candidates. Exact, but one worker holds an edge a duplicate (64 bytes).
- bucket_winner: a document is removed if a better one shares any of its buckets. No single worker sees more than a
  segment, so it's for the largest corpora. It keeps all that components keeps, and the ends of chains: of A, B, C, best
  first, where A and B are candidates of C but not of each other, it keeps A and B. A named keeper may itself lose to
  another document, and a cluster's size is that of one bucket.

`NearDuplicatesConfig.level` compares files, whole repositories or chunks (levels.py).
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import apache_beam as beam
import numpy as np
import pyarrow as pa

from opencoder_jax.beam_pipelines.core.documents import (
    PRIORITY_COLUMNS,
    addresses,
    beside,
    priorities,
    read_shard_columns,
)
from opencoder_jax.beam_pipelines.core.manifest import Manifest
from opencoder_jax.beam_pipelines.core.maps import Result, map_stage
from opencoder_jax.beam_pipelines.core.runner import BeamOptions
from opencoder_jax.beam_pipelines.core.shuffles import (
    NODE,
    GroupPacked,
    SpanningForest,
    by_segment,
    pack,
    run_starts,
    unpack,
)
from opencoder_jax.beam_pipelines.core.storage import Directory
from opencoder_jax.beam_pipelines.deduplication.duplicates import deduplicate, stars
from opencoder_jax.beam_pipelines.deduplication.levels import DuplicatesConfig, Units, read_units
from opencoder_jax.beam_pipelines.deduplication.minhash import band_hashes, document_bands, grams, signatures
from opencoder_jax.beam_pipelines.deduplication.texts import Texts
from opencoder_jax.checks import at_least, check, one_of
from opencoder_jax.recipe import configurable

RULES = ("components", "bucket_winner")
SIGN_SPEED = 150.0  # megabytes of documents a second on one core
FIND_SPEED = 2000.0  # where they are signed


@configurable
@dataclass(frozen=True)
class NearDuplicatesConfig(DuplicatesConfig):
    """The signature and its banding; the rest is DuplicatesConfig's.

    Attributes:
        segments: parts of the shuffle of each band, a power of two; aim at 10 to 100 MB each.
        shingle: words a gram.
        bands, rows: the signature has bands * rows permutations.
        rule: components or bucket_winner.
    """

    segments: int = 1
    shingle: int = 5
    bands: int = 16
    rows: int = 128
    rule: str = "components"

    def __post_init__(self) -> None:
        super().__post_init__()
        check(self, shingle=at_least(1), bands=at_least(1), rows=at_least(1), rule=one_of(*RULES))


BAND_SCHEMA = pa.schema(
    [("bytes", pa.int64()), ("bands", pa.binary())]  # uint64 [bands]; null: a text shorter than one gram, has none
)


@dataclass(frozen=True)
class SignDocuments:
    """Documents -> the hashes of their bands, which are kept: who adds documents signs only those."""

    shingle: int
    bands: int
    rows: int

    def __call__(self, documents: pa.RecordBatch) -> Result:
        hashes, offsets = grams(Texts.of(documents.column("text")), self.shingle)
        found = map(pack, document_bands(hashes, offsets, self.bands, self.rows))
        bands = [band if signed else None for band, signed in zip(found, np.diff(offsets) > 0, strict=True)]
        return Result(
            pa.RecordBatch.from_arrays([documents.column("bytes"), pa.array(bands, pa.binary())], schema=BAND_SCHEMA)
        )


def read_bands(
    shard: int, source: Directory, names: list[str], signed: Directory, config: NearDuplicatesConfig
) -> Iterator[tuple[int, bytes]]:
    """The documents of a shard -> ((band, segment), packed rows of [band hash, node])."""
    documents = read_shard_columns(source, names[shard], list(PRIORITY_COLUMNS))
    bands = read_shard_columns(signed, beside(names[shard], "bands"), ["bands"]).column("bands")
    nodes = np.column_stack([priorities(documents), addresses(shard, documents.num_rows)])
    hashes = unpack(bands.drop_null().to_pylist(), config.bands)
    yield from rows_by_band(hashes, nodes[bands.is_valid().to_numpy()], config.segments)


def sign_units(units: Units, config: NearDuplicatesConfig) -> Iterator[tuple[int, bytes]]:
    """Units -> ((band, segment), packed rows of [band hash, node])."""
    hashes, offsets = grams(units.texts, config.shingle)
    bands = document_bands(hashes, offsets, config.bands, config.rows)
    signed = np.diff(offsets) > 0  # a text shorter than one gram has no near duplicates
    yield from rows_by_band(bands[signed], units.nodes[signed], config.segments)


def rows_by_band(bands: np.ndarray, nodes: np.ndarray, segments: int) -> Iterator[tuple[int, bytes]]:
    """uint64 [units, bands] and their nodes -> ((band, segment), packed rows of [band hash, node])."""
    for band in range(bands.shape[1]):
        for segment, packed in by_segment(np.column_stack([bands[:, band], nodes]), bands[:, band], segments):
            yield band * segments + segment, packed


def sign_repositories(units: Units, config: NearDuplicatesConfig) -> Iterator[tuple[int, bytes]]:
    """Units -> (segment of repositories, packed rows of [node, signature]), one for each repository among them.

    A signature is a row of minima, so that of a union is the smaller of two, row by row: it travels in place of text.
    """
    if not len(units.nodes):
        return
    order = np.argsort(units.repositories, kind="stable")
    nodes = units.nodes[order]
    nodes[:, -1] = units.repositories[order]
    hashes, offsets = grams(units.texts, config.shingle)
    pieces = [hashes[offsets[index] : offsets[index + 1]] for index in order.tolist()]
    starts = np.flatnonzero(run_starts(nodes[:, -1:]))
    stops = np.append(starts[1:], len(nodes))
    ends = np.cumsum([0, *map(len, pieces)])[np.append(starts, len(nodes))]
    signed = np.diff(ends) > 0
    together = np.concatenate([np.empty(0, np.uint64), *pieces])
    rows = signatures(together, np.append(ends[:-1][signed], ends[-1]), config.bands, config.rows)
    best = [min(nodes[start:stop].tolist()) for start, stop in zip(starts, stops, strict=True)]
    table = np.array(best, np.uint64).reshape(-1, NODE)[signed]
    yield from by_segment(np.column_stack([table, in_pairs(rows)]), table[:, -1], config.segments)


def in_pairs(rows: np.ndarray) -> np.ndarray:
    """uint32 [n, columns] -> uint64 [n, columns / 2, rounded up]: how signatures are packed."""
    even = np.pad(rows, [(0, 0), (0, rows.shape[1] % 2)])
    return np.ascontiguousarray(even, "<u4").view("<u8")


def bands_of_repositories(
    element: tuple[int, Iterable[bytes]], config: NearDuplicatesConfig
) -> Iterator[tuple[int, bytes]]:
    """(segment, packed rows of [node, signature]) -> ((band, segment), packed rows of [band hash, node])."""
    permutations = config.bands * config.rows
    table = unpack(element[1], NODE + (permutations + 1) // 2)
    table = table[np.lexsort([*table.T[NODE - 2 :: -1], table[:, NODE - 1]])]  # by repository, the best document first
    starts = np.flatnonzero(run_starts(table[:, NODE - 1 : NODE]))
    rows = np.ascontiguousarray(table[:, NODE:], "<u8").view("<u4")[:, :permutations]
    merged = np.minimum.reduceat(rows, starts, axis=0)
    yield from rows_by_band(band_hashes(merged, config.bands), table[starts, :NODE], config.segments)


def run(documents: str, output: str, config: NearDuplicatesConfig, options: BeamOptions) -> Manifest:
    """Writes the documents without near duplicates.

    Args:
        documents: the directory of the documents.
    """
    signed = f"{output.rstrip('/')}/bands"

    def find(shards: Any, source: Directory, names: list[str], group: GroupPacked) -> Any:
        if config.level == "file":
            bands = shards | "read" >> beam.FlatMap(read_bands, source, names, Directory(signed), config)
        else:
            units = shards | "read" >> beam.FlatMap(read_units, source, names, config)
            if config.level == "repository":
                files = units | "sign" >> beam.FlatMap(sign_repositories, config) | "group by repository" >> group
                bands = files | "merge signatures" >> beam.FlatMap(bands_of_repositories, config)
            else:
                bands = units | "sign" >> beam.FlatMap(sign_units, config)
        edges = bands | "group by band" >> group | "stars" >> beam.Map(stars, 1)
        return edges | "components" >> beam.CombineGlobally(SpanningForest()) if config.rule == "components" else edges

    if config.level != "file":
        return deduplicate("near_duplicates", __name__, find, SIGN_SPEED, documents, output, config, options)
    kernel = SignDocuments(config.shingle, config.bands, config.rows)
    map_stage("near_duplicates_bands", kernel, [documents], signed, kernel, options, "bands", (), SIGN_SPEED, True)
    return deduplicate("near_duplicates", __name__, find, FIND_SPEED, documents, output, config, options, [signed])
