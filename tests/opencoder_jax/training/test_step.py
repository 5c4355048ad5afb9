"""The training step: what it learns, and what must not change it."""

from collections.abc import Callable
from functools import cache, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from opencoder_jax.data.batches import Batch
from opencoder_jax.model.decoder import abstract
from opencoder_jax.parallel.mesh import make_mesh
from opencoder_jax.training.step import (
    StepMetrics,
    TrainState,
    compiled_train_step,
    initial_state,
    summed_loss,
)
from tests.opencoder_jax.training.small_run import small_recipe


def random_batch(rows: int = 8, length: int = 16) -> Batch:
    tokens = np.random.default_rng(1).integers(4, 300, (rows, length + 1), dtype=np.int32)
    positions = np.tile(np.arange(length, dtype=np.int32), (rows, 1))
    return Batch(tokens[:, :-1], tokens[:, 1:], positions, np.ones((rows, length), np.float32))


@cache
def programs(**changes: Any) -> tuple[Callable[[], TrainState], Callable[..., tuple[TrainState, StepMetrics]]]:
    """What makes a new state, and the step: traced once for all tests. Needs `jax.set_mesh`, as they do."""
    recipe = small_recipe(**changes)
    return jax.jit(partial(initial_state, recipe)), compiled_train_step(recipe, make_mesh(recipe.mesh))


def step_once(batch: Batch, **changes: Any) -> tuple[TrainState, StepMetrics]:
    with jax.set_mesh(make_mesh(small_recipe(**changes).mesh)):
        start, update = programs(**changes)
        return update(start(), batch, 1e-2)


def test_one_batch_is_learnt_by_heart() -> None:
    batch = random_batch()
    with jax.set_mesh(make_mesh(small_recipe().mesh)):
        start, update = programs()
        state = start()
        for _ in range(150):
            state, metrics = update(state, batch, 1e-2)
    assert metrics.loss < 0.02
    assert int(state.step) == 150


def test_saving_memory_changes_no_gradient() -> None:
    batch = random_batch()
    batch = batch._replace(loss_mask=(batch.tokens % 3 > 0).astype(np.float32))  # rows of unlike weight
    state, metrics = step_once(batch)
    changes = {"TrainConfig_microbatch": 2, "TrainConfig_loss_chunk": 4, "TrainConfig_remat": "full"}
    other, other_metrics = step_once(batch, **changes)
    np.testing.assert_allclose(other_metrics, metrics, rtol=1e-5)
    for one, two in zip(jax.tree.leaves(state.optimizer[1].mu), jax.tree.leaves(other.optimizer[1].mu), strict=True):
        np.testing.assert_allclose(two, one, rtol=1e-3, atol=1e-6)


def test_targets_that_are_masked_teach_nothing() -> None:
    batch = random_batch()
    mask = np.zeros_like(batch.loss_mask)
    mask[:, 5:9] = 1
    noise = np.where(mask > 0, batch.targets, 7)
    one, other = (step_once(batch._replace(loss_mask=mask, targets=targets)) for targets in (batch.targets, noise))
    assert all(jax.tree.leaves(jax.tree.map(jnp.array_equal, one, other)))


def test_norms_do_not_decay() -> None:
    batch = random_batch()
    batch = batch._replace(loss_mask=np.zeros_like(batch.loss_mask))  # no gradient: only the decay is left
    state, metrics = step_once(batch)
    assert metrics.loss == 0
    np.testing.assert_array_equal(state.parameters["final_norm"], 1)
    np.testing.assert_array_equal(state.parameters["layers"]["ffn_norm"], 1)
    with jax.set_mesh(make_mesh(small_recipe().mesh)):
        before = programs()[0]().parameters
    np.testing.assert_allclose(state.parameters["layers"]["gate"], before["layers"]["gate"] * (1 - 1e-3), rtol=1e-5)


def test_the_held_out_loss_is_the_training_loss_of_the_same_batch() -> None:
    recipe, batch = small_recipe(), random_batch()
    with jax.set_mesh(make_mesh(recipe.mesh)):
        parameters = programs()[0]().parameters
        loss, targets = jax.jit(partial(summed_loss, abstract(recipe.model)[0], recipe))(parameters, batch)
    assert targets == batch.loss_mask.sum()
    np.testing.assert_allclose(loss / targets, step_once(batch)[1].loss, rtol=1e-6)


@pytest.mark.parametrize(("rows", "parts", "microbatch"), [(8, 3, None), (8, 2, 3), (6, 1, 4)])
def test_rows_that_cannot_be_divided_are_refused(rows: int, parts: int, microbatch: int | None) -> None:
    train = small_recipe(TrainConfig_microbatch=microbatch).train
    with pytest.raises(ValueError, match=f"a batch of {rows} rows can't be divided over {parts}"):
        train.microbatches(rows, parts)
