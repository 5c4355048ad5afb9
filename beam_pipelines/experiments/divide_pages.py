"""Keeps the pages that a classifier recalls, or all others: the arms of an ablation of web recall.

What follows the rounds in a recall, sites and accepted patterns, is left out: the threshold alone divides.
"""

from dataclasses import dataclass

import pyarrow as pa

from opencoder_jax.beam_pipelines.core.manifest import MANIFEST, Manifest
from opencoder_jax.beam_pipelines.core.maps import Drop, Result, keep_rows, map_stage
from opencoder_jax.beam_pipelines.core.runner import BeamOptions
from opencoder_jax.beam_pipelines.core.storage import Directory
from opencoder_jax.beam_pipelines.web.held_out import threshold_of
from opencoder_jax.beam_pipelines.web.score import SPEED, ScorePages
from opencoder_jax.checks import check, one_of
from opencoder_jax.recipe import configurable

_REASONS = {"recalled": "not_recalled", "others": "recalled"}  # what falls, by what is kept


@configurable
@dataclass(frozen=True)
class DividePagesConfig:
    """What is kept.

    Attributes:
        keep: "recalled" pages, or the "others".
    """

    keep: str = "recalled"

    def __post_init__(self) -> None:
        check(self, keep=one_of(*_REASONS))


@dataclass(frozen=True)
class DividePages:
    """The kernel: documents in, those of one side of the classifier's threshold out."""

    score: ScorePages
    keep: str

    def __call__(self, documents: pa.RecordBatch) -> Result:
        scores = self.score(documents).table
        drops = [
            Drop(row, _REASONS[self.keep], f"score {score:.3f}")
            for row, (score, recalled) in enumerate(
                zip(*(column.to_pylist() for column in scores.columns), strict=True)
            )
            if recalled is not (self.keep == "recalled")
        ]
        return Result(keep_rows(documents, drops), drops)


@dataclass(frozen=True)
class DividePlan:
    """What is kept depends on the classifier, too."""

    config: DividePagesConfig
    classifier: str


def run(documents: str, classifier: str, output: str, config: DividePagesConfig, options: BeamOptions) -> Manifest:
    """Writes the pages of one side.

    Args:
        documents: the pages.
        classifier: the directory of the classifier, whose threshold divides them.
    """
    score = ScorePages(classifier, Directory(classifier).changed(MANIFEST), "", threshold_of(classifier), {})
    plan = DividePlan(config, Manifest.read(classifier).fingerprint)
    kernel = DividePages(score, config.keep)
    return map_stage("divide_pages", kernel, [documents], output, plan, options, megabytes_per_second=SPEED)
