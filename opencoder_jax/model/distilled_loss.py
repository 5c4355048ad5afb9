"""Cross-entropy against the text and against a teacher's distributions, a few positions at a time.

Of a teacher's distribution only the k likeliest tokens are known, and how much lies on all others together. So the
student is compared with it on k + 1 events: each of the k tokens, and "any other". That is the divergence of the two
distributions as far as they are known, at most the whole one (data-processing inequality); it leaves the student free
in how it divides what lies on the others. To renormalise the k likeliest to one instead, as is often done, teaches to
be surer than the teacher (Sparse Logit Sampling, arXiv 2503.16870, section 3).

With s the student's softmax, p the teacher's probabilities of its tokens K, r what they lack to one and R what the
student gives all others, the gradient to a logit is s_j - p_j within K and s_j - r s_j / R outside.
"""

from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from opencoder_jax.model.loss import cut_along_rows, logits_of


def distilled_cross_entropy(
    hidden: Float[Array, "B S W"],
    head: Float[Array, "W V"],
    targets: Int[Array, "B S"],
    mask: Float[Array, "B S"],
    teacher_ids: Int[Array, "B S K"],
    teacher_log_probabilities: Float[Array, "B S K"],
    weight: Float[Array, ""] | float,
    chunk: int,
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """The summed loss in nats, mixed and of the text alone. Divide each by the summed mask for the mean.

    Args:
        hidden, head, targets, mask, chunk: as of loss.cross_entropy.
        teacher_ids: the tokens that the teacher held likeliest in the place of each target, all different; -1: none.
        teacher_log_probabilities: theirs, natural; -inf where there's none.
        weight: of the teacher, from 0 to 1; the text has the rest.

    Returns:
        (1 - weight) * cross-entropy + weight * cross-entropy to the teacher on its k + 1 events, and the cross-entropy
        alone, which gets no gradient.

    Raises:
        ValueError: S is no multiple of `chunk`.
    """
    length = hidden.shape[1]
    chunk = min(chunk, length)
    if length % chunk:
        raise ValueError(f"chunk={chunk}: must divide the row length {length}")
    with jax.named_scope("loss"):
        probabilities = jnp.exp(teacher_log_probabilities.astype(jnp.float32))
        # Rounded to half precision they may sum up to a little more than one.
        probabilities = probabilities / jnp.maximum(jnp.sum(probabilities, axis=-1, keepdims=True), 1.0)
        share = jnp.asarray(weight, jnp.float32)
        return _summed(hidden, head, targets, mask.astype(jnp.float32), teacher_ids, probabilities, share, chunk)


@partial(jax.custom_vjp, nondiff_argnums=(7,))
def _summed(
    hidden: Array, head: Array, targets: Array, mask: Array, ids: Array, probabilities: Array, share: Array, chunk: int
) -> tuple[Array, Array]:
    return _forward(hidden, head, targets, mask, ids, probabilities, share, chunk)[0]


def _forward(
    hidden: Array, head: Array, targets: Array, mask: Array, ids: Array, probabilities: Array, share: Array, chunk: int
) -> tuple[tuple[Array, Array], tuple[Array, Array]]:
    """Both losses, and the mixed one's gradients to `hidden` and `head`."""

    def one_chunk(
        sums: tuple[Array, Array, Array], item: tuple[Array, ...]
    ) -> tuple[tuple[Array, Array, Array], Array]:
        mixed, plain, to_head = sums
        h, target, weight, known, p = item
        logits, log_z, loss = logits_of(h, head, target)
        vocabulary = jnp.arange(logits.shape[1])
        # Sums over masks, no gathers: a mesh may divide the vocabulary. One for each of the k: XLA fuses them all.
        at = [vocabulary == known[:, which, None] for which in range(known.shape[1])]
        among = sum(at[1:], at[0])
        expected = sum(jnp.where(here, p[:, which, None], 0.0) for which, here in enumerate(at))
        rest = jnp.maximum(1.0 - jnp.sum(p, axis=1), 0.0)
        log_others = jax.nn.logsumexp(jnp.where(among, -jnp.inf, logits), axis=1)  # before the division by Z
        others = jnp.where(log_others > -jnp.inf, rest * (log_others - log_z), 0.0)  # where there are any
        to_teacher = -jnp.sum(expected * (logits - log_z[:, None]), axis=1) - others
        wanted = jnp.where(among, expected, rest[:, None] * jnp.exp(logits - log_others[:, None]))
        wanted = share * wanted + (1.0 - share) * (vocabulary == target[:, None])
        to_logits = weight[:, None] * (jnp.exp(logits - log_z[:, None]) - wanted)
        # As in loss.py: in memory once, in the dtype of the products.
        to_logits = jax.lax.optimization_barrier(to_logits.astype(h.dtype))
        to_hidden = jnp.einsum("tv,wv->tw", to_logits, head.astype(h.dtype))
        to_head += jnp.einsum("tw,tv->wv", h, to_logits, preferred_element_type=jnp.float32)
        mixed += jnp.sum(weight * (share * to_teacher + (1.0 - share) * loss))
        return (mixed, plain + jnp.sum(weight * loss), to_head), to_hidden

    zero = jnp.zeros((), jnp.float32)
    cut = cut_along_rows(chunk, hidden, targets, mask, ids, probabilities)
    (mixed, plain, to_head), chunks = jax.lax.scan(one_chunk, (zero, zero, jnp.zeros(head.shape, jnp.float32)), cut)
    rows, _, width = hidden.shape
    to_hidden = chunks.reshape(-1, rows, chunk, width).swapaxes(0, 1).reshape(hidden.shape)
    return (mixed, plain), (to_hidden, to_head.astype(head.dtype))


def _backward(chunk: int, gradients: tuple[Array, Array], above: tuple[Array, Array]) -> tuple[Array | None, ...]:
    with jax.named_scope("loss"):
        to_hidden, to_head = ((above[0] * gradient).astype(gradient.dtype) for gradient in gradients)
    return to_hidden, to_head, None, None, None, None, None


_summed.defvjp(_forward, _backward)
