"""Products of rows with a matrix, in which a row's result depends on nothing but the row, to the bit, on CPUs.

XLA's kernels for CPUs (YNNPACK) sum up in an order that depends on how many rows there are: one row, 2 to 32, or more.
From 2 to 32 rows, and with 16 columns or more, it is the same order for each row, wherever it stands and whatever the
others hold (tests/kernels/test_rows.py; tests/benchmarks/LOG.md says what it costs). So more rows are taken in parts.
"""

from collections.abc import Callable
from itertools import pairwise

import jax.numpy as jnp
from jaxtyping import Array, Float

from opencoder_jax.kernels.attention.attention import traced_for

MOST = 32


def by_rows(product: Callable[[Array], Array], rows: Float[Array, "*batch M K"]) -> Float[Array, "*batch M N"]:
    """`product(rows)`, where each row's result must be a function of that row alone."""
    if traced_for()[0] != "cpu":
        return product(rows)
    count = rows.shape[-2]
    if count == 1:
        return product(jnp.concatenate([rows, rows], axis=-2))[..., :1, :]
    parts = -(-count // MOST)
    ends = [part * count // parts for part in range(parts + 1)]
    results = [product(rows[..., begin:end, :]) for begin, end in pairwise(ends)]
    return jnp.concatenate(results, axis=-2) if parts > 1 else results[0]
