"""Attention of new tokens over caches whose rows have lengths of their own: what an engine's step is made of.

On TPUs a head's keys and values fill whole tiles of 128 numbers, with zeros behind their own: they take that room in
memory anyway, and lie there as the kernels read them, whereas XLA would otherwise choose another order, and turn all of
the cache in each call.

A row's keys lie from its first token on, so all that a query has to know is how many come before it. On CPUs the result
depends, to the bit, on the row alone: not on the other rows, nor on the cache's size, nor on how many new tokens come
at once (kernels/attention/rows.py).
"""

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec
from jaxtyping import Array, Float, Int

from opencoder_jax.kernels.attention.attention import HEADS, ROWS, attention, dividing, free_axes, traced_for
from opencoder_jax.kernels.attention.rows import by_rows
from opencoder_jax.kernels.attention.tpu import append as tpu
from opencoder_jax.kernels.attention.tpu.tiles import padded

_BLOCK = 128  # keys whose weights are summed up at once


def cached_size(head_size: int) -> int:
    """How many numbers a head's key or value takes in a cache."""
    return padded(head_size) if traced_for()[0] == "tpu" else head_size


def append_and_attend(
    q: Float[Array, "B S H D"],
    k: Float[Array, "B S K D"],
    v: Float[Array, "B S K D"],
    keys: Float[Array, "R K T C"],
    values: Float[Array, "R K T C"],
    before: Int[Array, " B"],
    count: Int[Array, " B"],
    row: Int[Array, ""] | None = None,
) -> tuple[Float[Array, "B S H D"], Float[Array, "R K T C"], Float[Array, "R K T C"]]:
    """Writes new tokens' keys and values into a cache, as `append` does, and attends to it, as `cached_attention` does.

    Returns:
        What each new token sees, finite but meaningless from `count` on; and the cache's keys and values.
    """
    keys, values = append(keys, k, before, count, row), append(values, v, before, count, row)
    mine = lambda cache: cache if row is None else jax.lax.dynamic_slice_in_dim(cache, row, 1)  # noqa: E731
    return cached_attention(q, mine(keys), mine(values), before), keys, values


def append(
    cache: Float[Array, "R K T C"],
    new: Float[Array, "B S K D"],
    before: Int[Array, " B"],
    count: Int[Array, " B"],
    row: Int[Array, ""] | None = None,
) -> Float[Array, "R K T C"]:
    """Writes new tokens' keys or values behind those that their rows have.

    Args:
        cache: of all rows.
        new: of all rows, or of one.
        before: how many tokens of each row are there.
        count: how many of the S are written; the others are padding. What would lie behind the last slot is dropped.
        row: of the cache, where the tokens are of one row; None: of all R.
    """
    length, slots = new.shape[1], cache.shape[2]
    new = _filled(new, cache.shape[3]).astype(cache.dtype)
    if row is not None:
        width = min(length, slots)
        start = jnp.minimum(before[0], slots - width)
        token = start + jnp.arange(width) - before[0]
        old = jax.lax.dynamic_slice(cache, (row, 0, start, 0), (1, cache.shape[1], width, cache.shape[3]))
        moved = jnp.take(new, jnp.clip(token, 0, length - 1), axis=1).swapaxes(1, 2)
        here = ((token >= 0) & (token < count[0]))[:, None]
        return jax.lax.dynamic_update_slice(cache, jnp.where(here, moved, old), (row, 0, start, 0))
    if traced_for()[0] == "tpu":
        return _append_on_tpus(cache, new, before, count)
    places = before[:, None] + jnp.arange(length)
    places = jnp.where(jnp.arange(length) < count[:, None], places, slots)
    rows = jnp.arange(len(cache))[:, None]
    return cache.at[rows, :, places].set(new, mode="drop", unique_indices=True)


def _append_on_tpus(cache: Array, new: Array, before: Array, count: Array) -> Array:
    """On each device of the mesh the part of rows and heads that it has."""
    if not (free := free_axes()):
        return tpu.append(cache, new, before, count)
    rows, heads = dividing(free, ROWS, len(cache)), dividing(free, (HEADS,), cache.shape[1])
    of_cache, of_rows = PartitionSpec(rows, heads), PartitionSpec(rows)
    return jax.shard_map(
        tpu.append,
        in_specs=(of_cache, PartitionSpec(rows, None, heads), of_rows, of_rows),
        out_specs=of_cache,
        axis_names=set(free),
        check_vma=False,
    )(cache, new, before, count)


def cached_attention(
    q: Float[Array, "B S H D"],
    keys: Float[Array, "B K T C"],
    values: Float[Array, "B K T C"],
    before: Int[Array, " B"],
) -> Float[Array, "B S H D"]:
    """What each new token sees: its row's tokens up to itself.

    Args:
        q: queries, not scaled; heads h * H/K to (h + 1) * H/K - 1 share head h of the keys.
        keys: one a slot, those of the new tokens included, `cached_size(D)` long. T is a multiple of 128, or below it.
        values: as the keys; what no query sees must be finite.
        before: of each row, the slots before its first new token: token i stands in slot before + i.

    Returns:
        The weighted sums of values, in the dtype of `values`. The softmax is float32.
    """
    if traced_for()[0] == "tpu" and (q.shape[0] == 1 or q.shape[1] == 1):
        positions = before[:, None] + jnp.arange(q.shape[1])
        slot = before[0] if q.shape[0] == 1 else before
        full = keys.shape[3]
        scaled = _filled(q * (full / q.shape[3]) ** 0.5, full)  # what follows divides by the root of the filled size
        out = attention(scaled.astype(q.dtype), keys.swapaxes(1, 2), values.swapaxes(1, 2), positions, slot)
        return out[..., : q.shape[3]]
    out_size, q = q.shape[3], _filled(q * q.shape[3] ** -0.5, keys.shape[3])
    rows, length, heads, size = q.shape
    kv_heads, slots = keys.shape[1:3]
    last = before[:, None] + jnp.arange(length)
    visible = jnp.arange(slots) <= jnp.repeat(last, heads // kv_heads, axis=1)[:, :, None]  # [B, S * H/K, T]
    # The queries of all new tokens and of the heads that share a key head are the rows of one matrix.
    grouped = q.reshape(rows, length, kv_heads, -1, size).swapaxes(1, 2)
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
    return out.reshape(q.shape)[..., :out_size].astype(values.dtype)


def _filled(x: Array, size: int) -> Array:
    """Zeros behind the last axis, up to a size."""
    added = size - x.shape[-1]
    return jnp.pad(x, ((0, 0),) * (x.ndim - 1) + ((0, added),)) if added else x
