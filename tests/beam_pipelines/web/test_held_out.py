"""What training says of thresholds: for all pages, and for each category of them."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from opencoder_jax.beam_pipelines.web import score
from opencoder_jax.beam_pipelines.web.addresses import category_of
from opencoder_jax.beam_pipelines.web.held_out import (
    NEVER,
    by_category,
    measured,
    on_unrelated_sites,
    precision_of,
    threshold_for,
    thresholds_for,
)
from opencoder_jax.recipe import UserError


@given(st.integers(0, 2**32), st.floats(0.05, 0.5), st.sampled_from([0.5, 0.9, 0.99]))
def test_the_threshold_has_the_precision_and_the_best_balance(seed: int, listed: float, precision: float) -> None:
    rng = np.random.default_rng(seed)
    seeds = rng.random(800) < 0.5
    scores = np.clip(rng.normal(np.where(seeds, 0.7, 0.3), 0.2), 0, 1).astype(np.float32)
    unrelated = rng.random(800) < 0.5
    report = measured(scores, seeds, unrelated, ~seeds, listed, precision)
    curve, chosen = report["curve"], report["chosen"]
    good = [each for each in curve if each["precision"] >= precision and each["recall"] > 0] or curve
    assert chosen in good
    balances = [2 / (1 / each["precision"] + 1 / each["recall"]) for each in good if each["precision"] * each["recall"]]
    assert 2 / (1 / chosen["precision"] + 1 / chosen["recall"]) >= 0.98999 * max(balances)
    assert threshold_for(curve, 1.0, precision) == curve[0]["threshold"]
    assert threshold_for(curve, 0.0, precision) == NEVER
    recalls = [each["recall"] for each in curve]
    assert recalls == sorted(recalls, reverse=True)
    assert listed <= report["share"] <= 1
    half = curve[99]
    assert half["seeds"] == pytest.approx((scores >= 0.5)[seeds].mean(), abs=1e-4)
    assert half["precision"] == pytest.approx(precision_of(report["share"], half["recall"], half["false"]), abs=1e-3)
    for name, there in (("pages", 800), ("seeds", seeds.sum()), ("graded as others", (~seeds).sum())):
        assert sum(each[name] for each in report["calibration"]) == there
    few = measured(scores, seeds, unrelated & (np.arange(800) < 200), ~seeds, listed, precision)["chosen"]
    assert few["threshold"] >= 0.5  # hardly a page tells which ones are false


@given(st.integers(0, 2**32), st.sampled_from([0.1, 0.3]))
def test_what_is_hidden_among_random_pages_is_told(seed: int, hidden: float) -> None:
    """Pages that score lower than the seeds, on sites of their own: how many they are is found, and the precision."""
    rng = np.random.default_rng(seed)
    seeds, wanted = np.arange(5000) < 300, np.arange(5000) < 300 + 4700 * hidden
    scores = np.where(seeds, rng.beta(9, 1, 5000), np.where(wanted, rng.beta(5, 2, 5000), rng.beta(1, 9, 5000)))
    sites = np.where(wanted, rng.integers(0, 40, 5000), rng.integers(40, 140, 5000))
    unrelated = on_unrelated_sites(scores.astype(np.float32), seeds, sites)
    assert not unrelated[wanted].any()
    assert unrelated[~wanted].mean() > 0.9
    report = measured(scores.astype(np.float32), seeds, unrelated, ~seeds, 0.06, 0.9)
    assert report["share"] == pytest.approx(wanted.mean(), abs=0.03)
    for each in report["curve"][40:160:20]:
        over = scores >= each["threshold"]
        assert each["precision"] == pytest.approx(wanted[over].mean(), abs=0.05)
        assert each["recall"] == pytest.approx(over[wanted].mean(), abs=0.06)


def test_forums_have_a_threshold_of_their_own() -> None:
    """Each category's recalls the share of its seeds that is wanted; where they are few, it's the one of all."""
    rng = np.random.default_rng(0)
    names = np.array(["forum", "documentation", "news"])[np.minimum(np.arange(2010) // 1000, 2)]
    seeds = rng.random(2010) < 0.5
    middle = np.where(names == "forum", 0.5, 0.8)
    scores = np.where(seeds, rng.normal(middle, 0.1), rng.normal(0.2, 0.1, 2010)).clip(0, 1).astype(np.float32)
    held = {"chosen": {"threshold": 0.6}, "categories": by_category(scores, seeds, ~seeds, names)}
    thresholds = thresholds_for(held, 0.95)
    assert thresholds["news"] == 0.6
    assert thresholds["forum"] < thresholds["documentation"] - 0.2
    for name in ("forum", "documentation"):
        mine = (names == name) & seeds
        assert 0.95 <= (scores[mine] >= thresholds[name]).mean() < 0.97
        each = held["categories"][name]
        assert (each["pages"], each["seeds"], each["false"]) == (1000, mine.sum(), 1000 - mine.sum())
        assert each["false over"][59] == pytest.approx((scores[(names == name) & ~seeds] >= 0.3).mean(), abs=1e-4)
    assert thresholds_for(held, 1.0)["forum"] > 0  # where a seed scores nothing, too


@pytest.mark.parametrize(
    ("place", "category"),
    [
        ("forum.a.org/1", "forum"),
        ("a.org/c/programming/2", "forum"),
        ("a.org/viewtopic.php?t=1", "forum"),
        ("docs.a.org/x", "documentation"),
        ("a.org/blog/docs-of-x", "documentation"),
        ("a.org/news/2024/05", "news"),
        ("a.org/posts/x", "blog"),
        ("a.org/x", "other"),
        ("me/tool/README.md", "other"),
    ],
)
def test_a_place_names_the_category_of_a_page(place: str, category: str) -> None:
    assert category_of(place) == category


def test_a_page_is_recalled_by_the_threshold_of_its_category(batch: Any, tmp_path: Path) -> None:
    (tmp_path / "s.jsonl").write_text("".join(f'{{"url": "https://a.org/{n}", "score": 0.4}}\n' for n in range(3)))
    places = ("a.org/forum/1", "a.org/docs/1", "a.org/1")
    documents = batch(*({"text": "x", "url": f"https://a.org/{n}", "path": place} for n, place in enumerate(places)))
    kernel = score.ScorePages("", 0, str(tmp_path / "s.jsonl"), 0.5, {"forum": 0.3, "documentation": 0.6})
    assert kernel(documents).table.column("recalled").to_pylist() == [True, False, False]
    with pytest.raises(ValueError, match="either that or a threshold"):
        score.ScoreConfig(threshold=0.5, recall=0.9)


def test_a_classifier_that_finds_no_seed_is_told_so() -> None:
    scores, seeds = np.array([0.001] * 20 + [0.9] * 20, np.float32), np.arange(40) < 20
    report = measured(scores, seeds, ~seeds, ~seeds, 0.1, 0.9)
    assert report["share"] == pytest.approx(0.1)
    assert all(each["recall"] == 0 for each in report["curve"])


def test_a_page_is_judged_by_the_others_of_its_site() -> None:
    """Its own score says nothing of its site, and few pages say too little."""
    sites = np.array([0] * 12 + [1] * 12 + [2] * 4)
    scores = np.zeros(28, np.float32)
    scores[[0, 12, 13, 24]] = 0.9  # one high page on the first site, two on the second
    seeds = np.zeros(28, bool)
    found = on_unrelated_sites(scores, seeds, sites)
    assert found[:12].all()  # 1 of 11 others at most
    assert found[12:14].all()  # the other one of 11
    assert not found[14:].any()  # 2 of 11; and the last site is too small
    seeds[1] = True
    assert not on_unrelated_sites(scores, seeds, sites)[2:12].any()


@pytest.mark.parametrize(("kind", "left"), [("random page", True), ("seed", False)])
def test_pages_of_one_kind_measure_nothing(kind: str, left: bool) -> None:
    """With no other page any threshold would be precise."""
    with pytest.raises(UserError, match=f"no {kind} to measure on"):
        measured(np.array([0.2, 0.9], np.float32), np.array([left, left]), *np.zeros((2, 2), bool), 0.5, 0.9)
