"""The backward pass on TPUs: a program takes a block of keys and goes through the queries that see them."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu
from jaxtyping import Array

from opencoder_jax.kernels.attention.shared.bounds import LOG2_E
from opencoder_jax.kernels.attention.tpu.blocks import BackwardBlocks, TpuBlocks
from opencoder_jax.kernels.attention.tpu.ranges import query_ranges, spans_of, steps_of
from opencoder_jax.kernels.attention.tpu.tiles import MIB, compiler_params, cost, dot, padded


def _kernel(*refs: Any, blocks: BackwardBlocks) -> None:
    ranges, spans, q_ref, d_out_ref, sums_ref, delta_ref, bounds_ref, k_ref, v_ref = refs[:9]
    dq_ref, dk_ref, dv_ref, transposed_k, transposed_v, dq_sum, dk_sum, dv_sum = refs[9:]
    row, head, block = pl.program_id(0), pl.program_id(2), pl.program_id(3)
    length = q_ref.shape[3]
    dtype = q_ref.dtype
    # Where the heads of a group share keys, the sums of all blocks wait in VMEM for the next head.
    mine = block * blocks.keys if dk_sum.shape[1] > blocks.keys else 0
    all_mine = pl.ds(mine, blocks.keys)

    @pl.when(block == 0)
    def _() -> None:
        dq_sum[...] = jnp.zeros_like(dq_sum)

    @pl.when(head == 0)
    def _() -> None:
        for total in (dk_sum, dv_sum):
            total[:, all_mine] = jnp.zeros((total.shape[0], blocks.keys), total.dtype)

    transposed_k[...], transposed_v[...] = k_ref[0].T, v_ref[0].T  # [keys, D]

    def tile(at: Any, queries: int, start: int, keys: int, masked: bool) -> None:
        """Adds to the gradients what `queries` queries from `at` on and `keys` keys from `start` of the block give."""
        where = pl.ds(at, queries)
        q, d_out = q_ref[0, 0, :, where], d_out_ref[0, 0, :, where]
        k, v = transposed_k[start : start + keys], transposed_v[start : start + keys]
        # [keys, queries]: what belongs to a query lies along lanes and is spread over sublanes for nothing.
        weights = jnp.exp2(dot(k, q, (1, 0)) - sums_ref[0, 0, :, where])
        if masked:
            key = block * blocks.keys + start + jax.lax.broadcasted_iota(jnp.int32, (keys, queries), 0)
            seen = (bounds_ref[0, :1, where] <= key) & (key <= bounds_ref[0, 1:, where])
            weights = jnp.where(seen, weights, 0.0)
        d_scores = (weights * (dot(v, d_out, (1, 0)) - delta_ref[0, 0, :, where])).astype(dtype)
        weights = weights.astype(dtype)
        here = pl.ds(mine + start, keys)
        dv_sum[:, here] += dot(d_out, weights, (1, 1))
        dk_sum[:, here] += dot(q, d_scores, (1, 1))
        dq_sum[:, where] += dot(k_ref[0, :, start : start + keys], d_scores, (1, 0))

    masked_steps, masked_block, full_begin, full_end = steps_of(ranges, row, block)

    def masked_step(i: Any, _: None) -> None:
        step = masked_block(i)
        span = (row * (length // blocks.edge_queries) + step) * 2
        for start in range(0, blocks.keys, blocks.edge_keys):
            key = block * blocks.keys + start

            @pl.when((spans[span] < key + blocks.edge_keys) & (key <= spans[span + 1]))
            def _(start: int = start) -> None:
                tile(step * blocks.edge_queries, blocks.edge_queries, start, blocks.edge_keys, masked=True)

    def full_step(i: Any, _: None) -> None:
        tile(i * blocks.queries, blocks.queries, 0, blocks.keys, masked=False)

    jax.lax.fori_loop(0, masked_steps, masked_step, None)
    jax.lax.fori_loop(full_begin, full_end, full_step, None)

    # Scores are base-2 logarithms of scaled queries: the natural gradient is ln 2 of theirs for keys, and for queries
    # the scale takes ln 2 away again.
    @pl.when(block == pl.num_programs(3) - 1)
    def _() -> None:
        dq_ref[0, 0] = (dq_sum[...] * (1 / LOG2_E)).astype(dq_ref.dtype)

    @pl.when(head == pl.num_programs(2) - 1)
    def _() -> None:
        for total, ref, scale in ((dk_sum, dk_ref, 1 / LOG2_E), (dv_sum, dv_ref, 1.0)):
            ref[0] = (total[:, all_mine] * scale).astype(ref.dtype)


def vmem_bytes(sizes: BackwardBlocks, size: int, item: int, length: int, buffers: int = 1, summed: int = 0) -> int:
    """What a program holds in VMEM, the compiler's temporaries apart.

    Args:
        item: the size of a number of the operands.
        length: queries of a row.
        buffers: of what belongs to queries.
        summed: keys whose gradients are held; 0 are those of a block.
    """
    rows = length * (buffers * 2 * size * item + 4 * size + 2 * size * item + 8 * buffers * 4 * 8)
    rows += (summed or sizes.keys) * 2 * size * 4
    # Keys and values come in, their gradients go out (in float32, where heads of a group are summed up afterwards).
    return rows + sizes.keys * (4 * size * (item + 4) + 2 * padded(size) * item)


def backward(
    blocks: TpuBlocks, interpret: bool, residuals: tuple[Array, ...], d_out: Array, delta: Array
) -> tuple[Array, Array, Array]:
    """The gradients of the output in q (as scaled), k and v."""
    q, k, v, bounds, log_sums = residuals
    batch, (kv_heads, group, size, _) = len(bounds), q.shape
    length, slots = q.shape[3] // batch, k.shape[2] // batch
    sizes = blocks.backward
    of_queries = [q, d_out, log_sums, delta[:, :, None]]
    bytes_needed = functools.partial(vmem_bytes, sizes, size, q.dtype.itemsize, length)

    # A group's sums of dk and dv stay in VMEM if it holds them; else each head writes its own, summed up afterwards.
    shared = bytes_needed(2, slots) <= blocks.vmem * MIB * 3 // 4
    buffers = 2 if bytes_needed(2, sizes.keys) <= blocks.vmem * MIB * 3 // 4 else 1
    per_program = 1
    if not shared or group == 1:
        of_queries = [x.reshape(kv_heads * group, 1, *x.shape[2:]) for x in of_queries]
        per_program = group
    summed = slots if shared and group > 1 else sizes.keys
    mode = None if buffers == 2 else pl.Buffered(1)
    heads = of_queries[0].shape[:2]

    def per_head(*shape: int) -> pl.BlockSpec:
        return pl.BlockSpec((1, 1, *shape), lambda b, h, g, i, *_: (h, g, 0, b), pipeline_mode=mode)

    steps, block = slots // sizes.keys, (1, size, sizes.keys)
    keys_in = pl.BlockSpec(block, lambda b, h, g, i, *_: (jax.lax.div(h, per_program), 0, b * steps + i))
    # Written when the last head of the group comes by; until then the block stays where it is.
    keys_out = pl.BlockSpec(block, lambda b, h, g, i, *_: (h, 0, b * steps + jnp.where(g == heads[1] - 1, i, 0)))
    d_key = jax.ShapeDtypeStruct((heads[0], size, batch * slots), k.dtype if per_program == 1 else jnp.float32)
    transposed, total = pltpu.VMEM((sizes.keys, size), k.dtype), pltpu.VMEM((size, summed), jnp.float32)
    dq, dk, dv = pl.pallas_call(
        functools.partial(_kernel, blocks=sizes),
        grid_spec=pltpu.PrefetchScalarGridSpec(
            num_scalar_prefetch=2,
            grid=(batch, *heads, steps),
            in_specs=[
                *(per_head(rows, length) for rows in (size, size, 1, 1)),
                pl.BlockSpec((1, 2, length), lambda b, h, g, i, *_: (b, 0, 0)),
                keys_in,
                keys_in,
            ],
            out_specs=[per_head(size, length), keys_out, keys_out],
            scratch_shapes=[transposed, transposed, pltpu.VMEM((size, length), jnp.float32), total, total],
        ),
        out_shape=[jax.ShapeDtypeStruct(of_queries[0].shape, q.dtype), d_key, d_key],
        name="attention_backward",
        compiler_params=compiler_params(bytes_needed(buffers, summed), blocks.vmem),
        cost_estimate=cost(of_queries[0], k, slots, products=5),
        interpret=interpret,
    )(query_ranges(bounds, sizes, slots), spans_of(bounds, sizes.edge_queries), *of_queries, bounds, k, v)
    if per_program > 1:
        dk, dv = (x.reshape(kv_heads, group, size, -1).sum(axis=1).astype(k.dtype) for x in (dk, dv))
    return dq.reshape(kv_heads, group, size, -1), dk, dv
