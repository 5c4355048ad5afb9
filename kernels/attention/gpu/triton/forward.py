"""The forward pass in Triton: a program takes a block of queries of one head and goes through the keys they see."""

import math
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton
from jaxtyping import Array

from opencoder_jax.kernels.attention.gpu.blocks import GpuBlocks, TritonBlock
from opencoder_jax.kernels.attention.gpu.triton import tiles
from opencoder_jax.kernels.attention.shared.bounds import LOG2_E, LOWEST, MASKED, ranges_of, visible_blocks


def _kernel(*refs: Any, block: TritonBlock) -> None:
    ranges, first_ref, last_ref, q_ref, k_ref, v_ref, out_ref, *sums_ref = refs
    length, size = q_ref.shape
    slots = k_ref.shape[0]
    scale = LOG2_E / math.sqrt(size)
    at = (pl.num_programs(1) - 1 - pl.program_id(1)) * block.queries
    end = tiles.ragged(length, block.queries)
    q = tiles.load(q_ref, at, block.queries, end)
    first, last = (tiles.load_numbers(ref, at, block.queries, end) for ref in (first_ref, last_ref))

    def step(i: Any, carry: Any, masked: bool) -> Any:
        out, highest, total = carry
        start = i * block.keys
        end = tiles.ragged(slots, block.keys) if masked else None
        scores = tiles.products_of_rows(q, tiles.load(k_ref, start, block.keys, end))
        if masked:
            key = start + jnp.arange(block.keys)
            scores = jnp.where((first[:, None] <= key) & (key <= last[:, None]), scores, MASKED)
        now = jnp.maximum(highest, jnp.max(scores, axis=1) * scale)
        weights = jnp.exp2(scores * scale - now[:, None])
        fade = jnp.exp2(highest - now)
        out = tuple(part * fade[:, None] for part in out)
        out = tiles.add_products(out, weights, tiles.load(v_ref, start, block.keys, end))
        return out, now, total * fade + jnp.sum(weights, axis=1)

    nothing = jnp.full((block.queries,), LOWEST, jnp.float32), jnp.zeros((block.queries,), jnp.float32)
    out, highest, total = tiles.over_blocks(ranges, step, (tiles.zeros(block.queries, size), *nothing))
    tiles.store(out_ref, at, [part / total[:, None] for part in out], end)
    for ref in sums_ref:
        inside = tiles.inside(at, block.queries, end, matrix=False)
        triton.store(ref.at[pl.ds(at, block.queries)], highest + jnp.log2(total), mask=inside)


def forward(
    blocks: GpuBlocks[TritonBlock], interpret: bool, q: Array, k: Array, v: Array, bounds: Array, *, with_sums: bool
) -> list[Array]:
    """The output [B, S, H, D] and, if asked for, base-2 logarithms of the softmax's sums [B, H, S]."""
    rows, length, heads, _ = q.shape
    group, block = heads // k.shape[2], blocks.forward
    outputs = [
        (jax.ShapeDtypeStruct(q.shape, v.dtype), tiles.per_head(q)),
        (jax.ShapeDtypeStruct((rows, heads, length), jnp.float32), tiles.numbers_per_head(length)),
    ]
    return tiles.call(
        _kernel,
        "attention_forward",
        block,
        interpret,
        heads,
        ranges_of(*visible_blocks(bounds, block.queries, block.keys, k.shape[1])),
        bounds,
        [(q, tiles.per_head(q)), (k, tiles.per_head(k, group)), (v, tiles.per_head(v, group))],
        outputs[: 1 + with_sums],
        last_first=True,  # the blocks that see most before the others: no program is long at the end
    )
