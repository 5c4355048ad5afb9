"""What a classifier does to pages of sites that it never saw, and the thresholds that follow.

Held out are seeds, and other pages without a label, some of which are of the kind that is looked for, too. How many
isn't known, but it can be bounded: they score about as seeds do, so over a threshold that few other pages reach, the
share of the unlabelled pages by that of the seeds is their share (best bin estimation: Garg et al. 2021, arXiv
2111.00980). What more of them is over a threshold than their share of the seeds' is false.
"""

import json
from collections.abc import Sequence
from typing import Any

import numpy as np

from opencoder_jax.beam_pipelines.core.manifest import Manifest, read_finished
from opencoder_jax.beam_pipelines.core.storage import Directory
from opencoder_jax.recipe import UserError

HELD_OUT = "held_out.json"
NEVER = 1.01  # a threshold that no score reaches
_STEPS = 199  # thresholds that are looked at: 0.005 to 0.995
_LEAST = 0.5  # of the seeds that are over a threshold by which the share is estimated
_SIGMAS = 1.0  # by which a share may be underestimated


def measured(scores: np.ndarray, seeds: np.ndarray, listed: float, precision: float) -> dict[str, Any]:
    """What a classifier does to held-out pages, threshold by threshold, and which one is chosen.

    Args:
        scores: float32 [pages].
        seeds: bool [pages].
        listed: the share of the crawl's pages that are seeds.
        precision: that is wanted.

    Raises:
        UserError: they are of one kind, so that any threshold would seem right.
    """
    for kind, which in (("seed", seeds), ("random page", ~seeds)):
        if not which.any():
            raise UserError(f"there is no {kind} to measure on")
    thresholds = np.arange(1, _STEPS + 1) / (_STEPS + 1)
    recall, over = (_at_least(scores[which], thresholds) for which in (seeds, ~seeds))
    hidden = hidden_share(recall, over, int((~seeds).sum()))
    false = np.maximum(0.0, (over - hidden * recall) / max(1e-9, 1 - hidden))
    share = listed + (1 - listed) * hidden
    curve = [
        {
            "threshold": float(threshold),
            "precision": round(precision_of(share, float(right), float(wrong)), 4),
            "recall": round(float(right), 4),
            "false": float(wrong),
        }
        for threshold, right, wrong in zip(thresholds, recall, false, strict=True)
    ]
    bins = np.clip((scores * 10).astype(int), 0, 9)
    calibration = [
        {"from": place / 10, "pages": int((bins == place).sum()), "seeds": int(seeds[bins == place].sum())}
        for place in range(10)
    ]
    chosen = _chosen(curve, precision)
    return {"share": share, "chosen": chosen, "curve": curve, "calibration": calibration}


def _at_least(scores: np.ndarray, thresholds: np.ndarray) -> np.ndarray:
    """The share of the scores over each threshold."""
    return 1 - np.searchsorted(np.sort(scores), thresholds, side="left") / len(scores)


def hidden_share(recall: np.ndarray, over: np.ndarray, pages: int) -> float:
    """At most what share of the unlabelled pages is of the kind that is looked for.

    Args:
        recall, over: the shares of the seeds and of the unlabelled pages over each threshold.
        pages: unlabelled ones, on which `over` was measured.
    """
    good = recall >= min(_LEAST, recall.max())
    error = _SIGMAS * np.sqrt(np.maximum(over * (1 - over), 1 / pages) / pages)
    return float(min(0.99, ((over + error)[good] / np.maximum(recall[good], 1e-9)).min()))


def precision_of(share: float, recall: float, false: float) -> float:
    """Of pages of which a share is of the kind that is looked for."""
    right = share * recall
    return right / (right + (1 - share) * false) if right else 0.0


def _chosen(curve: Sequence[dict[str, float]], precision: float) -> dict[str, float]:
    """Of the thresholds with the precision, or of all where none has it, that of the best balance with recall (F1)."""
    good = [each for each in curve if each["precision"] >= precision and each["recall"] > 0]

    def balance(each: dict[str, float]) -> float:
        return each["precision"] * each["recall"] / max(1e-9, each["precision"] + each["recall"])

    return max(good or curve, key=balance)


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
