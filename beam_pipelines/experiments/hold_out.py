"""Holds whole projects out: what is scored on shares neither repository nor project with what is trained on.

A project is a repository's name without its version, so all releases and forks of one name go the same way. Its fate
depends on its name and the seed alone. The stage runs once for each part.
"""

import re
from dataclasses import dataclass

import pyarrow as pa

from opencoder_jax.beam_pipelines.core.manifest import Manifest
from opencoder_jax.beam_pipelines.core.maps import Drop, Result, keep_rows, map_stage
from opencoder_jax.beam_pipelines.core.runner import BeamOptions
from opencoder_jax.beam_pipelines.filtering.sample import uniform
from opencoder_jax.checks import between, check, one_of
from opencoder_jax.recipe import configurable


@configurable
@dataclass(frozen=True)
class HoldOutConfig:
    """What is held out.

    Attributes:
        share: of the projects.
        part: "train" writes the others, "heldout" these.
        version: a regular expression; what it matches in a repository's name isn't part of the project's name.
        seed: another seed holds out others.
    """

    share: float = 0.3
    part: str = "train"
    version: str = r"-v?\d.*"
    seed: int = 0

    def __post_init__(self) -> None:
        check(self, share=between(0, 1), part=one_of("train", "heldout"))
        try:
            re.compile(self.version)
        except re.error as error:
            raise ValueError(f"version={self.version!r}: no regular expression: {error}") from None


def project_of(repository: str, version: str = HoldOutConfig.version) -> str:
    """The project of a repository: click-8.1.7-py3-none-any is of click."""
    return re.sub(version, "", repository).lower()


@dataclass(frozen=True)
class HoldOut:
    """The kernel: documents in, those of the part out."""

    config: HoldOutConfig

    def __call__(self, documents: pa.RecordBatch) -> Result:
        drops = []
        for row, repository in enumerate(documents.column("repository").to_pylist()):
            project = project_of(repository, self.config.version)
            held_out = uniform(project, "hold out", self.config.seed) < self.config.share
            if held_out is not (self.config.part == "heldout"):
                drops.append(Drop(row, "other_part", project))
        return Result(keep_rows(documents, drops), drops)


def run(documents: str, output: str, config: HoldOutConfig, options: BeamOptions) -> Manifest:
    """Writes the documents of a part.

    Args:
        documents: the directory of the documents.
    """
    return map_stage("hold_out", HoldOut(config), [documents], output, config, options)
