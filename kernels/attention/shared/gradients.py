"""How a forward kernel and its backward kernels become one function that JAX can differentiate."""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.ad_checkpoint import checkpoint_name
from jaxtyping import Array


def differentiable(
    forward: Callable[..., Sequence[Array]], backward: Callable[..., tuple[Array, Array, Array]], head_axis: int
) -> Callable[..., Array]:
    """A function (blocks, interpret, q, k, v, bounds) -> output that is differentiable in q, k and v.

    Args:
        forward: takes the same arguments and `with_sums`; returns the output and, if asked for, the base-2 logarithms
            of the softmax's sums.
        backward: (blocks, interpret, residuals, d_out, delta) -> the gradients of q, k and v; residuals are q, k, v,
            bounds and the logarithms, and delta is each query's dot product of its output and d_out.
        head_axis: the axis of the output that holds the head size.
    """

    @functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
    def attention(blocks: Any, interpret: Any, q: Array, k: Array, v: Array, bounds: Array) -> Array:
        return forward(blocks, interpret, q, k, v, bounds, with_sums=False)[0]

    def with_residuals(
        blocks: Any, interpret: Any, q: Array, k: Array, v: Array, bounds: Array
    ) -> tuple[Array, tuple[Array, ...]]:
        out, log_sums = forward(blocks, interpret, q, k, v, bounds, with_sums=True)
        # A remat policy that keeps both by these names doesn't run the forward kernel again in the backward pass.
        out, log_sums = checkpoint_name(out, "attention_mixed"), checkpoint_name(log_sums, "attention_log_sums")
        return out, (q, k, v, bounds, out, log_sums)

    def gradients(blocks: Any, interpret: Any, residuals: tuple[Array, ...], d_out: Array) -> tuple[Any, ...]:
        q, k, v, bounds, out, log_sums = residuals
        # FlashAttention's D: what the softmax's normalisation takes from the gradient of each score of a query.
        delta = jnp.sum(d_out.astype(jnp.float32) * out.astype(jnp.float32), axis=head_axis)
        d_inputs = backward(blocks, interpret, (q, k, v, bounds, log_sums), d_out, delta)
        return *d_inputs, np.zeros(bounds.shape, jax.dtypes.float0)

    attention.defvjp(with_residuals, gradients)
    return attention
