"""The backward pass in Triton: one kernel for the gradient of queries, one for the gradients of keys and values."""

import math
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jaxtyping import Array

from opencoder_jax.kernels.attention.gpu.blocks import GpuBlocks, TritonBlock
from opencoder_jax.kernels.attention.gpu.triton import tiles
from opencoder_jax.kernels.attention.shared.bounds import LOG2_E, ranges_of, visible_blocks


def _queries_kernel(*refs: Any, block: TritonBlock) -> None:
    """A program takes a block of queries of one head and goes through the keys they see."""
    ranges, first_ref, last_ref, q_ref, k_ref, v_ref, d_out_ref, log_sums_ref, delta_ref, dq_ref = refs
    length, size = q_ref.shape
    slots = k_ref.shape[0]
    scale = LOG2_E / math.sqrt(size)
    at = (pl.num_programs(1) - 1 - pl.program_id(1)) * block.queries
    end = tiles.ragged(length, block.queries)
    q, d_out = (tiles.load(ref, at, block.queries, end) for ref in (q_ref, d_out_ref))
    first, last = (tiles.load_numbers(ref, at, block.queries, end) for ref in (first_ref, last_ref))
    log_sums, delta = (tiles.load_numbers(ref, at, block.queries, end)[:, None] for ref in (log_sums_ref, delta_ref))

    def step(i: Any, dq: Any, masked: bool) -> Any:
        start = i * block.keys
        end = tiles.ragged(slots, block.keys) if masked else None
        k = tiles.load(k_ref, start, block.keys, end)
        weights = jnp.exp2(tiles.products_of_rows(q, k) * scale - log_sums)
        if masked:
            key = start + jnp.arange(block.keys)
            weights = jnp.where((first[:, None] <= key) & (key <= last[:, None]), weights, 0.0)
        d_weights = tiles.products_of_rows(d_out, tiles.load(v_ref, start, block.keys, end))
        return tiles.add_products(dq, weights * (d_weights - delta), k)

    dq = tiles.over_blocks(ranges, step, tiles.zeros(block.queries, size))
    tiles.store(dq_ref, at, [part * size**-0.5 for part in dq], end)


def _keys_kernel(*refs: Any, block: TritonBlock) -> None:
    """A program takes a block of keys of one key head and goes through the queries that see them, of each head.

    Scores are [keys, queries] here, so that the left operands of the sums are the results of the products before them.
    """
    ranges, first_ref, last_ref, q_ref, k_ref, v_ref, d_out_ref, log_sums_ref, delta_ref, dk_ref, dv_ref = refs
    length, group, size = q_ref.shape
    scale = LOG2_E / math.sqrt(size)
    at = pl.program_id(1) * block.keys
    end = tiles.ragged(k_ref.shape[0], block.keys)
    k, v = (tiles.load(ref, at, block.keys, end) for ref in (k_ref, v_ref))
    key = at + jnp.arange(block.keys)[:, None]

    def of_head(head: Any, carry: Any) -> Any:
        def step(i: Any, carry: Any, masked: bool) -> Any:
            dk, dv = carry
            rows = i * block.queries, block.queries, tiles.ragged(length, block.queries) if masked else None
            q, d_out = (tiles.load(ref, *rows, head) for ref in (q_ref, d_out_ref))
            log_sums, delta = (tiles.load_numbers(ref, *rows, head) for ref in (log_sums_ref, delta_ref))
            weights = jnp.exp2(tiles.products_of_rows(k, q) * scale - log_sums)
            if masked:
                first, last = (tiles.load_numbers(ref, *rows) for ref in (first_ref, last_ref))
                weights = jnp.where((first <= key) & (key <= last), weights, 0.0)
            dv = tiles.add_products(dv, weights, d_out)
            d_scores = weights * (tiles.products_of_rows(v, d_out) - delta)
            return tiles.add_products(dk, d_scores, q), dv

        return tiles.over_blocks(ranges, step, carry)

    dk, dv = jax.lax.fori_loop(0, group, of_head, (tiles.zeros(block.keys, size), tiles.zeros(block.keys, size)))
    tiles.store(dk_ref, at, [part * size**-0.5 for part in dk], end)
    tiles.store(dv_ref, at, dv, end)


def backward(
    blocks: GpuBlocks[TritonBlock], interpret: bool, residuals: tuple[Array, ...], d_out: Array, delta: Array
) -> tuple[Array, Array, Array]:
    """The gradients of the output in q, k and v."""
    q, k, v, bounds, log_sums = residuals
    _, length, heads, size = q.shape
    slots, kv_heads = k.shape[1:3]
    group = heads // kv_heads
    delta = delta.swapaxes(1, 2)

    block = blocks.backward_keys
    some, every = visible_blocks(bounds, block.queries, block.keys, slots)
    of_group = pl.BlockSpec((None, length, group, size), lambda h, i, b: (b, 0, h, 0))
    numbers = pl.BlockSpec((None, group, length), lambda h, i, b: (b, h, 0))
    of_key = tiles.per_head(k)
    dk, dv = tiles.call(
        _keys_kernel,
        "attention_backward_keys",
        block,
        interpret,
        kv_heads,
        ranges_of(some.swapaxes(1, 2), every.swapaxes(1, 2)),
        bounds,
        [(q, of_group), (k, of_key), (v, of_key), (d_out, of_group), (log_sums, numbers), (delta, numbers)],
        [(jax.ShapeDtypeStruct(x.shape, x.dtype), of_key) for x in (k, v)],
    )

    block = blocks.backward_queries
    of_query, of_key, numbers = tiles.per_head(q), tiles.per_head(k, group), tiles.numbers_per_head(length)
    (dq,) = tiles.call(
        _queries_kernel,
        "attention_backward_queries",
        block,
        interpret,
        heads,
        ranges_of(*visible_blocks(bounds, block.queries, block.keys, slots)),
        bounds,
        [(q, of_query), (k, of_key), (v, of_key), (d_out, of_query), (log_sums, numbers), (delta, numbers)],
        [(jax.ShapeDtypeStruct(q.shape, q.dtype), of_query)],
        last_first=True,
    )
    return dq, dk, dv
