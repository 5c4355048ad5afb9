"""Scores pages and recalls those over the threshold: how likely each is of the kind that is looked for.

    python -m beam_pipelines score --documents=runs/web/pages --classifier=runs/web/round_1/classifier \\
        --output=runs/web/round_1/scores

Categories of pages score differently, forums less than documentation; `--gin.ScoreConfig.recall=0.95` takes of each,
told by its address, the threshold that recalls so many of its held-out seeds, in place of one for all.

In the classifier's place may stand a table of scores by URL, whoever made it (`--gin.ScoreConfig.table=FILE`).

Writes a row of `scores` for each page.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
import pyarrow as pa

from opencoder_jax.beam_pipelines.core.manifest import MANIFEST, Manifest, digest
from opencoder_jax.beam_pipelines.core.maps import Result, map_stage
from opencoder_jax.beam_pipelines.core.runner import BeamOptions
from opencoder_jax.beam_pipelines.core.storage import Directory
from opencoder_jax.beam_pipelines.sources.inputs import Unit, split_path
from opencoder_jax.beam_pipelines.web.addresses import category_of, one_spelling
from opencoder_jax.beam_pipelines.web.fasttext.classifier import Classifier
from opencoder_jax.beam_pipelines.web.held_out import read_held_out, threshold_of, thresholds_for
from opencoder_jax.beam_pipelines.web.labels import scored_urls
from opencoder_jax.checks import between, check, or_none
from opencoder_jax.recipe import UserError, configurable

SCORES = pa.schema([("score", pa.float32()), ("recalled", pa.bool_())])
SPEED = 8.0  # megabytes of text a second on one core


@configurable
@dataclass(frozen=True)
class ScoreConfig:
    """What recalls a page.

    Attributes:
        threshold: the least score; None for the one that training found. A table needs one.
        recall: of the held-out seeds of each category of pages; in place of a threshold.
        table: Parquet or JSON of the columns url and score, in place of a classifier; a page that it lacks scores 0.
    """

    threshold: float | None = None
    recall: float | None = None
    table: str = ""

    def __post_init__(self) -> None:
        check(self, threshold=or_none(between(0, 1)), recall=or_none(between(0, 1)))
        if self.recall is not None and self.threshold is not None:
            raise ValueError(f"recall={self.recall}: either that or a threshold")
        if self.table and self.threshold is None:
            raise ValueError("threshold=None: a table of scores needs a threshold")


@dataclass(frozen=True)
class ScorePages:
    """The kernel: documents in, scores out. Workers read the classifier once."""

    classifier: str
    changed: int
    table: str
    threshold: float
    by_category: Mapping[str, float]  # where those have thresholds of their own

    def __call__(self, documents: pa.RecordBatch) -> Result:
        if self.table:
            known = _table(self.table)
            urls = documents.column("url").to_pylist()
            scores = np.array([known.get(one_spelling(url), 0.0) for url in urls], np.float32)
        else:
            scores = _classifier(self.classifier, self.changed).scores(documents.column("text").to_pylist())
        limits: float | list[float] = self.threshold
        if self.by_category:
            places = documents.column("path").to_pylist()
            limits = [self.by_category.get(category_of(place), self.threshold) for place in places]
        recalled = scores >= np.asarray(limits, np.float32)
        table = pa.RecordBatch.from_arrays([pa.array(scores, pa.float32()), pa.array(recalled)], schema=SCORES)
        return Result(table, counts={"recalled": int(recalled.sum())})


@lru_cache(2)
def _classifier(directory: str, _changed: int) -> Classifier:
    return Classifier.of_stage(directory)


@lru_cache(2)
def _table(path: str) -> dict[str, float]:
    folder, name = split_path(path)
    if not Directory(folder).exists(name):
        raise UserError(f"ScoreConfig.table {path}: no such file")
    rows = scored_urls(Unit(folder, name, 0), ("url", "score"))
    return {url: score for url, score in rows if score is not None}


@dataclass(frozen=True)
class ScorePlan:
    """What scores depend on beside the pages."""

    config: ScoreConfig
    classifier: str


def run(documents: str, output: str, config: ScoreConfig, options: BeamOptions, classifier: str = "") -> Manifest:
    """Scores pages.

    Args:
        documents: the pages.
        classifier: the directory of the classifier, where no table stands in its place.

    Raises:
        UserError: there's neither a classifier nor a table of scores, or both.
    """
    if bool(classifier) == bool(config.table):
        raise UserError("give --classifier=DIR, or --gin.ScoreConfig.table=FILE in its place")
    plan, changed = config, 0
    if config.table:
        _table(config.table)
        folder, name = split_path(config.table)
        plan = replace(config, table=digest(Directory(folder), name))
    else:
        changed = Directory(classifier).changed(MANIFEST)
    threshold = threshold_of(classifier) if config.threshold is None else config.threshold
    by_category = {} if config.recall is None else thresholds_for(read_held_out(classifier), config.recall)
    kernel = ScorePages(classifier, changed, config.table, threshold, by_category)
    return map_stage(
        "score",
        kernel,
        [documents],
        output,
        ScorePlan(plan, Manifest.read(classifier).fingerprint if classifier else ""),
        options,
        table="scores",
        megabytes_per_second=SPEED,
    )
