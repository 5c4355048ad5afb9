"""What makes a row's result depend on nothing but the row, to the bit, on CPUs.

On one CPU, where a compiler is there, our own kernels (cpu/) see to it. What follows is for the rest.

XLA's kernels for CPUs (YNNPACK) sum a product up in an order that depends on how many rows there are: one row, 2 to 32,
or more. From 2 to 32 rows, and with 16 columns or more, it is the same order for each row, wherever it stands and
whatever the others hold (tests/kernels/attention/test_rows.py; tests/benchmarks/LOG.md says what it costs). So more
rows are taken in parts. Of anything but products YNNPACK gets arrays above some size only, and rounds exponentials
otherwise than XLA does below it: so it gets products alone.
"""

from collections.abc import Callable
from functools import cache, wraps
from itertools import pairwise
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from opencoder_jax.kernels.attention.attention import free_axes, traced_for
from opencoder_jax.kernels.attention.cpu import library

MOST = 32
OPTIONS = {"xla_cpu_experimental_ynn_fusion_type": "LIBRARY_FUSION_TYPE_INDIVIDUAL_DOT"}


def cpu_kernels() -> bool:
    """Whether the program that is traced takes our own kernels: on one CPU, where they could be compiled."""
    return traced_for()[0] == "cpu" and not free_axes() and library.loaded()


def jit_by_rows(**options: Any) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """`jax.jit` with these options, for functions whose rows keep to themselves. The jitted one is its attribute."""

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        @cache
        def jitted(platform: str) -> Any:
            return jax.jit(function, compiler_options=OPTIONS if platform == "cpu" else None, **options)

        @wraps(function)
        def call(*arguments: Any, **named: Any) -> Any:
            return jitted(traced_for()[0])(*arguments, **named)

        call.jitted = jitted  # type: ignore[attr-defined]
        return call

    return decorate


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
