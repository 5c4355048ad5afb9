"""The chunked cross-entropy against the plain one, all logits at once, in float64."""

from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from opencoder_jax.model.loss import cross_entropy

ROWS, LENGTH, WIDTH, VOCABULARY = 3, 16, 8, 50


def inputs(seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    return (
        random.standard_normal((ROWS, LENGTH, WIDTH)).astype(np.float32),
        3 * random.standard_normal((WIDTH, VOCABULARY)).astype(np.float32),
        random.integers(0, VOCABULARY, (ROWS, LENGTH)).astype(np.int32),
        random.integers(0, 2, (ROWS, LENGTH)).astype(np.float32),
    )


def plain(
    hidden: np.ndarray, head: np.ndarray, targets: np.ndarray, mask: np.ndarray
) -> tuple[float, np.ndarray, np.ndarray]:
    """The loss and its gradients to `hidden` and `head`, by the formula."""
    hidden, head = hidden.astype(np.float64), head.astype(np.float64)
    logits = hidden @ head
    log_z = np.log(np.exp(logits).sum(-1, keepdims=True))
    right = np.eye(VOCABULARY)[targets]
    loss = np.sum(mask * (log_z - (logits * right).sum(-1, keepdims=True))[..., 0])
    probabilities = np.exp(logits - log_z)
    to_logits = mask[..., None] * (probabilities - right)
    return loss, to_logits @ head.T, np.einsum("bsw,bsv->wv", hidden, to_logits)


@pytest.mark.parametrize("chunk", [1, 4, 16, 1024])
def test_loss_and_gradients_equal_the_plain_ones(chunk: int) -> None:
    hidden, head, targets, mask = inputs()

    def ours(hidden: jax.Array, head: jax.Array) -> jax.Array:
        return cross_entropy(hidden, head, targets, mask, chunk)

    loss, gradients = jax.jit(jax.value_and_grad(ours, argnums=(0, 1)))(hidden, head)
    expected, *expected_gradients = plain(hidden, head, targets, mask)
    assert loss.dtype == jnp.float32
    np.testing.assert_allclose(loss, expected, rtol=1e-6)
    for found, right in zip(gradients, expected_gradients, strict=True):
        np.testing.assert_allclose(found, right, atol=2e-5)


def test_bfloat16_is_summed_in_float32() -> None:
    hidden, head, targets, mask = inputs()
    rounded = hidden.astype(jnp.bfloat16), head.astype(jnp.bfloat16)
    loss = cross_entropy(rounded[0], head, targets, mask, 4)
    expected, *_ = plain(*(np.asarray(x, np.float32) for x in rounded), targets, mask)
    np.testing.assert_allclose(loss, expected, rtol=1e-6)


def test_large_logits_do_not_overflow() -> None:
    hidden, head, targets, mask = inputs()
    loss = cross_entropy(1e3 * hidden, head, targets, mask, 4)
    assert np.isfinite(loss)


def test_a_row_that_is_no_multiple_of_the_chunk_is_refused() -> None:
    hidden, head, targets, mask = inputs()
    with pytest.raises(ValueError, match="chunk=5"):
        cross_entropy(hidden, head, targets, mask, 5)


def test_the_logits_of_a_batch_are_never_held() -> None:
    """No array of the whole computation, backward pass included, has a logit for more than a chunk's tokens."""
    hidden, head, targets, mask = inputs()
    gradient = jax.grad(lambda h, w: cross_entropy(h, w, targets, mask, 2), argnums=(0, 1))
    sizes = {shape for shape in shapes(jax.make_jaxpr(gradient)(hidden, head).jaxpr) if shape[-1:] == (VOCABULARY,)}
    assert (ROWS * 2, VOCABULARY) in sizes
    assert max(int(np.prod(shape)) for shape in sizes) == max(ROWS * 2, WIDTH) * VOCABULARY


def shapes(jaxpr: Any) -> Iterator[tuple[int, ...]]:
    """The shapes of all values of a program and of those inside it."""
    for equation in jaxpr.eqns:
        for value in equation.outvars:
            yield value.aval.shape
        for parameter in jax.tree.leaves(equation.params, is_leaf=lambda leaf: hasattr(leaf, "eqns")):
            inner = getattr(parameter, "jaxpr", parameter)
            if hasattr(inner, "eqns"):
                yield from shapes(inner)
