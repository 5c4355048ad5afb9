"""Which keys each query sees, and which blocks of keys a kernel can skip or needn't mask."""

import math

import jax.numpy as jnp
from jaxtyping import Array, Bool, Int

LOG2_E = math.log2(math.e)
# A score that is masked, and the running maximum before the first score: exp2 of their difference is 0.
MASKED, LOWEST = -3e38, -1e30


def bounds_of(positions: Int[Array, "B S"], slot: int | Int[Array, ""]) -> Int[Array, "B 2 S"]:
    """The first and the last slot that each query sees: the start of its document, and its own slot."""
    last = jnp.broadcast_to(slot + jnp.arange(positions.shape[1], dtype=jnp.int32), positions.shape)
    return jnp.stack((last - positions.astype(jnp.int32), last), axis=1)


def visible_blocks(
    bounds: Int[Array, "B 2 S"], queries: int, keys: int, slots: int
) -> tuple[Bool[Array, "B N M"], Bool[Array, "B N M"]]:
    """For each block of queries and block of keys: does any query see any key; does every query see every key?"""
    length = bounds.shape[2]
    # Queries past the end see what the last query sees.
    bounds = jnp.pad(bounds, ((0, 0), (0, 0), (0, -length % queries)), mode="edge")
    of_queries = bounds.reshape(bounds.shape[0], 2, -1, queries)
    lowest, highest = of_queries.min(axis=3)[..., None], of_queries.max(axis=3)[..., None]
    begins = jnp.arange(0, slots, keys)
    ends = jnp.minimum(begins + keys, slots) - 1
    some = (lowest[:, 0] <= ends) & (begins <= highest[:, 1])
    whole = jnp.arange(queries, bounds.shape[2] + 1, queries)[:, None] <= length
    return some, some & (highest[:, 0] <= begins) & (begins + keys - 1 <= lowest[:, 1]) & whole


def ranges_of(some: Bool[Array, "B N M"], every: Bool[Array, "B N M"]) -> Int[Array, "B N 4"]:
    """The range of visible blocks along the last axis, and inside it a range of blocks that need no mask.

    Returns:
        For each row: the first visible block, the first and one past the last unmasked block, one past the last
        visible block.
    """
    count = some.shape[-1]

    def first(flags: Array) -> Array:
        return jnp.where(flags.any(axis=-1), jnp.argmax(flags, axis=-1), count)

    begin, end = first(some), count - first(some[..., ::-1])
    full_begin = jnp.minimum(first(every), end)
    over = ~every & (jnp.arange(count) >= full_begin[..., None])
    full_end = jnp.minimum(first(over), end)
    return jnp.stack((jnp.minimum(begin, end), full_begin, full_end, end), axis=-1).astype(jnp.int32)
