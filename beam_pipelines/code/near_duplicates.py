"""Near duplicates: MinHash over word 5-grams, 2048 permutations in 16 bands of 128 rows (OpenCoder, section 2.1.1).

Two documents are candidates when all 128 rows of a band agree, which happens with probability 1-(1-J^128)^16 at
Jaccard similarity J: 2 % at 0.95, 71 % at 0.98, 99 % at 0.99. So this removes near copies, not similar programs.
Candidates aren't verified; clusters are connected components, and of each the document with most stars, then the latest
commit, is kept.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import apache_beam as beam
import numpy as np

from beam_pipelines.code.duplicates import deduplicate
from beam_pipelines.code.minhash import document_bands, grams
from beam_pipelines.columnar import NODE, SpanningForest, by_segment, pack, star_edges, unpack
from beam_pipelines.documents import addresses, priorities, read_shard
from beam_pipelines.manifest import Manifest
from beam_pipelines.runner import BeamOptions
from beam_pipelines.stage import main, require_inputs
from beam_pipelines.storage import Directory
from opencoder_jax.recipe import configurable


@configurable
@dataclass(frozen=True)
class NearDuplicatesConfig:
    """The signature and its banding.

    Attributes:
        shingle: words a gram.
        bands, rows: the signature has bands * rows permutations.
        segments: parts of the shuffle a band, a power of two; aim at 10 to 100 MB each (40 bytes a document).
    """

    shingle: int = 5
    bands: int = 16
    rows: int = 128
    segments: int = 1

    def __post_init__(self) -> None:
        for name in ("shingle", "bands", "rows", "segments"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1: got {getattr(self, name)}")
        if self.segments & (self.segments - 1):
            raise ValueError(f"segments must be a power of two: got {self.segments}")


class SignDocuments(beam.DoFn):
    """A shard -> ((band, segment), packed rows of [band hash, node])."""

    def __init__(self, source: Directory, names: list[str], config: NearDuplicatesConfig) -> None:
        self.source = source
        self.names = names
        self.config = config

    def process(self, shard: int) -> Iterator[tuple[int, bytes]]:
        config = self.config
        first_row = 0
        for batch in read_shard(self.source, self.names[shard]):
            texts = [text.as_buffer().to_pybytes() for text in batch.column("text")]
            hashes, offsets = grams(texts, config.shingle)
            signed = np.flatnonzero(np.diff(offsets) > 0)  # a document shorter than one gram has no near duplicates
            nodes = np.column_stack([priorities(batch), addresses(shard, batch.num_rows, first_row)])[signed]
            kept = np.append(offsets[signed], offsets[-1])
            bands = document_bands(hashes, kept, config.bands, config.rows)
            for band in range(config.bands):
                table = np.column_stack([bands[:, band], nodes])
                for segment, packed in by_segment(table, bands[:, band], config.segments):
                    yield band * config.segments + segment, packed
            first_row += batch.num_rows


def stars_of_bucket(element: tuple[int, Iterable[bytes]]) -> bytes:
    """((band, segment), packed rows) -> packed edges between candidates, already reduced to a forest."""
    return pack(star_edges(unpack(element[1], 1 + NODE), 1).reshape(-1, 2 * NODE))


def run(inputs: Sequence[str], output: str, config: NearDuplicatesConfig, options: BeamOptions) -> Manifest:
    """Writes the input's documents without near duplicates."""
    require_inputs("near_duplicates", inputs, "documents")

    def find(shards: Any, source: Directory, names: list[str]) -> Any:
        bands = shards | "sign" >> beam.ParDo(SignDocuments(source, names, config))
        edges = bands | "group by band" >> beam.GroupByKey() | "stars" >> beam.Map(stars_of_bucket)
        return edges | "components" >> beam.CombineGlobally(SpanningForest())

    return deduplicate("near_duplicates", __name__, find, 14.0, inputs[0], output, config, options)


if __name__ == "__main__":
    main("beam_pipelines.code.near_duplicates")
