"""Trains a round's classifier on seeds against random pages, and finds its threshold on sites that it never saw.

    python -m beam_pipelines train_classifier --documents=runs/web/pages --labels=runs/web/seeds \\
        --tokenizer=runs/web/tokenizer --output=runs/web/round_1/classifier

Both kinds are drawn by the hash of the page's id, with at most `per_site` of a site. The sites that a hash chooses are
held out: on their pages precision and recall are measured, and the threshold is the lowest with the precision that is
wanted.

Random pages hold pages of the kind that is looked for, in the first round most of them. A classifier that is trained on
these as others learns to pass them over, so doubtful pages are left out: the random pages are parted in two, and a
classifier that was trained against one half judges the other. A page is doubtful where it scores as `sure` of the
held-out seeds do (after Liu et al. 2002, whose spies are these seeds). Figures are those of the crawl, weighted by how
many pages of each kind it has, doubtful ones among those that are looked for.

Writes `classifier.bin`, which any fastText reads, `tokenizer.model`, and `held_out.json`.
"""

import heapq
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import xxhash

from opencoder_jax.beam_pipelines.core.documents import read_shard
from opencoder_jax.beam_pipelines.core.manifest import Manifest, Tally, digest, read_finished
from opencoder_jax.beam_pipelines.core.runner import BeamOptions
from opencoder_jax.beam_pipelines.core.stage import Stage, input_shards
from opencoder_jax.beam_pipelines.core.storage import Directory
from opencoder_jax.beam_pipelines.web.fasttext.classifier import TOKENIZER, Classifier, ClassifierConfig, tokens_of
from opencoder_jax.checks import at_least, between, check
from opencoder_jax.data.tokenizer import Tokenizer
from opencoder_jax.recipe import UserError, configurable

HELD_OUT = "held_out.json"
_STEPS = 99  # thresholds that are looked at: 0.01 to 0.99
_MOST_OFTEN = 20  # times that a seed is shown
_FEWEST = 20  # held-out sites with seeds; with fewer, pages are held out and not sites


@configurable
@dataclass(frozen=True)
class SamplesConfig:
    """What a classifier is trained and measured on.

    Attributes:
        seeds, random: pages of each kind, at most.
        per_site: pages of a site and a kind, at most.
        held_out: the share of the sites that is held out.
        sure: the share of the held-out seeds by whose scores doubtful pages are known.
        precision: that is wanted of the threshold.
        seed: of the draw.
    """

    seeds: int = 100_000
    random: int = 200_000
    per_site: int = 1_000
    held_out: float = 0.1
    sure: float = 0.9
    precision: float = 0.9
    seed: int = 0

    def __post_init__(self) -> None:
        share = between(0.01, 0.99)
        check(self, seeds=at_least(2), random=at_least(2), per_site=at_least(1), held_out=share, precision=share)
        check(self, sure=share)


@dataclass(frozen=True)
class TrainingPlan:
    """What a classifier depends on."""

    samples: SamplesConfig
    classifier: ClassifierConfig


class DrawnPage(NamedTuple):
    """A page that was drawn, in the order of the draw."""

    order: int
    shard: int
    row: int
    site: str
    wanted: bool


def _number(text: str, seed: int) -> int:
    return xxhash.xxh3_64_intdigest(text.encode("utf-8", "replace"), seed)


def draw(documents: str, labels: str, config: SamplesConfig) -> tuple[list[DrawnPage], Counter[bool]]:
    """The pages of both kinds, and how many there are of each."""
    pairs = list(zip(input_shards(documents), input_shards(labels, "labels"), strict=True))
    heaps: dict[bool, list[DrawnPage]] = {True: [], False: []}
    sizes = {True: config.seeds, False: config.random}
    there: Counter[bool] = Counter()
    sites: dict[tuple[str, bool], list[int]] = {}
    for shard, (name, marks) in enumerate(pairs):
        first = 0
        batches = read_shard(Directory(documents), name, ["id", "repository"])
        for batch, marked in zip(batches, read_shard(Directory(labels), marks), strict=True):
            columns = (batch.column("id"), batch.column("repository"), marked.column("seed"), marked.column("random"))
            for row, (own, site, seed, other) in enumerate(zip(*(each.to_pylist() for each in columns), strict=True)):
                if not (seed or other):
                    continue
                there[seed] += 1
                order = _number(own, config.seed)
                # Of a site, those with the smallest numbers; heapq keeps the smallest first, so numbers are negated.
                mine = sites.setdefault((site, seed), [])
                if len(mine) >= config.per_site and -order < mine[0]:
                    continue
                (heapq.heappush if len(mine) < config.per_site else heapq.heappushpop)(mine, -order)
                sample = DrawnPage(-order, shard, first + row, site, seed)
                (heapq.heappush if len(heaps[seed]) < sizes[seed] else heapq.heappushpop)(heaps[seed], sample)
            first += batch.num_rows
    # A page that was later pushed out of its site's may still be there.
    kept = [
        sample for heap in heaps.values() for sample in heap if sample.order >= sites[sample.site, sample.wanted][0]
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


def held_out_mask(samples: Sequence[DrawnPage], config: SamplesConfig) -> tuple[np.ndarray, str]:
    """Which samples are held out, bool [samples], and what was held out: "sites", or "pages" where sites are few."""
    limit = int(config.held_out * 2**64)
    by_site = np.array([_number(each.site, config.seed + 1) < limit for each in samples])
    if len({each.site for each, held in zip(samples, by_site, strict=True) if held and each.wanted}) >= _FEWEST:
        return by_site, "sites"
    return np.array([_number(f"{each.shard} {each.row}", config.seed + 1) < limit for each in samples]), "pages"


def fit_evenly(
    tokens: Sequence[np.ndarray], wanted: np.ndarray, which: np.ndarray, tokenizer: Tokenizer, config: ClassifierConfig
) -> Classifier:
    """A classifier of some of the texts; where seeds are few, they're shown several times as often."""
    seeds, others = np.flatnonzero(wanted & which), np.flatnonzero(~wanted & which)
    times = int(np.clip(len(others) // max(1, len(seeds)), 1, _MOST_OFTEN))
    shown = np.sort(np.concatenate([*[seeds] * times, others]))
    return Classifier.fit_tokens([tokens[place] for place in shown.tolist()], wanted[shown].tolist(), tokenizer, config)


def find_doubtful(
    tokens: Sequence[np.ndarray],
    wanted: np.ndarray,
    held: np.ndarray,
    tokenizer: Tokenizer,
    samples: SamplesConfig,
    config: ClassifierConfig,
) -> np.ndarray:
    """Which random pages are likely of the kind that is looked for, bool [pages]."""
    halves = np.array([xxhash.xxh3_64_intdigest(each.tobytes(), samples.seed + 2) % 2 == 0 for each in tokens])
    spies = [tokens[place] for place in np.flatnonzero(wanted & held).tolist()]
    doubtful = np.zeros(len(tokens), bool)
    for half in (halves, ~halves):
        judge = fit_evenly(tokens, wanted, ~held & (wanted | ~half), tokenizer, config)
        limit = np.quantile(judge.scores_of_tokens(spies), 1 - samples.sure)
        places = np.flatnonzero(~wanted & half)
        doubtful[places] = judge.scores_of_tokens([tokens[place] for place in places.tolist()]) >= limit
    return doubtful


def measured(scores: np.ndarray, wanted: np.ndarray, share: float, precision: float) -> dict[str, Any]:
    """What a classifier does to held-out pages, threshold by threshold, and which one is chosen.

    Args:
        scores: float32 [pages].
        wanted: bool [pages], whether each is a seed.
        share: of the crawl's pages that are of the kind that is looked for, about.
        precision: that is wanted.

    Raises:
        UserError: they are of one kind, so that any threshold would seem right.
    """
    for kind, which in (("seed", wanted), ("random page", ~wanted)):
        if not which.any():
            raise UserError(
                f"no {kind} is left to measure on; lower SamplesConfig.sure or raise SamplesConfig.held_out"
            )
    curve = []
    for step in range(1, _STEPS + 1):
        threshold = step / (_STEPS + 1)
        over = scores >= threshold
        recall = float(over[wanted].mean())
        false = float(over[~wanted].mean())
        right = share * recall
        sure = right / (right + (1 - share) * false) if right else 0.0
        curve.append({"threshold": threshold, "precision": round(sure, 4), "recall": round(recall, 4)})
    good = [each for each in curve if each["precision"] >= precision and each["recall"] > 0]

    def balance(each: dict[str, float]) -> float:
        return each["precision"] * each["recall"] / max(1e-9, each["precision"] + each["recall"])

    chosen = good[0] if good else max(curve, key=balance)
    bins = np.clip((scores * 10).astype(int), 0, 9)
    calibration = [
        {"from": place / 10, "pages": int((bins == place).sum()), "seeds": int(wanted[bins == place].sum())}
        for place in range(10)
    ]
    return {"chosen": chosen, "curve": curve, "calibration": calibration}


def threshold_of(classifier: str) -> float:
    """The threshold that training chose. Raises UserError where no finished classifier is."""
    Manifest.read(classifier)
    return float(json.loads(read_finished(Directory(classifier), HELD_OUT))["chosen"]["threshold"])


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
        held, kind = held_out_mask(drawn, samples)
        wanted = np.array([each.wanted for each in drawn])
        model = Tokenizer(read_finished(Directory(tokenizer), TOKENIZER))
        if not (wanted & held).any() or not (wanted & ~held).any():
            raise UserError(f"{labels}: {there[True]} seeds are too few to train on some and measure on others")
        tokens = [tokens_of(model, text) for text in _texts(documents, drawn)]
        doubtful = find_doubtful(tokens, wanted, held, model, samples, config)
        kept = ~doubtful
        classifier = fit_evenly(tokens, wanted, kept & ~held, model, config)
        scores = classifier.scores_of_tokens([tokens[place] for place in np.flatnonzero(kept & held).tolist()])
        like = there[True] + there[False] * doubtful.sum() / max(1, (~wanted).sum())
        report = measured(scores, wanted[kept & held], float(like / sum(there.values())), samples.precision)
        counts = {"seeds": there[True], "random pages": there[False], "doubtful": int(doubtful.sum())}
        counts |= {"trained on": int((kept & ~held).sum()), "held out": len(scores)}
        directory.write_json(HELD_OUT, {"held_out": kind, "pages": counts} | report)
        for name, content in classifier.files().items():
            directory.write_bytes(name, content)
        tally = {"in": Manifest.read(documents).table("out"), "count": counts}
        return tally, {name: digest(directory, name) for name in (HELD_OUT, *classifier.files())}

    plan = TrainingPlan(samples, config)
    return Stage("train_classifier", __name__, plan, (documents, labels, tokenizer), output).run(work, options)
