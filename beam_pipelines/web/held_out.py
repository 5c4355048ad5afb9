"""What a classifier does to pages of sites that it never saw, and the thresholds that follow.

Held out are seeds, and other pages without a label, many of which are of the kind that is looked for, too, though
seldom like the seeds: a grader marks what is plain. So seeds say little of how many pages there are over a threshold,
or how many are right. Sites say more. On a site where hardly another page scores high, a page that does is false: there
the share of false pages is measured, and what more is over a threshold anywhere is right. Where there are few such
pages, as sites have a handful of pages each, the threshold is one by which the kinds are parted at least.

Categories of pages score differently: what people write in forums is less plain than documentation. So of each there is
how many of its seeds are over a threshold, and how many of its false pages; `thresholds_for` has those that recall a
share of its seeds.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from opencoder_jax.beam_pipelines.core.manifest import Manifest, read_finished
from opencoder_jax.beam_pipelines.core.storage import Directory
from opencoder_jax.recipe import UserError

HELD_OUT = "held_out.json"
NEVER = 1.01  # a threshold that no score reaches
_STEPS = 199  # thresholds that are looked at: 0.005 to 0.995
_RELATED = 0.1  # the share of a site's other pages that score high, from which on a page isn't held false (the paper's)
HIGH = 0.5  # a score that both kinds, shown equally often, are parted by
_OTHERS = 4  # other pages of a site by which a page is judged, at least
_ABOUT = 0.99  # of the best balance
_TELLING = 100  # pages of unrelated sites that tell false ones
_TOLD = 20  # seeds of a category that tell its threshold
_FALSE = 0.1  # the largest share of false pages from which the number of right ones is told


def on_unrelated_sites(scores: np.ndarray, seeds: np.ndarray, sites: np.ndarray) -> np.ndarray:
    """Pages on whose sites hardly another page scores high or is a seed, bool [pages].

    Args:
        scores: float32 [pages].
        seeds: bool [pages].
        sites: of each page, a number from 0 on.
    """
    high = (seeds | (scores >= HIGH)).astype(np.int64)
    others = np.bincount(sites)[sites] - 1
    theirs = np.bincount(sites, high).astype(np.int64)[sites] - high
    found: np.ndarray = (others >= _OTHERS) & (theirs <= _RELATED * others)
    return found


def measured(
    scores: np.ndarray,
    seeds: np.ndarray,
    unrelated: np.ndarray,
    graded: np.ndarray,
    listed: float,
    precision: float,
) -> dict[str, Any]:
    """What a classifier does to held-out pages, threshold by threshold, and which one is chosen.

    Args:
        scores: float32 [pages].
        seeds: bool [pages].
        unrelated: bool [pages], those of `on_unrelated_sites`. Without any, all other pages count as false.
        graded: bool [pages], those that were graded as of another kind.
        listed: the share of the crawl's pages that are seeds.
        precision: that is wanted.

    Raises:
        UserError: they are of one kind, so that any threshold would seem right.
    """
    for kind, which in (("seed", seeds), ("random page", ~seeds)):
        if not which.any():
            raise UserError(f"there is no {kind} to measure on")
    elsewhere = unrelated & ~seeds
    thresholds = _thresholds()
    mine, others, false = (
        _at_least(scores[which], thresholds) for which in (seeds, ~seeds, elsewhere if elsewhere.any() else ~seeds)
    )
    over = listed * mine + (1 - listed) * others
    told = false <= max(_FALSE, false.min())
    share = listed
    for _ in range(3):  # the fewer are of another kind, the fewer are false
        right = np.maximum(over - (1 - share) * false, listed * mine)
        share = float(min(0.99, max(listed, right[told].max())))
    recall = np.maximum.accumulate(np.minimum(right / share, 1)[::-1])[::-1]
    curve = [
        {
            "threshold": float(threshold),
            "precision": round(precision_of(share, float(found), float(wrong)), 4),
            "recall": round(float(found), 4),
            "false": float(wrong),
            "seeds": round(float(own), 4),
        }
        for threshold, found, wrong, own in zip(thresholds, recall, false, mine, strict=True)
    ]
    bins = np.clip((scores * 10).astype(int), 0, 9)
    calibration = [
        {"from": place / 10}
        | {
            name: int((which & (bins == place)).sum())
            for name, which in (("pages", np.ones(len(bins), bool)), ("seeds", seeds), ("graded as others", graded))
        }
        for place in range(10)
    ]
    # Where hardly a page tells which ones are false, no threshold below what parts the kinds may be trusted.
    least = HIGH if elsewhere.sum() < _TELLING else 0.0
    chosen = _chosen([each for each in curve if each["threshold"] >= least], precision)
    return {"share": share, "chosen": chosen, "curve": curve, "calibration": calibration}


def by_category(
    scores: np.ndarray, seeds: np.ndarray, unrelated: np.ndarray, categories: np.ndarray
) -> dict[str, dict[str, Any]]:
    """Of each category of pages how many there are, and the shares of its seeds and false pages over each threshold.

    Args:
        categories: str [pages].
    """
    found = {}
    for name in np.unique(categories).tolist():
        mine = categories == name
        found[name] = {"pages": int(mine.sum())}
        for kind, which in (("seeds", seeds), ("false", unrelated & ~seeds)):
            own = scores[mine & which]
            found[name][kind] = len(own)
            found[name][f"{kind} over"] = np.round(_at_least(own, _thresholds()), 4).tolist() if len(own) else []
    return found


def thresholds_for(held: Mapping[str, Any], recall: float) -> dict[str, float]:
    """Of each category the highest threshold that so large a share of its held-out seeds reaches.

    One with few seeds, or where no threshold recalls so many, has the threshold that was chosen for all.
    """
    chosen = float(held["chosen"]["threshold"])
    found = {}
    for name, each in held["categories"].items():
        good = np.flatnonzero(np.array(each["seeds over"]) >= recall)
        found[name] = float(_thresholds()[good[-1]]) if each["seeds"] >= _TOLD and len(good) else chosen
    return found


def _thresholds() -> np.ndarray:
    found: np.ndarray = np.arange(1, _STEPS + 1) / (_STEPS + 1)
    return found


def _at_least(scores: np.ndarray, thresholds: np.ndarray) -> np.ndarray:
    """The share of the scores over each threshold."""
    return 1 - np.searchsorted(np.sort(scores), thresholds, side="left") / len(scores)


def precision_of(share: float, recall: float, false: float) -> float:
    """Of pages of which a share is of the kind that is looked for."""
    right = share * recall
    return right / (right + (1 - share) * false) if right else 0.0


def _chosen(curve: Sequence[dict[str, float]], precision: float) -> dict[str, float]:
    """Of the thresholds with the precision, or of all where none has it, the highest of about the best balance (F1).

    The balance hardly changes over a wide range, and what differs there is told least surely: how many pages are false.
    """
    good = [each for each in curve if each["precision"] >= precision and each["recall"] > 0] or curve
    balances = [_f1(each) for each in good]
    return [each for each, found in zip(good, balances, strict=True) if found >= _ABOUT * max(balances)][-1]


def _f1(each: dict[str, float]) -> float:
    return 2 * each["precision"] * each["recall"] / max(1e-9, each["precision"] + each["recall"])


def threshold_for(curve: Sequence[dict[str, float]], share: float, precision: float) -> float:
    """The lowest threshold with the precision where a share of the pages is of the kind; NEVER where none has it."""
    good = (
        each["threshold"]
        for each in curve
        if each["recall"] > 0 and precision_of(share, each["recall"], each["false"]) >= precision
    )
    return next(good, NEVER)


def read_held_out(classifier: str) -> dict[str, Any]:
    """What training measured. Raises UserError where no finished classifier is."""
    Manifest.read(classifier)
    found: dict[str, Any] = json.loads(read_finished(Directory(classifier), HELD_OUT))
    return found


def threshold_of(classifier: str) -> float:
    """The threshold that training chose. Raises UserError where no finished classifier is."""
    return float(read_held_out(classifier)["chosen"]["threshold"])
