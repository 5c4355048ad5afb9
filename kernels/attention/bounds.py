"""What all kernels start from: which keys each query sees, which blocks of them, and the block table's entry."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import TYPE_CHECKING

import jax.numpy as jnp

if TYPE_CHECKING:  # so that the GPU kernels' benchmark runs where nothing is installed but JAX's own family
    from jaxtyping import Array, Bool, Int

LOG2_E = math.log2(math.e)
# Of scores outside a document, and of the maximum before the first score: exp2 of their difference is 0.
MASKED, LOWEST = -3e38, -1e30


def bounds_of(positions: Int[Array, "B S"], slot: int | Int[Array, ""]) -> Int[Array, "B 2 S"]:
    """The first and the last slot that each query sees: the start of its document, and its own."""
    last = jnp.broadcast_to(slot + jnp.arange(positions.shape[1], dtype=jnp.int32), positions.shape)
    return jnp.stack((last - positions.astype(jnp.int32), last), axis=1)


def sight(
    bounds: Int[Array, "B 2 S"], queries: int, keys: int, slots: int
) -> tuple[Bool[Array, "B N M"], Bool[Array, "B N M"]]:
    """Of each block of queries and block of keys: whether any query sees any key; whether every one sees every one."""
    length = bounds.shape[2]
    # Queries past the end see what the last one sees.
    bounds = jnp.pad(bounds, ((0, 0), (0, 0), (0, -length % queries)), mode="edge")
    of_queries = bounds.reshape(bounds.shape[0], 2, -1, queries)
    lowest, highest = of_queries.min(axis=3)[..., None], of_queries.max(axis=3)[..., None]
    begins = jnp.arange(0, slots, keys)
    ends = jnp.minimum(begins + keys, slots) - 1
    seen = (lowest[:, 0] <= ends) & (begins <= highest[:, 1])
    whole = jnp.arange(queries, bounds.shape[2] + 1, queries)[:, None] <= length
    return seen, seen & (highest[:, 0] <= begins) & (begins + keys - 1 <= lowest[:, 1]) & whole


def ranges_of(seen: Bool[Array, "B N M"], full: Bool[Array, "B N M"]) -> Int[Array, "B N 4"]:
    """Along the last axis: from the first block in sight to past the last, and between them a run in full sight."""
    count = seen.shape[-1]

    def first(flags: Array) -> Array:
        return jnp.where(flags.any(axis=-1), jnp.argmax(flags, axis=-1), count)

    begin, end = first(seen), count - first(seen[..., ::-1])
    full_begin = jnp.minimum(first(full), end)
    over = ~full & (jnp.arange(count) >= full_begin[..., None])
    full_end = jnp.minimum(first(over), end)
    return jnp.stack((jnp.minimum(begin, end), full_begin, full_end, end), axis=-1).astype(jnp.int32)


def table_size(sizes: Iterable[str], head_size: int, table: str) -> str:
    """The smallest of a table's head sizes that is good for this one. Raises ValueError when none is."""
    size = min((int(size) for size in sizes if int(size) >= head_size), default=None)
    if size is None:
        raise ValueError(f"attention: no blocks for head size {head_size} in {table}; the largest is 256")
    return str(size)
