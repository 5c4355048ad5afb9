"""Trains a round's classifier on seeds against random pages, and finds its threshold on sites that it never saw.

    python -m beam_pipelines train_classifier --documents=runs/web/pages --labels=runs/web/seeds \\
        --tokenizer=runs/web/tokenizer --output=runs/web/round_1/classifier

Both kinds are drawn by the hash of the page's id, with at most `per_site` of a site. The sites are parted into folds:
each page is judged by a classifier that was trained on the other folds. So all pages tell what a classifier does to
sites that it never saw, and the threshold is one with the precision that is wanted (held_out.py). The classifier itself
is trained on all of them.

Random pages hold pages of the kind that is looked for, in the first round most of them. A classifier that is trained on
these as others learns to pass them over, so doubtful pages are left out: those that score, when they're judged for the
first time, as `sure` of the seeds do (after Liu et al. 2002, whose spies are these seeds). Among the seeds each site
counts by the root of its seeds, for a few sites have most of them. Of a site on which other pages score high, what
scores a `site_sure` of that is doubtful, too. A page that an earlier round rejected, by the part of the site in which
it lies, is no doubtful one: these are the hard negatives.

Where a grader said of some pages that they are of another kind, the first judgement is by these against the seeds
alone, and a page is doubtful that scores a half, or a `site_sure` of that on a site most of whose pages score a half:
no page that nobody has looked at has a say in it. What a round recalled says more than few grades: from
the second round on pages that weren't recalled are of another kind, unless `site_recalled` of their site was. That is
more than a site's false pages. Where these alone made a site one of the kind, its other pages are what mends that.

In each language both kinds are shown equally often. Else a language becomes a sign of the kind, where its seeds or its
other pages come from a few sites.

Writes `classifier.bin`, which any fastText reads, `tokenizer.model`, and `held_out.json`.
"""

import heapq
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import xxhash

from opencoder_jax.beam_pipelines.core.documents import read_shard
from opencoder_jax.beam_pipelines.core.manifest import Manifest, Tally, digest, read_finished
from opencoder_jax.beam_pipelines.core.runner import BeamOptions
from opencoder_jax.beam_pipelines.core.stage import Stage, input_shards
from opencoder_jax.beam_pipelines.core.storage import Directory
from opencoder_jax.beam_pipelines.web.addresses import category_of
from opencoder_jax.beam_pipelines.web.fasttext.classifier import TOKENIZER, Classifier, ClassifierConfig, tokens_of
from opencoder_jax.beam_pipelines.web.held_out import HELD_OUT, HIGH, by_category, measured, on_unrelated_sites
from opencoder_jax.checks import at_least, between, check
from opencoder_jax.recipe import UserError, configurable
from opencoder_jax.tokenization.tokenizer import Tokenizer

_MOST_OFTEN = 20  # times that a seed is shown
_GRADED = 20  # pages that were graded as others, from which on they judge the rest
_MOST = 0.5  # the share of a site's pages
_FEWEST = 5  # sites with seeds in a fold; with fewer, pages are parted into folds and not sites


@configurable
@dataclass(frozen=True)
class SamplesConfig:
    """What a classifier is trained and measured on.

    Attributes:
        seeds, random: pages of each kind, at most.
        per_site: pages of a site and a kind, at most.
        folds: of the sites, each of which is held out once.
        sure: the share of the seeds by whose scores doubtful pages are known.
        site_sure: what part of that score makes a page doubtful on a site where other pages score high.
        site_recalled: where pages are graded, the share of a site's pages from which on its others are doubtful.
        precision: that the threshold must have.
        seed: of the draw.
    """

    seeds: int = 100_000
    random: int = 200_000
    per_site: int = 1_000
    folds: int = 3
    sure: float = 0.9
    site_sure: float = 0.1
    site_recalled: float = 0.3
    precision: float = 0.9
    seed: int = 0

    def __post_init__(self) -> None:
        share = between(0.01, 0.99)
        check(self, seeds=at_least(2), random=at_least(2), per_site=at_least(1), folds=at_least(2))
        check(self, sure=share, site_sure=share, site_recalled=share, precision=share)


@dataclass(frozen=True)
class TrainingPlan:
    """What a classifier depends on."""

    samples: SamplesConfig
    classifier: ClassifierConfig


class DrawnPage(NamedTuple):
    """A page that was drawn, in the order of the draw.

    Attributes:
        order: the draw's, of its kind.
        shard, row: where it stands.
        wanted: whether it's a seed.
        random: whether training may take it for a page of another kind.
        rejected: whether it surely is one.
        graded: whether it was graded as one.
        recalled: by the round before.
    """

    order: int
    shard: int
    row: int
    site: str
    category: str
    language: str
    wanted: bool
    random: bool
    rejected: bool
    graded: bool
    recalled: bool


def _number(text: str, seed: int) -> int:
    return xxhash.xxh3_64_intdigest(text.encode("utf-8", "replace"), seed)


def draw(documents: str, labels: str, config: SamplesConfig) -> tuple[list[DrawnPage], Counter[bool]]:
    """The seeds and the others that were drawn, and how many there are of each."""
    pairs = list(zip(input_shards(documents), input_shards(labels, "labels"), strict=True))
    heaps: dict[tuple[bool, bool], list[DrawnPage]] = {}  # of a kind: whether they are seeds, and were graded as others
    there: Counter[bool] = Counter()
    sites: dict[tuple[str, bool, bool], list[int]] = {}
    for shard, (name, marks) in enumerate(pairs):
        first = 0
        batches = read_shard(Directory(documents), name, ["id", "repository", "path", "language"])
        for batch, marked in zip(batches, read_shard(Directory(labels), marks), strict=True):
            flags = (marked.column(name) for name in ("seed", "random", "rejected", "other", "recalled"))
            columns = (each.to_pylist() for each in (*batch.columns, *flags))
            for row, (own, site, path, language, seed, other, rejected, graded, hit) in enumerate(
                zip(*columns, strict=True)
            ):
                there[seed] += 1
                order = _number(own, config.seed)
                # Of a site, those with the smallest numbers; heapq keeps the smallest first, so numbers are negated.
                mine = sites.setdefault((site, seed, graded), [])
                if len(mine) >= config.per_site and -order < mine[0]:
                    continue
                (heapq.heappush if len(mine) < config.per_site else heapq.heappushpop)(mine, -order)
                sure = rejected or graded
                kinds = (site, category_of(path), language, seed, other or graded, sure, graded, hit)
                sample = DrawnPage(-order, shard, first + row, *kinds)
                heap = heaps.setdefault((seed, graded), [])
                most = config.seeds if seed else config.random
                (heapq.heappush if len(heap) < most else heapq.heappushpop)(heap, sample)
            first += batch.num_rows
    # A page that was later pushed out of its site's may still be there.
    kept = [
        sample
        for heap in heaps.values()
        for sample in heap
        if sample.order >= sites[sample.site, sample.wanted, sample.graded][0]
    ]
    return sorted(kept, key=lambda sample: sample[1:3]), there


def _texts(documents: str, samples: Sequence[DrawnPage]) -> Iterator[str]:
    """The texts of samples, which are sorted by their places."""
    names = input_shards(documents)
    waiting = iter(samples)
    sample = next(waiting, None)
    for shard, name in enumerate(names):
        first = 0
        for batch in read_shard(Directory(documents), name, ["text"]) if sample and sample.shard == shard else ():
            while sample and sample.shard == shard and sample.row < first + batch.num_rows:
                yield batch.column("text")[sample.row - first].as_py()
                sample = next(waiting, None)
            first += batch.num_rows


def folds_of(samples: Sequence[DrawnPage], config: SamplesConfig) -> tuple[np.ndarray, str]:
    """The fold of each sample, int [samples], and what was parted: "sites", or "pages" where sites are few.

    Sites without a label are never parted: what is taught of a site's pages would judge the others.
    """
    by_site = np.array([_number(each.site, config.seed + 1) % config.folds for each in samples])
    seeded = {(each.site, fold) for each, fold in zip(samples, by_site.tolist(), strict=True) if each.wanted}
    there = Counter(fold for _, fold in seeded)
    if min(there[fold] for fold in range(config.folds)) >= _FEWEST:
        return by_site, "sites"
    labelled = {each.site for each in samples if each.wanted or each.graded}
    by_page = np.array([_number(f"{each.shard} {each.row}", config.seed + 1) % config.folds for each in samples])
    return np.where([each.site in labelled for each in samples], by_page, by_site), "pages"


def shown_evenly(wanted: np.ndarray, which: np.ndarray, languages: np.ndarray) -> np.ndarray:
    """Which texts are shown, sorted, some of them several times: in each language as many seeds as others, about.

    Args:
        wanted, which: bool [texts], whether each is a seed, and whether it may be shown.
        languages: str [texts].
    """
    shown = []
    for language in np.unique(languages[which]):
        mine = which & (languages == language)
        kinds = [np.flatnonzero(mine & wanted), np.flatnonzero(mine & ~wanted)]
        most = max(map(len, kinds))
        shown += [np.repeat(kind, np.clip(round(most / len(kind)), 1, _MOST_OFTEN)) for kind in kinds if len(kind)]
    return np.sort(np.concatenate(shown)) if shown else np.zeros(0, np.int64)


class LabelledTexts(NamedTuple):
    """What a classifier learns from: of each text its tokens, whether it's a seed, and its language."""

    tokens: Sequence[np.ndarray]
    wanted: np.ndarray
    languages: np.ndarray

    def some(self, which: np.ndarray) -> list[np.ndarray]:
        """The tokens of those that a mask chooses."""
        return [self.tokens[place] for place in np.flatnonzero(which).tolist()]

    def fit(self, which: np.ndarray, tokenizer: Tokenizer, config: ClassifierConfig) -> Classifier:
        """A classifier of those that a mask chooses."""
        shown = shown_evenly(self.wanted, which, self.languages)
        tokens = [self.tokens[place] for place in shown.tolist()]
        return Classifier.fit_tokens(tokens, self.wanted[shown].tolist(), tokenizer, config)


def low_score(scores: np.ndarray, sites: np.ndarray, share: float) -> float:
    """The score under which a share of the pages lies, where each site counts by the root of its pages."""
    order = np.argsort(scores, kind="stable")
    weights = 1 / np.sqrt(np.bincount(sites)[sites[order]])
    place = np.searchsorted(np.cumsum(weights), share * weights.sum())
    return float(scores[order[min(place, len(order) - 1)]])


def _shares(which: np.ndarray, sites: np.ndarray) -> np.ndarray:
    """Of each page the share of its site's pages that a mask chooses."""
    found: np.ndarray = (np.bincount(sites, which) / np.bincount(sites))[sites]
    return found


def judged(
    texts: LabelledTexts, taught: np.ndarray, folds: np.ndarray, tokenizer: Tokenizer, config: ClassifierConfig
) -> np.ndarray:
    """The score of each text by a classifier of the other folds, float32 [texts].

    Args:
        taught: bool [texts], those that classifiers may be trained on.
    """
    scores = np.zeros(len(folds), np.float32)
    for fold in np.unique(folds):
        judge = texts.fit(taught & (folds != fold), tokenizer, config)
        scores[folds == fold] = judge.scores_of_tokens(texts.some(folds == fold))
    return scores


def run(
    documents: str,
    labels: str,
    tokenizer: str,
    output: str,
    samples: SamplesConfig,
    config: ClassifierConfig,
    options: BeamOptions,
) -> Manifest:
    """Trains a classifier.

    Args:
        documents: the pages.
        labels: which of them are seeds.
        tokenizer: the directory of the tokenizer that cuts texts into words.

    Raises:
        UserError: there are no seeds, or no other pages, or too few of them to measure on.
    """

    def work(directory: Directory) -> tuple[Tally, dict[str, str]]:
        drawn, there = draw(documents, labels, samples)
        if not (there[True] and there[False]):
            raise UserError(f"{labels}: {there[True]} seeds and {there[False]} other pages; a classifier needs both")
        folds, kind = folds_of(drawn, samples)
        wanted, random, rejected, graded, recalled = (
            np.array([getattr(each, name) for each in drawn])
            for name in ("wanted", "random", "rejected", "graded", "recalled")
        )
        if len(np.unique(folds[wanted])) < 2:
            raise UserError(f"{labels}: {there[True]} seeds are too few to train on some and measure on others")
        model = Tokenizer(read_finished(Directory(tokenizer), TOKENIZER))
        tokens = [tokens_of(model, text) for text in _texts(documents, drawn)]
        texts = LabelledTexts(tokens, wanted, np.array([each.language for each in drawn]))
        sites = np.unique([each.site for each in drawn], return_inverse=True)[1]
        by_grades = graded.sum() >= _GRADED
        if by_grades and recalled.any():
            doubtful = _shares(wanted | recalled, sites) >= samples.site_recalled
        else:
            scores = judged(texts, wanted | (graded if by_grades else random), folds, model, config)
            limit = HIGH if by_grades else low_score(scores[wanted], sites[wanted], 1 - samples.sure)
            unrelated = (
                _shares(scores >= HIGH, sites) < _MOST if by_grades else on_unrelated_sites(scores, wanted, sites)
            )
            doubtful = scores >= np.where(unrelated, limit, samples.site_sure * limit)
        doubtful &= random & ~rejected
        taught = wanted | (random & ~doubtful)
        scores = judged(texts, taught, folds, model, config)
        classifier = texts.fit(taught, model, config)
        unrelated = on_unrelated_sites(scores, wanted, sites) | graded
        listed = there[True] / sum(there.values())
        report = measured(scores, wanted, unrelated, graded, listed, samples.precision)
        report["categories"] = by_category(scores, wanted, unrelated, np.array([each.category for each in drawn]))
        counts = {"seeds": there[True], "other pages": there[False], "doubtful": int(doubtful.sum())}
        counts |= {"graded as others": int(graded.sum())}
        counts |= {"rejected": int(rejected.sum()), "trained on": int(taught.sum()), "held out": len(scores)}
        directory.write_json(HELD_OUT, {"held_out": kind, "pages": counts} | report)
        for name, content in classifier.files().items():
            directory.write_bytes(name, content)
        tally = {"in": Manifest.read(documents).table("out"), "count": counts}
        return tally, {name: digest(directory, name) for name in (HELD_OUT, *classifier.files())}

    plan = TrainingPlan(samples, config)
    return Stage("train_classifier", __name__, plan, (documents, labels, tokenizer), output).run(work, options)
