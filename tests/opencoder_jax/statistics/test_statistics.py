"""Intervals cover what they say, tests of pairs are exact, and the verdicts follow from the intervals."""

import math
import tracemalloc
from unittest.mock import Mock

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from opencoder_jax.statistics import claims
from opencoder_jax.statistics.bootstrap import Interval, bounded, mcnemar, mean, paired_p, ratio
from opencoder_jax.statistics.claims import crossed, needed, negligible, over_seeds, student_quantile, verdict

numbers = st.floats(-1e3, 1e3).map(lambda value: round(value, 3))


@pytest.mark.parametrize("method", ["bca", "percentile"])
def test_the_bootstrap_is_scipys(method) -> None:
    values = np.random.default_rng(1).gamma(1.0, size=60)  # skewed, so that the methods differ
    ours = mean(values, method=method)
    theirs = stats.bootstrap((values,), np.mean, method=method.replace("bca", "BCa"), n_resamples=20_000, rng=2)
    assert (ours.low, ours.high) == pytest.approx(tuple(theirs.confidence_interval), abs=0.02)
    assert ours.estimate == pytest.approx(values.mean())


def test_clusters_are_drawn_whole() -> None:
    """Copies of a file say nothing new: the interval stays as wide as one a repository."""
    values = np.random.default_rng(2).normal(size=30)
    once = mean(values)
    copied = mean(np.repeat(values, 20), np.repeat(np.arange(30), 20).tolist())
    assert copied == pytest.approx(once)
    assert mean(np.repeat(values, 20)).high - once.estimate < (once.high - once.estimate) / 3


def test_a_ratio_of_sums_covers_the_true_one(monkeypatch) -> None:
    monkeypatch.setattr("opencoder_jax.statistics.bootstrap.RESAMPLES", 1_000)
    generator, inside = np.random.default_rng(3), 0
    for _ in range(100):
        bytes_ = generator.lognormal(0, 0.7, 40)
        found = ratio(bytes_ * generator.normal(1.5, 0.3, 40), bytes_)
        inside += found.low <= 1.5 <= found.high
    assert 88 <= inside <= 99


@given(st.lists(numbers, min_size=2, max_size=12))
@settings(max_examples=30, deadline=None)
def test_the_interval_holds_the_estimate_and_mirrors(values) -> None:
    found = mean(values, method="percentile")
    assert found.low - 1e-9 <= found.estimate <= found.high + 1e-9
    assert min(values) - 1e-9 <= found.low
    assert found.times(-1) == (-found.estimate, -found.high, -found.low)


def test_equal_clusters_leave_no_width_and_bad_values_are_refused() -> None:
    assert ratio([1, 2, 4], [2, 4, 8]) == (0.5, 0.5, 0.5)
    for bad in ([], [math.nan], [math.inf, 1]):
        with pytest.raises(ValueError, match="finite"):
            mean(bad)
    with pytest.raises(ValueError, match="clusters"):
        mean([1, 2], ["a"])
    with pytest.raises(ValueError, match="denominators"):
        ratio([1, 2], [0, 0])


def test_equal_values_in_a_range_and_one_cluster_leave_the_rule_of_three() -> None:
    assert bounded([0.0] * 60, -1, 1) == (0.0, -0.05, 0.05)
    assert bounded([1.0] * 60) == (1.0, 0.95, 1.0)
    assert bounded([0.2, 0.4], clusters=["a", "a"]) == pytest.approx((0.3, 0.0, 1.0))
    assert bounded([0.25] * 60, clusters=["a", "b", "c", "d", "e", "f"] * 10) == (0.25, 0.125, 0.625)


@given(st.lists(st.floats(-1, 1), min_size=1, max_size=12), st.sampled_from(["bca", "percentile"]))
@settings(max_examples=30, deadline=None)
def test_an_interval_in_a_range_has_width_and_stays_in_it(values, method) -> None:
    found = bounded(values, -1, 1, method=method)
    assert -1 <= found.low < found.high <= 1


def test_resamples_of_many_clusters_take_little_memory(monkeypatch) -> None:
    monkeypatch.setattr("opencoder_jax.statistics.bootstrap.RESAMPLES", 500)
    monkeypatch.setattr("opencoder_jax.statistics.bootstrap._AT_ONCE", 100_000)
    values = np.random.default_rng(8).normal(size=20_000)
    tracemalloc.start()
    mean(values)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 20e6  # all indices at once would take 80 MB


@given(st.lists(st.integers(-50, 50), min_size=2, max_size=9))
@settings(max_examples=25, deadline=None)
def test_exact_flips_are_scipys(values) -> None:
    theirs = stats.permutation_test(
        (values, [0] * len(values)),
        lambda first, second: abs(np.sum(first) - np.sum(second)),
        permutation_type="samples",
        alternative="greater",
    )
    assert paired_p(values) == pytest.approx(theirs.pvalue)


def test_drawn_flips_are_near_the_exact_ones() -> None:
    values = np.random.default_rng(4).normal(0.35, 1, 40)
    normal = 2 * stats.norm.sf(abs(values.sum()) / math.sqrt((values**2).sum()))
    assert paired_p(values) == pytest.approx(normal, abs=0.02)
    assert paired_p(np.ones(40)) == pytest.approx(1 / 10_001)


@given(st.integers(0, 60), st.integers(0, 60))
@settings(max_examples=50, deadline=None)
def test_mcnemar_is_the_binomial_test(first, second) -> None:
    wanted = stats.binomtest(first, first + second).pvalue if first + second else 1.0
    assert mcnemar(first, second) == pytest.approx(wanted)


@pytest.mark.parametrize("freedom", [1, 1.7, 2, 5, 30, 2e4])
@pytest.mark.parametrize("share", [0.5, 0.8, 0.975])
def test_students_quantile_is_scipys(share, freedom) -> None:
    assert student_quantile(share, freedom) == pytest.approx(stats.t.ppf(share, freedom), rel=1e-3)


@pytest.mark.parametrize(("seeds", "seed_noise"), [(3, 0.0), (3, 0.1), (3, 0.4), (3, 1.0), (8, 0.2)])
def test_few_seeds_still_cover(seeds, seed_noise, monkeypatch) -> None:
    """Whichever noise is the larger, 95 % of intervals hold the truth; a bootstrap over 3 seeds holds it in 75 %."""
    monkeypatch.setattr("opencoder_jax.statistics.claims._RESAMPLES", 500)
    generator, inside, runs = np.random.default_rng(5), 0, 100
    for _ in range(runs):
        of_seeds, of_clusters = generator.normal(0, seed_noise, (seeds, 1)), generator.normal(0, 0.5, (1, 20))
        found = crossed(2 + of_seeds + of_clusters + generator.normal(0, 0.1, (seeds, 20)))
        inside += found.low <= 2 <= found.high
    assert inside >= 0.9 * runs


def test_a_second_noise_never_narrows_the_interval() -> None:
    """Three seeds that differ by -0.020, -0.047, -0.052: not told from nothing, whatever the projects add."""
    by_seed, generator = np.array([-0.0202, -0.0468, -0.0523]), np.random.default_rng(8)
    alone = over_seeds(by_seed)
    assert alone.low < 0 < alone.high
    for spread in (0.0, 0.01, 0.02, 0.04, 0.1):
        of_clusters = generator.normal(0, 1, (1, 13))
        both = crossed(by_seed[:, None] + spread * (of_clusters - of_clusters.mean()) / of_clusters.std())
        assert both.estimate == pytest.approx(alone.estimate)
        assert both.high - both.low >= (alone.high - alone.low) * (1 - 1e-9)


def test_weights_are_bytes_and_one_seed_says_nothing_of_others() -> None:
    assert crossed([[1, 5], [1, 5]], [3, 1]).estimate == 2
    assert crossed([[2, 2], [2, 2]]) == (2, 2, 2)
    for shape in ((1, 5), (5, 1)):
        with pytest.raises(ValueError, match="at least two"):
            crossed(np.ones(shape))


def test_over_seeds_is_scipys_t_interval() -> None:
    values = np.random.default_rng(6).normal(1, 2, 5)
    wanted = stats.ttest_1samp(values, 0).confidence_interval(0.95)
    assert over_seeds(values) == pytest.approx((values.mean(), wanted.low, wanted.high), rel=1e-3)
    with pytest.raises(ValueError, match="at least two"):
        over_seeds([1.0])


@pytest.mark.parametrize("smallest", [0.3, 1.0])
def test_as_many_pairs_as_needed_have_the_power(smallest) -> None:
    pilot = np.array([-0.8, 0.1, 0.9])
    pairs, spread = needed(pilot, smallest), pilot.std(ddof=1)
    away = stats.t.ppf(0.975, pairs - 1)
    power = stats.nct.sf(away, pairs - 1, smallest / spread * math.sqrt(pairs))
    fewer = stats.nct.sf(stats.t.ppf(0.975, pairs - 3), pairs - 3, smallest / spread * math.sqrt(pairs - 2))
    assert power >= 0.78
    assert fewer < 0.8
    assert needed([1, 1], smallest) == 2


@pytest.mark.parametrize("most", [2, 3, 700, 5000])
def test_the_fewest_pairs_are_found_in_few_steps(most, monkeypatch) -> None:
    """As one after the other would, but a quantile costs a millisecond."""
    monkeypatch.setattr(claims, "student_quantile", quantile := Mock(wraps=lambda share, freedom: 2 + 10 / freedom))
    pilot = [-1.0, 1.0]
    found = needed(pilot, 0.2, most=most)
    assert quantile.call_count < 30

    def power(pairs: int) -> float:
        return stats.norm.cdf(0.2 * math.sqrt(pairs / 2) - 2 - 10 / (pairs - 1))

    assert found == next((pairs for pairs in range(2, most) if power(pairs) >= 0.8), most)


@given(numbers, st.floats(0, 1e3), st.floats(0, 1e3), st.floats(0, 500))
def test_a_claim_and_its_contrary_never_both_hold(estimate, down, up, smallest) -> None:
    effect = Interval(estimate, estimate - down, estimate + up)
    more, less, none = (verdict(effect, smallest, claim) for claim in ("more", "less", "none"))
    assert (more == "agrees") == (less == "disagrees")
    assert (more == "disagrees") == (less == "agrees")
    if none == "agrees" and smallest > abs(estimate):
        assert more == less == "undecided"
    if "agrees" in (more, less):
        assert not negligible(effect, smallest)


def test_verdicts() -> None:
    assert verdict(Interval(0.3, 0.1, 0.5), 0.2, "more") == "agrees"
    assert verdict(Interval(0.3, 0.1, 0.5), 0.2, "less") == "disagrees"
    assert verdict(Interval(0.1, 0.05, 0.15), 0.2, "more") == "undecided"  # sure, but too small to count
    assert verdict(Interval(0.1, 0.05, 0.15), 0.2, "none") == "agrees"
    assert verdict(Interval(0.3, -0.1, 0.7), 0.2, "none") == "undecided"
    assert verdict(Interval(0.3, 0.25, 0.35), 0.2, "none") == "disagrees"
