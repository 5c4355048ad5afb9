"""Finds the sites of a round, and the parts of them that hold what is looked for: the next round's seeds.

    python -m beam_pipelines discover --documents=runs/web/pages --scores=runs/web/round_1/scores \\
        --labels=runs/web/seeds --output=runs/web/round_1/discovered

A site more than `related` of whose pages were recalled is one of the kind that is looked for (paper section 2.1.2: a
tenth). Its parts are candidates: `patterns.toml` holds them with hit rate, coverage and examples, those that recall
missed most pages of first. A part most of whose pages were recalled is accepted unless a person says otherwise: set
`accepted` in a copy of the file and give it back (`DiscoverConfig.reviewed`). Pages under accepted patterns become
seeds.

The other way round, few of a site's or a part's pages recalled say that these few are likely mistakes. Where it's a
share of `unrelated` or less, the classifier must be surer (`--classifier`: the threshold that would have the precision
that is wanted there), and what it took wrongly is rejected: hard negatives for the next round.

Writes `patterns.toml`, `sites.jsonl` (site, pages, recalled) and a row of `labels` for each page.
"""

import json
from collections import Counter
from collections.abc import Container, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa

from opencoder_jax.beam_pipelines.core.documents import ShardWriter, read_shard, shard_name
from opencoder_jax.beam_pipelines.core.manifest import Manifest, Tally, digest
from opencoder_jax.beam_pipelines.core.runner import BeamOptions
from opencoder_jax.beam_pipelines.core.stage import Stage, input_shards
from opencoder_jax.beam_pipelines.core.storage import Directory
from opencoder_jax.beam_pipelines.sources.inputs import split_path
from opencoder_jax.beam_pipelines.web.held_out import read_held_out, threshold_for, threshold_of
from opencoder_jax.beam_pipelines.web.labels import LABELS, places_of
from opencoder_jax.beam_pipelines.web.patterns.patterns_file import (
    Matcher,
    Pattern,
    candidates,
    poor_parts,
    read_patterns,
    written,
)
from opencoder_jax.checks import at_least, between, check
from opencoder_jax.recipe import configurable

PATTERNS, SITES = "patterns.toml", "sites.jsonl"
_AT_ONCE = 5_000_000  # pages in memory, 1 GB about


@configurable
@dataclass(frozen=True)
class DiscoverConfig:
    """Which sites and parts of sites count.

    Attributes:
        related: a site is of the kind that is looked for where a larger share of its pages was recalled.
        unrelated: a site or a part of it isn't where so large a share of its pages, or a smaller one, was recalled.
        least_pages: a part of a site is a candidate where it has as many.
        accept: the share of a candidate's pages, and of each large part of it, that must be recalled for it to be
            accepted unreviewed.
        floor: a page under an accepted part that scored less than this share of the threshold isn't made a seed, unless
            a person has accepted the part: even in the best part lie a few pages of another kind.
        reviewed: a file of patterns that a person has reviewed; its decisions stand.
    """

    related: float = 0.1
    unrelated: float = 0.03
    least_pages: int = 10
    accept: float = 0.7
    floor: float = 0.05
    reviewed: str = ""

    def __post_init__(self) -> None:
        check(self, related=between(0, 1), unrelated=between(0, 1), least_pages=at_least(1), accept=between(0, 1))
        check(self, floor=between(0, 1))


@dataclass(frozen=True)
class _Inputs:
    documents: str
    scores: str
    labels: str

    def shards(self) -> Iterator[Iterator[tuple[pa.RecordBatch, ...]]]:
        """Shard by shard, the batches of all three in step."""
        columns = ["url", "repository", "path", "bytes"]
        names = zip(
            input_shards(self.documents),
            input_shards(self.scores, "scores"),
            input_shards(self.labels, "labels"),
            strict=True,
        )
        for documents, scores, labels in names:
            yield zip(
                read_shard(Directory(self.documents), documents, columns),
                read_shard(Directory(self.scores), scores),
                read_shard(Directory(self.labels), labels),
                strict=True,
            )


def _flags(batch: pa.RecordBatch, name: str) -> np.ndarray:
    found: np.ndarray = batch.column(name).to_numpy(zero_copy_only=False)
    return found


def _sites(inputs: _Inputs) -> dict[str, tuple[int, int]]:
    """Pages and recalled pages of each site."""
    pages, hits = Counter[str](), Counter[str]()
    for batches in inputs.shards():
        for documents, scores, _ in batches:
            sites = documents.column("repository").to_pylist()
            pages.update(sites)
            hits.update(site for site, hit in zip(sites, _flags(scores, "recalled"), strict=True) if hit)
    return {site: (pages[site], hits[site]) for site in sorted(pages)}


def _parts(inputs: _Inputs, related: Mapping[str, int], config: DiscoverConfig) -> tuple[list[Pattern], list[str]]:
    """The candidates of all sites of the kind that is looked for, those with most missed pages first; and poor parts.

    Args:
        related: those sites, each with the number of its pages.
    """
    known = {each.pattern: each.accepted for each in read_patterns(config.reviewed)}
    found: list[Pattern] = []
    poor: list[str] = []
    for sites in _groups(related):
        for pages in _pages_of(inputs, sites):
            pages.sort()
            found += candidates(pages, config.least_pages, config.accept, known)
            poor += poor_parts(pages, config.least_pages, config.unrelated)
    there = {each.pattern for each in found}
    found += [Pattern(name, accepted) for name, accepted in sorted(known.items()) if name not in there]
    return sorted(found, key=lambda each: (each.hits - each.pages, each.pattern)), poor


def _groups(sites: Mapping[str, int]) -> Iterator[frozenset[str]]:
    """Sites of about _AT_ONCE pages together, or one that has more: a pass over the pages is made for each group."""
    group: list[str] = []
    pages = 0
    for site, more in sorted(sites.items()):
        if group and pages + more > _AT_ONCE:
            yield frozenset(group)
            group, pages = [], 0
        group.append(site)
        pages += more
    if group:
        yield frozenset(group)


def _pages_of(inputs: _Inputs, sites: frozenset[str]) -> Iterable[list[tuple[str, bool]]]:
    """Site by site, the place of each page and whether it was recalled."""
    pages: dict[str, list[tuple[str, bool]]] = {site: [] for site in sorted(sites)}
    for batches in inputs.shards():
        for documents, scores, _ in batches:
            columns = (documents.column("repository").to_pylist(), places_of(documents), _flags(scores, "recalled"))
            for site, place, hit in zip(*columns, strict=True):
                if site in sites:
                    pages[site].append((place, bool(hit)))
    return pages.values()


def _strict(classifier: str, share: float) -> float:
    """The threshold of pages where so few are of the kind; 0 where no classifier says what thresholds do."""
    if not classifier:
        return 0.0
    precision = float(Manifest.read(classifier).config["samples"]["precision"])
    return threshold_for(read_held_out(classifier)["curve"], share, precision)


def _threshold(scores: str, classifier: str) -> float:
    """What pages had to score; 0 where nothing says it."""
    given = Manifest.read(scores).config["config"]["threshold"]
    return threshold_of(classifier) if given is None and classifier else float(given or 0)


@dataclass(frozen=True)
class _Judge:
    """What the sites say of pages.

    Attributes:
        related, unrelated: sites.
        accepted, trusted, poor: parts of sites; a person has accepted those that are trusted.
        floor: what a page of an accepted part must score to become a seed.
        strict: what a page of an unrelated site or a poor part must score.
    """

    related: Container[str]
    unrelated: Container[str]
    accepted: Matcher
    trusted: Matcher
    poor: Matcher
    floor: float
    strict: float

    def labelled(self, batches: tuple[pa.RecordBatch, ...], counts: Counter[str]) -> pa.RecordBatch:
        """The next round's labels of a batch; `counts` gets what the round gained and lost."""
        documents, scores, labels = batches
        places, sites = places_of(documents), documents.column("repository").to_pylist()
        over, before, seeds = _flags(scores, "recalled"), _flags(labels, "recalled"), _flags(labels, "seed")
        doubted = scores.column("score").to_numpy() < np.float32(self.strict)
        poor = np.array([s in self.unrelated or p in self.poor for s, p in zip(sites, places, strict=True)], bool)
        found, other = scores.column("score").to_numpy(), _flags(labels, "other")
        likely = found >= np.float32(self.floor)
        pairs = zip(places, likely.tolist(), strict=True)
        under = np.array([place in (self.accepted if good else self.trusted) for place, good in pairs], bool) & ~other
        ours = np.array([site in self.related for site in sites], bool)
        recalled = over & ~(poor & doubted) & ~other
        next_seeds = seeds | under
        rejected = over & poor & doubted & ~next_seeds
        sizes = documents.column("bytes").to_numpy()
        for name, which in (
            ("recalled", recalled),
            ("gained", recalled & ~before),
            ("lost again", before & ~recalled),
            ("rejected", rejected),
            ("seeds that weren't recalled", seeds & ~recalled),
            ("new seeds", under & ~seeds),
        ):
            counts[name] += int(which.sum())
            counts[f"{name}, bytes"] += int(sizes[which].sum())
        random = ~next_seeds & ~(recalled & ours)
        columns = [pa.array(each) for each in (next_seeds, random, rejected, recalled, other)]
        return pa.RecordBatch.from_arrays(columns, schema=LABELS)


def run(
    documents: str,
    scores: str,
    labels: str,
    output: str,
    config: DiscoverConfig,
    options: BeamOptions,
    classifier: str = "",
) -> Manifest:
    """Finds sites and patterns, and labels the pages for the next round.

    Args:
        documents: the pages.
        scores: the round's scores of them.
        labels: what the round's classifier was trained on.
        classifier: the round's; without it no page is rejected.

    Raises:
        UserError: an input is missing or about other pages, or the reviewed file is wrong.
    """
    inputs = _Inputs(documents, scores, labels)

    def work(directory: Directory) -> tuple[Tally, dict[str, str]]:
        sites = _sites(inputs)
        related = {site: pages for site, (pages, hits) in sites.items() if hits > config.related * pages}
        unrelated = {
            site
            for site, (pages, hits) in sites.items()
            if pages >= config.least_pages and hits <= config.unrelated * pages
        }
        patterns, poor = _parts(inputs, related, config)
        accepted = Matcher(each.pattern for each in patterns if each.accepted)
        judge = _Judge(
            related,
            unrelated,
            accepted,
            Matcher(each.pattern for each in read_patterns(config.reviewed) if each.accepted),
            Matcher(poor),
            config.floor * _threshold(scores, classifier),
            _strict(classifier, config.unrelated),
        )
        counts = Counter[str]({"sites": len(related), "patterns accepted": sum(each.accepted for each in patterns)})
        names = []
        shards = len(input_shards(documents))
        for shard, batches in enumerate(inputs.shards()):
            with ShardWriter(directory, shard_name("labels", shard, shards)) as writer:
                for batch in batches:
                    writer.write(judge.labelled(batch, counts))
            names += writer.names
        directory.write_bytes(PATTERNS, written(patterns))
        most = sorted((-hits, site, pages) for site, (pages, hits) in sites.items() if hits)
        lines = [json.dumps({"site": site, "pages": pages, "recalled": -hits}) + "\n" for hits, site, pages in most]
        directory.write_bytes(SITES, "".join(lines).encode())
        files = {name: digest(directory, name) for name in (*names, PATTERNS, SITES)}
        return {"in": Manifest.read(documents).table("out"), "count": dict(counts)}, files

    plan = config
    if config.reviewed:
        read_patterns(config.reviewed)
        folder, name = split_path(config.reviewed)
        plan = replace(config, reviewed=digest(Directory(folder), name))
    sources = (documents, scores, labels, *([classifier] if classifier else []))
    return Stage("discover", __name__, plan, sources, output).run(work, options)
