"""The forward pass on TPUs: a program takes a block of queries and goes through the keys that they see."""

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu
from jaxtyping import Array

from opencoder_jax.kernels.attention.shared.bounds import MASKED
from opencoder_jax.kernels.attention.tpu.blocks import ForwardBlocks, TpuBlocks
from opencoder_jax.kernels.attention.tpu.ranges import key_ranges, spans_of, steps_of
from opencoder_jax.kernels.attention.tpu.tiles import FIRST_MAXIMUM, LANES, compiler_params, cost, dot, lanes, padded


def _kernel(*refs: Any, blocks: ForwardBlocks) -> None:
    ranges, spans, q_ref, k_ref, v_ref, bounds_ref, out_ref, *sums_ref, queries, accumulator, highest, total, limits = (
        refs
    )
    heads, size, tokens = q_ref.shape[1:]
    rows, dtype = heads * tokens, v_ref.dtype
    for head in range(heads):
        queries[head * tokens : (head + 1) * tokens] = q_ref[0, head].T  # [tokens, D]
    accumulator[...] = jnp.zeros_like(accumulator)
    highest[...] = jnp.full_like(highest, FIRST_MAXIMUM)
    total[...] = jnp.zeros_like(total)

    def step(at: Any, keys: int, masked: bool, tile: range = range(rows)) -> None:
        """Adds `keys` keys from slot `at` on to the state of a tile's rows."""
        chunk = math.gcd(blocks.chunk, len(tile))
        k, v = k_ref[0, :, pl.ds(at, keys)], v_ref[0, :, pl.ds(at, keys)]

        def scores_of(start: int) -> Array:
            return dot(queries[start : start + chunk], k, (1, 0))

        # The next chunk's scores are asked for before this one's exponentials: the matrix unit has work meanwhile.
        coming = scores_of(tile.start)
        for start in tile[::chunk]:
            here = slice(start, start + chunk)
            scores = coming
            if start + chunk < tile.stop:
                coming = scores_of(start + chunk)
            if masked:
                key = at + jax.lax.broadcasted_iota(jnp.int32, (chunk, keys), 1)
                seen = (lanes(limits[0, here], keys) <= key) & (key <= lanes(limits[1, here], keys))
                scores = jnp.where(seen, scores, MASKED)
            before = highest[here]
            now = jnp.maximum(before, jnp.max(scores, axis=1, keepdims=True))
            weights = jnp.exp2(scores - lanes(now, keys))
            fade = jnp.exp2(before - now)
            highest[here] = now
            # Sums by lane; the lanes are added up once, at the end.
            total[here] = total[here] * fade + sum(weights[:, i : i + LANES] for i in range(0, keys, LANES))
            if blocks.transposed:
                accumulator[:, here] = accumulator[:, here] * fade.T[:1] + dot(v, weights.astype(dtype), (1, 1))
            else:
                added = dot(weights.astype(dtype), v, (1, 1))
                accumulator[here] = accumulator[here] * lanes(fade, size) + added

    row, block = pl.program_id(0), pl.program_id(3)
    masked_steps, masked_block, full_begin, full_end = steps_of(ranges, row, block)

    @pl.when(masked_steps > 0)
    def _() -> None:
        for i in range(2):
            column = jnp.broadcast_to(bounds_ref[0, i : i + 1], (LANES, tokens)).T
            limits[i] = jnp.broadcast_to(column, (heads, tokens, LANES)).reshape(rows, LANES)

    def masked_step(i: Any, _: None) -> None:
        at = masked_block(i) * blocks.edge
        if blocks.edge_queries == tokens:
            step(at, blocks.edge, masked=True)
            return
        per_block = tokens // blocks.edge_queries
        for n in range(heads * per_block):
            span = ((row * pl.num_programs(3) + block) * per_block + n % per_block) * 2

            @pl.when((spans[span] < at + blocks.edge) & (at <= spans[span + 1]))
            def _(start: int = n * blocks.edge_queries) -> None:
                step(at, blocks.edge, masked=True, tile=range(start, start + blocks.edge_queries))

    def full_step(i: Any, _: None) -> None:
        step(i * blocks.keys, blocks.keys, masked=False)

    jax.lax.fori_loop(0, masked_steps, masked_step, None)
    jax.lax.fori_loop(full_begin, full_end, full_step, None)

    sums = jnp.broadcast_to(jnp.sum(total[...], axis=1, keepdims=True), (rows, LANES))
    out = accumulator[...] / sums.T[:1] if blocks.transposed else (accumulator[...] / lanes(sums, size)).T
    for head in range(heads):
        out_ref[0, head] = out[:, head * tokens : (head + 1) * tokens].astype(out_ref.dtype)
    if sums_ref:
        log_sums = (highest[...] + jnp.log2(sums)).T[:1]
        for head in range(heads):
            sums_ref[0][0, head] = log_sums[:, head * tokens : (head + 1) * tokens]


def vmem_bytes(sizes: ForwardBlocks, group: int, size: int, item: int, slots: int) -> int:
    """What a program holds in VMEM, the compiler's temporaries apart. `item` is the size of a number."""
    rows, width = sizes.rows, padded(size)
    resident = 4 * slots * size * item + 4 * rows * size * item
    return resident + rows * width * item + rows * 4 * (width + 4 * LANES) + sizes.chunk * sizes.keys * 8


def forward(
    blocks: TpuBlocks, interpret: bool, q: Array, k: Array, v: Array, bounds: Array, *, with_sums: bool
) -> list[Array]:
    """The output [K, G, D, B*S] and, if asked for, base-2 logarithms of the softmax's sums [K, G, 1, B*S]."""
    batch, (kv_heads, group, size, _) = len(bounds), q.shape
    length, slots = q.shape[3] // batch, k.shape[2] // batch
    sizes, tokens = blocks.forward, blocks.forward.rows // group
    rows, resident = tokens * group, vmem_bytes(sizes, group, size, k.dtype.itemsize, slots)

    steps = length // tokens
    per_block = pl.BlockSpec((1, group, size, tokens), lambda b, h, g, i, *_: (h, g, 0, b * steps + i))
    per_row = pl.BlockSpec((1, size, slots), lambda b, h, g, i, *_: (h, 0, b))
    sums = pl.BlockSpec((1, group, 1, tokens), lambda b, h, g, i, *_: (h, g, 0, b * steps + i))
    outputs = [
        (per_block, jax.ShapeDtypeStruct(q.shape, v.dtype)),
        (sums, jax.ShapeDtypeStruct((kv_heads, group, 1, batch * length), jnp.float32)),
    ][: 1 + with_sums]
    return pl.pallas_call(
        functools.partial(_kernel, blocks=sizes),
        grid_spec=pltpu.PrefetchScalarGridSpec(
            num_scalar_prefetch=2,
            grid=(batch, kv_heads, 1, steps),
            in_specs=[per_block, per_row, per_row, pl.BlockSpec((1, 2, tokens), lambda b, h, g, i, *_: (b, 0, i))],
            out_specs=[spec for spec, _ in outputs],
            scratch_shapes=[
                pltpu.VMEM((rows, size), q.dtype),
                pltpu.VMEM((size, rows) if sizes.transposed else (rows, size), jnp.float32),
                pltpu.VMEM((rows, LANES), jnp.float32),
                pltpu.VMEM((rows, LANES), jnp.float32),
                pltpu.VMEM((2, rows, LANES), jnp.int32),
            ],
        ),
        out_shape=[shape for _, shape in outputs],
        name="attention_forward",
        compiler_params=compiler_params(resident, blocks.vmem),
        cost_estimate=cost(q, k, slots, products=2),
        interpret=interpret,
    )(key_ranges(bounds, tokens, sizes, slots), spans_of(bounds, sizes.edge_queries), q, k, v, bounds)
