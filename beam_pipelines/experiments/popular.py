"""Keeps the documents of repositories with enough stars: the filter that OpenCoder tried and found harmful.

On its data the training loss fell and the benchmarks got worse (paper section 4.3, figures 10 and 11).
"""

from dataclasses import dataclass

import pyarrow as pa

from opencoder_jax.beam_pipelines.core.manifest import Manifest
from opencoder_jax.beam_pipelines.core.maps import Drop, Result, keep_rows, map_stage
from opencoder_jax.beam_pipelines.core.runner import BeamOptions
from opencoder_jax.checks import at_least, check
from opencoder_jax.recipe import configurable


@configurable
@dataclass(frozen=True)
class PopularConfig:
    """What is kept.

    Attributes:
        stars: at least so many; the paper's threshold is 5.
    """

    stars: int = 5

    def __post_init__(self) -> None:
        check(self, stars=at_least(0))


@dataclass(frozen=True)
class Popular:
    """The kernel: documents in, the popular ones out."""

    config: PopularConfig

    def __call__(self, documents: pa.RecordBatch) -> Result:
        stars = documents.column("stars").to_pylist()
        drops = [Drop(row, "few_stars", str(each)) for row, each in enumerate(stars) if each < self.config.stars]
        return Result(keep_rows(documents, drops), drops)


def run(documents: str, output: str, config: PopularConfig, options: BeamOptions) -> Manifest:
    """Writes the documents of popular repositories.

    Args:
        documents: the directory of the documents.
    """
    return map_stage("popular", Popular(config), [documents], output, config, options)
