"""Attention on NVIDIA Hopper GPUs: Pallas kernels for Mosaic GPU, forward and backward.

A program is three warpgroups (128 threads each). One asks for blocks of memory by TMA and hardly needs registers. Two
compute, each 64 rows of the program's 128, on the tensor cores by wgmma, which works by itself while a warpgroup does
other things. So things overlap. In the forward pass the two take turns (`turn`): while one's products run, the other
takes exponentials; and each warpgroup starts the scores of the next block before the values of this one, so that its
own exponentials too run beside a product. Blocks out of sight are never asked for, those in full sight aren't masked
(kernels/attention/bounds.py).

As in gpu.py, three kernels: forward; the gradients of keys and values, a program a block of keys, which sums over the
query heads that share them; the gradient of queries, a program a block of queries. The last two compute the scores once
each: seven products instead of five, but every sum has one order, so gradients are the same to the bit in every run.
Above head size 160 the sums of both gradients don't fit in the registers, and keys and values are two kernels: eight
products.

Head sizes are multiples of 16 and aren't padded: rows lie in shared memory in pieces of 64, 32 or 16 columns, whichever
divides the head size (160 = 5 * 32), and wgmma takes any such width. Rows are padded to whole blocks: a copy, where the
length isn't a multiple of 128.

What keeps products and exponentials side by side shows in the machine code alone: look there after any change, with
tests/benchmarks/attention_gpu_compiled.py (tests/benchmarks/LOG.md says what was found).

Shapes: B rows, H query heads, K key heads, G = H/K, S queries, T keys, D head size; N blocks of queries, M of keys.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import pallas as pl
from jax.experimental.pallas import mosaic_gpu as mgpu

from opencoder_jax.kernels.attention.bounds import LOG2_E, LOWEST, MASKED, bounds_of, ranges_of, sight
from opencoder_jax.kernels.attention.residuals import named, share_of_sums

if TYPE_CHECKING:  # so that its benchmark runs on GPU machines that have nothing installed but JAX's own family
    from jaxtyping import Array, Float, Int

ROWS = 64  # of a warpgroup: what one wgmma gives
CONSUMERS = 2  # warpgroups that compute
TILE = CONSUMERS * ROWS  # rows of a program
# Of 65536 registers: 2 * 128 * 240 + 128 * 24 = 64512.
CONSUMER_REGISTERS, PRODUCER_REGISTERS = 240, 24
# The largest head sizes at which the sums of the gradients of both keys and values fit in them, and at which there is
# room besides for the product of values to run beside others.
LARGEST_TOGETHER, LARGEST_BESIDE = 160, 128
BY_ROW, BY_COLUMN = mgpu.Layout.WGMMA.reduce(1), mgpu.Layout.WGMMA.reduce(0)


class Block(NamedTuple):
    """What a program goes through, step by step."""

    step: int  # keys, or queries: a multiple of 64
    stages: int  # steps in shared memory at once; forward 2 at least, or its warpgroups wait for each other for good


class Blocks(NamedTuple):
    """How the kernels run at a head size."""

    forward: Block
    backward_keys: Block
    backward_queries: Block


# Up to these head sizes.
BLOCKS = {
    64: Blocks(Block(128, 3), Block(128, 2), Block(128, 2)),
    128: Blocks(Block(128, 2), Block(64, 2), Block(128, 2)),
    160: Blocks(Block(128, 2), Block(64, 2), Block(64, 2)),
    256: Blocks(Block(64, 2), Block(64, 1), Block(64, 1)),
}


def attention(
    q: Float[Array, "B S H D"],
    k: Float[Array, "B T K D"],
    v: Float[Array, "B T K D"],
    positions: Int[Array, "B S"],
    slot: int | Int[Array, ""] = 0,
    *,
    blocks: Blocks | None = None,
    interpret: Any = None,
) -> Float[Array, "B S H D"]:
    """See `attention.attention`; differentiable in q, k and v. For one device (under a mesh: in a shard_map).

    Args:
        blocks: other block sizes than those of `BLOCKS`.
        interpret: runs the kernels in Mosaic GPU's interpreter, on any platform, to test them.

    Raises:
        ValueError: they can't do these dtypes or this head size.
    """
    _, length, _, size = q.shape
    if {x.dtype for x in (q, k, v)} not in ({jnp.dtype("bfloat16")}, {jnp.dtype("float16")}):
        raise ValueError(f"attention: the kernels for Hopper take bfloat16 or float16, not {q.dtype}")
    if size % 16 or size > max(BLOCKS):
        raise ValueError(
            f"attention: the kernels for Hopper take head sizes that are multiples of 16 up to 256, not {size}"
        )
    blocks = blocks or next(blocks for largest, blocks in BLOCKS.items() if size <= largest)
    # What is added is seen by no query that is asked for, and its gradients are dropped.
    bounds = jnp.pad(bounds_of(positions, slot), ((0, 0), (0, 0), (0, -length % TILE)), mode="edge")
    q, k, v = (jnp.pad(x, ((0, 0), (0, -x.shape[1] % TILE), (0, 0), (0, 0))) for x in (q, k, v))
    return _attention(blocks, interpret, q, k, v, bounds)[:, :length]


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _attention(blocks: Blocks, interpret: Any, q: Array, k: Array, v: Array, bounds: Array) -> Array:
    return _forward(blocks.forward, interpret, q, k, v, bounds)[0]


def _attention_and_residuals(
    blocks: Blocks, interpret: Any, q: Array, k: Array, v: Array, bounds: Array
) -> tuple[Array, tuple[Array, ...]]:
    mixed, log_sums = named(*_forward(blocks.forward, interpret, q, k, v, bounds))
    return mixed, (q, k, v, bounds, mixed, log_sums)


def _gradients(
    blocks: Blocks, interpret: Any, residuals: tuple[Array, ...], d_mixed: Array
) -> tuple[Array, Array, Array, np.ndarray]:
    q, k, v, bounds, mixed, log_sums = residuals
    share = share_of_sums(mixed, d_mixed).swapaxes(1, 2)
    # Where the products of q and k, and of d_mixed and v, start counting from: so nothing is left to subtract.
    starts = jnp.stack((log_sums * -(q.shape[3] ** 0.5 / LOG2_E), -share), axis=2)
    dq = _backward_queries(blocks.backward_queries, interpret, q, k, v, d_mixed, starts, bounds)
    parts = [("dk", "dv")] if q.shape[3] <= LARGEST_TOGETHER else [("dk",), ("dv",)]
    dk, dv = (
        gradient
        for wanted in parts
        for gradient in _backward_keys(blocks.backward_keys, interpret, q, k, v, d_mixed, starts, bounds, wanted)
    )
    return dq, dk, dv, np.zeros(bounds.shape, jax.dtypes.float0)


_attention.defvjp(_attention_and_residuals, _gradients)


# -------------------------------------------------------------------------------------------------------- small helpers


class Job(NamedTuple):
    """A product of matrices: total + a @ b, or a @ b.T."""

    a: Any  # in shared memory, or in registers
    b: Any  # in shared memory
    transposed: bool = False
    total: Array | None = None


def _products(
    *jobs: Job, interpret: Any, started: Callable[[], None] = lambda: None, then: Callable[[Array], Any] = lambda x: x
) -> tuple[Any, ...]:
    """Products under way at once; `started` is called then, and `then` with the first as soon as it's there.

    Returns:
        What `then` gives, and the other products.
    """
    shapes = [(job.a.shape[0], job.b.shape[0 if job.transposed else 1]) for job in jobs]
    if interpret:  # the interpreter knows neither operands in registers nor transposed ones
        started()
        results = []
        for job in jobs:
            a = job.a if isinstance(job.a, jax.Array) else job.a[...]
            b = job.b[...].T if job.transposed else job.b[...]
            product = jnp.dot(a, b, preferred_element_type=jnp.float32)
            results.append(product if job.total is None else job.total + product)
        return then(results[0]), *results[1:]

    def run(*sums: Any) -> tuple[Any, ...]:
        for job, places in zip(jobs, sums, strict=True):
            if job.total is not None:
                places[...] = job.total
        for job, places in zip(jobs, sums, strict=True):
            mgpu.wgmma(places, job.a, mgpu.transpose_ref(job.b, (1, 0)) if job.transposed else job.b)
        started()
        first = then(mgpu.wgmma_accumulator_load(sums[0], wait_n=len(jobs) - 1))
        return first, *(places[...] for places in sums[1:])

    return pl.run_scoped(run, *(mgpu.ACC(shape, jnp.float32) for shape in shapes))


def _cast(x: Array, layout: Any, interpret: Any) -> Array:
    """Says how an array lies in registers; right after it's made."""
    return x if interpret else mgpu.layout_cast(x, layout)


def _along(x: Array, shape: tuple[int, ...], axis: int) -> Array:
    """Numbers, one a row (axis 0) or a column (axis 1), for each element of a matrix."""
    return jax.lax.broadcast_in_dim(x, shape, (axis,))


def _masked(scores: Array, bounds: tuple[Array, Array], first_key: Array, axis: int, interpret: Any) -> Array:
    """Scores of queries along `axis` and of keys from `first_key` on, lowest where the query doesn't see the key."""
    key = first_key + _cast(jax.lax.broadcasted_iota(jnp.int32, scores.shape, 1 - axis), mgpu.Layout.WGMMA, interpret)
    first, last = (_along(x, scores.shape, axis) for x in bounds)
    return jnp.where((first <= key) & (key <= last), scores, MASKED)


def _matrix(rows: tuple[int, ...], like: Array) -> Any:
    """Room in shared memory for rows of D, laid out as wgmma reads them."""
    size = like.shape[3]
    piece = math.gcd(size, 64)
    transforms = (mgpu.TilingTransform((8, piece)), mgpu.SwizzleTransform(piece * like.dtype.itemsize))
    return mgpu.SMEM((*rows, size), like.dtype, transforms=transforms)


def _barriers(count: int, arrivals: int = 1) -> Any:
    return mgpu.Barrier(num_arrivals=arrivals, num_barriers=count)


def _release(consumed: Any, interpret: Any) -> None:
    """Gives the producer a place back."""
    if interpret:  # threads read there what wgmma reads on the GPU, which needs no fence
        mgpu.commit_smem()
    mgpu.barrier_arrive(consumed)


def _ring(count: Array, stages: int, loads: list[tuple[Callable[[Array, Array], None], Any]]) -> None:
    """The producer: asks for each step as soon as its place is free, until all have been consumed."""
    mgpu.set_max_registers(PRODUCER_REGISTERS, action="decrease")

    @pl.loop(0, count + stages)
    def _(step: Array) -> None:
        slot = jax.lax.rem(step, stages)
        for load, consumed in loads:

            @pl.when(step >= stages)
            def _(consumed: Any = consumed) -> None:
                mgpu.barrier_wait(consumed.at[slot])

            @pl.when(step < count)
            def _(load: Any = load) -> None:
                load(step, slot)


def _ring_of_keys(
    count: Array,
    stages: int,
    places: list[tuple[Any, Any, Any, Any]],
    row: Array,
    kv_head: Array,
    begin: Array,
    keys: int,
) -> None:
    """The producer of keys and values, a program a block of queries.

    Args:
        places: where each comes from and goes to, and the barriers for what was loaded and consumed.
        begin: the first block of `keys` keys.
    """

    def load(ref: Any, smem: Any, loaded: Any, step: Array, slot: Array) -> None:
        some = ref.at[row, pl.ds((begin + step) * keys, keys), kv_head]
        mgpu.copy_gmem_to_smem(some, smem.at[slot], loaded.at[slot])

    _ring(count, stages, [(functools.partial(load, *to), consumed) for *to, consumed in places])


def _await(loaded: Any, step: Array | int, count: Array, stages: int) -> None:
    """Waits for a step ahead of time, if there is one.

    Neither LLVM nor ptxas moves what an optimization_barrier before it holds across it: that is done while products are
    under way, and not put off until after they have been waited for.
    """

    @pl.when(step < count)
    def _() -> None:
        mgpu.barrier_wait(loaded.at[jax.lax.rem(step, stages)])


def _kernel(body: Callable[..., None], interpret: Any, name: str, out_shape: list[Any], **options: Any) -> Any:
    return mgpu.kernel(
        body,
        out_type=out_shape,
        num_threads=CONSUMERS + 1,
        thread_name="warpgroup",
        kernel_name=name,
        compiler_params=mgpu.CompilerParams(approx_math=True, lowering_semantics=mgpu.LoweringSemantics.Lane),
        interpret=interpret,
        **options,
    )


# -------------------------------------------------------------------------------------------------------------- forward


def _forward(block: Block, interpret: Any, q: Array, k: Array, v: Array, bounds: Array) -> tuple[Array, Array]:
    """Output [B, S, H, D], and for the backward pass the base-2 logarithms of the softmax's sums [B, H, S]."""
    rows, length, heads, size = q.shape
    group = heads // k.shape[2]
    keys, stages = block
    ranges = ranges_of(*sight(bounds, TILE, keys, k.shape[1]))
    tiles = ranges.shape[1]
    scale = LOG2_E / math.sqrt(size)

    def body(
        ranges_ref: Any,
        bounds_ref: Any,
        q_ref: Any,
        k_ref: Any,
        v_ref: Any,
        mixed_ref: Any,
        log_sums_ref: Any,
        q_smem: Any,
        k_smem: Any,
        v_smem: Any,
        bounds_smem: Any,
        log_sums_smem: Any,
        q_loaded: Any,
        k_loaded: Any,
        v_loaded: Any,
        k_consumed: Any,
        v_consumed: Any,
        turn: Any,
    ) -> None:
        row, head = jax.lax.axis_index("row"), jax.lax.axis_index("head")
        tile = tiles - 1 - jax.lax.axis_index("tile")  # those that see most come first: no program is long at the end
        warpgroup = jax.lax.axis_index("warpgroup")
        begin, full_begin, full_end, end = (ranges_ref[row, tile, i] for i in range(4))
        count = end - begin

        @pl.when(warpgroup == CONSUMERS)
        def _produce() -> None:
            places = [(k_ref, k_smem, k_loaded, k_consumed), (v_ref, v_smem, v_loaded, v_consumed)]
            _ring_of_keys(count, stages, places, row, jax.lax.div(head, group), begin, keys)

        @pl.when(warpgroup < CONSUMERS)
        def _consume() -> None:
            mgpu.set_max_registers(CONSUMER_REGISTERS, action="increase")
            mine, my_bounds, loaded = q_smem.at[warpgroup], bounds_smem.at[warpgroup], q_loaded.at[warpgroup]
            my_rows = pl.ds(tile * TILE + warpgroup * ROWS, ROWS)
            mgpu.copy_gmem_to_smem(q_ref.at[row, my_rows, head], mine, loaded)
            mgpu.copy_gmem_to_smem(bounds_ref.at[row, :, my_rows], my_bounds, loaded)
            mgpu.barrier_wait(loaded)
            first_and_last = _cast(my_bounds[0], BY_ROW, interpret), _cast(my_bounds[1], BY_ROW, interpret)

            @pl.when(warpgroup == 1)
            def _() -> None:
                mgpu.barrier_arrive(turn.at[0])

            def pass_on() -> None:
                mgpu.barrier_arrive(turn.at[1 - warpgroup])

            def weigh(scores: Array, step: Array | int, highest: Array, total: Array) -> tuple[Array, ...]:
                at = begin + step
                scores = jax.lax.cond(
                    (at < full_begin) | (at >= full_end),
                    lambda scores: _masked(scores, first_and_last, at * keys, 0, interpret),
                    lambda scores: scores,
                    scores,
                )
                now = jnp.maximum(highest, jnp.max(scores, axis=1) * scale)
                weights = jnp.exp2(scores * scale - _along(now, scores.shape, 0))
                fade = jnp.exp2(highest - now)
                total = total * fade + jnp.sum(weights, axis=1)
                # All this before the next turn, which no instruction is moved across: else LLVM and ptxas would have it
                # wait for the product beside it.
                weighed = jax.lax.optimization_barrier((weights, fade, now, total))
                mgpu.barrier_wait(turn.at[warpgroup])
                return weighed

            highest = _cast(jnp.full((ROWS,), LOWEST, jnp.float32), BY_ROW, interpret)
            total = _cast(jnp.zeros((ROWS,), jnp.float32), BY_ROW, interpret)
            nothing = _cast(jnp.zeros((ROWS, size), jnp.float32), mgpu.Layout.WGMMA, interpret)

            mgpu.barrier_wait(k_loaded.at[0])
            mgpu.barrier_wait(turn.at[warpgroup])
            (scores,) = _products(Job(mine, k_smem.at[0], transposed=True), interpret=interpret, started=pass_on)
            _release(k_consumed.at[0], interpret)
            weights, _fade, highest, total = weigh(scores, 0, highest, total)
            weights = weights.astype(v.dtype)

            def step(i: Array, carry: Any) -> Any:
                mixed, weights, highest, total = carry
                slot, before = jax.lax.rem(i, stages), jax.lax.rem(i - 1, stages)
                mgpu.barrier_wait(k_loaded.at[slot])
                mgpu.barrier_wait(v_loaded.at[before])

                def then(scores: Array) -> tuple[Array, ...]:
                    _release(k_consumed.at[slot], interpret)
                    return weigh(scores, i, highest, total)

                (new_weights, fade, highest, total), mixed = _products(
                    Job(mine, k_smem.at[slot], transposed=True),
                    Job(weights, v_smem.at[before], total=mixed),
                    interpret=interpret,
                    started=pass_on,
                    then=then,
                )
                _release(v_consumed.at[before], interpret)
                # Rounded only now: were what a product reads written beside one, ptxas would run them one by one.
                return mixed * _along(fade, mixed.shape, 0), new_weights.astype(v.dtype), highest, total

            mixed, weights, highest, total = jax.lax.fori_loop(1, count, step, (nothing, weights, highest, total))
            last = jax.lax.rem(count - 1, stages)
            mgpu.barrier_wait(v_loaded.at[last])
            (mixed,) = _products(Job(weights, v_smem.at[last], total=mixed), interpret=interpret, started=pass_on)
            _release(v_consumed.at[last], interpret)

            @pl.when(warpgroup == 0)
            def _() -> None:
                mgpu.barrier_wait(turn.at[0])

            mine[...] = (mixed * _along(1 / total, mixed.shape, 0)).astype(v.dtype)
            log_sums_smem[warpgroup] = highest + jnp.log(total) * LOG2_E
            mgpu.commit_smem()
            mgpu.copy_smem_to_gmem(mine, mixed_ref.at[row, my_rows, head])
            mgpu.copy_smem_to_gmem(log_sums_smem.at[warpgroup], log_sums_ref.at[row, head, my_rows])
            mgpu.wait_smem_to_gmem(0)

    return _kernel(
        body,
        interpret,
        "attention_forward",
        [jax.ShapeDtypeStruct(q.shape, v.dtype), jax.ShapeDtypeStruct((rows, heads, length), jnp.float32)],
        grid=(heads, tiles, rows),
        grid_names=("head", "tile", "row"),
        scratch_types=[
            _matrix((CONSUMERS, ROWS), q),
            _matrix((stages, keys), k),
            _matrix((stages, keys), v),
            mgpu.SMEM((CONSUMERS, 2, ROWS), jnp.int32),
            mgpu.SMEM((CONSUMERS, ROWS), jnp.float32),
            _barriers(CONSUMERS, arrivals=2),
            _barriers(stages),
            _barriers(stages),
            _barriers(stages, arrivals=CONSUMERS),
            _barriers(stages, arrivals=CONSUMERS),
            _barriers(CONSUMERS),
        ],
    )(ranges, bounds, q, k, v)


# ------------------------------------------------------------------------------------------------------------- backward


def _backward_queries(
    block: Block,
    interpret: Any,
    q: Array,
    k: Array,
    v: Array,
    d_mixed: Array,
    starts: Float[Array, "B H 2 S"],
    bounds: Array,
) -> Array:
    rows, _, heads, size = q.shape
    group = heads // k.shape[2]
    keys, stages = block
    ranges = ranges_of(*sight(bounds, TILE, keys, k.shape[1]))
    tiles = ranges.shape[1]
    scale = LOG2_E / math.sqrt(size)
    ahead = stages > 1  # else the next step's place is this one's

    def body(
        ranges_ref: Any,
        bounds_ref: Any,
        q_ref: Any,
        k_ref: Any,
        v_ref: Any,
        d_mixed_ref: Any,
        starts_ref: Any,
        dq_ref: Any,
        q_smem: Any,
        d_mixed_smem: Any,
        k_smem: Any,
        v_smem: Any,
        bounds_smem: Any,
        starts_smem: Any,
        q_loaded: Any,
        k_loaded: Any,
        v_loaded: Any,
        k_consumed: Any,
        v_consumed: Any,
    ) -> None:
        row, head = jax.lax.axis_index("row"), jax.lax.axis_index("head")
        tile = tiles - 1 - jax.lax.axis_index("tile")
        warpgroup = jax.lax.axis_index("warpgroup")
        begin, full_begin, full_end, end = (ranges_ref[row, tile, i] for i in range(4))
        count = end - begin

        @pl.when(warpgroup == CONSUMERS)
        def _produce() -> None:
            places = [(k_ref, k_smem, k_loaded, k_consumed), (v_ref, v_smem, v_loaded, v_consumed)]
            _ring_of_keys(count, stages, places, row, jax.lax.div(head, group), begin, keys)

        @pl.when(warpgroup < CONSUMERS)
        def _consume() -> None:
            mgpu.set_max_registers(CONSUMER_REGISTERS, action="increase")
            my_q, my_d_mixed, my_bounds, my_starts = (
                smem.at[warpgroup] for smem in (q_smem, d_mixed_smem, bounds_smem, starts_smem)
            )
            loaded = q_loaded.at[warpgroup]
            my_rows = pl.ds(tile * TILE + warpgroup * ROWS, ROWS)
            mgpu.copy_gmem_to_smem(q_ref.at[row, my_rows, head], my_q, loaded)
            mgpu.copy_gmem_to_smem(d_mixed_ref.at[row, my_rows, head], my_d_mixed, loaded)
            mgpu.copy_gmem_to_smem(bounds_ref.at[row, :, my_rows], my_bounds, loaded)
            mgpu.copy_gmem_to_smem(starts_ref.at[row, head, :, my_rows], my_starts, loaded)
            mgpu.barrier_wait(loaded)
            first_and_last = _cast(my_bounds[0], BY_ROW, interpret), _cast(my_bounds[1], BY_ROW, interpret)
            from_scores, from_weights = (
                _along(_cast(my_starts[i], BY_ROW, interpret), (ROWS, keys), 0) for i in range(2)
            )

            if ahead:
                _await(k_loaded, 0, count, stages)

            def step(i: Array, dq: Array) -> Array:
                slot, at = jax.lax.rem(i, stages), begin + i

                def weigh(scores: Array) -> Array:
                    scores = jax.lax.cond(
                        (at < full_begin) | (at >= full_end),
                        lambda scores: _masked(scores, first_and_last, at * keys, 0, interpret),
                        lambda scores: scores,
                        scores,
                    )
                    weights = jnp.exp2(scores * scale)
                    if ahead:
                        weights = jax.lax.optimization_barrier(weights)
                        _await(k_loaded, i + 1, count, stages)
                    return weights

                if not ahead:
                    mgpu.barrier_wait(k_loaded.at[slot])
                mgpu.barrier_wait(v_loaded.at[slot])
                weights, d_weights = _products(
                    Job(my_q, k_smem.at[slot], transposed=True, total=from_scores),
                    Job(my_d_mixed, v_smem.at[slot], transposed=True, total=from_weights),
                    interpret=interpret,
                    then=weigh,
                )
                _release(v_consumed.at[slot], interpret)
                d_scores = (weights * d_weights).astype(k.dtype)
                (dq,) = _products(Job(d_scores, k_smem.at[slot], total=dq), interpret=interpret)
                _release(k_consumed.at[slot], interpret)
                return dq

            zeros = _cast(jnp.zeros((ROWS, size), jnp.float32), mgpu.Layout.WGMMA, interpret)
            dq = jax.lax.fori_loop(0, count, step, zeros)
            my_q[...] = (dq * size**-0.5).astype(q.dtype)
            mgpu.commit_smem()
            mgpu.copy_smem_to_gmem(my_q, dq_ref.at[row, my_rows, head])
            mgpu.wait_smem_to_gmem(0)

    return _kernel(
        body,
        interpret,
        "attention_backward_queries",
        [jax.ShapeDtypeStruct(q.shape, q.dtype)],
        grid=(heads, tiles, rows),
        grid_names=("head", "tile", "row"),
        scratch_types=[
            _matrix((CONSUMERS, ROWS), q),
            _matrix((CONSUMERS, ROWS), d_mixed),
            _matrix((stages, keys), k),
            _matrix((stages, keys), v),
            mgpu.SMEM((CONSUMERS, 2, ROWS), jnp.int32),
            mgpu.SMEM((CONSUMERS, 2, ROWS), jnp.float32),
            _barriers(CONSUMERS, arrivals=4),
            _barriers(stages),
            _barriers(stages),
            _barriers(stages, arrivals=CONSUMERS),
            _barriers(stages, arrivals=CONSUMERS),
        ],
    )(ranges, bounds, q, k, v, d_mixed, starts)[0]


def _backward_keys(
    block: Block,
    interpret: Any,
    q: Array,
    k: Array,
    v: Array,
    d_mixed: Array,
    starts: Float[Array, "B H 2 S"],
    bounds: Array,
    wanted: tuple[str, ...],
) -> list[Array]:
    """The gradients that are wanted, of "dk" and "dv".

    Scores stand here as [keys, queries], so that the sums' left operands are what the products before them gave.
    """
    rows, _, heads, size = q.shape
    kv_heads = k.shape[2]
    group = heads // kv_heads
    queries, stages = block
    seen, full = sight(bounds, queries, TILE, k.shape[1])
    ranges = ranges_of(seen.swapaxes(1, 2), full.swapaxes(1, 2))
    scale = LOG2_E / math.sqrt(size)
    # The product for dv runs beside the one that the gradients of scores come from, if registers are enough for that.
    ahead = stages > 1 and size <= LARGEST_BESIDE

    def body(
        ranges_ref: Any,
        bounds_ref: Any,
        q_ref: Any,
        k_ref: Any,
        v_ref: Any,
        d_mixed_ref: Any,
        starts_ref: Any,
        *rest: Any,
    ) -> None:
        out_refs = rest[: len(wanted)]
        (
            k_smem,
            v_smem,
            q_smem,
            d_mixed_smem,
            bounds_smem,
            starts_smem,
            k_loaded,
            q_loaded,
            d_mixed_loaded,
            q_consumed,
            d_mixed_consumed,
        ) = rest[len(wanted) :]
        row, kv_head, tile = (jax.lax.axis_index(name) for name in ("row", "head", "tile"))
        warpgroup = jax.lax.axis_index("warpgroup")
        begin, full_begin, full_end, end = (ranges_ref[row, tile, i] for i in range(4))
        blocks = end - begin  # of queries: the same for each of the heads that share these keys, which come in turn
        count = blocks * group

        @pl.when(warpgroup == CONSUMERS)
        def _produce() -> None:
            def place(step: Array) -> tuple[Array, Any]:
                head = kv_head * group + jax.lax.div(step, blocks)
                return head, pl.ds((begin + jax.lax.rem(step, blocks)) * queries, queries)

            def load_q(step: Array, slot: Array) -> None:
                head, some = place(step)
                mgpu.copy_gmem_to_smem(q_ref.at[row, some, head], q_smem.at[slot], q_loaded.at[slot])
                mgpu.copy_gmem_to_smem(bounds_ref.at[row, :, some], bounds_smem.at[slot], q_loaded.at[slot])
                mgpu.copy_gmem_to_smem(starts_ref.at[row, head, :, some], starts_smem.at[slot], q_loaded.at[slot])

            def load_d_mixed(step: Array, slot: Array) -> None:
                head, some = place(step)
                mgpu.copy_gmem_to_smem(d_mixed_ref.at[row, some, head], d_mixed_smem.at[slot], d_mixed_loaded.at[slot])

            _ring(count, stages, [(load_q, q_consumed), (load_d_mixed, d_mixed_consumed)])

        @pl.when(warpgroup < CONSUMERS)
        def _consume() -> None:
            mgpu.set_max_registers(CONSUMER_REGISTERS, action="increase")
            my_k, my_v, loaded = k_smem.at[warpgroup], v_smem.at[warpgroup], k_loaded.at[warpgroup]
            my_first_key = tile * TILE + warpgroup * ROWS
            mgpu.copy_gmem_to_smem(k_ref.at[row, pl.ds(my_first_key, ROWS), kv_head], my_k, loaded)
            mgpu.copy_gmem_to_smem(v_ref.at[row, pl.ds(my_first_key, ROWS), kv_head], my_v, loaded)
            mgpu.barrier_wait(loaded)
            if ahead:
                _await(q_loaded, 0, count, stages)

            def step(i: Array, sums: Any) -> Any:
                sums = dict(zip(wanted, sums, strict=True))
                slot, at = jax.lax.rem(i, stages), begin + jax.lax.rem(i, blocks)

                def of_queries(ref: Any, which: int) -> Array:
                    return _cast(ref[slot, which], BY_COLUMN, interpret)

                def start(which: int) -> Array:
                    return _along(of_queries(starts_smem, which), (ROWS, queries), 1)

                def masked(scores: Array) -> Array:
                    first_and_last = of_queries(bounds_smem, 0), of_queries(bounds_smem, 1)
                    return _masked(scores, first_and_last, my_first_key, 1, interpret)

                if not ahead:
                    mgpu.barrier_wait(q_loaded.at[slot])
                edge = (at < full_begin) | (at >= full_end)
                (scores,) = _products(Job(my_k, q_smem.at[slot], transposed=True, total=start(0)), interpret=interpret)
                scores = jax.lax.cond(edge, masked, lambda scores: scores, scores)
                weights = jnp.exp2(scores * scale)
                if "dv" in wanted:
                    # The barrier: else LLVM rounds one by one, and not in pairs, what is used one by one below.
                    weights = jax.lax.optimization_barrier(weights.astype(q.dtype))

                def to_scores(d_weights: Array) -> Array:
                    d_scores = weights.astype(jnp.float32) * d_weights
                    if ahead:
                        d_scores = jax.lax.optimization_barrier(d_scores)
                        _await(q_loaded, i + 1, count, stages)
                    return d_scores

                mgpu.barrier_wait(d_mixed_loaded.at[slot])
                d_mixed = d_mixed_smem.at[slot]
                dv_jobs = [Job(weights, d_mixed, total=sums["dv"])] if "dv" in wanted else []
                dk_jobs, early = [], []
                if "dk" in wanted:
                    of_weights = Job(my_v, d_mixed, transposed=True, total=start(1))
                    d_scores, *early = _products(
                        of_weights, *(dv_jobs if ahead else []), interpret=interpret, then=to_scores
                    )
                    dk_jobs = [Job(d_scores.astype(q.dtype), q_smem.at[slot], total=sums["dk"])]
                late = _products(*dk_jobs, *([] if early else dv_jobs), interpret=interpret)
                _release(d_mixed_consumed.at[slot], interpret)
                _release(q_consumed.at[slot], interpret)
                return *late, *early

            zeros = [_cast(jnp.zeros((ROWS, size), jnp.float32), mgpu.Layout.WGMMA, interpret) for _ in wanted]
            sums = jax.lax.fori_loop(0, count, step, tuple(zeros))
            places = (my_k, my_v)[: len(wanted)]  # what was loaded there is done with
            for name, total, smem in zip(wanted, sums, places, strict=True):
                smem[...] = (total * (size**-0.5 if name == "dk" else 1.0)).astype(k.dtype)
            mgpu.commit_smem()
            for smem, ref in zip(places, out_refs, strict=True):
                mgpu.copy_smem_to_gmem(smem, ref.at[row, pl.ds(my_first_key, ROWS), kv_head])
            mgpu.wait_smem_to_gmem(0)

    return _kernel(
        body,
        interpret,
        "attention_backward_keys",
        [jax.ShapeDtypeStruct(k.shape, k.dtype) for _ in wanted],
        grid=(kv_heads, ranges.shape[1], rows),
        grid_names=("head", "tile", "row"),
        scratch_types=[
            _matrix((CONSUMERS, ROWS), k),
            _matrix((CONSUMERS, ROWS), v),
            _matrix((stages, queries), q),
            _matrix((stages, queries), d_mixed),
            mgpu.SMEM((stages, 2, queries), jnp.int32),
            mgpu.SMEM((stages, 2, queries), jnp.float32),
            _barriers(CONSUMERS, arrivals=2),
            _barriers(stages, arrivals=3),
            _barriers(stages),
            _barriers(stages, arrivals=CONSUMERS),
            _barriers(stages, arrivals=CONSUMERS),
        ],
    )(ranges, bounds, q, k, v, d_mixed, starts)
