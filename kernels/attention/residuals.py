"""What a forward kernel leaves to the backward ones, the same for all of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name

if TYPE_CHECKING:  # so that the GPU kernels' benchmark runs where nothing is installed but JAX's own family
    from jaxtyping import Array, Float


def named(mixed: Array, log_sums: Array) -> tuple[Array, Array]:
    """The output and the softmax's sums under their names for a remat policy.

    With both kept, the forward kernel isn't run again in the backward pass.
    """
    return checkpoint_name(mixed, "attention_mixed"), checkpoint_name(log_sums, "attention_log_sums")


def share_of_sums(mixed: Float[Array, "*all"], d_mixed: Float[Array, "*all"], axis: int = -1) -> Float[Array, "*rest"]:
    """The part of each score's gradient that the softmax's sum takes back, in float32; `axis` is the head's D."""
    return jnp.sum(d_mixed.astype(jnp.float32) * mixed.astype(jnp.float32), axis=axis)
