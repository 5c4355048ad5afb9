"""Spoils a known share of every text by putting lines in another order: an effect that an experiment has to find.

Bytes, lines and words stay what they are; only what follows what is lost. A text's fate depends on its id and the seed.
"""

import random
from dataclasses import dataclass

import pyarrow as pa

from opencoder_jax.beam_pipelines.core.manifest import Manifest
from opencoder_jax.beam_pipelines.core.maps import Result, map_stage
from opencoder_jax.beam_pipelines.core.runner import BeamOptions
from opencoder_jax.checks import between, check
from opencoder_jax.recipe import configurable


@configurable
@dataclass(frozen=True)
class ShuffleLinesConfig:
    """What is spoiled.

    Attributes:
        share: of the lines of every text, which change places among themselves.
        seed: another seed draws others.
    """

    share: float = 0.5
    seed: int = 0

    def __post_init__(self) -> None:
        check(self, share=between(0, 1))


def shuffled(text: str, share: float, seed: str) -> str:
    """A text with a share of its lines in other places; the same bytes in all."""
    lines, draw = text.split("\n"), random.Random(seed)
    places = draw.sample(range(len(lines)), round(share * len(lines)))
    taken = [lines[place] for place in places]
    for place, line in zip(sorted(places), taken, strict=True):
        lines[place] = line
    return "\n".join(lines)


@dataclass(frozen=True)
class ShuffleLines:
    """The kernel: documents in, spoiled documents out."""

    config: ShuffleLinesConfig

    def __call__(self, documents: pa.RecordBatch) -> Result:
        pairs = zip(documents.column("id").to_pylist(), documents.column("text").to_pylist(), strict=True)
        texts = [shuffled(text, self.config.share, f"{identifier} {self.config.seed}") for identifier, text in pairs]
        column = documents.schema.get_field_index("text")
        field = documents.schema.field(column)
        return Result(documents.set_column(column, field, pa.array(texts, field.type)))


def run(documents: str, output: str, config: ShuffleLinesConfig, options: BeamOptions) -> Manifest:
    """Writes the spoiled documents.

    Args:
        documents: the directory of the documents.
    """
    return map_stage("shuffle_lines", ShuffleLines(config), [documents], output, config, options)
