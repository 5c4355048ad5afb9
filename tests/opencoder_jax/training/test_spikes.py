"""The guard against loss spikes: what it leaves out, what it lets through, and that it forgets nothing."""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given
from hypothesis import strategies as st

from opencoder_jax.recipe import UserError
from opencoder_jax.training.loop import train
from opencoder_jax.training.metrics import read_metrics
from opencoder_jax.training.spikes import WINDOW, SpikeState, skip_spikes
from tests.opencoder_jax.training.small_run import small_recipe

LIMIT = 6.0


@jax.jit
def run(losses: np.ndarray, norms: np.ndarray) -> tuple[jax.Array, SpikeState]:
    """Which updates went through, and the guard's state after the last."""
    guarded = skip_spikes(optax.trace(0.5), LIMIT)

    def one(state: Any, seen: Any) -> Any:
        loss, norm = seen
        made, state = guarded.update({"w": jnp.ones(())}, state, None, loss=loss, norm=norm)
        return state, made["w"] != 0

    state, kept = jax.lax.scan(one, guarded.init({"w": jnp.ones(())}), (losses, norms))
    return kept, state


def judged_by_numpy(losses: np.ndarray, norms: np.ndarray) -> list[bool]:
    """The rule in words: the last WINDOW updates that went through are what a new one is held against."""
    kept: list[bool] = []
    before: list[tuple[float, float]] = []
    for pair in zip(losses.tolist(), norms.tolist(), strict=True):
        fine = bool(np.isfinite(pair).all())
        if fine and len(before) >= WINDOW:
            last = np.array(before[-WINDOW:], np.float32)
            fine = bool((np.array(pair, np.float32) <= last.mean(0) + LIMIT * last.std(0)).all())
        kept.append(fine)
        if fine:
            before.append(pair)
    return kept


@given(
    st.integers(0, 2**32 - 1), st.lists(st.tuples(st.integers(0, 299), st.sampled_from([9.0, 50.0, np.inf, np.nan])))
)
def test_it_leaves_out_what_the_rule_says(seed: int, spikes: list[tuple[int, float]]) -> None:
    random = np.random.default_rng(seed)
    losses, norms = (random.normal(mean, 0.1, 300).astype(np.float32) for mean in (3, 1))
    for place, height in spikes:
        (losses if place % 2 else norms)[place] = height
    through, state = run(losses, norms)
    kept = np.asarray(through)
    assert kept.tolist() == judged_by_numpy(losses, norms)
    assert int(state.seen) == kept.sum()
    assert int(state.skipped) == (~kept).sum()
    # The moments inside moved with the updates that went through, and with no other.
    moment = 0.0
    for went in kept:
        moment = moment * 0.5 + 1 if went else moment
    np.testing.assert_allclose(state.inner.trace["w"], moment, rtol=1e-6)


@pytest.mark.slow
def test_a_guarded_run_that_is_stopped_goes_on_the_same(data: Path, tmp_path: Path) -> None:
    guarded = {"OptimizerConfig_spike_limit": LIMIT}
    train(small_recipe(**guarded), data, tmp_path / "whole")
    train(small_recipe(**guarded, TrainConfig_steps=4), data, tmp_path / "parts")
    train(small_recipe(**guarded), data, tmp_path / "parts")
    whole, parts = (read_metrics(tmp_path / name / "metrics.jsonl") for name in ("whole", "parts"))
    assert [row["loss"] for row in parts] == [row["loss"] for row in whole]
    assert whole[-1]["skipped"] == 0


@pytest.mark.slow
def test_without_spikes_it_changes_nothing(data: Path, tmp_path: Path) -> None:
    for name, limit in (("with", LIMIT), ("without", None)):
        train(small_recipe(OptimizerConfig_spike_limit=limit), data, tmp_path / name)
    one, other = (read_metrics(tmp_path / name / "metrics.jsonl") for name in ("with", "without"))
    assert [row["loss"] for row in one] == pytest.approx([row["loss"] for row in other], rel=1e-6)


@pytest.mark.slow
def test_a_run_of_spikes_stops(data: Path, tmp_path: Path) -> None:
    recipe = small_recipe(
        OptimizerConfig_spike_limit=LIMIT,
        OptimizerConfig_peak_learning_rate=1e38,
        OptimizerConfig_warmup_steps=0,
        TrainConfig_steps=40,
        TrainConfig_checkpoint_every=40,
    )
    with pytest.raises(UserError, match=r"the last 16 updates stood out .* raise OptimizerConfig\.spike_limit"):
        train(recipe, data, tmp_path / "run")


@pytest.mark.slow
def test_moments_of_a_guarded_run_need_a_guard(data: Path, tmp_path: Path) -> None:
    train(small_recipe(OptimizerConfig_spike_limit=LIMIT, TrainConfig_steps=2), data, tmp_path / "guarded")
    with pytest.raises(UserError, match=r"it has a spike guard; set OptimizerConfig\.spike_limit as there"):
        train(small_recipe(TrainConfig_steps=2), data, tmp_path / "next", init_from=tmp_path / "guarded")
