"""Drawing a token: the right frequencies, the right filters, and nothing but a row's own decides."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from opencoder_jax.inference.sampling import ONE, SamplingConfig, Settings, draw, least_kept, penalised, random_numbers

PROBABILITIES = np.array([0.5, 0.0, 0.3, 0.15, 0.05, 0.0])
ROWS = 20_000

drawn, kept_from = jax.jit(draw), jax.jit(least_kept)


def settings(*configs: SamplingConfig) -> Settings:
    names = ("temperature", "top_k", "top_p", "min_p", "repetition_penalty")
    kinds = (np.float32, np.int32, np.float32, np.float32, np.float32)
    return Settings(
        *(
            jnp.array([getattr(config, name) for config in configs], kind)
            for name, kind in zip(names, kinds, strict=True)
        )
    )


def shares(**fields: Any) -> np.ndarray:
    """How often each token is drawn, by rows with seeds 0, 1, 2, ..."""
    with np.errstate(divide="ignore"):
        logits = np.tile(np.log(PROBABILITIES).astype(np.float32), (ROWS, 1))
    all_ = jax.tree.map(lambda each: jnp.repeat(each, ROWS), settings(SamplingConfig(**fields)))
    random = np.array([random_numbers(0, seed, 1)[0] for seed in range(ROWS)])
    return np.bincount(drawn(logits, all_, random), minlength=len(PROBABILITIES)) / ROWS


@pytest.mark.parametrize("temperature", [0.5, *(pytest.param(other, marks=pytest.mark.slow) for other in (1.0, 2.0))])
def test_tokens_are_drawn_as_often_as_they_are_likely(temperature: float) -> None:
    expected = PROBABILITIES ** (1 / temperature)
    expected /= expected.sum()
    found = shares(temperature=temperature)
    np.testing.assert_allclose(found, expected, atol=4 * np.sqrt(0.25 / ROWS))
    assert np.all(found[PROBABILITIES == 0] == 0)


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"top_p": 0.75}, [0.625, 0, 0.375, 0, 0, 0]),
        ({"top_k": 2}, [0.625, 0, 0.375, 0, 0, 0]),
        ({"min_p": 0.25}, [0.5 / 0.95, 0, 0.3 / 0.95, 0.15 / 0.95, 0, 0]),
        ({"top_k": 3, "top_p": 0.9}, [0.5 / 0.95, 0, 0.3 / 0.95, 0.15 / 0.95, 0, 0]),
        ({"top_k": 3, "top_p": 0.8}, [0.625, 0, 0.375, 0, 0, 0]),  # of what top_k leaves
        ({"top_p": 1e-9}, [1, 0, 0, 0, 0, 0]),
        ({"temperature": 0.0}, [1, 0, 0, 0, 0, 0]),
    ],
)
def test_only_what_filters_leave_is_drawn(fields: dict[str, Any], expected: list[float]) -> None:
    found = shares(**{"temperature": 1.0, **fields})
    np.testing.assert_allclose(found, expected, atol=4 * np.sqrt(0.25 / ROWS))
    assert np.all(found[np.array(expected) == 0] == 0)


def test_each_row_has_its_own_settings() -> None:
    logits = np.tile(np.random.default_rng(0).standard_normal(300).astype(np.float32), (8, 1))
    configs = [SamplingConfig(temperature=t, top_p=p, top_k=k) for t in (0.0, 1.5) for p in (0.3, 1.0) for k in (0, 4)]
    numbers = np.arange(8, dtype=np.uint32) * 130_000_007
    together = drawn(logits, settings(*configs), numbers)
    for row, config in enumerate(configs):
        assert together[row] == drawn(logits[:1], settings(config), numbers[row : row + 1])[0]


def test_random_numbers_are_a_function_of_seeds_and_place() -> None:
    first = random_numbers(3, 5, 10)
    assert np.array_equal(random_numbers(3, 5, 20)[:10], first)
    assert not any(np.array_equal(random_numbers(*seeds, 10), first) for seeds in ((3, 6), (4, 5), (5, 3)))
    assert random_numbers(2**32 - 1, 2**32 - 1, 1000).max() < ONE


@given(st.integers(0, 10**6), st.sampled_from([1e-6, 0.1, 0.5, 0.9, 0.999]), st.integers(0, 45), st.floats(0.1, 30))
def test_what_is_kept_is_what_sorting_keeps(seed: int, top_p: float, top_k: int, spread: float) -> None:
    logits = spread * np.random.default_rng(seed).standard_normal(40)
    masses = np.round(np.exp(logits - logits.max()) / np.exp(logits - logits.max()).sum() * ONE).astype(np.int64)
    least = int(kept_from(masses[None].astype(np.int32), settings(SamplingConfig(1.0, top_k, top_p)))[0])
    descending = np.sort(masses)[::-1][: top_k or None]
    enough = int(np.argmax(np.cumsum(descending) >= np.float32(top_p) * descending.sum() * (1 - 1e-6)))
    few, more = descending[enough], descending[min(enough + 1, len(descending) - 1)]
    assert least in (max(few, 1), max(more, 1))  # the sum is compared in float32


def test_equally_likely_tokens_stay_together() -> None:
    masses = (np.array([[0.4, 0.2, 0.2, 0.2]]) * ONE).astype(np.int32)
    assert kept_from(masses, settings(SamplingConfig(1.0, top_p=0.5)))[0] == masses[0, 1]
    assert kept_from(masses, settings(SamplingConfig(1.0, top_k=2)))[0] == masses[0, 1]


def test_the_repetition_penalty_lowers_what_was_seen() -> None:
    logits = jnp.array([[2.0, -2.0, 3.0], [2.0, -2.0, 3.0]])
    both = settings(SamplingConfig(repetition_penalty=2.0), SamplingConfig())
    seen = jnp.array([[True, True, False], [True, True, True]])
    assert penalised(logits, both, lambda: seen).tolist() == [[1.0, -4.0, 3.0], [2.0, -2.0, 3.0]]


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"temperature": -1.0}, "temperature=-1"),
        ({"top_p": 0.0}, "top_p=0"),
        ({"top_k": -1}, "top_k=-1"),
        ({"min_p": 2.0}, "min_p=2"),
        ({"repetition_penalty": 0.0}, "repetition_penalty=0"),
        ({"max_tokens": 0}, "max_tokens=0"),
        ({"seed": -1}, "seed=-1"),
    ],
)
def test_what_makes_no_sense_is_refused_by_name(fields: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        SamplingConfig(**fields)
