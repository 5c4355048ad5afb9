"""Attention on TPUs: Pallas kernels for Mosaic, forward and backward, that never hold a matrix of scores in memory.

A query sees the keys from where its document starts to its own (`first` to `last`), so a block of queries and a block
of keys are one of three things, and each costs what it must:

    out of sight   skipped: the loops run over ranges of blocks that are computed beforehand and prefetched as scalars
    in full sight  no mask: two products of matrices forward and five backward, with exponentials between them
    at an edge     the same, masked: the diagonal, and where documents begin inside a block

The keys and values of a row lie in VMEM whole, so a skipped block costs nothing, not even a step of the grid. Scores
are base-2 logarithms: queries come scaled by log2(e) / sqrt(D). The running maximum and sum are float32, with copies
along lanes, so that no step spreads a column.

All operands and results lie with the tokens of all rows along lanes, [heads, D, B * S]. That is how XLA leaves what a
product with weights makes if it's asked for, so nothing is copied on the way in or out, and a head size of 160 isn't
padded to 256 in memory. A block of queries (forward) or of keys and values (backward) is turned once, in VMEM.

Block sizes stand in tpu_blocks.json, per chip; what the compiler makes of them is printed by
`python -m tests.benchmarks.attention_schedule`.

Shapes: B rows, K key heads, G query heads to each, S queries, T keys, D head size.
"""

import functools
import json
import math
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu
from jaxtyping import Array, Float, Int

from opencoder_jax.kernels.attention.bounds import bounds_of, table_size
from opencoder_jax.kernels.attention.residuals import named, share_of_sums

LANES = 128
LOG2_E = math.log2(math.e)
# Of scores outside a document, and of the maximum before the first score: exp2 of their difference is 0.
MASKED, LOWEST = -3e38, -1e38
MIB = 2**20


class ForwardBlocks(NamedTuple):
    """Sizes of the forward kernel's blocks; all but `chunk` are multiples of 128."""

    rows: int  # queries times heads of one key head that a program of the grid takes
    keys: int  # keys in a step of blocks in full sight
    edge: int  # keys in a step at an edge; divides `keys`
    edge_queries: (
        int  # queries of a head in a tile of such a step, skipped if out of sight; from a program's on: no tiles
    )
    chunk: int  # rows whose scores are one product of matrices; divides `rows`
    turned: bool  # sums up the output as [D, rows]: cheaper where D isn't a multiple of the matrix unit's width


class BackwardBlocks(NamedTuple):
    """Sizes of the backward kernel's blocks, multiples of 128."""

    queries: int  # in a step of blocks in full sight
    keys: int  # that a program of the grid takes
    edge_queries: int  # tiles at an edge; divides `queries`
    edge_keys: int  # divides `keys`


class Blocks(NamedTuple):
    """How the kernels run on one chip."""

    forward: ForwardBlocks
    backward: BackwardBlocks
    vmem: int  # MiB of a core


def blocks_for(chip: str, head_size: int, group: int) -> Blocks:
    """The table's block sizes for a chip (its device kind, "TPU v5 lite"), or those of "other" for one it doesn't know.

    Args:
        head_size: D; the table holds the sizes up to which each entry is good.
        group: G, query heads that share a key head.
    """
    table = json.loads(Path(__file__).with_name("tpu_blocks.json").read_text())
    entry = table.get(chip, table["other"])
    kind = "shared" if group > 1 else "own"
    found = entry[kind][table_size(entry[kind], head_size, "tpu_blocks.json")]
    return Blocks(ForwardBlocks(**found["forward"]), BackwardBlocks(**found["backward"]), entry["vmem"])


def attention(
    q: Float[Array, "B S H D"],
    k: Float[Array, "B T K D"],
    v: Float[Array, "B T K D"],
    positions: Int[Array, "B S"],
    slot: int | Int[Array, ""] = 0,
    *,
    blocks: Blocks,
    interpret: bool = False,
) -> Float[Array, "B S H D"]:
    """See `attention.attention`; differentiable in q, k and v. For one device (under a mesh: in a shard_map).

    Args:
        blocks: block sizes, cut down here to what the row needs.
        interpret: runs the kernels as plain XLA, on any platform, to test them.

    Raises:
        ValueError: a row doesn't fit in the chip's VMEM.
    """
    rows, length, heads, size = q.shape
    slots, kv_heads = k.shape[1:3]
    group = heads // kv_heads
    blocks = fitted(blocks, group, length, slots)
    bounds = bounds_of(positions, slot)

    # Added queries see what the last one sees and more, so they make no block an edge; the keys past the end are zero.
    queries = max(_tokens(blocks.forward, group), blocks.backward.queries)
    added = -length % queries
    bounds = jnp.concatenate((bounds, bounds[:, :, -1:] + jnp.array([[0], [1]]) * jnp.arange(1, added + 1)), axis=2)
    scaled = (q.astype(jnp.float32) * (LOG2_E / math.sqrt(size))).astype(q.dtype)
    more = -slots % max(blocks.forward.keys, blocks.backward.keys)
    q = _upright(scaled, added).reshape(kv_heads, group, size, -1)
    mixed = _attention(blocks, interpret, q, _upright(k, more), _upright(v, more), bounds)
    return mixed.reshape(heads, size, -1).transpose(2, 0, 1).reshape(rows, -1, heads, size)[:, :length]


def _upright(x: Float[Array, "B S N D"], added: int) -> Float[Array, "N D B*(S+added)"]:
    """All tokens along lanes, as XLA lays out what a product with weights makes for a kernel that asks for it."""
    return jnp.pad(x, ((0, 0), (0, added), (0, 0), (0, 0))).reshape(-1, *x.shape[2:]).transpose(1, 2, 0)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _attention(blocks: Blocks, interpret: bool, q: Array, k: Array, v: Array, bounds: Array) -> Array:
    return _forward(blocks, interpret, q, k, v, bounds, with_sums=False)[0]


def _attention_and_residuals(
    blocks: Blocks, interpret: bool, q: Array, k: Array, v: Array, bounds: Array
) -> tuple[Array, tuple[Array, ...]]:
    mixed, log_sums = named(*_forward(blocks, interpret, q, k, v, bounds, with_sums=True))
    return mixed, (q, k, v, bounds, mixed, log_sums)


def _gradients(
    blocks: Blocks, interpret: bool, residuals: tuple[Array, ...], d_mixed: Array
) -> tuple[Array, Array, Array, np.ndarray]:
    q, k, v, bounds, mixed, log_sums = residuals
    share = share_of_sums(mixed, d_mixed, axis=2)[:, :, None]
    dq, dk, dv = _backward(blocks, interpret, q, k, v, bounds, d_mixed, log_sums, share)
    return dq, dk, dv, np.zeros(bounds.shape, jax.dtypes.float0)


_attention.defvjp(_attention_and_residuals, _gradients)


# ------------------------------------------------------------------------------------------------------------- blocks


def _tokens(blocks: ForwardBlocks, group: int) -> int:
    """Queries of each head that a program of the forward kernel takes."""
    return max(LANES, blocks.rows // group)


def fitted(blocks: Blocks, group: int, length: int, slots: int) -> Blocks:
    """Block sizes that divide one another, in whose multiples rows of `length` queries and `slots` keys grow little."""
    forward, backward, vmem = blocks
    tokens = _fitted(_tokens(forward, group), length)
    keys = _fitted(forward.keys, slots)
    forward = forward._replace(
        rows=tokens * group,
        keys=keys,
        edge=min(forward.edge, keys),
        edge_queries=math.gcd(forward.edge_queries, tokens),
        chunk=math.gcd(forward.chunk, tokens * group),
    )
    queries, keys = _fitted(backward.queries, length), _fitted(backward.keys, slots)
    backward = backward._replace(
        queries=queries,
        keys=keys,
        edge_queries=min(backward.edge_queries, queries),
        edge_keys=min(backward.edge_keys, keys),
    )
    return Blocks(forward, backward, vmem)


def _fitted(block: int, length: int) -> int:
    """The block, halved until its multiples make a row longer by an eighth at most, or as little as those of 128 do."""
    most = max(length * 9 // 8, -(-length // LANES) * LANES)
    while -(-length // block) * block > most:
        block //= 2
    return block


def _compiler_params(resident: int, vmem: int, what: str) -> pltpu.CompilerParams:
    """`resident`: bytes that the blocks of a program take; the compiler's own temporaries come on top."""
    if resident > vmem * MIB:
        raise ValueError(
            f"attention: the {what} kernel needs {resident / MIB:.0f} MiB of VMEM for rows this long; it has {vmem}"
        )
    limit = min(vmem * MIB * 15 // 16, max(resident * 3 // 2, resident + 12 * MIB))
    return pltpu.CompilerParams(
        dimension_semantics=("parallel", "parallel", "arbitrary", "arbitrary"), vmem_limit_bytes=limit
    )


def _cost(q: Array, k: Array, slots: int, products: int) -> pl.CostEstimate:
    """What XLA schedules around: a row of one document, in which a query sees half of the keys."""
    pairs = math.prod(q.shape[:2]) * q.shape[3] * slots // 2
    moved = (2 * q.size * q.dtype.itemsize + 2 * k.size * k.dtype.itemsize) * (products + 1) // 3
    return pl.CostEstimate(flops=2 * products * pairs * q.shape[2], transcendentals=pairs, bytes_accessed=moved)


def dot(a: Array, b: Array, contract: tuple[int, int]) -> Array:
    """A product of matrices in float32: axis `contract[0]` of `a` with axis `contract[1]` of `b`."""
    precision = jax.lax.Precision.HIGHEST if a.dtype == jnp.float32 else None
    dimensions = (((contract[0],), (contract[1],)), ((), ()))
    return jax.lax.dot_general(a, b, dimensions, precision=precision, preferred_element_type=jnp.float32)


def lanes(x: Array, width: int) -> Array:
    """[R, 128] with equal lanes as [R, width]."""
    copies = [x] * (width // LANES) + ([x[:, : width % LANES]] if width % LANES else [])
    return jnp.concatenate(copies, axis=1) if len(copies) > 1 else copies[0]


def _padded(size: int) -> int:
    """The head size as it lies in memory, along lanes."""
    return -(-size // LANES) * LANES


# ------------------------------------------------------------------------------------------------------------ forward


def key_ranges(bounds: Int[Array, "B 2 S"], tokens: int, blocks: ForwardBlocks, slots: int) -> Int[Array, " B_N_6"]:
    """For each block of queries, three ranges of steps over keys: at an edge, in full sight, at an edge.

    The first and the last are counted in steps of `blocks.edge` keys, the middle one in steps of `blocks.keys`.
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


def spans_of(bounds: Int[Array, "B 2 S"], queries: int) -> Int[Array, " B_N_2"]:
    """The first and the last key that any of each `queries` queries sees."""
    tiles = bounds.reshape(len(bounds), 2, -1, queries)
    return jnp.stack((tiles[:, 0].min(-1), tiles[:, 1].max(-1)), axis=-1).reshape(-1)


def _forward_kernel(
    ranges: Any,
    spans: Any,
    q_ref: Any,
    k_ref: Any,
    v_ref: Any,
    bounds_ref: Any,
    out_ref: Any,
    *rest: Any,
    blocks: ForwardBlocks,
) -> None:
    *sums_ref, queries, accumulator, highest, total, limits = rest
    heads, size, tokens = q_ref.shape[1:]
    rows, dtype = heads * tokens, v_ref.dtype
    for head in range(heads):
        queries[head * tokens : (head + 1) * tokens] = q_ref[0, head].T  # [tokens, D]
    accumulator[...] = jnp.zeros_like(accumulator)
    highest[...] = jnp.full_like(highest, LOWEST)
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
            if blocks.turned:
                accumulator[:, here] = accumulator[:, here] * fade.T[:1] + dot(v, weights.astype(dtype), (1, 1))
            else:
                mixed = dot(weights.astype(dtype), v, (1, 1))
                accumulator[here] = accumulator[here] * lanes(fade, size) + mixed

    batch, block = pl.program_id(0), pl.program_id(3)
    base = (batch * pl.num_programs(3) + block) * 6
    begin, cut, full_begin, full_end, tail, end = (ranges[base + i] for i in range(6))
    before_full = cut - begin
    edges = before_full + end - tail

    @pl.when(edges > 0)
    def _() -> None:
        for i in range(2):
            column = jnp.broadcast_to(bounds_ref[0, i : i + 1], (LANES, tokens)).T
            limits[i] = jnp.broadcast_to(column, (heads, tokens, LANES)).reshape(rows, LANES)

    def edge_step(i: Any, _: None) -> None:
        at = jnp.where(i < before_full, begin + i, tail + i - before_full) * blocks.edge
        if blocks.edge_queries == tokens:
            step(at, blocks.edge, masked=True)
            return
        per_block = tokens // blocks.edge_queries
        for n in range(heads * per_block):
            span = ((batch * pl.num_programs(3) + block) * per_block + n % per_block) * 2

            @pl.when((spans[span] < at + blocks.edge) & (at <= spans[span + 1]))
            def _(start: int = n * blocks.edge_queries) -> None:
                step(at, blocks.edge, masked=True, tile=range(start, start + blocks.edge_queries))

    def full_step(i: Any, _: None) -> None:
        step(i * blocks.keys, blocks.keys, masked=False)

    jax.lax.fori_loop(0, edges, edge_step, None)
    jax.lax.fori_loop(full_begin, full_end, full_step, None)

    sums = jnp.broadcast_to(jnp.sum(total[...], axis=1, keepdims=True), (rows, LANES))
    if blocks.turned:
        out = accumulator[...] / sums.T[:1]
    else:
        out = (accumulator[...] / lanes(sums, size)).T
    for head in range(heads):
        out_ref[0, head] = out[:, head * tokens : (head + 1) * tokens].astype(out_ref.dtype)
    if sums_ref:
        log_sums = (highest[...] + jnp.log2(sums)).T[:1]
        for head in range(heads):
            sums_ref[0][0, head] = log_sums[:, head * tokens : (head + 1) * tokens]


def _forward(
    blocks: Blocks, interpret: bool, q: Array, k: Array, v: Array, bounds: Array, *, with_sums: bool
) -> list[Array]:
    """The mix of values [K, G, D, B*S] and, if asked for, base-2 logarithms of the softmax's sums [K, G, 1, B*S]."""
    batch, (kv_heads, group, size, _) = len(bounds), q.shape
    length, slots = q.shape[3] // batch, k.shape[2] // batch
    sizes, tokens = blocks.forward, blocks.forward.rows // group
    rows, width = tokens * group, _padded(size)
    resident = 4 * slots * size * k.dtype.itemsize + 4 * rows * size * q.dtype.itemsize
    resident += rows * width * q.dtype.itemsize + rows * 4 * (width + 4 * LANES) + sizes.chunk * sizes.keys * 8

    steps = length // tokens
    per_block = pl.BlockSpec((1, group, size, tokens), lambda b, h, g, i, *_: (h, g, 0, b * steps + i))
    per_row = pl.BlockSpec((1, size, slots), lambda b, h, g, i, *_: (h, 0, b))
    out_specs = [per_block]
    out_shape = [jax.ShapeDtypeStruct(q.shape, v.dtype)]
    if with_sums:
        out_specs.append(pl.BlockSpec((1, group, 1, tokens), lambda b, h, g, i, *_: (h, g, 0, b * steps + i)))
        out_shape.append(jax.ShapeDtypeStruct((kv_heads, group, 1, batch * length), jnp.float32))
    return pl.pallas_call(
        functools.partial(_forward_kernel, blocks=sizes),
        grid_spec=pltpu.PrefetchScalarGridSpec(
            num_scalar_prefetch=2,
            grid=(batch, kv_heads, 1, steps),
            in_specs=[per_block, per_row, per_row, pl.BlockSpec((1, 2, tokens), lambda b, h, g, i, *_: (b, 0, i))],
            out_specs=out_specs,
            scratch_shapes=[
                pltpu.VMEM((rows, size), q.dtype),
                pltpu.VMEM((size, rows) if sizes.turned else (rows, size), jnp.float32),
                pltpu.VMEM((rows, LANES), jnp.float32),
                pltpu.VMEM((rows, LANES), jnp.float32),
                pltpu.VMEM((2, rows, LANES), jnp.int32),
            ],
        ),
        out_shape=out_shape,
        name="attention_forward",
        compiler_params=_compiler_params(resident, blocks.vmem, "forward"),
        cost_estimate=_cost(q, k, slots, products=2),
        interpret=interpret,
    )(key_ranges(bounds, tokens, sizes, slots), spans_of(bounds, sizes.edge_queries), q, k, v, bounds)


# ----------------------------------------------------------------------------------------------------------- backward


def query_ranges(bounds: Int[Array, "B 2 S"], blocks: BackwardBlocks, slots: int) -> Int[Array, " B_N_6"]:
    """For each block of keys, three ranges of steps over queries: at an edge, in full sight, at an edge.

    The first and the last are counted in steps of `blocks.edge_queries`, the middle one in steps of `blocks.queries`.
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


def _backward_kernel(
    ranges: Any,
    spans: Any,
    q_ref: Any,
    d_mixed_ref: Any,
    sums_ref: Any,
    share_ref: Any,
    bounds_ref: Any,
    k_ref: Any,
    v_ref: Any,
    dq_ref: Any,
    dk_ref: Any,
    dv_ref: Any,
    turned_keys: Any,
    turned_values: Any,
    dq_sum: Any,
    dk_sum: Any,
    dv_sum: Any,
    *,
    blocks: BackwardBlocks,
) -> None:
    batch, head, block = pl.program_id(0), pl.program_id(2), pl.program_id(3)
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

    turned_keys[...], turned_values[...] = k_ref[0].T, v_ref[0].T  # [keys, D]

    def tile(at: Any, queries: int, start: int, keys: int, masked: bool) -> None:
        """What `queries` queries from `at` on and `keys` keys from `start` of the block on add to the gradients."""
        where = pl.ds(at, queries)
        q, d_mixed = q_ref[0, 0, :, where], d_mixed_ref[0, 0, :, where]
        k, v = turned_keys[start : start + keys], turned_values[start : start + keys]
        # [keys, queries]: what belongs to a query lies along lanes and is spread over sublanes for nothing.
        weights = jnp.exp2(dot(k, q, (1, 0)) - sums_ref[0, 0, :, where])
        if masked:
            key = block * blocks.keys + start + jax.lax.broadcasted_iota(jnp.int32, (keys, queries), 0)
            seen = (bounds_ref[0, :1, where] <= key) & (key <= bounds_ref[0, 1:, where])
            weights = jnp.where(seen, weights, 0.0)
        d_scores = (weights * (dot(v, d_mixed, (1, 0)) - share_ref[0, 0, :, where])).astype(dtype)
        weights = weights.astype(dtype)
        here = pl.ds(mine + start, keys)
        dv_sum[:, here] += dot(d_mixed, weights, (1, 1))
        dk_sum[:, here] += dot(q, d_scores, (1, 1))
        dq_sum[:, where] += dot(k_ref[0, :, start : start + keys], d_scores, (1, 0))

    base = (batch * pl.num_programs(3) + block) * 6
    begin, cut, full_begin, full_end, tail, end = (ranges[base + i] for i in range(6))
    before_full = cut - begin

    def edge_step(i: Any, _: None) -> None:
        step = jnp.where(i < before_full, begin + i, tail + i - before_full)
        span = (batch * (length // blocks.edge_queries) + step) * 2
        for start in range(0, blocks.keys, blocks.edge_keys):
            key = block * blocks.keys + start

            @pl.when((spans[span] < key + blocks.edge_keys) & (key <= spans[span + 1]))
            def _(start: int = start) -> None:
                tile(step * blocks.edge_queries, blocks.edge_queries, start, blocks.edge_keys, masked=True)

    def full_step(i: Any, _: None) -> None:
        tile(i * blocks.queries, blocks.queries, 0, blocks.keys, masked=False)

    jax.lax.fori_loop(0, before_full + end - tail, edge_step, None)
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


def _backward(
    blocks: Blocks,
    interpret: bool,
    q: Array,
    k: Array,
    v: Array,
    bounds: Array,
    d_mixed: Array,
    log_sums: Array,
    share: Array,
) -> tuple[Array, Array, Array]:
    """The gradients of `_forward`'s output in q (as scaled), k and v."""
    batch, (kv_heads, group, size, _) = len(bounds), q.shape
    length, slots = q.shape[3] // batch, k.shape[2] // batch
    sizes, width = blocks.backward, _padded(size)
    item = q.dtype.itemsize

    def bytes_needed(buffers: int, summed: int) -> int:
        rows = length * (buffers * 2 * size * item + 4 * size + 2 * size * item + 8 * buffers * 4 * 8)
        rows += summed * 2 * size * 4
        return rows + 8 * sizes.keys * size * item + 2 * sizes.keys * width * item

    # A group's sums of dk and dv stay in VMEM if it holds them; else each head writes its own, summed up afterwards.
    shared = bytes_needed(2, slots) <= blocks.vmem * MIB * 3 // 4
    buffers = 2 if bytes_needed(2, sizes.keys) <= blocks.vmem * MIB * 3 // 4 else 1
    per_program = 1
    if not shared or group == 1:
        q, d_mixed, log_sums, share = (
            x.reshape(kv_heads * group, 1, *x.shape[2:]) for x in (q, d_mixed, log_sums, share)
        )
        per_program = group
    summed = slots if shared and group > 1 else sizes.keys
    mode = None if buffers == 2 else pl.Buffered(1)

    def per_head(*shape: int) -> pl.BlockSpec:
        return pl.BlockSpec((1, 1, *shape), lambda b, h, g, i, *_: (h, g, 0, b), pipeline_mode=mode)

    steps = slots // sizes.keys
    keys_in = pl.BlockSpec(
        (1, size, sizes.keys), lambda b, h, g, i, *_: (jax.lax.div(h, per_program), 0, b * steps + i)
    )
    # Written when the last head of the group comes by; until then the block stays where it is.
    heads_last = q.shape[1] - 1
    keys_out = pl.BlockSpec(
        (1, size, sizes.keys), lambda b, h, g, i, *_: (h, 0, b * steps + jnp.where(g == heads_last, i, 0))
    )
    d_key = jax.ShapeDtypeStruct((q.shape[0], size, batch * slots), k.dtype if per_program == 1 else jnp.float32)
    turned, total = pltpu.VMEM((sizes.keys, size), k.dtype), pltpu.VMEM((size, summed), jnp.float32)
    dq, dk, dv = pl.pallas_call(
        functools.partial(_backward_kernel, blocks=sizes),
        grid_spec=pltpu.PrefetchScalarGridSpec(
            num_scalar_prefetch=2,
            grid=(batch, *q.shape[:2], steps),
            in_specs=[
                per_head(size, length),
                per_head(size, length),
                per_head(1, length),
                per_head(1, length),
                pl.BlockSpec((1, 2, length), lambda b, h, g, i, *_: (b, 0, 0)),
                keys_in,
                keys_in,
            ],
            out_specs=[per_head(size, length), keys_out, keys_out],
            scratch_shapes=[turned, turned, pltpu.VMEM((size, length), jnp.float32), total, total],
        ),
        out_shape=[jax.ShapeDtypeStruct(q.shape, q.dtype), d_key, d_key],
        name="attention_backward",
        compiler_params=_compiler_params(bytes_needed(buffers, summed), blocks.vmem, "backward"),
        cost_estimate=_cost(q, k, slots, products=5),
        interpret=interpret,
    )(
        query_ranges(bounds, sizes, slots),
        spans_of(bounds, sizes.edge_queries),
        q,
        d_mixed,
        log_sums,
        share,
        bounds,
        k,
        v,
    )
    if per_program > 1:
        dk, dv = (x.reshape(kv_heads, group, size, -1).sum(axis=1).astype(k.dtype) for x in (dk, dv))
    return dq.reshape(kv_heads, group, size, -1), dk, dv
