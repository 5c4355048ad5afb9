"""An order is a permutation whatever is asked of it, looks random, and is dealt by weight."""

from collections import Counter
from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from opencoder_jax.data.order import PERIOD, Deal, permuted


@settings(max_examples=100)
@given(size=st.integers(1, 5000), key=st.text(max_size=5))
def test_every_number_once(size: int, key: str) -> None:
    order = permuted(np.arange(size), size, key)
    assert sorted(order.tolist()) == list(range(size))


@settings(max_examples=100)
@given(size=st.integers(1, 2**40), data=st.data())
def test_a_place_depends_on_nothing_but_itself(size: int, data: st.DataObject) -> None:
    places = data.draw(st.lists(st.integers(0, size - 1), min_size=1, max_size=20))
    order = permuted(np.array(places), size, "key")
    assert ((order >= 0) & (order < size)).all()
    alone = [int(permuted(np.array([place]), size, "key")[0]) for place in places]
    assert order.tolist() == alone
    assert len(set(alone)) == len(set(places))


@pytest.mark.slow
def test_all_orders_of_five_are_equally_likely() -> None:
    counts = Counter(tuple(permuted(np.arange(5), 5, str(key)).tolist()) for key in range(2400))
    expected = 2400 / 120
    chi_square = sum((counts[order] - expected) ** 2 / expected for order in permutations(range(5)))
    assert chi_square < 173  # one in a thousand has more, with 119 degrees of freedom


@pytest.mark.parametrize("size", [1000, 65_536, 65_537])
def test_neighbours_are_strangers(size: int) -> None:
    """No lattice: the differences of neighbours, and the low and high bits of all, are spread as those of a shuffle."""
    order = permuted(np.arange(size), size, "key").astype(np.float64) / size
    for values in (order, np.diff(order) % 1, (order[2:] - 2 * order[1:-1] + order[:-2]) % 1, order * size % 16 / 16):
        counts = np.histogram(values, 16, (0, 1))[0]
        expected = len(values) / 16
        assert ((counts - expected) ** 2 / expected).sum() < 45  # one in ten thousand, with 15 degrees of freedom
    assert abs(np.corrcoef(order[1:], order[:-1])[0, 1]) < 4 / np.sqrt(size)


@settings(max_examples=60)
@given(weights=st.lists(st.floats(1e-9, 1e9), min_size=1, max_size=6))
def test_deal_gives_every_row_and_forgets_no_source(weights: list[float]) -> None:
    deal = Deal(weights)
    assert len(deal.pattern) == deal.shares.sum() == PERIOD
    assert (deal.shares >= 1).all()
    assert np.array_equal(deal.shares, np.bincount(deal.pattern, minlength=len(weights)))
    exact = np.array(weights) / sum(weights) * PERIOD
    assert (np.abs(deal.shares - exact) <= len(weights)).all()


@settings(max_examples=60)
@given(row=st.integers(0, 10**13), rows=st.integers(0, 200))
def test_rows_before_are_the_rows_dealt(row: int, rows: int) -> None:
    deal = Deal([5.0, 2.0, 1.0])
    dealt = np.bincount(deal.sources(row, row + rows), minlength=3)
    assert (deal.rows_before(row + rows) - deal.rows_before(row)).tolist() == dealt.tolist()
    assert deal.rows_before(row).sum() == row
