"""What the tests of every attention kernel share: rows of packed documents, and attention of them in float64."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np


def oracle(inputs: list[np.ndarray], positions: np.ndarray, slot: int) -> tuple[np.ndarray, ...]:
    """Output and gradients of sum(output * d_out) in float64, written out densely."""
    q, k, v, d_out = (x.astype(np.float64) for x in inputs)
    heads, size = q.shape[2:]
    group = heads // k.shape[2]
    k, v = (np.repeat(x, group, axis=2) for x in (k, v))
    last = slot + np.arange(q.shape[1])
    key = np.arange(k.shape[1])
    seen = (last - positions)[..., None] <= key
    seen &= key <= last[:, None]
    scores = np.where(seen[:, None], np.einsum("bshd,bthd->bhst", q, k) / np.sqrt(size), -np.inf)
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    weights /= weights.sum(-1, keepdims=True)
    out = np.einsum("bhst,bthd->bshd", weights, v)
    d_weights = np.einsum("bshd,bthd->bhst", d_out, v)
    d_scores = weights * (d_weights - (d_weights * weights).sum(-1, keepdims=True)) / np.sqrt(size)

    def shared(x: np.ndarray) -> np.ndarray:
        return x.reshape(*x.shape[:2], -1, group, size).sum(axis=3)

    d_k = shared(np.einsum("bhst,bshd->bthd", d_scores, q))
    d_v = shared(np.einsum("bhst,bshd->bthd", weights, d_out))
    return out, np.einsum("bhst,bthd->bshd", d_scores, k), d_k, d_v


def positions_of(lengths: list[int], queries: int, slot: int) -> np.ndarray:
    """Positions of the queries of a row of documents with these lengths, the rest of the row being one more."""
    row = np.concatenate([*map(np.arange, lengths), np.arange(slot + queries)])
    return row[None, slot : slot + queries].astype(np.int32)


def check_against_float64(
    found: tuple[jax.Array, ...], inputs: list[jax.Array], positions: np.ndarray, slot: int, dtype: jnp.dtype
) -> None:
    """Asserts that output and gradients are those of the oracle, as exact as the dtype allows."""
    expected = oracle([np.asarray(x.astype(jnp.float32)) for x in inputs], positions, slot)
    bound = 1e-5 if dtype == jnp.float32 else 1e-2
    for name, got, want in zip(("out", "dq", "dk", "dv"), found, expected, strict=True):
        error = np.abs(np.asarray(got.astype(jnp.float32)) - want).max() / np.abs(want).max()
        assert error < bound, name


def check_isolation(
    run: Callable[..., tuple[jax.Array, ...]], inputs: list[jax.Array], positions: np.ndarray, inside: slice
) -> None:
    """Asserts that another content of the document `inside` changes what is in it, and no bit of the rest."""
    before = run(*inputs, positions)
    after = run(*(x.at[:, inside].set(100 * x[:, inside] + 1) for x in inputs), positions)
    for one, other in zip(before, after, strict=True):
        for others in (slice(0, inside.start), slice(inside.stop, positions.shape[1])):
            np.testing.assert_array_equal(np.asarray(one[:, others]), np.asarray(other[:, others]))
        assert not np.array_equal(one[:, inside], other[:, inside])


def inputs_of(case: tuple[Any, ...], seed: int) -> list[jax.Array]:
    """Queries, keys, values and the gradient of the output, drawn at random.

    Args:
        case: begins with rows, heads, key heads, head size, dtype, queries, slots.
    """
    rows, heads, kv_heads, size, dtype, length, slots, *_ = case
    random = np.random.default_rng(seed)
    lengths_and_heads = [(length, heads), (slots, kv_heads), (slots, kv_heads), (length, heads)]
    return [jnp.asarray(random.standard_normal((rows, *shape, size)), dtype) for shape in lengths_and_heads]
