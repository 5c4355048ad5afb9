"""Attention over a cache against the plain one, and that on CPUs a row's bits depend on the row alone."""

import jax.numpy as jnp
import numpy as np
import pytest

from opencoder_jax.kernels.attention import reference
from opencoder_jax.kernels.attention.cached import cached_attention
from opencoder_jax.kernels.attention.rows import jit_by_rows

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
