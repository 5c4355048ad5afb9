"""Rows that are longer than VMEM: the kernels run on one segment of a row after the other.

The forward kernel holds all keys of a row, the backward kernel all queries. Of a row that is too long each gets a
segment at a time, in a loop: the forward pass joins the segments' outputs by their softmax's sums, as blocks are joined
inside the kernel, and the backward pass adds up their gradients of keys. Blocks that nothing sees stay skipped. What it
costs beside the same work at once: an output per segment of keys, and the key blocks' way in per segment of queries.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array

from opencoder_jax.kernels.attention.shared.bounds import LOWEST
from opencoder_jax.kernels.attention.tpu import backward as backward_kernel
from opencoder_jax.kernels.attention.tpu import forward as forward_kernel
from opencoder_jax.kernels.attention.tpu.blocks import TpuBlocks
from opencoder_jax.kernels.attention.tpu.tiles import MIB

# Of VMEM, for what a kernel says that it holds; the rest is the compiler's.
ROOM = 5 / 6


class Segments(NamedTuple):
    """Tokens that a kernel takes at a time; a row's length is a multiple of them."""

    queries: int  # of the backward kernel
    keys: int  # of the forward kernel


def segments_of(blocks: TpuBlocks, group: int, size: int, item: int, length: int, slots: int) -> Segments:
    """As few equal segments as VMEM takes, of blocks that are fitted to the row; all of it, lengthened, if it can.

    Args:
        item: bytes of a number of the operands.
    """

    def fewest(count: int, unit: int, needed: Callable[[int], int]) -> int:
        parts, segment = 1, -(-count // unit) * unit
        while segment > unit and needed(segment) > blocks.vmem * MIB * ROOM:
            parts += 1
            segment = -(-count // (parts * unit)) * unit
        return segment

    queries, keys = _units(blocks, group)
    return Segments(
        fewest(length, queries, lambda n: backward_kernel.vmem_bytes(blocks.backward, size, item, n)),
        fewest(slots, keys, lambda n: forward_kernel.vmem_bytes(blocks.forward, group, size, item, n)),
    )


def why_not(blocks: TpuBlocks, group: int, size: int, item: int) -> str | None:
    """Why VMEM can't take even the shortest segment of a row, in words."""
    queries, keys = _units(blocks, group)
    needed = max(
        backward_kernel.vmem_bytes(blocks.backward, size, item, queries),
        forward_kernel.vmem_bytes(blocks.forward, group, size, item, keys),
    )
    if needed <= blocks.vmem * MIB * ROOM:
        return None
    heads = f"{group} query heads of {size} to a key head"
    return f"a block of {heads} needs {needed / MIB:.0f} MiB of VMEM, which has {blocks.vmem}"


def _units(blocks: TpuBlocks, group: int) -> tuple[int, int]:
    """What the blocks of both kernels divide: queries, keys."""
    forward, backward, _ = blocks
    return max(forward.rows // group, backward.queries), max(forward.keys, backward.keys)


def forward(
    blocks: TpuBlocks, interpret: bool, q: Array, k: Array, v: Array, bounds: Array, *, with_sums: bool
) -> list[Array]:
    """As `forward.forward`, of rows of any length."""
    segments, slots = _of(blocks, q, k, bounds), k.shape[2] // len(bounds)
    if segments.keys == slots:
        return forward_kernel.forward(blocks, interpret, q, k, v, bounds, with_sums=with_sums)
    least, most = jnp.array([[0], [-1]]), jnp.array([[segments.keys], [segments.keys - 1]])

    def join(done: tuple[Array, Array], segment: tuple[Array, ...]) -> tuple[tuple[Array, Array], None]:
        (out, total), (k, v, start) = done, segment
        inside = jnp.clip(bounds - start, least, most)
        mixed, sums = forward_kernel.forward(blocks, interpret, q, k, v, inside, with_sums=True)
        # Of a query that sees no key here the sum is 0, and its output not a number.
        sums = jnp.maximum(sums, LOWEST)
        now = jnp.logaddexp2(total, sums)
        mixed = jnp.where(sums > LOWEST, mixed.astype(jnp.float32), 0.0)
        return (out * jnp.exp2(total - now) + mixed * jnp.exp2(sums - now), now), None

    sums = jnp.full((*q.shape[:2], 1, q.shape[3]), LOWEST, jnp.float32)
    starts = jnp.arange(0, slots, segments.keys)
    parts = (*(_split(x, len(bounds), segments.keys) for x in (k, v)), starts)
    (out, sums), _ = jax.lax.scan(join, (jnp.zeros(q.shape, jnp.float32), sums), parts)
    return [out.astype(v.dtype), sums][: 1 + with_sums]


def backward(
    blocks: TpuBlocks, interpret: bool, residuals: tuple[Array, ...], d_out: Array, delta: Array
) -> tuple[Array, Array, Array]:
    """As `backward.backward`, of rows of any length."""
    q, k, v, bounds, log_sums = residuals
    rows, queries = len(bounds), _of(blocks, q, k, bounds).queries
    if queries * rows == q.shape[3]:
        return backward_kernel.backward(blocks, interpret, residuals, d_out, delta)

    def add(sums: tuple[Array, Array], segment: tuple[Array, ...]) -> tuple[tuple[Array, Array], Array]:
        q, log_sums, d_out, delta, bounds = segment
        dq, dk, dv = backward_kernel.backward(blocks, interpret, (q, k, v, bounds, log_sums), d_out, delta)
        return (sums[0] + dk, sums[1] + dv), dq

    parts = [_split(x, rows, queries) for x in (q, log_sums, d_out, delta)]
    of_rows = bounds.reshape(rows, 2, -1, queries).transpose(2, 0, 1, 3)
    nothing = jnp.zeros(k.shape, jnp.float32)
    (dk, dv), dq = jax.lax.scan(add, (nothing, nothing), (*parts, of_rows))
    dq = jnp.moveaxis(dq.reshape(len(dq), *q.shape[:3], rows, queries), 0, -2).reshape(q.shape)
    return dq, dk.astype(k.dtype), dv.astype(v.dtype)


def _of(blocks: TpuBlocks, q: Array, k: Array, bounds: Array) -> Segments:
    (_, group, size, length), rows = q.shape, len(bounds)
    return segments_of(blocks, group, size, q.dtype.itemsize, length // rows, k.shape[2] // rows)


def _split(x: Array, rows: int, tokens: int) -> Array:
    """Segments [N, .., B * tokens] of rows [.., B * S]."""
    parts = jnp.moveaxis(x.reshape(*x.shape[:-1], rows, -1, tokens), -2, 0)
    return parts.reshape(*parts.shape[:-2], -1)
