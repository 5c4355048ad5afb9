"""Attention over a cache by our kernel for CPUs beside XLA's, and that a token's bits depend on its row alone."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from opencoder_jax.kernels.attention import cached
from opencoder_jax.kernels.attention.cpu import attention
from opencoder_jax.kernels.attention.rows import cpu_kernels

pytestmark = pytest.mark.skipif(not cpu_kernels(), reason="no C++ compiler, or no CPU")
ours = jax.jit(attention.append_and_attend)
ROWS, LENGTH, SLOTS = 3, 40, 128
SHAPES = [(4, 4, 16), (6, 2, 64), (4, 1, 160)]


@jax.jit
def by_xla(q: jax.Array, k: jax.Array, v: jax.Array, *cache_and_places: jax.Array) -> tuple[jax.Array, ...]:
    keys, values, before, count = cache_and_places
    keys, values = cached.append(keys, k, before, count), cached.append(values, v, before, count)
    return cached.cached_attention(q, keys, values, before), keys, values


def made(shape: tuple[int, int, int], dtype: str, length: int = LENGTH) -> tuple[jax.Array, ...]:
    heads, kv_heads, size = shape
    random = np.random.default_rng(heads)
    cache, new = (ROWS, kv_heads, SLOTS, size), (ROWS, length, kv_heads, size)
    shapes = (ROWS, length, heads, size), new, new, cache, cache
    return tuple(jnp.asarray(random.standard_normal(each), dtype) for each in shapes)


@settings(max_examples=20, deadline=None)
@given(
    st.sampled_from(list(zip(SHAPES, ["float32", "bfloat16", "float32"], strict=True))),
    st.lists(st.integers(0, SLOTS), min_size=ROWS, max_size=ROWS),
    st.lists(st.integers(0, LENGTH), min_size=ROWS, max_size=ROWS),
)
def test_is_what_xla_computes(caches: tuple[tuple[int, int, int], str], before: list[int], count: list[int]) -> None:
    """Wherever the rows stand, up to behind the last slot; and of one row what is computed of it among all."""
    arrays, dtype = made(*caches), caches[1]
    places = np.array(before, np.int32), np.array(count, np.int32)
    found = ours(*arrays, *places, None)
    expected = by_xla(*arrays, *places)
    for ours_, theirs in zip(found[1:], expected[1:], strict=True):
        np.testing.assert_array_equal(ours_, theirs)
    of_one = ours(*(each[1:2] for each in arrays[:3]), *arrays[3:], places[0][1:2], places[1][1:2], np.int32(1))
    for index in (1, 2):
        np.testing.assert_array_equal(of_one[index][1], found[index][1])
        np.testing.assert_array_equal(of_one[index][0], arrays[index + 2][0])
    np.testing.assert_array_equal(of_one[0][0], found[0][1])
    tolerance = 1e-5 if dtype == "float32" else 2e-2
    for row in range(ROWS):
        valid = min(count[row], SLOTS - before[row])
        mine, other = (np.asarray(each[0][row, :valid], np.float32) for each in (found, expected))
        np.testing.assert_allclose(mine, other, atol=tolerance)
        assert not np.asarray(found[0][row, count[row] :], np.float32).any()


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_a_token_alone_has_the_bits_that_it_has_among_others(shape: tuple[int, int, int]) -> None:
    q, k, v, keys, values = made(shape, "float32")
    before, count = np.array([0, 60, 88], np.int32), np.full(ROWS, LENGTH, np.int32)
    together, keys, values = ours(q, k, v, keys, values, before, count, None)
    for row, token in ((0, 0), (0, 17), (1, 39), (2, 1)):
        place = slice(row, row + 1), slice(token, token + 1)
        # In a cache of another size, whose later slots hold something else.
        padding = ((0, 0), (0, 0), (0, 300), (0, 0))
        slots = (jnp.pad(x[place[0], :, : before[row] + token], padding, constant_values=9) for x in (keys, values))
        alone, *_ = ours(q[place], k[place], v[place], *slots, before[place[0]] + token, np.ones(1, np.int32), None)
        assert np.array_equal(alone[0, 0], together[row, token])
