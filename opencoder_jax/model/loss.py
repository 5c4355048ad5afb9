"""Cross-entropy of a large vocabulary, a few positions at a time.

The logits of a whole batch are the largest array of a training step (OpenCoder's vocabulary is 96,640; one row of 4096
tokens has 1.6 GB of them). Here a chunk of positions is turned into logits, reduced to its loss and forgotten.

The slope of the loss needs nothing that comes later, so where a gradient is asked for, the forward pass leaves it too,
while it has the logits: three products with the head; to compute the logits again in the backward pass makes four.
What is kept for the backward pass is the gradient itself, of the size of `hidden` and of `head`.
"""

from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int


def cross_entropy(
    hidden: Float[Array, "B S W"],
    head: Float[Array, "W V"],
    targets: Int[Array, "B S"],
    mask: Float[Array, "B S"],
    chunk: int,
    z_loss: float = 0.0,
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """The summed negative log-likelihood of the targets in nats, and the summed mask: their quotient is the mean loss.

    Args:
        hidden: the decoder's output; multiplied in its own dtype, accumulated in float32.
        head: the decoder's head.
        targets: the token that follows each position.
        mask: 1 where a target counts, 0 where not; fractions weigh.
        chunk: positions of each row that are in memory at once; S must be a multiple of it, or smaller.
        z_loss: adds z_loss * log(sum(exp(logits)))^2 a token, which keeps the logits from drifting.

    Raises:
        ValueError: S is no multiple of `chunk`.
    """
    length = hidden.shape[1]
    chunk = min(chunk, length)
    if length % chunk:
        raise ValueError(f"chunk={chunk}: must divide the row length {length}")
    with jax.named_scope("loss"):
        total = _summed(hidden, head, targets, mask.astype(jnp.float32), chunk, z_loss)
        return total, jnp.sum(mask, dtype=jnp.float32)


@partial(jax.custom_vjp, nondiff_argnums=(4, 5))
def _summed(hidden: Array, head: Array, targets: Array, mask: Array, chunk: int, z_loss: float) -> Array:
    def one_chunk(total: Array, item: tuple[Array, Array, Array]) -> tuple[Array, None]:
        h, target, weight = item
        _, _, loss = _logits(h, head, target, z_loss)
        return total + jnp.sum(weight * loss), None

    items = (_cut(hidden, chunk), _cut(targets, chunk), _cut(mask, chunk))
    return jax.lax.scan(one_chunk, jnp.zeros((), jnp.float32), items)[0]


def _forward(
    hidden: Array, head: Array, targets: Array, mask: Array, chunk: int, z_loss: float
) -> tuple[Array, tuple[Array, ...]]:
    """The loss, and its gradient to `hidden`, `head` and `mask`."""

    def one_chunk(sums: tuple[Array, Array], item: tuple[Array, Array, Array]) -> tuple[tuple[Array, Array], tuple]:
        (total, head_slope), (h, target, weight) = sums, item
        logits, log_z, loss = _logits(h, head, target, z_loss)
        slope = (1 + 2 * z_loss * log_z)[:, None] * jnp.exp(logits - log_z[:, None])
        slope = slope - (jnp.arange(logits.shape[1]) == target[:, None])
        # In memory once, in the dtype of the products: else XLA computes it again inside each of the two.
        slope = jax.lax.optimization_barrier((weight[:, None] * slope).astype(h.dtype))
        hidden_slope = jnp.einsum("tv,wv->tw", slope, head.astype(h.dtype))
        head_slope += jnp.einsum("tw,tv->wv", h, slope, preferred_element_type=jnp.float32)
        return (total + jnp.sum(weight * loss), head_slope), (hidden_slope, loss)

    items = (_cut(hidden, chunk), _cut(targets, chunk), _cut(mask, chunk))
    nothing = (jnp.zeros((), jnp.float32), jnp.zeros(head.shape, jnp.float32))
    (total, head_slope), (hidden_slope, losses) = jax.lax.scan(one_chunk, nothing, items)
    rows = hidden.shape[0]
    return total, (_join(hidden_slope, rows), head_slope.astype(head.dtype), _join(losses, rows))


def _backward(chunk: int, z_loss: float, slopes: tuple[Array, ...], above: Array) -> tuple[Array | None, ...]:
    with jax.named_scope("loss"):
        to_hidden, to_head, to_mask = ((above * slope).astype(slope.dtype) for slope in slopes)
    return to_hidden, to_head, None, to_mask


_summed.defvjp(_forward, _backward)


def _logits(h: Array, head: Array, target: Array, z_loss: float) -> tuple[Array, Array, Array]:
    """The logits of a chunk [T, V], the logarithm of their summed exponentials [T], and the loss of each token [T]."""
    logits = jnp.einsum("tw,wv->tv", h, head.astype(h.dtype), preferred_element_type=jnp.float32)
    log_z = jax.nn.logsumexp(logits, axis=-1)
    # A sum over a mask, not a gather: a mesh may divide the vocabulary.
    chosen = jnp.sum(jnp.where(jnp.arange(logits.shape[1]) == target[:, None], logits, 0), axis=-1)
    return logits, log_z, log_z - chosen + z_loss * jnp.square(log_z)


def _cut(x: Array, chunk: int) -> Array:
    """[B, S, …] as [S / chunk, B * chunk, …]: cut along the row, for a mesh divides the rows."""
    rows, length, *rest = x.shape
    return x.reshape(rows, length // chunk, chunk, *rest).swapaxes(0, 1).reshape(length // chunk, rows * chunk, *rest)


def _join(x: Array, rows: int) -> Array:
    """The inverse of `_cut`."""
    chunks, tokens, *rest = x.shape
    return x.reshape(chunks, rows, tokens // rows, *rest).swapaxes(0, 1).reshape(rows, -1, *rest)
