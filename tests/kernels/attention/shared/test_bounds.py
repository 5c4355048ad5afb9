"""Which blocks of keys are skipped and which are masked, against every pair of a query and a key."""

import functools
from collections.abc import Callable

import jax
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from opencoder_jax.kernels.attention.shared.bounds import ranges_of, visible_blocks
from tests.kernels.attention.packed_rows import positions_of


@functools.cache
def both_ranges(queries: int, keys: int, slots: int) -> Callable[[np.ndarray], tuple[jax.Array, jax.Array]]:
    """Ranges of blocks of keys, a block of queries, and of queries, a block of keys; compiled once a size."""

    @jax.jit
    def run(bounds: jax.Array) -> tuple[jax.Array, jax.Array]:
        some, every = visible_blocks(bounds, queries, keys, slots)
        return ranges_of(some, every)[0], ranges_of(some.swapaxes(1, 2), every.swapaxes(1, 2))[0]

    return run


@settings(max_examples=60)
@given(
    lengths=st.lists(st.integers(1, 60), max_size=8),
    sizes=st.sampled_from([(16, 32, 96, 0), (32, 16, 150, 10), (32, 32, 7, 40), (16, 64, 193, 0)]),
)
def test_blocks_are_skipped_and_masked_where_they_must_be(lengths: list[int], sizes: tuple[int, ...]) -> None:
    """No visible block is skipped, no other block is computed, and no wholly visible block is masked."""
    queries, keys, length, slot = sizes
    positions = positions_of(lengths, length, slot)[0]
    last = slot + np.arange(length)
    slots = slot + length
    sees = ((last - positions)[:, None] <= np.arange(slots)) & (np.arange(slots) <= last[:, None])
    blocks = -(-length // queries), -(-slots // keys)
    some, every = np.zeros(blocks, bool), np.zeros(blocks, bool)
    for i, j in np.ndindex(blocks):
        part = sees[i * queries : (i + 1) * queries, j * keys : (j + 1) * keys]
        some[i, j] = part.any()
        every[i, j] = part.all() and part.size == queries * keys
    of_keys, of_queries = both_ranges(queries, keys, slots)(np.stack((last - positions, last))[None].astype(np.int32))
    for flags, full_flags, ranges in ((some, every, of_keys), (some.T, every.T, of_queries)):
        for visible, whole, (begin, full_begin, full_end, end) in zip(
            flags, full_flags, np.asarray(ranges), strict=True
        ):
            inside = np.arange(len(visible))
            assert begin <= full_begin <= full_end <= end
            np.testing.assert_array_equal(visible, (begin <= inside) & (inside < end))
            np.testing.assert_array_equal(whole, (full_begin <= inside) & (inside < full_end))
