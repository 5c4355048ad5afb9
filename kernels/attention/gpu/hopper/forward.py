"""The forward pass on Hopper: a program takes a tile of queries of one head and goes through the keys they see."""

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
from opencoder_jax.kernels.attention.shared.bounds import LOG2_E, LOWEST, ranges_of, visible_blocks


def forward(
    blocks: GpuBlocks[HopperRing], interpret: Any, q: Array, k: Array, v: Array, bounds: Array, *, with_sums: bool
) -> tuple[Array, Array]:
    """The output [B, S, H, D] and, asked for or not, base-2 logarithms of the softmax's sums [B, H, S]."""
    rows, length, heads, size = q.shape
    group = heads // k.shape[2]
    keys, stages = blocks.forward
    ranges = ranges_of(*visible_blocks(bounds, TILE, keys, k.shape[1]))
    tiles = ranges.shape[1]
    scale = LOG2_E / math.sqrt(size)

    def body(*refs: Any) -> None:
        ranges_ref, bounds_ref, q_ref, k_ref, v_ref, out_ref, log_sums_ref = refs[:7]
        q_smem, k_smem, v_smem, bounds_smem, log_sums_smem = refs[7:12]
        q_loaded, k_loaded, v_loaded, k_consumed, v_consumed, turn = refs[12:]
        row, head = jax.lax.axis_index("row"), jax.lax.axis_index("head")
        tile = tiles - 1 - jax.lax.axis_index("tile")  # those that see most come first: no program is long at the end
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
            mine, my_bounds, loaded = q_smem.at[warpgroup], bounds_smem.at[warpgroup], q_loaded.at[warpgroup]
            my_rows = pl.ds(tile * TILE + warpgroup * ROWS, ROWS)
            wg.load(loaded, (q_ref.at[row, my_rows, head], mine), (bounds_ref.at[row, :, my_rows], my_bounds))
            mgpu.barrier_wait(loaded)
            first_and_last = wg.pair(my_bounds, wg.BY_ROW, interpret)

            @pl.when(warpgroup == 1)
            def _() -> None:
                mgpu.barrier_arrive(turn.at[0])

            def pass_on() -> None:
                mgpu.barrier_arrive(turn.at[1 - warpgroup])

            def weigh(scores: Array, step: Array | int, highest: Array, total: Array) -> tuple[Array, ...]:
                at = begin + step
                edge = (at < full_begin) | (at >= full_end)
                scores = wg.masked_if(edge, scores, lambda: (*first_and_last, at * keys), 0, interpret)
                now = jnp.maximum(highest, jnp.max(scores, axis=1) * scale)
                weights = jnp.exp2(scores * scale - wg.along(now, scores.shape, 0))
                fade = jnp.exp2(highest - now)
                total = total * fade + jnp.sum(weights, axis=1)
                # All this before the next turn, which no instruction is moved across: else LLVM and ptxas would have it
                # wait for the product beside it.
                weighed = jax.lax.optimization_barrier((weights, fade, now, total))
                mgpu.barrier_wait(turn.at[warpgroup])
                return weighed

            highest = wg.cast(jnp.full((ROWS,), LOWEST, jnp.float32), wg.BY_ROW, interpret)
            total = wg.cast(jnp.zeros((ROWS,), jnp.float32), wg.BY_ROW, interpret)
            nothing = wg.zeros(size, interpret)

            mgpu.barrier_wait(k_loaded.at[0])
            mgpu.barrier_wait(turn.at[warpgroup])
            (scores,) = wg.products(Product(mine, k_smem.at[0], transposed=True), interpret=interpret, started=pass_on)
            wg.release(k_consumed.at[0], interpret)
            weights, _fade, highest, total = weigh(scores, 0, highest, total)
            weights = weights.astype(v.dtype)

            def step(i: Array, carry: Any) -> Any:
                out, weights, highest, total = carry
                slot, before = jax.lax.rem(i, stages), jax.lax.rem(i - 1, stages)
                mgpu.barrier_wait(k_loaded.at[slot])
                mgpu.barrier_wait(v_loaded.at[before])

                def then(scores: Array) -> tuple[Array, ...]:
                    wg.release(k_consumed.at[slot], interpret)
                    return weigh(scores, i, highest, total)

                (new_weights, fade, highest, total), out = wg.products(
                    Product(mine, k_smem.at[slot], transposed=True),
                    Product(weights, v_smem.at[before], total=out),
                    interpret=interpret,
                    started=pass_on,
                    then=then,
                )
                wg.release(v_consumed.at[before], interpret)
                # Rounded only now: were what a product reads written beside one, ptxas would run them one by one.
                return out * wg.along(fade, out.shape, 0), new_weights.astype(v.dtype), highest, total

            out, weights, highest, total = jax.lax.fori_loop(1, count, step, (nothing, weights, highest, total))
            last = jax.lax.rem(count - 1, stages)
            mgpu.barrier_wait(v_loaded.at[last])
            (out,) = wg.products(Product(weights, v_smem.at[last], total=out), interpret=interpret, started=pass_on)
            wg.release(v_consumed.at[last], interpret)

            @pl.when(warpgroup == 0)
            def _() -> None:
                mgpu.barrier_wait(turn.at[0])

            mine[...] = (out * wg.along(1 / total, out.shape, 0)).astype(v.dtype)
            log_sums_smem[warpgroup] = highest + jnp.log(total) * LOG2_E
            my_log_sums = log_sums_smem.at[warpgroup], log_sums_ref.at[row, head, my_rows]
            wg.store((mine, out_ref.at[row, my_rows, head]), my_log_sums)

    return wg.launch(
        body,
        interpret,
        "attention_forward",
        [jax.ShapeDtypeStruct(q.shape, v.dtype), jax.ShapeDtypeStruct((rows, heads, length), jnp.float32)],
        grid=(heads, tiles, rows),
        scratch_types=[
            wg.matrix((CONSUMERS, ROWS), q),
            wg.matrix((stages, keys), k),
            wg.matrix((stages, keys), v),
            mgpu.SMEM((CONSUMERS, 2, ROWS), jnp.int32),
            mgpu.SMEM((CONSUMERS, ROWS), jnp.float32),
            wg.barriers(CONSUMERS, arrivals=2),
            wg.barriers(stages),
            wg.barriers(stages),
            wg.barriers(stages, arrivals=CONSUMERS),
            wg.barriers(stages, arrivals=CONSUMERS),
            wg.barriers(CONSUMERS),
        ],
    )(ranges, bounds, q, k, v)
