"""Attention against the formula written out pair by pair in float64, alone, packed, and token by token on a cache."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from opencoder_jax.kernels.attention.attention import attention

jitted = jax.jit(attention)


def oracle(q: np.ndarray, k: np.ndarray, v: np.ndarray, positions: np.ndarray) -> np.ndarray:
    """One query at a time, one key at a time."""
    q, k, v = (x.astype(np.float64) for x in (q, k, v))
    rows, length, heads, size = q.shape
    out = np.zeros_like(q)
    for b, i, h in np.ndindex(rows, length, heads):
        shared = h * k.shape[2] // heads
        keys = range(i - positions[b, i], i + 1)
        weights = [np.exp(np.dot(q[b, i, h], k[b, j, shared]) / np.sqrt(size)) for j in keys]
        for j, weight in zip(keys, weights, strict=True):
            out[b, i, h] += weight / sum(weights) * v[b, j, shared]
    return out


def packed(*rows: list[int]) -> np.ndarray:
    """Positions of rows of documents with these lengths."""
    return np.array([[i for length in row for i in range(length)] for row in rows], np.int32)


def qkv(rows: int, length: int, heads: int, kv_heads: int, size: int, seed: int = 0) -> list[np.ndarray]:
    random = np.random.default_rng(seed)
    shapes = [(rows, length, heads, size), (rows, length, kv_heads, size), (rows, length, kv_heads, size)]
    return [random.standard_normal(shape).astype(np.float32) for shape in shapes]


@pytest.mark.parametrize(
    ("heads", "kv_heads", "size", "positions"),
    [
        (2, 2, 160, packed([11], [4, 7])),  # OpenCoder-1.5B's head size, every head with its own keys
        (4, 1, 128, packed([5, 3], [1, 7])),
        (6, 2, 64, packed([13], [6, 7])),
        (2, 1, 256, packed([1], [1])),
    ],
)
def test_equals_the_formula(heads: int, kv_heads: int, size: int, positions: np.ndarray) -> None:
    q, k, v = qkv(*positions.shape, heads, kv_heads, size)
    np.testing.assert_allclose(jitted(q, k, v, positions), oracle(q, k, v, positions), atol=2e-6)


def documents(length: int) -> st.SearchStrategy[list[int]]:
    """Lengths of documents that fill a row."""
    ends = st.sets(st.integers(1, length - 1)).map(lambda cuts: [0, *sorted(cuts), length])
    return ends.map(lambda cut: np.diff(cut).tolist())


@settings(max_examples=20)
@given(documents(12), documents(12), st.integers(0, 9))
def test_any_documents(one: list[int], other: list[int], seed: int) -> None:
    positions = packed(one, other)
    q, k, v = qkv(2, 12, 4, 2, 8, seed)
    np.testing.assert_allclose(jitted(q, k, v, positions), oracle(q, k, v, positions), atol=2e-6)


def test_one_document_cannot_touch_another() -> None:
    positions = packed([20, 9, 35])
    q, k, v = qkv(1, 64, 4, 2, 64)
    before = np.asarray(jitted(q, k, v, positions))
    for x in (q, k, v):
        x[:, 20:29] = 1e4 * np.random.default_rng(1).standard_normal(x[:, 20:29].shape)
    after = np.asarray(jitted(q, k, v, positions))
    assert np.array_equal(before[:, :20], after[:, :20])
    assert np.array_equal(before[:, 29:], after[:, 29:])
    assert not np.array_equal(before[:, 20:29], after[:, 20:29])


def test_gradients_equal_those_of_the_formula() -> None:
    positions = packed([3, 6], [9])
    inputs = qkv(2, 9, 4, 2, 8)
    mix = np.random.default_rng(1).standard_normal(inputs[0].shape)
    gradients = jax.jit(jax.grad(lambda *x: jnp.sum(attention(*x, positions) * mix), argnums=(0, 1, 2)))(*inputs)
    random = np.random.default_rng(2)
    for which in range(3):
        for _ in range(6):
            index = tuple(random.integers(0, inputs[which].shape))
            ends = []
            for step in (1e-5, -1e-5):
                moved = [x.astype(np.float64) for x in inputs]
                moved[which][index] += step
                ends.append(np.sum(oracle(*moved, positions) * mix))
            np.testing.assert_allclose(gradients[which][index], (ends[0] - ends[1]) / 2e-5, atol=1e-5)


def test_scores_that_overflow_alone_do_not_in_the_softmax() -> None:
    q, k, v = qkv(1, 8, 2, 2, 16)
    out = np.asarray(jitted(q * 1e3, k, v, packed([8])))
    assert np.isfinite(out).all()
    np.testing.assert_array_equal(out[:, 0], v[:, 0])  # the first query sees one key


def test_token_by_token_on_a_cache_equals_all_at_once() -> None:
    """Rows of 9 and 6 tokens that end together; the padding before the shorter one holds garbage."""
    q, k, v = qkv(2, 9, 4, 2, 16)
    positions = np.stack([np.arange(9), np.maximum(np.arange(9) - 3, 0)]).astype(np.int32)
    slots = 12  # the last three are never written
    keys, values = np.full((2, 2, slots, 2, 16), 1e3, np.float32)
    whole = np.asarray(jitted(q, k, v, positions))
    alone = np.asarray(jitted(q[1:, 3:], k[1:, 3:], v[1:, 3:], packed([6])))
    for slot in range(9):
        keys[:, slot], values[:, slot] = k[:, slot], v[:, slot]
        one = slice(slot, slot + 1)
        out = np.asarray(jitted(q[:, one], keys, values, positions[:, one], jnp.int32(slot)))
        np.testing.assert_allclose(out[0, 0], whole[0, slot], atol=2e-6)
        if slot >= 3:
            np.testing.assert_allclose(out[1, 0], alone[0, slot - 3], atol=2e-6)


def test_bfloat16_keeps_a_float32_softmax() -> None:
    """200 equal keys: each weighs 1/200, and their sum in bfloat16 would stop growing at 256 times the last place."""
    ones = jnp.ones((1, 200, 1, 16), jnp.bfloat16)
    out = jitted(ones, ones, ones * 3, packed([200]))
    assert out.dtype == jnp.bfloat16
    np.testing.assert_allclose(np.asarray(out, np.float32), 3, rtol=0.005)


@pytest.mark.parametrize(
    ("shapes", "words"),
    [
        (((1, 4, 3, 8), (1, 4, 2, 8), (1, 4, 2, 8), (1, 4)), "cannot share"),
        (((1, 4, 2, 8), (1, 4, 2, 8), (1, 4, 2, 4), (1, 4)), "fit together"),
        (((1, 4, 2, 8), (1, 3, 2, 8), (1, 3, 2, 8), (1, 4)), "fit together"),
        (((2, 4, 2, 8), (2, 4, 2, 8), (2, 4, 2, 8), (4,)), "positions"),
    ],
)
def test_shapes_that_do_not_fit_are_refused(shapes: tuple[tuple[int, ...], ...], words: str) -> None:
    *inputs, positions = shapes
    with pytest.raises(ValueError, match=words):
        attention(*(jnp.zeros(shape) for shape in inputs), jnp.zeros(positions, jnp.int32))
