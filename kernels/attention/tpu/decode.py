"""Attention of one new token over a long cache, on TPUs: a Pallas kernel that reads no slot outside the document.

Reading the cache is all its time, so the grid's steps over slots are clamped to the blocks between the document's
first slot and the token's own: a block that is asked for twice in a row isn't copied again, and a step outside computes
nothing.
"""

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu
from jaxtyping import Array, Float, Int

from opencoder_jax.kernels.attention.shared.bounds import LOG2_E, MASKED
from opencoder_jax.kernels.attention.tpu.tiles import FIRST_MAXIMUM, LANES, dot, lanes, padded

# Slots of a step: 256 kB of keys and as many of values at head size 128, enough to keep the memory busy.
KEYS = 1024


def attention(
    q: Float[Array, "B 1 H D"],
    k: Float[Array, "B T K D"],
    v: Float[Array, "B T K D"],
    positions: Int[Array, "B 1"],
    slot: int | Int[Array, ""] = 0,
    *,
    keys: int = KEYS,
    interpret: bool = False,
) -> Float[Array, "B 1 H D"]:
    """See `attention.attention`; it has no gradient. For one device.

    Args:
        keys: slots in a step, a multiple of 128. A cache whose slots it doesn't divide is copied to a longer one.
        interpret: runs the kernel as plain XLA, on any platform, to test it.
    """
    rows, _, heads, size = q.shape
    slots, kv_heads = k.shape[1:3]
    keys = min(keys, padded(slots))
    added = -slots % keys
    k, v = (jnp.pad(x, ((0, 0), (0, added), (0, 0), (0, 0))).swapaxes(1, 2) for x in (k, v))
    scaled = (q.astype(jnp.float32) * (LOG2_E / math.sqrt(size))).astype(q.dtype)
    q = scaled.reshape(rows, kv_heads, heads // kv_heads, size)
    last = jnp.broadcast_to(jnp.asarray(slot, jnp.int32), (rows,))
    bounds = jnp.stack((last - positions[:, 0].astype(jnp.int32), last), axis=1).reshape(-1)

    def blocks(b: Any, bounds: Any) -> tuple[Any, Any]:
        return jax.lax.div(bounds[2 * b], keys), jax.lax.div(bounds[2 * b + 1], keys)

    def cached(b: Any, h: Any, i: Any, bounds: Any) -> tuple[Any, ...]:
        first, last = blocks(b, bounds)
        return b, h, jnp.clip(i, first, last), 0

    group = q.shape[2]
    per_head = pl.BlockSpec((1, 1, group, size), lambda b, h, i, _: (b, h, 0, 0))
    out = pl.pallas_call(
        functools.partial(_kernel, keys=keys),
        grid_spec=pltpu.PrefetchScalarGridSpec(
            num_scalar_prefetch=1,
            grid=(rows, kv_heads, k.shape[2] // keys),
            in_specs=[per_head, pl.BlockSpec((1, 1, keys, size), cached), pl.BlockSpec((1, 1, keys, size), cached)],
            out_specs=per_head,
            scratch_shapes=[
                pltpu.VMEM((group, size), jnp.float32),
                pltpu.VMEM((group, LANES), jnp.float32),
                pltpu.VMEM((group, LANES), jnp.float32),
            ],
        ),
        out_shape=jax.ShapeDtypeStruct(q.shape, v.dtype),
        name="attention_decode",
        compiler_params=pltpu.CompilerParams(dimension_semantics=("parallel", "parallel", "arbitrary")),
        interpret=interpret,
    )(bounds, q, k, v)
    return out.reshape(rows, 1, heads, size)


def _kernel(*refs: Any, keys: int) -> None:
    bounds, q_ref, k_ref, v_ref, out_ref, accumulator, highest, total = refs
    row, step = pl.program_id(0), pl.program_id(2)
    first, last = bounds[2 * row], bounds[2 * row + 1]
    begin, end = jax.lax.div(first, keys), jax.lax.div(last, keys)

    @pl.when(step == 0)
    def _() -> None:
        accumulator[...] = jnp.zeros_like(accumulator)
        highest[...] = jnp.full_like(highest, FIRST_MAXIMUM)
        total[...] = jnp.zeros_like(total)

    @pl.when((begin <= step) & (step <= end))
    def _() -> None:
        scores = dot(q_ref[0, 0], k_ref[0, 0], (1, 1))
        slots = step * keys + jax.lax.broadcasted_iota(jnp.int32, scores.shape, 1)
        scores = jnp.where((first <= slots) & (slots <= last), scores, MASKED)
        before = highest[...]
        now = jnp.maximum(before, jnp.max(scores, axis=1, keepdims=True))
        weights = jnp.exp2(scores - lanes(now, keys))
        fade = jnp.exp2(before - now)
        highest[...] = now
        total[...] = total[...] * fade + jnp.sum(weights, axis=1, keepdims=True)
        # Slots that were never written hold anything, and 0 times infinity isn't 0.
        slots = step * keys + jax.lax.broadcasted_iota(jnp.int32, v_ref.shape[2:], 0)
        v = jnp.where((first <= slots) & (slots <= last), v_ref[0, 0].astype(jnp.float32), 0.0).astype(v_ref.dtype)
        accumulator[...] = accumulator[...] * lanes(fade, accumulator.shape[1]) + dot(
            weights.astype(v.dtype), v, (1, 0)
        )

    @pl.when(step == pl.num_programs(2) - 1)
    def _() -> None:
        out_ref[0, 0] = (accumulator[...] / lanes(total[...], accumulator.shape[1])).astype(out_ref.dtype)
