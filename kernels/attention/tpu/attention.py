"""Attention on TPUs: Pallas kernels for Mosaic, forward and backward, that never hold a matrix of scores in memory.

A query sees the keys from where its document starts to its own (`first` to `last`). So a block of queries and a block
of keys are one of three things, and each costs what it must:

    not visible    skipped: the loops run over ranges of blocks (ranges.py)
    all visible    no mask: two matrix products forward and five backward, with exponentials between them
    at an edge     the same, masked: the diagonal, and where documents begin inside a block

The keys and values of a row lie in VMEM whole, so a skipped block costs nothing, not even a step of the grid; a row
too long for that is taken in segments (segments.py). Scores are base-2 logarithms: queries come scaled by
log2(e) / sqrt(D). The running maximum and sum are float32, with copies along lanes, so that no step spreads a column.

All operands and results lie with the tokens of all rows along lanes, [heads, D, B * S]. That is how XLA leaves the
product with a weight if it's asked to, so nothing is copied on the way in or out, and a head size of 160 isn't padded
to 256 in memory. A block of queries (forward) or of keys and values (backward) is transposed once, in VMEM.

Block sizes stand in blocks.json, per chip; what the compiler makes of them is printed by
`python -m tests.benchmarks.attention_schedule`.

Shapes: B rows, K key heads, G query heads to each, S queries, T keys, D head size.
"""

import math

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from opencoder_jax.kernels.attention.shared.bounds import LOG2_E, bounds_of
from opencoder_jax.kernels.attention.shared.gradients import differentiable
from opencoder_jax.kernels.attention.tpu import segments
from opencoder_jax.kernels.attention.tpu.blocks import TpuBlocks, fitted

_attention = differentiable(segments.forward, segments.backward, head_axis=2)


def attention(
    q: Float[Array, "B S H D"],
    k: Float[Array, "B T K D"],
    v: Float[Array, "B T K D"],
    positions: Int[Array, "B S"],
    slot: int | Int[Array, ""] = 0,
    *,
    blocks: TpuBlocks,
    interpret: bool = False,
) -> Float[Array, "B S H D"]:
    """See `attention.attention`; differentiable in q, k and v. For one device (under a mesh: in a shard_map).

    Args:
        blocks: block sizes, cut down here to what the row needs.
        interpret: runs the kernels as plain XLA, on any platform, to test them.

    Raises:
        ValueError: a block doesn't fit in the chip's VMEM, so many heads share a key head.
    """
    rows, length, heads, size = q.shape
    slots, kv_heads = k.shape[1:3]
    group = heads // kv_heads
    blocks = fitted(blocks, group, length, slots)
    if why := segments.why_not(blocks, group, size, q.dtype.itemsize):
        raise ValueError(f"attention: {why}")
    at_once = segments.segments_of(blocks, group, size, q.dtype.itemsize, length, slots)
    bounds = bounds_of(positions, slot)

    # Added queries see what the last one sees and more, so they make no block an edge; the keys past the end are zero.
    added = -length % at_once.queries
    bounds = jnp.concatenate((bounds, bounds[:, :, -1:] + jnp.array([[0], [1]]) * jnp.arange(1, added + 1)), axis=2)
    scaled = (q.astype(jnp.float32) * (LOG2_E / math.sqrt(size))).astype(q.dtype)
    more = -slots % at_once.keys
    q = _tokens_last(scaled, added).reshape(kv_heads, group, size, -1)
    out = _attention(blocks, interpret, q, _tokens_last(k, more), _tokens_last(v, more), bounds)
    return out.reshape(heads, size, -1).transpose(2, 0, 1).reshape(rows, -1, heads, size)[:, :length]


def _tokens_last(x: Float[Array, "B S N D"], added: int) -> Float[Array, "N D B*(S+added)"]:
    """All tokens along lanes, as XLA lays out a product with a weight for a kernel that asks for it."""
    return jnp.pad(x, ((0, 0), (0, added), (0, 0), (0, 0))).reshape(-1, *x.shape[2:]).transpose(1, 2, 0)
