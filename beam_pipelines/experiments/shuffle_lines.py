"""Spoils a share of every text's lines by putting them, or their words, in another order: an effect to be found.

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
        words: it's the words of these lines that change places instead, each line for itself.
        seed: another seed draws others.
    """

    share: float = 0.5
    words: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        check(self, share=between(0, 1))


def shuffled(text: str, share: float, seed: str, words: bool = False) -> str:
    """A text with a share of its lines, or of these lines' words, in other places; the same bytes in all."""
    lines, draw = text.split("\n"), random.Random(seed)
    places = draw.sample(range(len(lines)), round(share * len(lines)))
    if words:
        for place in places:
            lines[place] = " ".join(draw.sample(each := lines[place].split(" "), len(each)))
        return "\n".join(lines)
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
        share, seed, words = self.config.share, self.config.seed, self.config.words
        texts = [shuffled(text, share, f"{identifier} {seed}", words) for identifier, text in pairs]
        column = documents.schema.get_field_index("text")
        field = documents.schema.field(column)
        return Result(documents.set_column(column, field, pa.array(texts, field.type)))


def run(documents: str, output: str, config: ShuffleLinesConfig, options: BeamOptions) -> Manifest:
    """Writes the spoiled documents.

    Args:
        documents: the directory of the documents.
    """
    return map_stage("shuffle_lines", ShuffleLines(config), [documents], output, config, options)
