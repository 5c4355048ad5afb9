"""The algorithmic corpus: the files of the pretraining corpus that look like solved exercises.

OpenCoder's annealing mixture has 12.44 B tokens of them, found by keywords such as "leetcode", "def solution" and
"class solution" (section 2.2, annealing data).
"""

from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from opencoder_jax.beam_pipelines.core.manifest import Manifest
from opencoder_jax.beam_pipelines.core.maps import Drop, Result, keep_rows, map_stage
from opencoder_jax.beam_pipelines.core.runner import BeamOptions
from opencoder_jax.recipe import configurable


@configurable
@dataclass(frozen=True)
class SelectConfig:
    """What looks like a solved exercise.

    Attributes:
        keywords: any of them selects a file; case doesn't count.
    """

    keywords: tuple[str, ...] = ("leetcode", "def solution", "class solution")

    def __post_init__(self) -> None:
        if not self.keywords or not all(self.keywords):
            raise ValueError("keywords needs at least one word, none of them empty")


@dataclass(frozen=True)
class Select:
    """The kernel: keeps the documents that hold a keyword."""

    config: SelectConfig

    def __call__(self, documents: pa.RecordBatch) -> Result:
        counts = {}
        selected = [False] * documents.num_rows
        for keyword in self.config.keywords:
            hits = pc.match_substring(documents.column("text"), keyword, ignore_case=True).to_pylist()
            counts[f"holds {keyword!r}"] = sum(hits)
            selected = [before or hit for before, hit in zip(selected, hits, strict=True)]
        drops = [Drop(row, "not_algorithmic") for row, hit in enumerate(selected) if not hit]
        return Result(keep_rows(documents, drops), drops, counts)


def run(documents: str, output: str, config: SelectConfig, options: BeamOptions) -> Manifest:
    """Writes the documents that hold a keyword.

    Args:
        documents: what is selected from.
    """
    return map_stage("select", Select(config), [documents], output, config, options)
