"""Keeps a share of the documents of some languages, chosen by hash.

OpenCoder down-samples Java from 449 to 200 GB, for its repetitive patterns, and HTML from 474 to 64 GB, for its low
density of information; other languages stay (paper section 2.1.3, data sampling). A document's fate depends on its id
and the seed alone: it doesn't change when other documents come or go, and a larger share keeps all that a smaller kept.
"""

from dataclasses import dataclass, field

import pyarrow as pa
import xxhash

from opencoder_jax.beam_pipelines.core.manifest import Manifest
from opencoder_jax.beam_pipelines.core.maps import Drop, Result, keep_rows, map_stage
from opencoder_jax.beam_pipelines.core.runner import BeamOptions
from opencoder_jax.checks import between, check, each
from opencoder_jax.recipe import configurable


@configurable
@dataclass(frozen=True)
class SampleConfig:
    """What is kept.

    Attributes:
        keep: the share of a language's documents, by linguist's name; a language that isn't named is kept whole.
        seed: another seed draws another sample.
    """

    keep: dict[str, float] = field(default_factory=lambda: {"Java": 200 / 449, "HTML": 64 / 474})
    seed: int = 0

    def __post_init__(self) -> None:
        check(self, keep=each(between(0, 1)))


@dataclass(frozen=True)
class SampleLanguages:
    """The kernel: documents in, the sampled documents out."""

    config: SampleConfig

    def __call__(self, documents: pa.RecordBatch) -> Result:
        columns = zip(documents.column("id").to_pylist(), documents.column("language").to_pylist(), strict=True)
        drops = [
            Drop(row, "sampled_out", f"{language}: {self.config.keep[language]:.4g} is kept")
            for row, (identifier, language) in enumerate(columns)
            if language in self.config.keep
            and uniform(identifier, "sample", self.config.seed) >= self.config.keep[language]
        ]
        return Result(keep_rows(documents, drops), drops)


def uniform(identifier: str, purpose: str, seed: int) -> float:
    """A number in [0, 1) that is a function of a document, what it's drawn for, and the seed."""
    return (xxhash.xxh3_64_intdigest(f"{identifier} {purpose} {seed}".encode()) >> 11) / 2**53


def run(documents: str, output: str, config: SampleConfig, options: BeamOptions) -> Manifest:
    """Writes the sampled documents.

    Args:
        documents: the directory of the documents.
    """
    return map_stage("sample", SampleLanguages(config), [documents], output, config, options)
