"""Attention as XLA compiles it: the plain formula, and what every faster kernel is held to.

It holds the scores of many pairs of a query and a key at once, up to B * H * S * T / 4 floats of 4 bytes: cheap at the
lengths of a small run, and the reason that long rows want a kernel.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

# Queries are taken in so many blocks, each against the keys up to its own end: 3/8 of the pairs are never computed.
BLOCKS = 4


def attention(
    q: Float[Array, "B S H D"],
    k: Float[Array, "B T K D"],
    v: Float[Array, "B T K D"],
    positions: Int[Array, "B S"],
    slot: int | Int[Array, ""] = 0,
) -> Float[Array, "B S H D"]:
    """See `attention.attention`."""
    if not isinstance(slot, int):  # traced: where a block of queries ends isn't known while compiling
        return _one_block(q, k, v, positions, slot)
    length = q.shape[1]
    size = -(-length // BLOCKS)
    blocks = []
    for first in range(0, length, size):
        queries, keys = slice(first, first + size), slice(slot + first + size)
        blocks.append(_one_block(q[:, queries], k[:, keys], v[:, keys], positions[:, queries], slot + first))
    return jnp.concatenate(blocks, axis=1)


def _one_block(q: Array, k: Array, v: Array, positions: Array, slot: int | Array) -> Array:
    batch, length, heads, head_size = q.shape
    slots, kv_heads = k.shape[1:3]
    # The queries of the heads that share a key head are one long matrix: B * K products of two matrices.
    rows = (batch, kv_heads, heads // kv_heads * length)
    q = (q * head_size**-0.5).reshape(batch, length, kv_heads, -1, head_size)
    q = q.transpose(0, 2, 3, 1, 4).reshape(*rows, head_size)
    scores = jnp.einsum("bkrd,btkd->bkrt", q, k, preferred_element_type=jnp.float32)

    last = slot + jnp.arange(length)
    first = last - positions
    key = jnp.arange(slots)
    visible = (first[:, :, None] <= key) & (key <= last[:, None])
    # A finite floor: a query sees itself at least, and what it doesn't see weighs exactly 0.
    scores = scores.reshape(batch, kv_heads, -1, length, slots)
    scores = jnp.where(visible[:, None, None], scores, jnp.finfo(jnp.float32).min)
    highest = jax.lax.stop_gradient(scores.max(axis=-1, keepdims=True))
    weights = jnp.exp(scores - highest)
    total = weights.sum(axis=-1).reshape(*rows, 1)

    # Dividing by the softmax's sum comes last: a pass over [.., D], not over [.., T].
    weights = weights.reshape(*rows, slots).astype(v.dtype)
    mixed = jnp.einsum("bkrt,btkd->bkrd", weights, v, preferred_element_type=jnp.float32) / total
    mixed = mixed.reshape(batch, kv_heads, -1, length, head_size).transpose(0, 3, 1, 2, 4)
    return mixed.reshape(batch, length, heads, head_size).astype(v.dtype)
