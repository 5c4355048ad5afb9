"""The recipe of a run so small that its steps take milliseconds."""

from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np

from opencoder_jax.data.batches import Batches, DataConfig
from opencoder_jax.data.token_records import TokenRecords
from opencoder_jax.distillation.distributions import DistributionsWriter, Layout, seal
from opencoder_jax.distillation.taught import TaughtBatches
from opencoder_jax.model.config import ModelConfig
from opencoder_jax.parallel.mesh import MeshConfig, make_mesh
from opencoder_jax.training.feed import global_batch
from opencoder_jax.training.optimizer import OptimizerConfig
from opencoder_jax.training.run import Recipe, TrainConfig
from opencoder_jax.training.step import abstract_state, compiled_train_step, initial_state

VOCABULARY = 300
SMALL: dict[str, Any] = {
    "ModelConfig.vocab_size": VOCABULARY,
    "ModelConfig.layers": 2,
    "ModelConfig.width": 32,
    "ModelConfig.heads": 4,
    "ModelConfig.kv_heads": 2,
    "ModelConfig.head_size": 8,
    "ModelConfig.ffn_width": 64,
    "ModelConfig.context": 64,
    "ModelConfig.dtype": "float32",
    "DataConfig.mixture": {"refinecode": 1.0},
    "DataConfig.phases": ((0, 16, 8),),
    "OptimizerConfig.peak_learning_rate": 1e-2,
    "OptimizerConfig.warmup_steps": 2,
    "TrainConfig.steps": 6,
    "TrainConfig.loss_chunk": 16,
    "TrainConfig.log_every": 1,
    "TrainConfig.checkpoint_every": 2,
    "TrainConfig.keep": 3,
}


def small_recipe(**changes: Any) -> Recipe:
    """The small recipe with fields changed; `TrainConfig_steps=8` stands for TrainConfig.steps."""
    fields = SMALL | {name.replace("_", ".", 1): value for name, value in changes.items()}

    def build(config: type[Any]) -> Any:
        own = f"{config.__name__}."
        return config(**{name.removeprefix(own): value for name, value in fields.items() if name.startswith(own)})

    recipe = Recipe(*map(build, (ModelConfig, DataConfig, MeshConfig, OptimizerConfig, TrainConfig)))
    recipe.check()
    return recipe


def write_teacher(directory: Path, records: TokenRecords, k: int = 4, seed: int = 0) -> None:
    """Distributions of a teacher who knows nothing: k different tokens in the place of each."""
    random, layout = np.random.default_rng(seed), Layout(k, wide=False)
    for shard in range(records.shards):
        first, stop = (records.start(record) for record in records.first_records[shard : shard + 2])
        writer = DistributionsWriter(directory, shard, records.shards, layout)
        ids = np.stack([random.permutation(VOCABULARY)[:k] for _ in range(stop - first)])
        shares = np.sort(random.dirichlet(np.ones(k + 1), stop - first)[:, :k])[:, ::-1]
        writer.write(ids, np.log(shares))
        writer.close()
    seal(directory, records, f"nobody, of {seed}", layout)


def first_steps(data: Path, **changes: Any) -> list[list[float]]:
    """Loss and gradient norm of the first three updates, on all devices of this process.

    The initial weights are drawn on one of them: here the mesh is put to the test, not the random numbers.
    """
    recipe = small_recipe(**changes)
    mesh = make_mesh(recipe.mesh)
    batches: Batches | TaughtBatches = Batches(recipe.data, data, pad=3, end_of_document=2)
    if isinstance(batches, Batches) and recipe.data.teacher:
        batches = TaughtBatches(batches, data)
    state = jax.device_get(jax.jit(partial(initial_state, recipe))())
    rows = []
    with jax.set_mesh(mesh):
        state = jax.tree.map(lambda x, shape: jax.device_put(x, shape.sharding), state, abstract_state(recipe, mesh))
        update = compiled_train_step(recipe, mesh)
        for step in range(3):
            state, measured = update(state, global_batch(batches, step, mesh, VOCABULARY), 1e-2)
            rows.append([float(measured.loss), float(measured.gradient_norm)])
    return rows
