"""Cross-entropy of a large vocabulary, a few positions at a time.

The logits of a whole batch are the largest array of a training step (OpenCoder's vocabulary is 96,640; one row of 4096
tokens has 1.6 GB of them). Here a chunk of positions is turned into logits, reduced to its loss and forgotten.

The gradient of the loss needs nothing that comes later. So where one is asked for, the forward pass computes it too,
while it has the logits: three products with the head, where logits that are computed again would make it four.
What is kept for the backward pass is the gradient itself, of the size of `hidden` and of `head`.
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int


def cross_entropy(
    hidden: Float[Array, "B S W"],
    head: Float[Array, "W V"],
    targets: Int[Array, "B S"],
    mask: Float[Array, "B S"],
    chunk: int,
) -> Float[Array, ""]:
    """The summed negative log-likelihood of the targets, in nats. Divide it by the summed mask for the mean loss.

    Args:
        hidden: the decoder's output; multiplied in its own dtype, accumulated in float32.
        head: the decoder's head.
        targets: the token that follows each position.
        mask: 1 where a target counts, 0 where not; fractions weigh. It gets no gradient.
        chunk: positions of each row that are in memory at once; S must be a multiple of it, or smaller.

    Raises:
        ValueError: S is no multiple of `chunk`.
    """
    length = hidden.shape[1]
    chunk = min(chunk, length)
    if length % chunk:
        raise ValueError(f"chunk={chunk}: must divide the row length {length}")
    with jax.named_scope("loss"):
        return _summed(hidden, head, targets, mask.astype(jnp.float32), chunk)


@partial(jax.custom_vjp, nondiff_argnums=(4,))
def _summed(hidden: Array, head: Array, targets: Array, mask: Array, chunk: int) -> Array:
    def one_chunk(total: Array, item: tuple[Array, Array, Array]) -> tuple[Array, None]:
        h, target, weight = item
        return total + jnp.sum(weight * logits_of(h, head, target)[2]), None

    return jax.lax.scan(one_chunk, jnp.zeros((), jnp.float32), cut_along_rows(chunk, hidden, targets, mask))[0]


def _forward(hidden: Array, head: Array, targets: Array, mask: Array, chunk: int) -> tuple[Array, tuple[Array, Array]]:
    """The loss, and its gradients to `hidden` and `head`."""

    def one_chunk(sums: tuple[Array, Array], item: tuple[Array, Array, Array]) -> tuple[tuple[Array, Array], Array]:
        (total, to_head), (h, target, weight) = sums, item
        logits, log_z, loss = logits_of(h, head, target)
        to_logits = jnp.exp(logits - log_z[:, None]) - (jnp.arange(logits.shape[1]) == target[:, None])
        # In memory once, in the dtype of the products: else XLA computes it again inside each of the two.
        to_logits = jax.lax.optimization_barrier((weight[:, None] * to_logits).astype(h.dtype))
        to_hidden = jnp.einsum("tv,wv->tw", to_logits, head.astype(h.dtype))
        to_head += jnp.einsum("tw,tv->wv", h, to_logits, preferred_element_type=jnp.float32)
        return (total + jnp.sum(weight * loss), to_head), to_hidden

    nothing = (jnp.zeros((), jnp.float32), jnp.zeros(head.shape, jnp.float32))
    (total, to_head), chunks = jax.lax.scan(one_chunk, nothing, cut_along_rows(chunk, hidden, targets, mask))
    rows, _, width = hidden.shape
    to_hidden = chunks.reshape(-1, rows, chunk, width).swapaxes(0, 1).reshape(hidden.shape)
    return total, (to_hidden, to_head.astype(head.dtype))


def _backward(chunk: int, gradients: tuple[Array, Array], above: Array) -> tuple[Array | None, ...]:
    with jax.named_scope("loss"):
        to_hidden, to_head = ((above * gradient).astype(gradient.dtype) for gradient in gradients)
    return to_hidden, to_head, None, None


_summed.defvjp(_forward, _backward)


def logits_of(h: Array, head: Array, target: Array) -> tuple[Array, Array, Array]:
    """The logits of a chunk [T, V], the logarithm of their summed exponentials [T], and the loss of each token [T]."""
    logits = jnp.einsum("tw,wv->tv", h, head.astype(h.dtype), preferred_element_type=jnp.float32)
    log_z = jax.nn.logsumexp(logits, axis=-1)
    # A sum over a mask, not a gather: a mesh may divide the vocabulary.
    chosen = jnp.sum(jnp.where(jnp.arange(logits.shape[1]) == target[:, None], logits, 0), axis=-1)
    return logits, log_z, log_z - chosen


def cut_along_rows(chunk: int, *arrays: Array) -> Any:
    """A tuple: each [B, S, …] as [S / chunk, B * chunk, …]: cut along the row, for a mesh divides the rows."""
    rows, length = arrays[0].shape[:2]
    cut = (x.reshape(rows, length // chunk, chunk, *x.shape[2:]).swapaxes(0, 1) for x in arrays)
    return tuple(x.reshape(length // chunk, rows * chunk, *x.shape[3:]) for x in cut)
