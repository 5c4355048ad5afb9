"""pass@k against brute force, the interval's properties, and what a score refuses."""

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from opencoder_jax.evaluation.scores.rows import OUTCOMES, Row
from opencoder_jax.evaluation.scores.score import interval, pass_at_k, score


def row(
    task: str, sample: int = 0, outcome: str = "passed", finish: str | None = None, level: int | None = None
) -> Row:
    assert outcome in OUTCOMES
    return Row(task, sample, level, outcome, "", "completion", "", "", finish, None, 0.0, 0.0, 0)


@pytest.mark.parametrize("samples", range(1, 9))
def test_pass_at_k_is_the_share_of_draws_that_hold_a_right_sample(samples: int) -> None:
    for right in range(samples + 1):
        for k in range(1, samples + 1):
            draws = list(itertools.combinations([True] * right + [False] * (samples - right), k))
            assert pass_at_k(samples, right, k) == pytest.approx(sum(map(any, draws)) / len(draws), abs=1e-12)


@pytest.mark.parametrize(("samples", "right", "k"), [(3, 1, 4), (3, 4, 1), (3, 1, 0), (3, -1, 1)])
def test_pass_at_k_refuses_nonsense(samples: int, right: int, k: int) -> None:
    with pytest.raises(ValueError, match="makes no sense"):
        pass_at_k(samples, right, k)


shares = st.lists(st.floats(0, 1), min_size=1, max_size=40)


@given(values=shares)
@settings(deadline=None, max_examples=25)
def test_the_interval_lies_in_range_and_is_the_same_again(values: list[float]) -> None:
    low, high = interval(values)
    slack = 1e-9
    assert -slack <= low < high <= 1 + slack
    assert interval(values) == (low, high)


def test_the_interval_has_the_width_of_the_normal_approximation_and_shrinks_with_tasks() -> None:
    low, high = interval([0.0, 1.0] * 82)  # 164 tasks, half of them solved: standard error 3.9 points
    assert low == pytest.approx(0.5 - 1.96 * 0.039, abs=0.01)
    assert high == pytest.approx(0.5 + 1.96 * 0.039, abs=0.01)
    narrow = interval([0.0, 1.0] * 1000)
    assert narrow[1] - narrow[0] < high - low


def test_where_the_bootstrap_can_say_nothing_the_rule_of_three_does() -> None:
    assert interval([0.0] * 60) == (0.0, 0.05)
    assert interval([1.0] * 60) == (0.95, 1.0)
    assert interval([0.0] * 2) == (0.0, 1.0)
    assert interval([0.5] * 60) == pytest.approx((0.475, 0.525))


def test_a_score_counts_what_the_rows_say() -> None:
    rows = [
        row("a", 0, "passed", "stop", 1),
        row("a", 1, "wrong_answer", "stop", 1),
        row("b", 0, "no_code", "length", 2),
        row("b", 1, "timeout", "stop", 2),
    ]
    found = score(rows, ["a", "b"], [1, 2])
    assert found.pass_at_k["pass@1"].estimate == 0.25
    assert found.pass_at_k["pass@2"].estimate == 0.5
    assert found.by_level == {1: (0.5, 1), 2: (0.0, 1)}
    assert found.outcomes == {"passed": 1, "wrong_answer": 1, "timeout": 1, "no_code": 1}
    assert (found.closed, found.truncated) == (0.75, 0.25)
    assert score([row("a")], ["a"], [1]).closed is None


@given(order=st.permutations(range(12)))
@settings(deadline=None, max_examples=10)
def test_a_score_does_not_depend_on_the_order_of_rows_and_tasks(order: list[int]) -> None:
    rows = [row(f"t{number % 6}", number // 6, "passed" if number % 5 == 0 else "timeout") for number in range(12)]
    tasks = [f"t{number}" for number in range(6)]
    shuffled = score([rows[number] for number in order], tasks[::-1], [1, 2])
    assert shuffled == score(rows, tasks, [2, 1])


def test_missing_foreign_and_too_few_samples_are_refused() -> None:
    with pytest.raises(ValueError, match="b has 0 samples"):
        score([row("a")], ["a", "b"], [1])
    with pytest.raises(ValueError, match="x is no problem"):
        score([row("x")], ["a"], [1])
    with pytest.raises(ValueError, match=r"a has 1 samples: pass@2 needs 2"):
        score([row("a")], ["a"], [1, 2])
