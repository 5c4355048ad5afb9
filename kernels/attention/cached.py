"""Attention of new tokens over caches whose rows have lengths of their own: what an engine's step is made of.

A row's keys lie from its first token on, so all that a query has to know is how many come before it. On CPUs the result
depends, to the bit, on the row alone: not on the other rows, nor on the cache's size, nor on how many new tokens come
at once (kernels/attention/rows.py).
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from opencoder_jax.kernels.attention.attention import attention, traced_for
from opencoder_jax.kernels.attention.rows import by_rows

_BLOCK = 128  # keys whose weights are summed up at once


def cached_attention(
    q: Float[Array, "B S H D"],
    keys: Float[Array, "B K T D"],
    values: Float[Array, "B K T D"],
    before: Int[Array, " B"],
) -> Float[Array, "B S H D"]:
    """What each new token sees: its row's tokens up to itself.

    Args:
        q: queries, not scaled; heads h * H/K to (h + 1) * H/K - 1 share head h of the keys.
        keys: one a slot, those of the new tokens included. T is a multiple of 128, or below it.
        values: as the keys; what no query sees must be finite.
        before: of each row, the slots before its first new token: token i stands in slot before + i.

    Returns:
        The weighted sums of values, in the dtype of `values`. The softmax is float32.
    """
    if traced_for()[0] == "tpu" and (q.shape[0] == 1 or q.shape[1] == 1):
        positions = before[:, None] + jnp.arange(q.shape[1])
        slot = before[0] if q.shape[0] == 1 else before
        return attention(q, keys.swapaxes(1, 2), values.swapaxes(1, 2), positions, slot)
    rows, length, heads, size = q.shape
    kv_heads, slots = keys.shape[1:3]
    last = before[:, None] + jnp.arange(length)
    visible = jnp.arange(slots) <= jnp.repeat(last, heads // kv_heads, axis=1)[:, :, None]  # [B, S * H/K, T]
    # The queries of all new tokens and of the heads that share a key head are the rows of one matrix.
    grouped = (q * size**-0.5).reshape(rows, length, kv_heads, -1, size).swapaxes(1, 2)
    grouped = grouped.reshape(rows, kv_heads, -1, size)

    def scored(part: Array) -> Array:
        return jnp.einsum("bkmd,bktd->bkmt", part, keys, preferred_element_type=jnp.float32)

    def mixed(part: Array) -> Array:
        return jnp.einsum("bkmt,bktd->bkmd", part, values, preferred_element_type=jnp.float32)

    # A query sees itself at least, so that what it doesn't see weighs exactly 0.
    scores = jnp.where(visible[:, None], by_rows(scored, grouped), jnp.finfo(jnp.float32).min)
    weights = jnp.exp(scores - jax.lax.stop_gradient(scores.max(axis=-1, keepdims=True)))
    blocks = weights.reshape(*weights.shape[:-1], -1, min(slots, _BLOCK))
    total = blocks.sum(axis=-1).sum(axis=-1, keepdims=True)
    out = by_rows(mixed, weights.astype(values.dtype)) / total
    out = out.reshape(rows, kv_heads, length, -1, size).swapaxes(1, 2)
    return out.reshape(q.shape).astype(values.dtype)
