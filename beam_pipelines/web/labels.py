"""Marks the pages that a classifier of the first round is trained on: seeds, and the rest as random pages.

    python -m beam_pipelines seeds --documents=runs/web/pages --urls=data/seeds.parquet --output=runs/web/seeds

Seeds are pages that a table names by their `url` (with a `score`, those that score `SeedsConfig.least_score` or more:
what an LLM graded, as the paper's 500,000 pages from AutoMathText); pages under a reviewed pattern of addresses (the
paper's lists ship: "code", "math"); text files by the paper's gate of file names.

What a table scores `SeedsConfig.most_other` or less is surely of another kind: a few such pages say more than any
number that nobody has looked at.

Writes a row of `labels` for each page.
"""

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
import pyarrow as pa
import xxhash

from opencoder_jax.beam_pipelines.core.manifest import Manifest, digest
from opencoder_jax.beam_pipelines.core.maps import Result, map_stage
from opencoder_jax.beam_pipelines.core.runner import BeamOptions
from opencoder_jax.beam_pipelines.core.storage import Directory
from opencoder_jax.beam_pipelines.sources.formats.rows import TABLES
from opencoder_jax.beam_pipelines.sources.inputs import Unit, list_units, rows_of, split_path
from opencoder_jax.beam_pipelines.web.addresses import normalised, one_spelling, place_of
from opencoder_jax.beam_pipelines.web.patterns.patterns_file import Matcher, place_of_patterns, read_patterns
from opencoder_jax.recipe import UserError, configurable

LABELS = pa.schema(
    [
        ("seed", pa.bool_()),  # a page of the kind that is looked for
        ("random", pa.bool_()),  # a page that may stand for all others
        ("rejected", pa.bool_()),  # one of these that surely is of another kind, whatever it scores
        ("recalled", pa.bool_()),  # by the round that wrote this
        ("other", pa.bool_()),  # a page that was graded as of another kind
    ]
)
# Paper section 2.1.1 and the released filters: names of text files that are about code.
_ABOUT_CODE = re.compile(r"(?:readme|notes|todo|description|cmakelists)(?:\.[^/]*)?|[^/]*requirement[^/]*", re.I)


@configurable
@dataclass(frozen=True)
class SeedsConfig:
    """Which pages are seeds.

    Attributes:
        least_score: of a table with scores, the least that makes a seed.
        most_other: of a table with scores, the most that makes a page of another kind.
        patterns: "code" or "math", the paper's lists of addresses, or a file of your own; "" for none.
        file_names: whether text files called README, NOTES, TODO, DESCRIPTION, CMakeLists or *requirement* are.
    """

    least_score: float = 0.5
    most_other: float = 0.2
    patterns: str = ""
    file_names: bool = False

    def __post_init__(self) -> None:
        if self.most_other >= self.least_score:
            raise ValueError(f"most_other={self.most_other}: must be less than least_score, {self.least_score}")


@dataclass(frozen=True)
class SeedsPlan:
    """What the labels depend on: the configuration with digests of its files, and of the tables."""

    config: SeedsConfig
    tables: tuple[str, ...]


@dataclass(eq=False)
class MarkSeeds:
    """The kernel: documents in, labels out."""

    urls: np.ndarray  # of seeds, sorted hashes
    others: np.ndarray  # of pages of another kind
    patterns: tuple[str, ...]
    file_names: bool

    def __call__(self, documents: pa.RecordBatch) -> Result:
        matcher = _matcher(self.patterns)
        places = places_of(documents)
        seeds, others = np.zeros((2, len(places)), bool)
        if len(self.urls) + len(self.others):
            urls = np.array([_hash(one_spelling(url)) for url in documents.column("url").to_pylist()], np.uint64)
            seeds, others = np.isin(urls, self.urls), np.isin(urls, self.others)
        for row, place in enumerate(places):
            named = self.file_names and _ABOUT_CODE.fullmatch(place.rpartition("/")[2]) is not None
            seeds[row] |= named or place in matcher
        others &= ~seeds
        none = np.zeros(len(seeds), bool)
        columns = [pa.array(each) for each in (seeds, ~seeds, none, none, others)]
        counts = {"seeds": int(seeds.sum()), "graded as others": int(others.sum())}
        return Result(pa.RecordBatch.from_arrays(columns, schema=LABELS), counts=counts)


@lru_cache(8)
def _matcher(patterns: tuple[str, ...]) -> Matcher:
    return Matcher(patterns)


def places_of(documents: pa.RecordBatch | pa.Table) -> list[str]:
    """What patterns are about: a page's address, or a file's repository and path. Needs url, repository and path."""
    columns = (documents.column(name).to_pylist() for name in ("url", "repository", "path"))
    return [place_of(one_spelling(url)) if url else f"{own}/{path}" for url, own, path in zip(*columns, strict=True)]


def scored_urls(unit: Unit, required: Sequence[str] = ("url",)) -> Iterator[tuple[str, float | None]]:
    """The addresses of a table in their one spelling, each with its score, or None where the row has none.

    Rows without a web page's address, and those whose score is no number, are passed over.
    """
    for _, row in rows_of(unit, {"url": "url", "score": "score"}, required):
        if not isinstance(row, dict):
            continue
        try:
            score = None if row["score"] is None else float(row["score"])
            if score is None or not math.isnan(score):
                yield normalised(str(row["url"])), score
        except (TypeError, ValueError):
            continue


def _hash(text: str) -> int:
    return xxhash.xxh3_64_intdigest(text.encode("utf-8", "replace"))


def _graded(urls: Sequence[str], config: SeedsConfig) -> tuple[np.ndarray, np.ndarray, tuple[str, ...]]:
    """The sorted hashes of the addresses of seeds and of others, and the digests of their tables."""
    units = [unit for unit in list_units(urls, TABLES) if not unit.reason] if urls else []
    seeds, others = set[int](), set[int]()
    for unit in units:
        for url, score in scored_urls(unit):
            if score is None or score >= config.least_score:
                seeds.add(_hash(url))
            elif score <= config.most_other:
                others.add(_hash(url))
    digests = tuple(unit.state for unit in units)
    return np.array(sorted(seeds), np.uint64), np.array(sorted(others), np.uint64), digests


def run(documents: str, output: str, config: SeedsConfig, options: BeamOptions, urls: Sequence[str] = ()) -> Manifest:
    """Marks seeds.

    Args:
        documents: the pages.
        urls: a table of the seeds' addresses, Parquet or JSON, or a folder of them

    Raises:
        UserError: nothing says which pages are seeds, or none is.
    """
    seeds, others, digests = _graded(urls, config)
    accepted = tuple(each.pattern for each in read_patterns(config.patterns) if each.accepted)
    if not (len(seeds) or accepted or config.file_names):
        raise UserError("no seeds: give --urls=TABLE, or --gin.SeedsConfig.patterns or .file_names")
    folder, name = split_path(place_of_patterns(config.patterns)) if config.patterns else ("", "")
    plan = SeedsPlan(replace(config, patterns=digest(Directory(folder), name) if name else ""), digests)
    kernel = MarkSeeds(seeds, others, accepted, config.file_names)
    manifest = map_stage("seeds", kernel, [documents], output, plan, options, table="labels")
    if not manifest.total("count", "seeds"):
        raise UserError(f"{documents}: none of its pages is a seed; are the addresses those of this crawl?")
    return manifest
