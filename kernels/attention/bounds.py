"""What both kernels start from: which keys each query sees, and the block table's entry for a head size."""

from collections.abc import Iterable

import jax.numpy as jnp
from jaxtyping import Array, Int


def bounds_of(positions: Int[Array, "B S"], slot: int | Int[Array, ""]) -> Int[Array, "B 2 S"]:
    """The first and the last slot that each query sees: the start of its document, and its own."""
    last = jnp.broadcast_to(slot + jnp.arange(positions.shape[1], dtype=jnp.int32), positions.shape)
    return jnp.stack((last - positions.astype(jnp.int32), last), axis=1)


def table_size(sizes: Iterable[str], head_size: int, table: str) -> str:
    """The smallest of a table's head sizes that is good for this one. Raises ValueError when none is."""
    size = min((int(size) for size in sizes if int(size) >= head_size), default=None)
    if size is None:
        raise ValueError(f"attention: no blocks for head size {head_size} in {table}; the largest is 256")
    return str(size)
