"""The backward pass on Hopper: one kernel for the gradient of queries, one for the gradients of keys and values."""

import math
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import mosaic_gpu as mgpu
from jaxtyping import Array

from opencoder_jax.kernels.attention.gpu.blocks import GpuBlocks, HopperRing
from opencoder_jax.kernels.attention.gpu.hopper import warpgroups as wg
from opencoder_jax.kernels.attention.gpu.hopper.warpgroups import CONSUMERS, ROWS, TILE, Product
from opencoder_jax.kernels.attention.shared.bounds import LOG2_E, ranges_of, visible_blocks

# The largest head sizes at which the sums of the gradients of both keys and values fit in a warpgroup's registers, and
# at which there is room besides for the product of values to run beside others.
LARGEST_TOGETHER, LARGEST_BESIDE = 160, 128


def backward(
    blocks: GpuBlocks[HopperRing], interpret: Any, residuals: tuple[Array, ...], d_out: Array, delta: Array
) -> tuple[Array, Array, Array]:
    """The gradients of the output in q, k and v."""
    q, k, v, bounds, log_sums = residuals
    delta = delta.swapaxes(1, 2)
    # Where the products of q and k, and of d_out and v, start counting from: so nothing is left to subtract.
    starts = jnp.stack((log_sums * -(q.shape[3] ** 0.5 / LOG2_E), -delta), axis=2)
    arrays = q, k, v, d_out, starts, bounds
    dq = _queries(blocks.backward_queries, interpret, *arrays)
    if q.shape[3] <= LARGEST_TOGETHER:
        dk, dv = _keys(blocks.backward_keys, interpret, ("dk", "dv"), *arrays)
    else:
        (dk,), (dv,) = (_keys(blocks.backward_keys, interpret, (wanted,), *arrays) for wanted in ("dk", "dv"))
    return dq, dk, dv


def _queries(ring: HopperRing, interpret: Any, *arrays: Array) -> Array:
    """A program takes a tile of queries of one head and goes through the keys they see."""
    q, k, v, d_out, starts, bounds = arrays
    rows, _, heads, size = q.shape
    group = heads // k.shape[2]
    keys, stages = ring
    ranges = ranges_of(*visible_blocks(bounds, TILE, keys, k.shape[1]))
    tiles = ranges.shape[1]
    scale = LOG2_E / math.sqrt(size)
    ahead = stages > 1  # else the next step's slot is this one's

    def body(*refs: Any) -> None:
        ranges_ref, bounds_ref, q_ref, k_ref, v_ref, d_out_ref, starts_ref, dq_ref = refs[:8]
        q_smem, d_out_smem, k_smem, v_smem, bounds_smem, starts_smem = refs[8:14]
        q_loaded, k_loaded, v_loaded, k_consumed, v_consumed = refs[14:]
        row, head = jax.lax.axis_index("row"), jax.lax.axis_index("head")
        tile = tiles - 1 - jax.lax.axis_index("tile")
        warpgroup = jax.lax.axis_index("warpgroup")
        begin, full_begin, full_end, end = (ranges_ref[row, tile, i] for i in range(4))
        count = end - begin

        @pl.when(warpgroup == CONSUMERS)
        def _produce() -> None:
            of_keys = row, jax.lax.div(head, group), begin
            load_k = wg.loader_of_keys(k_ref, k_smem, k_loaded, *of_keys)
            load_v = wg.loader_of_keys(v_ref, v_smem, v_loaded, *of_keys)
            wg.produce(count, stages, [(load_k, k_consumed), (load_v, v_consumed)])

        @pl.when(warpgroup < CONSUMERS)
        def _consume() -> None:
            mgpu.set_max_registers(wg.CONSUMER_REGISTERS, action="increase")
            my_q, my_d_out, my_bounds, my_starts = (
                smem.at[warpgroup] for smem in (q_smem, d_out_smem, bounds_smem, starts_smem)
            )
            loaded = q_loaded.at[warpgroup]
            my_rows = pl.ds(tile * TILE + warpgroup * ROWS, ROWS)
            of_head = [(ref.at[row, my_rows, head], mine) for ref, mine in ((q_ref, my_q), (d_out_ref, my_d_out))]
            numbers = [(bounds_ref.at[row, :, my_rows], my_bounds), (starts_ref.at[row, head, :, my_rows], my_starts)]
            wg.load(loaded, *of_head, *numbers)
            mgpu.barrier_wait(loaded)
            first_and_last = wg.pair(my_bounds, wg.BY_ROW, interpret)
            from_scores, from_weights = (
                wg.along(wg.cast(my_starts[i], wg.BY_ROW, interpret), (ROWS, keys), 0) for i in range(2)
            )

            if ahead:
                wg.wait_ahead(k_loaded, 0, count, stages)

            def step(i: Array, dq: Array) -> Array:
                slot, at = jax.lax.rem(i, stages), begin + i

                def weigh(scores: Array) -> Array:
                    edge = (at < full_begin) | (at >= full_end)
                    scores = wg.masked_if(edge, scores, lambda: (*first_and_last, at * keys), 0, interpret)
                    weights = jnp.exp2(scores * scale)
                    if ahead:
                        weights = jax.lax.optimization_barrier(weights)
                        wg.wait_ahead(k_loaded, i + 1, count, stages)
                    return weights

                if not ahead:
                    mgpu.barrier_wait(k_loaded.at[slot])
                mgpu.barrier_wait(v_loaded.at[slot])
                weights, d_weights = wg.products(
                    Product(my_q, k_smem.at[slot], transposed=True, total=from_scores),
                    Product(my_d_out, v_smem.at[slot], transposed=True, total=from_weights),
                    interpret=interpret,
                    then=weigh,
                )
                wg.release(v_consumed.at[slot], interpret)
                d_scores = (weights * d_weights).astype(k.dtype)
                (dq,) = wg.products(Product(d_scores, k_smem.at[slot], total=dq), interpret=interpret)
                wg.release(k_consumed.at[slot], interpret)
                return dq

            dq = jax.lax.fori_loop(0, count, step, wg.zeros(size, interpret))
            my_q[...] = (dq * size**-0.5).astype(q.dtype)
            wg.store((my_q, dq_ref.at[row, my_rows, head]))

    (dq,) = wg.launch(
        body,
        interpret,
        "attention_backward_queries",
        [jax.ShapeDtypeStruct(q.shape, q.dtype)],
        grid=(heads, tiles, rows),
        scratch_types=[
            wg.matrix((CONSUMERS, ROWS), q),
            wg.matrix((CONSUMERS, ROWS), d_out),
            wg.matrix((stages, keys), k),
            wg.matrix((stages, keys), v),
            mgpu.SMEM((CONSUMERS, 2, ROWS), jnp.int32),
            mgpu.SMEM((CONSUMERS, 2, ROWS), jnp.float32),
            wg.barriers(CONSUMERS, arrivals=4),
            wg.barriers(stages),
            wg.barriers(stages),
            wg.barriers(stages, arrivals=CONSUMERS),
            wg.barriers(stages, arrivals=CONSUMERS),
        ],
    )(ranges, bounds, q, k, v, d_out, starts)
    return dq


def _keys(ring: HopperRing, interpret: Any, wanted: tuple[str, ...], *arrays: Array) -> list[Array]:
    """A program takes a tile of keys of one key head and goes through the queries that see them, of each head.

    Scores are [keys, queries] here, so that the left operands of the sums are the results of the products before them.

    Returns:
        The gradients that are wanted, of "dk" and "dv".
    """
    q, k, v, d_out, starts, bounds = arrays
    rows, _, heads, size = q.shape
    kv_heads = k.shape[2]
    group = heads // kv_heads
    queries, stages = ring
    some, every = visible_blocks(bounds, queries, TILE, k.shape[1])
    ranges = ranges_of(some.swapaxes(1, 2), every.swapaxes(1, 2))
    scale = LOG2_E / math.sqrt(size)
    # The product for dv runs beside the one that the gradients of scores come from, if registers are enough for that.
    ahead = stages > 1 and size <= LARGEST_BESIDE

    def body(*refs: Any) -> None:
        ranges_ref, bounds_ref, q_ref, k_ref, v_ref, d_out_ref, starts_ref = refs[:7]
        out_refs, refs = refs[7 : 7 + len(wanted)], refs[7 + len(wanted) :]
        k_smem, v_smem, q_smem, d_out_smem, bounds_smem, starts_smem = refs[:6]
        k_loaded, q_loaded, d_out_loaded, q_consumed, d_out_consumed = refs[6:]
        row, kv_head, tile = (jax.lax.axis_index(name) for name in ("row", "head", "tile"))
        warpgroup = jax.lax.axis_index("warpgroup")
        begin, full_begin, full_end, end = (ranges_ref[row, tile, i] for i in range(4))
        blocks = end - begin  # of queries: the same for each of the heads that share these keys, which come in turn
        count = blocks * group

        @pl.when(warpgroup == CONSUMERS)
        def _produce() -> None:
            def queries_of(step: Array) -> tuple[Array, Any]:
                head = kv_head * group + jax.lax.div(step, blocks)
                return head, pl.ds((begin + jax.lax.rem(step, blocks)) * queries, queries)

            def load_q(step: Array, slot: Array) -> None:
                head, some = queries_of(step)
                numbers = [(bounds_ref.at[row, :, some], bounds_smem), (starts_ref.at[row, head, :, some], starts_smem)]
                both = [(q_ref.at[row, some, head], q_smem), *numbers]
                wg.load(q_loaded.at[slot], *((source, smem.at[slot]) for source, smem in both))

            def load_d_out(step: Array, slot: Array) -> None:
                head, some = queries_of(step)
                wg.load(d_out_loaded.at[slot], (d_out_ref.at[row, some, head], d_out_smem.at[slot]))

            wg.produce(count, stages, [(load_q, q_consumed), (load_d_out, d_out_consumed)])

        @pl.when(warpgroup < CONSUMERS)
        def _consume() -> None:
            mgpu.set_max_registers(wg.CONSUMER_REGISTERS, action="increase")
            my_k, my_v, loaded = k_smem.at[warpgroup], v_smem.at[warpgroup], k_loaded.at[warpgroup]
            my_first_key = tile * TILE + warpgroup * ROWS
            my_rows = pl.ds(my_first_key, ROWS)
            wg.load(loaded, (k_ref.at[row, my_rows, kv_head], my_k), (v_ref.at[row, my_rows, kv_head], my_v))
            mgpu.barrier_wait(loaded)
            if ahead:
                wg.wait_ahead(q_loaded, 0, count, stages)

            def step(i: Array, sums: Any) -> Any:
                sums = dict(zip(wanted, sums, strict=True))
                slot, at = jax.lax.rem(i, stages), begin + jax.lax.rem(i, blocks)

                def start(which: int) -> Array:
                    numbers = wg.cast(starts_smem[slot, which], wg.BY_COLUMN, interpret)
                    return wg.along(numbers, (ROWS, queries), 1)

                if not ahead:
                    mgpu.barrier_wait(q_loaded.at[slot])
                edge = (at < full_begin) | (at >= full_end)
                of_scores = Product(my_k, q_smem.at[slot], transposed=True, total=start(0))
                (scores,) = wg.products(of_scores, interpret=interpret)

                def bounds_of_step() -> tuple[Array, Array, Array]:
                    return *wg.pair(bounds_smem, wg.BY_COLUMN, interpret, slot), my_first_key

                scores = wg.masked_if(edge, scores, bounds_of_step, 1, interpret)
                weights = jnp.exp2(scores * scale)
                if "dv" in wanted:
                    # The barrier: else LLVM rounds one by one, and not in pairs, what is used one by one below.
                    weights = jax.lax.optimization_barrier(weights.astype(q.dtype))

                def to_scores(d_weights: Array) -> Array:
                    d_scores = weights.astype(jnp.float32) * d_weights
                    if ahead:
                        d_scores = jax.lax.optimization_barrier(d_scores)
                        wg.wait_ahead(q_loaded, i + 1, count, stages)
                    return d_scores

                mgpu.barrier_wait(d_out_loaded.at[slot])
                d_out = d_out_smem.at[slot]
                dv_products = [Product(weights, d_out, total=sums["dv"])] if "dv" in wanted else []
                dk_products, early = [], []
                if "dk" in wanted:
                    of_weights = Product(my_v, d_out, transposed=True, total=start(1))
                    d_scores, *early = wg.products(
                        of_weights, *(dv_products if ahead else []), interpret=interpret, then=to_scores
                    )
                    dk_products = [Product(d_scores.astype(q.dtype), q_smem.at[slot], total=sums["dk"])]
                late = wg.products(*dk_products, *([] if early else dv_products), interpret=interpret)
                wg.release(d_out_consumed.at[slot], interpret)
                wg.release(q_consumed.at[slot], interpret)
                return *late, *early

            sums = jax.lax.fori_loop(0, count, step, tuple(wg.zeros(size, interpret) for _ in wanted))
            results = (my_k, my_v)[: len(wanted)]  # what was loaded there is done with
            for name, total, smem in zip(wanted, sums, results, strict=True):
                smem[...] = (total * (size**-0.5 if name == "dk" else 1.0)).astype(k.dtype)
            wg.store(*((smem, ref.at[row, my_rows, kv_head]) for smem, ref in zip(results, out_refs, strict=True)))

    return wg.launch(
        body,
        interpret,
        "attention_backward_keys",
        [jax.ShapeDtypeStruct(k.shape, k.dtype) for _ in wanted],
        grid=(kv_heads, ranges.shape[1], rows),
        scratch_types=[
            wg.matrix((CONSUMERS, ROWS), k),
            wg.matrix((CONSUMERS, ROWS), v),
            wg.matrix((stages, queries), q),
            wg.matrix((stages, queries), d_out),
            mgpu.SMEM((stages, 2, queries), jnp.int32),
            mgpu.SMEM((stages, 2, queries), jnp.float32),
            wg.barriers(CONSUMERS, arrivals=2),
            wg.barriers(stages, arrivals=3),
            wg.barriers(stages),
            wg.barriers(stages, arrivals=CONSUMERS),
            wg.barriers(stages, arrivals=CONSUMERS),
        ],
    )(ranges, bounds, q, k, v, d_out, starts)
