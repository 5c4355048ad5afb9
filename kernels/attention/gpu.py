"""Attention on NVIDIA GPUs from Ampere on: Pallas kernels for Triton, forward and backward.

A query sees the keys from where its document starts to its own (`first` to `last`), so a block of queries and a block
of keys are one of three things, and each costs what it must:

    out of sight   skipped: each program loops over ranges of blocks that are computed beforehand
    in full sight  no mask and no test for the end of the row: products of matrices and exponentials
    at an edge     the same, masked: the diagonal, where documents begin inside a block, the end of the row

Three kernels: the forward pass; the gradients of keys and values, a program a block of keys, which sums over the query
heads that share them; the gradient of queries, a program a block of queries. The last two compute the scores once each:
two more products of seven than with sums in memory, but nothing is added up in an order that changes from run to run.

Triton's blocks are powers of two. A head size that isn't one is taken in pieces that are (160 = 128 + 32), so it costs
160 columns and not 256. Exponents are base 2, in float32. Arrays stay as the model has them, [B, S, H, D].

Block sizes stand in gpu_blocks.json, per family of chips.

Shapes: B rows, H query heads, K key heads, G = H/K, S queries, T keys, D head size; N blocks of queries, M of keys.
"""

from __future__ import annotations

import functools
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton

from opencoder_jax.kernels.attention.bounds import LOG2_E, LOWEST, MASKED, bounds_of, ranges_of, sight, table_size
from opencoder_jax.kernels.attention.residuals import named, share_of_sums

if TYPE_CHECKING:  # so that its benchmark runs on GPU machines that have nothing installed but JAX's own family
    from jaxtyping import Array, Float, Int

SMALLEST = 16  # of a side of a product of matrices in Triton


class Block(NamedTuple):
    """How one kernel runs."""

    queries: int  # a step's, or a program's; a power of two, 16 at least
    keys: int  # the same
    warps: int  # of 32 threads that share a program
    stages: int  # steps whose loads are under way at once


class Blocks(NamedTuple):
    """How the kernels run on a chip at a head size."""

    forward: Block
    backward_keys: Block
    backward_queries: Block


def _families() -> dict[str, Any]:
    return json.loads(Path(__file__).with_name("gpu_blocks.json").read_text())


def family_of(chip: str) -> str:
    """The family of a chip (its device kind, "NVIDIA H100 80GB HBM3"): "Hopper", "Ampere" or "other"."""
    words = set(chip.replace("-", " ").split())
    return next((name for name, family in _families().items() if words & set(family["chips"])), "other")


def blocks_for(chip: str, head_size: int, dtype: jnp.dtype) -> Blocks:
    """The table's blocks for a chip's family.

    Args:
        head_size: D; the table holds the sizes up to which each entry is good.
        dtype: of the operands; the table is for bfloat16. float32, which Triton multiplies without matrix units, gets
            blocks that fit anywhere.
    """
    family = _families()[family_of(chip)]
    entry = family["head_sizes"][table_size(family["head_sizes"], head_size, "gpu_blocks.json")]
    if jnp.dtype(dtype).itemsize > 2:
        return Blocks(*(Block(queries=16, keys=32, warps=8, stages=1) for _ in Blocks._fields))
    return Blocks(*(Block(**entry[kernel]) for kernel in Blocks._fields))


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
        ValueError: the head size isn't a multiple of 16.
    """
    _, length, _, size = q.shape
    if size % SMALLEST:
        raise ValueError(f"attention: the kernels take head sizes that are multiples of {SMALLEST}, not {size}")
    longest_queries, longest_keys = (max(SMALLEST, pl.next_power_of_2(x)) for x in (length, k.shape[1]))
    blocks = Blocks(
        *(b._replace(queries=min(b.queries, longest_queries), keys=min(b.keys, longest_keys)) for b in blocks)
    )
    return _attention(blocks, interpret, q, k, v, bounds_of(positions, slot))


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _attention(blocks: Blocks, interpret: bool, q: Array, k: Array, v: Array, bounds: Array) -> Array:
    return _forward(blocks.forward, interpret, q, k, v, bounds, with_sums=False)[0]


def _attention_and_residuals(
    blocks: Blocks, interpret: bool, q: Array, k: Array, v: Array, bounds: Array
) -> tuple[Array, tuple[Array, ...]]:
    mixed, log_sums = named(*_forward(blocks.forward, interpret, q, k, v, bounds, with_sums=True))
    return mixed, (q, k, v, bounds, mixed, log_sums)


def _gradients(
    blocks: Blocks, interpret: bool, residuals: tuple[Array, ...], d_mixed: Array
) -> tuple[Array, Array, Array, np.ndarray]:
    q, k, v, bounds, mixed, log_sums = residuals
    share = share_of_sums(mixed, d_mixed).swapaxes(1, 2)
    arrays = (bounds, q, k, v, d_mixed, log_sums, share)
    dk, dv = _backward_keys(blocks.backward_keys, interpret, *arrays)
    dq = _backward_queries(blocks.backward_queries, interpret, *arrays)
    return dq, dk, dv, np.zeros(bounds.shape, jax.dtypes.float0)


_attention.defvjp(_attention_and_residuals, _gradients)


def _over_blocks(ranges: Any, step: Callable[[Any, Any, bool], Any], carry: Any) -> Any:
    """Calls step(block, carry, masked) on the blocks in full sight, then on those at an edge on either side of them."""
    begin, full_begin, full_end, end = (ranges[i] for i in range(4))
    carry = jax.lax.fori_loop(full_begin, full_end, lambda i, carry: step(i, carry, False), carry)
    gap = full_end - full_begin

    def at_edge(i: Any, carry: Any) -> Any:
        return step(jnp.where(i < full_begin, i, i + gap), carry, True)

    return jax.lax.fori_loop(begin, end - gap, at_edge, carry)


# -------------------------------------------------------------------------------------------------------- small helpers


def _pieces(size: int) -> list[tuple[int, int]]:
    """Start and size of the powers of two, largest first, that a head size is the sum of."""
    return [(size & ~(2 * bit - 1), bit) for bit in (256, 128, 64, 32, 16) if size & bit]


def _load(ref: Any, start: Any, count: int, end: int | None, *head: Any) -> list[Array]:
    """Rows start to start + count of [rows, (heads,) D], in pieces of D; those from `end` on, if any, are zero."""
    inside = None if end is None else (start + jnp.arange(count) < end)[:, None]
    other = None if end is None else 0
    places = [ref.at[(pl.ds(start, count), *head, pl.ds(*piece))] for piece in _pieces(ref.shape[-1])]
    return [triton.load(place, mask=inside, other=other) for place in places]


def _load_numbers(ref: Any, start: Any, count: int, end: int | None, *head: Any) -> Array:
    """The same of [(heads,) rows]."""
    inside = None if end is None else start + jnp.arange(count) < end
    place = ref.at[(*head, pl.ds(start, count))]
    return triton.load(place, mask=inside, other=None if end is None else 0)


def _store(ref: Any, start: Any, parts: list[Array] | tuple[Array, ...], end: int | None) -> None:
    """Rows from `start` on, those from `end` on left out."""
    inside = None if end is None else (start + jnp.arange(parts[0].shape[0]) < end)[:, None]
    for piece, part in zip(_pieces(ref.shape[-1]), parts, strict=True):
        triton.store(ref.at[pl.ds(start, part.shape[0]), pl.ds(*piece)], part.astype(ref.dtype), mask=inside)


def _ragged(length: int, block: int) -> int | None:
    """The end to test for where blocks of this size reach past it."""
    return length if length % block else None


def _dot(a: Array, b: Array, contract: tuple[int, int]) -> Array:
    """A product of matrices summed up in float32; float32 operands aren't rounded to TF32."""
    dimensions = (((contract[0],), (contract[1],)), ((), ()))
    return jax.lax.dot_general(a, b, dimensions, precision="highest", preferred_element_type=jnp.float32)


def _scores(a: list[Array], b: list[Array]) -> Array:
    """Products of the rows of two matrices that come in pieces of columns."""
    return functools.reduce(jnp.add, (_dot(x, y, (1, 1)) for x, y in zip(a, b, strict=True)))


def _add_dots(sums: tuple[Array, ...], weights: Array, parts: list[Array]) -> tuple[Array, ...]:
    """Adds weights @ parts to sums, in pieces of columns."""
    weights = weights.astype(parts[0].dtype)
    return tuple(total + _dot(weights, part, (1, 0)) for total, part in zip(sums, parts, strict=True))


def _zeros(count: int, size: int) -> tuple[Array, ...]:
    return tuple(jnp.zeros((count, width), jnp.float32) for _, width in _pieces(size))


def _per_head(array: Array, group: int) -> pl.BlockSpec:
    """The row [S, D] of a query head (group 1) or of the key head that it uses, of [B, S, H, D]."""
    return pl.BlockSpec((None, array.shape[1], None, array.shape[3]), lambda h, i, b: (b, 0, jax.lax.div(h, group), 0))


def _of_bounds(length: int) -> list[pl.BlockSpec]:
    """The first keys that queries see and the last ones, of [B, 2, S]."""
    return [pl.BlockSpec((None, None, length), lambda h, i, b, which=which: (b, which, 0)) for which in range(2)]


def _compiler_params(block: Block) -> triton.CompilerParams:
    return triton.CompilerParams(num_warps=block.warps, num_stages=block.stages)


# -------------------------------------------------------------------------------------------------------------- forward


def _forward_kernel(
    ranges: Any,
    first_ref: Any,
    last_ref: Any,
    q_ref: Any,
    k_ref: Any,
    v_ref: Any,
    out_ref: Any,
    *sums_ref: Any,
    block: Block,
) -> None:
    length, size = q_ref.shape
    slots = k_ref.shape[0]
    scale = LOG2_E / math.sqrt(size)
    at = (pl.num_programs(1) - 1 - pl.program_id(1)) * block.queries
    end = _ragged(length, block.queries)
    q = _load(q_ref, at, block.queries, end)
    first, last = (_load_numbers(ref, at, block.queries, end) for ref in (first_ref, last_ref))

    def step(i: Any, carry: Any, masked: bool) -> Any:
        mixed, highest, total = carry
        start = i * block.keys
        end = _ragged(slots, block.keys) if masked else None
        scores = _scores(q, _load(k_ref, start, block.keys, end))
        if masked:
            key = start + jnp.arange(block.keys)
            scores = jnp.where((first[:, None] <= key) & (key <= last[:, None]), scores, MASKED)
        now = jnp.maximum(highest, jnp.max(scores, axis=1) * scale)
        weights = jnp.exp2(scores * scale - now[:, None])
        fade = jnp.exp2(highest - now)
        mixed = tuple(part * fade[:, None] for part in mixed)
        mixed = _add_dots(mixed, weights, _load(v_ref, start, block.keys, end))
        return mixed, now, total * fade + jnp.sum(weights, axis=1)

    nothing = jnp.full((block.queries,), LOWEST, jnp.float32), jnp.zeros((block.queries,), jnp.float32)
    mixed, highest, total = _over_blocks(ranges, step, (_zeros(block.queries, size), *nothing))
    _store(out_ref, at, [part / total[:, None] for part in mixed], end)
    for ref in sums_ref:
        inside = None if end is None else at + jnp.arange(block.queries) < end
        triton.store(ref.at[pl.ds(at, block.queries)], highest + jnp.log2(total), mask=inside)


def _forward(
    block: Block, interpret: bool, q: Array, k: Array, v: Array, bounds: Array, *, with_sums: bool
) -> list[Array]:
    """Output [B, S, H, D], and for the backward pass the base-2 logarithms of the softmax's sums [B, H, S]."""
    rows, length, heads, _ = q.shape
    group = heads // k.shape[2]
    ranges = ranges_of(*sight(bounds, block.queries, block.keys, k.shape[1]))
    count = ranges.shape[1]
    out_shape = [jax.ShapeDtypeStruct(q.shape, v.dtype), jax.ShapeDtypeStruct((rows, heads, length), jnp.float32)]
    out_specs = [_per_head(q, 1), pl.BlockSpec((None, None, length), lambda h, i, b: (b, h, 0))]
    return pl.pallas_call(
        functools.partial(_forward_kernel, block=block),
        # The heads of a block first, and the blocks that see most before the others: no program is long at the end.
        grid=(heads, count, rows),
        in_specs=[
            pl.BlockSpec((None, None, 4), lambda h, i, b: (b, count - 1 - i, 0)),
            *_of_bounds(length),
            _per_head(q, 1),
            _per_head(k, group),
            _per_head(v, group),
        ],
        out_specs=out_specs if with_sums else out_specs[:1],
        out_shape=out_shape if with_sums else out_shape[:1],
        name="attention_forward",
        compiler_params=_compiler_params(block),
        interpret=interpret,
    )(ranges, bounds, bounds, q, k, v)


# ------------------------------------------------------------------------------------------------------------- backward


def _backward_queries_kernel(
    ranges: Any,
    first_ref: Any,
    last_ref: Any,
    q_ref: Any,
    k_ref: Any,
    v_ref: Any,
    d_out_ref: Any,
    log_sums_ref: Any,
    share_ref: Any,
    dq_ref: Any,
    *,
    block: Block,
) -> None:
    length, size = q_ref.shape
    slots = k_ref.shape[0]
    scale = LOG2_E / math.sqrt(size)
    at = (pl.num_programs(1) - 1 - pl.program_id(1)) * block.queries
    end = _ragged(length, block.queries)
    q, d_out = (_load(ref, at, block.queries, end) for ref in (q_ref, d_out_ref))
    first, last = (_load_numbers(ref, at, block.queries, end) for ref in (first_ref, last_ref))
    log_sums, share = (_load_numbers(ref, at, block.queries, end)[:, None] for ref in (log_sums_ref, share_ref))

    def step(i: Any, dq: Any, masked: bool) -> Any:
        start = i * block.keys
        end = _ragged(slots, block.keys) if masked else None
        k = _load(k_ref, start, block.keys, end)
        weights = jnp.exp2(_scores(q, k) * scale - log_sums)
        if masked:
            key = start + jnp.arange(block.keys)
            weights = jnp.where((first[:, None] <= key) & (key <= last[:, None]), weights, 0.0)
        d_weights = _scores(d_out, _load(v_ref, start, block.keys, end))
        return _add_dots(dq, weights * (d_weights - share), k)

    dq = _over_blocks(ranges, step, _zeros(block.queries, size))
    _store(dq_ref, at, [part * size**-0.5 for part in dq], end)


def _backward_queries(
    block: Block,
    interpret: bool,
    bounds: Array,
    q: Array,
    k: Array,
    v: Array,
    d_out: Array,
    log_sums: Array,
    share: Array,
) -> Array:
    rows, length, heads, _ = q.shape
    group = heads // k.shape[2]
    ranges = ranges_of(*sight(bounds, block.queries, block.keys, k.shape[1]))
    count = ranges.shape[1]
    numbers = pl.BlockSpec((None, None, length), lambda h, i, b: (b, h, 0))
    return pl.pallas_call(
        functools.partial(_backward_queries_kernel, block=block),
        grid=(heads, count, rows),
        in_specs=[
            pl.BlockSpec((None, None, 4), lambda h, i, b: (b, count - 1 - i, 0)),
            *_of_bounds(length),
            _per_head(q, 1),
            _per_head(k, group),
            _per_head(v, group),
            _per_head(q, 1),
            numbers,
            numbers,
        ],
        out_specs=_per_head(q, 1),
        out_shape=jax.ShapeDtypeStruct(q.shape, q.dtype),
        name="attention_backward_queries",
        compiler_params=_compiler_params(block),
        interpret=interpret,
    )(ranges, bounds, bounds, q, k, v, d_out, log_sums, share)


def _backward_keys_kernel(
    ranges: Any,
    first_ref: Any,
    last_ref: Any,
    q_ref: Any,
    k_ref: Any,
    v_ref: Any,
    d_out_ref: Any,
    log_sums_ref: Any,
    share_ref: Any,
    dk_ref: Any,
    dv_ref: Any,
    *,
    block: Block,
) -> None:
    """Scores stand here as [keys, queries], so that the sums' left operands are what the products before them gave."""
    length, group, size = q_ref.shape
    scale = LOG2_E / math.sqrt(size)
    at = pl.program_id(1) * block.keys
    end = _ragged(k_ref.shape[0], block.keys)
    k, v = (_load(ref, at, block.keys, end) for ref in (k_ref, v_ref))
    key = at + jnp.arange(block.keys)[:, None]

    def of_head(head: Any, carry: Any) -> Any:
        def step(i: Any, carry: Any, masked: bool) -> Any:
            dk, dv = carry
            start = i * block.queries
            end = _ragged(length, block.queries) if masked else None
            q, d_out = (_load(ref, start, block.queries, end, head) for ref in (q_ref, d_out_ref))
            log_sums, share = (_load_numbers(ref, start, block.queries, end, head) for ref in (log_sums_ref, share_ref))
            weights = jnp.exp2(_scores(k, q) * scale - log_sums)
            if masked:
                first, last = (_load_numbers(ref, start, block.queries, end) for ref in (first_ref, last_ref))
                weights = jnp.where((first <= key) & (key <= last), weights, 0.0)
            dv = _add_dots(dv, weights, d_out)
            d_scores = weights * (_scores(v, d_out) - share)
            return _add_dots(dk, d_scores, q), dv

        return _over_blocks(ranges, step, carry)

    dk, dv = jax.lax.fori_loop(0, group, of_head, (_zeros(block.keys, size), _zeros(block.keys, size)))
    _store(dk_ref, at, [part * size**-0.5 for part in dk], end)
    _store(dv_ref, at, dv, end)


def _backward_keys(
    block: Block,
    interpret: bool,
    bounds: Array,
    q: Array,
    k: Array,
    v: Array,
    d_out: Array,
    log_sums: Array,
    share: Array,
) -> list[Array]:
    rows, length, heads, size = q.shape
    kv_heads = k.shape[2]
    group = heads // kv_heads
    seen, full = sight(bounds, block.queries, block.keys, k.shape[1])
    ranges = ranges_of(seen.swapaxes(1, 2), full.swapaxes(1, 2))
    of_group = pl.BlockSpec((None, length, group, size), lambda h, i, b: (b, 0, h, 0))
    numbers = pl.BlockSpec((None, group, length), lambda h, i, b: (b, h, 0))
    return pl.pallas_call(
        functools.partial(_backward_keys_kernel, block=block),
        grid=(kv_heads, ranges.shape[1], rows),
        in_specs=[
            pl.BlockSpec((None, None, 4), lambda h, i, b: (b, i, 0)),
            *_of_bounds(length),
            of_group,
            _per_head(k, 1),
            _per_head(v, 1),
            of_group,
            numbers,
            numbers,
        ],
        out_specs=[_per_head(k, 1), _per_head(v, 1)],
        out_shape=[jax.ShapeDtypeStruct(k.shape, k.dtype), jax.ShapeDtypeStruct(v.shape, v.dtype)],
        name="attention_backward_keys",
        compiler_params=_compiler_params(block),
        interpret=interpret,
    )(ranges, bounds, bounds, q, k, v, d_out, log_sums, share)
