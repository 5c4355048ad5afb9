"""Attention over a cache against the plain one, and that on CPUs a row's bits depend on the row alone."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from opencoder_jax.kernels.attention import cached, reference
from opencoder_jax.kernels.attention.cached import cached_attention
from opencoder_jax.kernels.attention.rows import jit_by_rows
from opencoder_jax.kernels.attention.tpu import append as tpu_append

attend = jit_by_rows()(cached_attention)
SHAPES = pytest.mark.parametrize(("heads", "kv_heads", "size"), [(4, 4, 16), (6, 2, 64), (4, 1, 160)])


def made(rows: int, length: int, heads: int, kv_heads: int, size: int, slots: int) -> tuple[np.ndarray, ...]:
    random = np.random.default_rng(heads)
    shapes = (rows, length, heads, size), (rows, kv_heads, slots, size), (rows, kv_heads, slots, size)
    return tuple(random.standard_normal(shape).astype(np.float32) for shape in shapes)


@SHAPES
def test_equals_attention_row_by_row(heads: int, kv_heads: int, size: int) -> None:
    q, k, v = made(3, 5, heads, kv_heads, size, 128)
    before = np.array([0, 17, 123])
    together = attend(q, k, v, before)
    for row, start in enumerate(before):
        one = slice(row, row + 1)
        keys, values = (jnp.asarray(each[one]).swapaxes(1, 2) for each in (k, v))
        alone = reference.attention(jnp.asarray(q[one]), keys, values, start + jnp.arange(5)[None], jnp.int32(start))
        np.testing.assert_allclose(together[one], alone, atol=1e-5)


@SHAPES
def test_the_bits_are_those_of_a_token_alone_in_a_small_cache(heads: int, kv_heads: int, size: int) -> None:
    """In a larger cache, among other rows, and read together with what comes before it."""
    q, k, v = made(4, 40, heads, kv_heads, size, 512)
    before = np.array([0, 60, 88, 3])
    together = np.asarray(attend(q, k, v, before))
    for row, token in ((0, 0), (1, 1), (1, 39), (2, 7), (3, 33)):
        one = slice(row, row + 1)
        alone = attend(q[one, token : token + 1], k[one, :, :128], v[one, :, :128], before[one] + token)
        assert np.array_equal(alone[0, 0], together[row, token])


def put(cache: np.ndarray, new: np.ndarray, before: list[int], count: list[int], rows: range) -> np.ndarray:
    """Token by token."""
    expected = cache.copy()
    for number, row in enumerate(rows):
        for token in range(count[number]):
            if before[number] + token < cache.shape[2]:
                expected[row, :, before[number] + token] = new[number, token]
    return expected


append = jax.jit(cached.append)
append_on_tpus = jax.jit(partial(tpu_append.append, interpret=True))


@settings(max_examples=25, deadline=None)
@given(st.data(), st.sampled_from([(1, 16), (11, 24), (20, 8)]))
def test_new_tokens_come_behind_those_that_are_there(data: st.DataObject, shape: tuple[int, int]) -> None:
    """Of all rows, by a scatter and by the TPU's kernel, and of one row."""
    length, slots = shape
    random = np.random.default_rng(1)
    cache = random.standard_normal((3, 2, slots, 8)).astype(np.float32)
    new = random.standard_normal((3, length, 2, 8)).astype(np.float32)
    before = data.draw(st.lists(st.integers(0, slots), min_size=3, max_size=3))
    count = data.draw(st.lists(st.integers(0, length), min_size=3, max_size=3))
    expected = put(cache, new, before, count, range(3))
    arrays = jnp.asarray(cache), jnp.asarray(new), jnp.array(before), jnp.array(count)
    np.testing.assert_array_equal(append(*arrays), expected)
    np.testing.assert_array_equal(append_on_tpus(*arrays), expected)
    one = put(cache, new[1:2], before[1:2], count[1:2], range(2, 3))
    of_one = arrays[0], arrays[1][1:2], arrays[2][1:2], arrays[3][1:2]
    np.testing.assert_array_equal(append(*of_one, row=jnp.int32(2)), one)


def test_zeros_behind_keys_and_values_change_nothing() -> None:
    """As a cache for TPUs has them."""
    q, k, v = made(2, 3, 6, 2, 40, 128)
    wide = (np.pad(each, ((0, 0), (0, 0), (0, 0), (0, 88))) for each in (k, v))
    before = np.array([4, 100])
    np.testing.assert_allclose(attend(q, *wide, before), attend(q, k, v, before), atol=1e-6)
