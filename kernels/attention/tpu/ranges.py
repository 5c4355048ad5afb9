"""Which steps each program of a TPU kernel takes: ranges of blocks, computed beforehand and prefetched as scalars.

A program takes masked steps, then unmasked ones, then masked ones again. Masked steps are shorter and skip tiles whose
queries see none of their keys.
"""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
from jax.experimental import pallas as pl
from jaxtyping import Array, Int

from opencoder_jax.kernels.attention.tpu.blocks import BackwardBlocks, ForwardBlocks


def key_ranges(bounds: Int[Array, "B 2 S"], tokens: int, blocks: ForwardBlocks, slots: int) -> Int[Array, " B_N_6"]:
    """For each block of queries, three ranges of steps over keys: masked, unmasked, masked.

    The masked ones are counted in steps of `blocks.edge` keys, the unmasked one in steps of `blocks.keys`.
    """
    first, last = bounds.reshape(len(bounds), 2, -1, tokens).swapaxes(0, 1)
    ratio = blocks.keys // blocks.edge
    begin = first.min(-1) // blocks.edge
    end = jnp.minimum(last.max(-1), slots - 1) // blocks.edge + 1
    full_begin = -(-first.max(-1) // blocks.keys)
    full_end = jnp.minimum(last.min(-1) + 1, slots) // blocks.keys
    some = full_begin < full_end
    cut = jnp.where(some, full_begin * ratio, end)
    tail = jnp.where(some, full_end * ratio, end)
    full_end = jnp.maximum(full_begin, full_end)
    return jnp.stack((begin, cut, full_begin, full_end, tail, end), axis=-1).astype(jnp.int32).reshape(-1)


def query_ranges(bounds: Int[Array, "B 2 S"], blocks: BackwardBlocks, slots: int) -> Int[Array, " B_N_6"]:
    """For each block of keys, three ranges of steps over queries: masked, unmasked, masked.

    The masked ones are counted in steps of `blocks.edge_queries`, the unmasked one in steps of `blocks.queries`.
    """
    start = jnp.arange(0, slots, blocks.keys)[:, None]
    final = start + blocks.keys - 1

    def tiles(queries: int) -> tuple[Array, ...]:
        first, last = bounds.reshape(len(bounds), 2, 1, -1, queries).swapaxes(0, 1)
        return first.min(-1), first.max(-1), last.min(-1), last.max(-1)

    def run(flags: Array) -> tuple[Array, Array]:
        """The first tile of each block that is set, and one past the last of those that follow without a gap."""
        begin = jnp.argmax(flags, axis=-1)
        gap = ~flags & (jnp.arange(flags.shape[-1]) >= begin[..., None])
        end = jnp.where(gap.any(-1), jnp.argmax(gap, axis=-1), flags.shape[-1])
        return begin, jnp.where(flags.any(-1), end, begin)

    ratio = blocks.queries // blocks.edge_queries
    min_first, _, _, max_last = tiles(blocks.edge_queries)
    seen = (min_first <= final) & (max_last >= start)
    begin = jnp.argmax(seen, axis=-1)
    end = jnp.where(seen.any(-1), seen.shape[-1] - jnp.argmax(seen[..., ::-1], axis=-1), begin)
    _, max_first, min_last, _ = tiles(blocks.queries)
    full_begin, full_end = run((max_first <= start) & (min_last >= final))
    some = full_begin < full_end
    cut = jnp.where(some, full_begin * ratio, end)
    tail = jnp.where(some, full_end * ratio, end)
    return jnp.stack((begin, cut, full_begin, full_end, tail, end), axis=-1).astype(jnp.int32).reshape(-1)


def spans_of(bounds: Int[Array, "B 2 S"], queries: int) -> Int[Array, " B_N_2"]:
    """The first and the last key that any of each `queries` queries sees."""
    tiles = bounds.reshape(len(bounds), 2, -1, queries)
    return jnp.stack((tiles[:, 0].min(-1), tiles[:, 1].max(-1)), axis=-1).reshape(-1)


def steps_of(ranges: Any, row: Any, block: Any) -> tuple[Array, Callable[[Any], Array], Array, Array]:
    """Reads a program's ranges from scalar memory.

    Returns:
        The number of masked steps, the block that the i-th of them takes, and the range of the unmasked steps.
    """
    base = (row * pl.num_programs(3) + block) * 6
    begin, cut, full_begin, full_end, tail, end = (ranges[base + i] for i in range(6))
    before = cut - begin
    return before + end - tail, lambda i: jnp.where(i < before, begin + i, tail + i - before), full_begin, full_end
