"""Keeps the pages that the last round recalled, as documents for all that follows.

    python -m beam_pipelines recall --documents=runs/web/pages --scores=runs/web/round_3/scores \\
        --labels=runs/web/round_3/discovered --output=runs/web/recalled

Seeds are kept whatever they score: pages of the first seeds, and under accepted patterns. Others that the round didn't
recall are drops, `not_recalled`, with their score.
"""

from dataclasses import dataclass

import pyarrow as pa

from opencoder_jax.beam_pipelines.core.manifest import Manifest
from opencoder_jax.beam_pipelines.core.maps import Drop, Result, keep_rows, map_stage
from opencoder_jax.beam_pipelines.core.runner import BeamOptions
from opencoder_jax.recipe import configurable


@configurable
@dataclass(frozen=True)
class RecallConfig:
    """What is kept.

    Attributes:
        seeds: whether seeds that weren't recalled are.
    """

    seeds: bool = True


@dataclass(frozen=True)
class KeepRecalled:
    """The kernel: documents, their scores and labels in, the recalled documents out."""

    config: RecallConfig

    def __call__(self, documents: pa.RecordBatch, scores: pa.RecordBatch, labels: pa.RecordBatch) -> Result:
        columns = (scores.column("score"), labels.column("recalled"), labels.column("seed"))
        drops, seeds = [], 0
        for row, (score, recalled, seed) in enumerate(zip(*(each.to_pylist() for each in columns), strict=True)):
            if recalled:
                continue
            if seed and self.config.seeds:
                seeds += 1
            else:
                drops.append(Drop(row, "not_recalled", f"score {score:.3f}"))
        return Result(keep_rows(documents, drops), drops, {"seeds that weren't recalled": seeds})


def run(documents: str, scores: str, labels: str, output: str, config: RecallConfig, options: BeamOptions) -> Manifest:
    """Keeps recalled pages.

    Args:
        documents: the pages.
        scores: the last round's scores of them.
        labels: what the last round recalled, and found to be seeds.
    """
    inputs, tables = [documents, scores, labels], ("documents", "scores", "labels")
    return map_stage("recall", KeepRecalled(config), inputs, output, config, options, input_tables=tables)
