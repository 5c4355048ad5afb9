"""Cross-entropy of a large vocabulary, a few positions at a time.

The logits of a whole batch are the largest array of a training step (OpenCoder's vocabulary is 96,640; one row of 4096
tokens has 1.6 GB of them). Here a chunk of positions is turned into logits, reduced to its loss and forgotten; the
backward pass makes the logits of the chunk again. That costs one more multiplication by the head.
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
    batch, length, width = hidden.shape
    chunk = min(chunk, length)
    if length % chunk:
        raise ValueError(f"chunk={chunk}: must divide the row length {length}")

    # Chunks are cut along the row: a mesh divides the rows. Within a chunk all tokens are one axis.
    def in_chunks(x: Array) -> Array:
        cut = x.reshape(batch, length // chunk, chunk, *x.shape[2:]).swapaxes(0, 1)
        return cut.reshape(length // chunk, batch * chunk, *x.shape[2:])

    @partial(jax.checkpoint, prevent_cse=False)
    def one_chunk(total: Array, item: tuple[Array, Array, Array]) -> tuple[Array, None]:
        h, target, weight = item
        logits = jnp.einsum("tw,wv->tv", h, head.astype(h.dtype), preferred_element_type=jnp.float32)
        log_z = jax.nn.logsumexp(logits, axis=-1)
        chosen = jnp.take_along_axis(logits, target[:, None], axis=-1)[:, 0]
        return total + jnp.sum(weight * (log_z - chosen + z_loss * jnp.square(log_z))), None

    items = (in_chunks(hidden), in_chunks(targets), in_chunks(mask.astype(jnp.float32)))
    total, _ = jax.lax.scan(one_chunk, jnp.zeros((), jnp.float32), items)
    return total, jnp.sum(mask, dtype=jnp.float32)
