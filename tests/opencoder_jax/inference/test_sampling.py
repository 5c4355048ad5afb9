"""Drawing a token: the right frequencies, the right nucleus, and nothing but the seeds and the length decide."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from opencoder_jax.inference.sampling import SamplingConfig, choose, nucleus

drawn = jax.jit(choose, static_argnums=1)
PROBABILITIES = np.array([0.5, 0.0, 0.3, 0.15, 0.05, 0.0])
ROWS = 20_000


def shares(config: SamplingConfig) -> np.ndarray:
    """How often each token is drawn, by rows with seeds 0, 1, 2, ..."""
    with np.errstate(divide="ignore"):
        logits = np.tile(np.log(PROBABILITIES).astype(np.float32), (ROWS, 1))
    tokens = drawn(logits, config, jnp.arange(ROWS), jnp.int32(0))
    return np.bincount(tokens, minlength=len(PROBABILITIES)) / ROWS


@pytest.mark.parametrize("temperature", [1.0, 0.5, 2.0])
def test_tokens_are_drawn_as_often_as_they_are_likely(temperature: float) -> None:
    expected = PROBABILITIES ** (1 / temperature)
    expected /= expected.sum()
    found = shares(SamplingConfig(temperature=temperature))
    np.testing.assert_allclose(found, expected, atol=4 * np.sqrt(0.25 / ROWS))
    assert np.all(found[PROBABILITIES == 0] == 0)


def test_only_the_nucleus_is_drawn_from() -> None:
    found = shares(SamplingConfig(temperature=1.0, top_p=0.75))
    np.testing.assert_allclose(found, [0.625, 0, 0.375, 0, 0, 0], atol=4 * np.sqrt(0.25 / ROWS))


def test_greedy_takes_the_likeliest() -> None:
    assert shares(SamplingConfig()).tolist() == [1, 0, 0, 0, 0, 0]


def test_only_seeds_and_length_decide() -> None:
    config = SamplingConfig(temperature=1.0)
    logits = np.random.default_rng(0).standard_normal((8, 50)).astype(np.float32)
    seeds = np.arange(8)
    tokens = drawn(logits, config, seeds, 3)
    order = np.array([5, 1, 7, 0, 2, 6, 4, 3])
    assert np.array_equal(drawn(logits[order], config, seeds[order], 3), tokens[order])
    assert not np.array_equal(drawn(logits, config, seeds, 4), tokens)
    assert not np.array_equal(drawn(logits, config, seeds + 8, 3), tokens)
    assert not np.array_equal(drawn(logits, SamplingConfig(temperature=1.0, seed=1), seeds, 3), tokens)


jitted_nucleus = jax.jit(nucleus, static_argnums=1)


@given(st.integers(0, 10**6), st.sampled_from([1e-6, 0.1, 0.5, 0.9, 0.999]), st.floats(0.1, 30))
def test_the_nucleus_is_that_of_sorting(seed: int, top_p: float, spread: float) -> None:
    logits = spread * np.random.default_rng(seed).standard_normal((1, 40))
    probabilities = np.asarray(jax.nn.softmax(jnp.asarray(logits, jnp.float32)))
    found = np.asarray(jitted_nucleus(probabilities, top_p))[0]
    kept = found > 0
    np.testing.assert_array_equal(found[kept], probabilities[0, kept])
    descending = np.sort(probabilities[0].astype(np.float64))[::-1]
    count = int(kept.sum())
    assert found[kept].min() == np.float32(descending[count - 1])
    # Together enough, and without the last one not; sums in float32 may differ in the last place.
    assert descending[:count].sum() >= top_p - 1e-6
    assert descending[: count - 1].sum() < top_p + 1e-6


def test_equally_likely_tokens_stay_together() -> None:
    found = jitted_nucleus(np.array([[0.4, 0.2, 0.2, 0.2]], np.float32), 0.5)
    np.testing.assert_array_equal(found, np.array([[0.4, 0.2, 0.2, 0.2]], np.float32))


@pytest.mark.parametrize(
    ("fields", "words"),
    [({"temperature": -1.0}, "temperature=-1"), ({"top_p": 0.0}, "top_p=0"), ({"max_tokens": 0}, "max_tokens=0")],
)
def test_what_makes_no_sense_is_refused_by_name(fields: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        SamplingConfig(**fields)
