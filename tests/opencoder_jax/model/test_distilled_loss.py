"""The loss against text and teacher, and its gradients, against the plain formula, all logits at once, in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from opencoder_jax.model.distilled_loss import distilled_cross_entropy
from opencoder_jax.model.loss import cross_entropy

ROWS, LENGTH, WIDTH, VOCABULARY, K = 3, 8, 8, 40, 4


def inputs(seed: int = 0, k: int = K) -> tuple[np.ndarray, ...]:
    """Hidden states, head, targets, mask; a teacher's tokens and their log-probabilities."""
    random = np.random.default_rng(seed)
    ids = np.stack([random.permutation(VOCABULARY)[:k] for _ in range(ROWS * LENGTH)]).reshape(ROWS, LENGTH, k)
    shares = random.dirichlet(np.ones(k + 1), (ROWS, LENGTH))[..., :k]
    return (
        random.standard_normal((ROWS, LENGTH, WIDTH)).astype(np.float32),
        2 * random.standard_normal((WIDTH, VOCABULARY)).astype(np.float32),
        random.integers(0, VOCABULARY, (ROWS, LENGTH)).astype(np.int32),
        random.integers(0, 2, (ROWS, LENGTH)).astype(np.float32),
        ids.astype(np.int32),
        np.log(shares).astype(np.float32),
    )


def oracle(
    hidden: np.ndarray,
    head: np.ndarray,
    targets: np.ndarray,
    mask: np.ndarray,
    ids: np.ndarray,
    log_probabilities: np.ndarray,
    weight: float,
) -> tuple[float, float]:
    """Both losses, one position after the other: over the events "this token" of the k, and "any other"."""
    mixed = plain = 0.0
    logits = hidden.astype(np.float64) @ head.astype(np.float64)
    for row, place in np.ndindex(targets.shape):
        z = logits[row, place]
        s = np.exp(z) / np.exp(z).sum()
        text = -np.log(s[targets[row, place]])
        known = ids[row, place] >= 0
        which, p = ids[row, place][known], np.exp(log_probabilities[row, place][known].astype(np.float64))
        others = np.setdiff1d(np.arange(VOCABULARY), which)
        rest = max(0.0, 1 - p.sum())
        teacher = -np.sum(p * np.log(s[which])) - (rest * np.log(s[others].sum()) if rest else 0)
        mixed += mask[row, place] * ((1 - weight) * text + weight * teacher)
        plain += mask[row, place] * text
    return mixed, plain


@pytest.mark.parametrize("chunk", [1, 4, 1024])
@pytest.mark.parametrize("weight", [0.0, 0.3, 1.0])
def test_losses_and_gradients_are_those_of_the_formula(weight: float, chunk: int) -> None:
    """The gradients by differences of the formula in float64: its own derivation isn't trusted with itself."""
    hidden, head, *rest = inputs()

    def ours(hidden: jax.Array, head: jax.Array) -> tuple[jax.Array, jax.Array]:
        return distilled_cross_entropy(hidden, head, *rest, weight, chunk)

    (mixed, plain), gradients = jax.jit(jax.value_and_grad(ours, argnums=(0, 1), has_aux=True))(hidden, head)
    np.testing.assert_allclose((mixed, plain), oracle(hidden, head, *rest, weight), rtol=1e-5)
    random = np.random.default_rng(1)
    for _ in range(4):  # along directions in which everything moves at once
        step_h, step_w = (random.standard_normal(x.shape) for x in (hidden, head))
        ends = [
            oracle(hidden + side * 1e-5 * step_h, head + side * 1e-5 * step_w, *rest, weight)[0] for side in (1, -1)
        ]
        along = sum(float(np.sum(g * step)) for g, step in zip(gradients, (step_h, step_w), strict=True))
        assert along == pytest.approx((ends[0] - ends[1]) / 2e-5, rel=1e-4, abs=1e-4)


def test_without_weight_and_without_a_teacher_it_is_the_plain_one() -> None:
    hidden, head, targets, mask, ids, log_probabilities = inputs()
    plain = cross_entropy(hidden, head, targets, mask, 4)
    none = np.full_like(ids, -1), np.full_like(log_probabilities, -np.inf)
    for known, weight in (((ids, log_probabilities), 0.0), (none, 0.0)):
        mixed, told = distilled_cross_entropy(hidden, head, targets, mask, *known, weight, 4)
        np.testing.assert_allclose((mixed, told), (plain, plain), rtol=1e-6)
    # Of a teacher who says nothing only "any token" is left, which everyone expects.
    mixed, told = distilled_cross_entropy(hidden, head, targets, mask, *none, 1.0, 4)
    np.testing.assert_allclose((mixed, told), (0, plain), rtol=1e-6, atol=1e-5)


def test_a_teacher_who_is_the_student_changes_nothing() -> None:
    """At its own distribution the gradient is zero, however few tokens of it are known."""
    hidden, head, targets, mask, *_ = inputs()
    log_shares = jax.nn.log_softmax(hidden @ head)
    known, ids = jax.lax.top_k(log_shares, K)
    gradients = jax.grad(
        lambda h, w: distilled_cross_entropy(h, w, targets, mask, ids, known, 1.0, 4)[0], argnums=(0, 1)
    )(hidden, head)
    for gradient in gradients:
        np.testing.assert_allclose(gradient, 0, atol=1e-5)


def test_a_whole_vocabulary_of_half_precision_gives_numbers() -> None:
    """Rounded shares sum up to more than one, and nothing is left for the others, of which there are none."""
    hidden, head, targets, mask, *_ = inputs()
    ids = np.broadcast_to(np.arange(VOCABULARY, dtype=np.int32), (ROWS, LENGTH, VOCABULARY))
    rounded = np.log(np.full(ids.shape, 1.001 / VOCABULARY)).astype(np.float16)
    loss, gradient = jax.value_and_grad(
        lambda h: distilled_cross_entropy(h, head, targets, mask, ids, rounded, 1.0, 4)[0]
    )(jnp.asarray(50 * hidden))
    assert np.isfinite(loss)
    assert np.isfinite(gradient).all()


def test_a_row_that_is_no_multiple_of_a_chunk_is_refused() -> None:
    with pytest.raises(ValueError, match="chunk=3"):
        distilled_cross_entropy(*inputs(), 0.5, 3)
