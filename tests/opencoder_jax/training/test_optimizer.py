"""Schedules at the published figures, and AdamW against the formula."""

from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from opencoder_jax.training.optimizer import SCHEDULES, OptimizerConfig, adamw, decay_mask, learning_rate


def test_pretraining_warms_up_and_stays() -> None:
    config = OptimizerConfig(peak_learning_rate=3e-4, warmup_steps=2000)
    rates = {step: learning_rate(config, 484_865, step) for step in (0, 999, 1999, 2000, 484_864)}
    assert rates == pytest.approx({0: 1.5e-7, 999: 1.5e-4, 1999: 3e-4, 2000: 3e-4, 484_864: 3e-4})


@pytest.mark.parametrize("steps", [23_841, 11_920])
def test_annealing_falls_exponentially(steps: int) -> None:
    config = OptimizerConfig(3e-4, 0, "exponential", final_learning_rate=1e-5)
    for step in (0, 1, steps // 2, steps):
        assert learning_rate(config, steps, step) == pytest.approx(3e-4 * (1 / 30) ** (step / steps))


def test_tuning_follows_a_cosine() -> None:
    config = OptimizerConfig(2e-5, 100, "cosine")
    rates = {step: learning_rate(config, 1028, step) for step in (0, 99, 100, 564, 1028)}
    assert rates == pytest.approx({0: 2e-7, 99: 2e-5, 100: 2e-5, 564: 1e-5, 1028: 0.0}, abs=1e-12)


@given(st.sampled_from(SCHEDULES), st.integers(0, 50), st.integers(51, 200), st.floats(1e-6, 1.0))
def test_no_schedule_leaves_its_bounds(schedule: str, warmup: int, steps: int, peak: float) -> None:
    config = OptimizerConfig(peak, warmup, schedule, final_learning_rate=peak / 30)
    rates = np.array([learning_rate(config, steps, step) for step in range(steps)])
    assert rates.min() > 0
    assert rates.max() <= peak * (1 + 1e-12)
    assert np.all(np.diff(rates[:warmup]) > 0)
    assert np.all(np.diff(rates[warmup:]) <= 0)


def test_adamw_is_the_formula() -> None:
    config = OptimizerConfig(beta1=0.8, beta2=0.9, epsilon=1e-3, weight_decay=0.1, clip_norm=2.0)
    random = np.random.default_rng(0)
    weights = {name: random.normal(size=size).astype(np.float32) for name, size in (("matrix", (3, 4)), ("scale", 4))}
    optimizer = adamw(config, decay_mask({"matrix": ("layers", "width", "ffn"), "scale": ("layers", "width")}))
    state = optimizer.init({name: jnp.asarray(weight, jnp.float32) for name, weight in weights.items()})
    first = {name: np.zeros_like(weight) for name, weight in weights.items()}
    second = {name: np.zeros_like(weight) for name, weight in weights.items()}
    for update in range(1, 4):
        gradient = {name: 3 * random.normal(size=weight.shape).astype(np.float32) for name, weight in weights.items()}
        updates, state = optimizer.update(gradient, state, weights)
        norm = np.sqrt(sum(np.sum(g**2) for g in gradient.values()))
        for name, weight in weights.items():
            clipped = gradient[name] * min(1, 2.0 / norm)
            first[name] = 0.8 * first[name] + 0.2 * clipped
            second[name] = 0.9 * second[name] + 0.1 * clipped**2
            expected = first[name] / (1 - 0.8**update) / (np.sqrt(second[name] / (1 - 0.9**update)) + 1e-3)
            expected += 0.1 * weight if name == "matrix" else 0
            np.testing.assert_allclose(updates[name], expected, rtol=1e-5)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"schedule": "linear"}, "must be one of stable, exponential, cosine"),
        ({"peak_learning_rate": 0.0}, "peak_learning_rate=0.0: must be above 0"),
        ({"schedule": "exponential"}, "never reaches 0"),
        ({"final_learning_rate": 1.0}, "final_learning_rate=1.0: must be between 0 and 0.0003"),
        ({"warmup_steps": -1}, "warmup_steps=-1"),
        ({"beta2": 1.0}, "beta2=1.0"),
        ({"clip_norm": 0.0}, "clip_norm=0.0"),
        ({"weight_decay": -0.1}, "weight_decay=-0.1"),
    ],
)
def test_nonsense_is_refused(fields: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        OptimizerConfig(**fields)
