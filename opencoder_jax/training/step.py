"""One update of the weights, as a pure function of a recipe, a state, a batch and a learning rate.

`abstract_state` is the one description of a state and of how it lies on a mesh: initialising, restoring and compiling
start from it. Parameters, gradients and moments are float32 (16 bytes a parameter while a step runs); the matrices are
multiplied in `ModelConfig.dtype`.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple, Self

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jax.sharding import AbstractMesh, Mesh, PartitionSpec
from jaxtyping import Array, Float, Int, PyTree

from opencoder_jax.data.batches import Batch
from opencoder_jax.distillation.taught import TaughtBatch
from opencoder_jax.model import decoder
from opencoder_jax.model.distilled_loss import distilled_cross_entropy
from opencoder_jax.model.loss import cross_entropy
from opencoder_jax.parallel import mesh as meshes
from opencoder_jax.training.optimizer import adamw, decay_mask
from opencoder_jax.training.run import Recipe
from opencoder_jax.training.spikes import SpikeState


class TrainState(NamedTuple):
    """All that changes while a model is trained. The position in the data is the step, so nothing else is needed."""

    step: Int[Array, ""]  # updates made so far in this stage
    parameters: PyTree[Float[Array, "..."]]  # nested dictionaries, named as the decoder's attributes
    optimizer: optax.OptState

    @property
    def items(self) -> dict[str, PyTree]:
        """What a checkpoint of the state holds."""
        return {"parameters": self.parameters, "optimizer": self.optimizer}

    def restored(self, step: int, items: Mapping[str, PyTree]) -> Self:
        """The state of a checkpoint; this one says how it lies on the mesh, and gives what `items` lacks."""
        return self._replace(step=jax.device_put(np.int32(step), self.step.sharding), **items)


class StepMetrics(NamedTuple):
    """What an update tells: the batch's mean loss in nats a token, and the gradient's norm before clipping.

    And, where a guard stands (spikes.py), how many updates it left out, in all and since the last that it didn't.
    """

    loss: Float[Array, ""]
    gradient_norm: Float[Array, ""]
    skipped: Int[Array, ""]
    skipped_in_a_row: Int[Array, ""]


def optimizer_of(recipe: Recipe) -> optax.GradientTransformationExtraArgs:
    """The recipe's optimizer; norms don't decay."""
    return adamw(recipe.optimizer, decay_mask(decoder.weight_axes(recipe.model)))


def initial_state(recipe: Recipe) -> TrainState:
    """Step 0: weights drawn from `TrainConfig.seed`, the same on every mesh."""
    parameters = nnx.to_pure_dict(nnx.split(decoder.Decoder(recipe.model, nnx.Rngs(recipe.train.seed)))[1])
    return TrainState(jnp.zeros((), jnp.int32), parameters, optimizer_of(recipe).init(parameters))


def abstract_state(recipe: Recipe, mesh: Mesh | AbstractMesh) -> TrainState:
    """The state's shapes, dtypes and shardings, without its numbers.

    Raises:
        ValueError: a weight can't be divided over the mesh; the message says which size and which mesh axis.
    """
    shapes = jax.eval_shape(lambda: initial_state(recipe))
    weights = jax.tree.map(
        lambda shape, axes: meshes.weight_sharding(mesh, axes, shape.shape),
        shapes.parameters,
        decoder.weight_axes(recipe.model),
    )
    moments = meshes.optimizer_shardings(optimizer_of(recipe), shapes.optimizer, weights, mesh)
    return TrainState(
        *(
            jax.tree.map(lambda shape, sharding: shape.update(sharding=sharding), part, shardings)
            for part, shardings in zip(shapes, (meshes.replicated(mesh), weights, moments), strict=True)
        )
    )


def summed_loss(
    graphdef: nnx.GraphDef, recipe: Recipe, parameters: PyTree, batch: Batch
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """The summed loss of a batch in nats, and how many targets it has. Needs `jax.set_mesh`, as `train_step` does."""

    def loss(part: Batch) -> Float[Array, ""]:
        return _losses(graphdef, recipe, parameters, part)[-1]

    return _over_microbatches(recipe, batch, loss), jnp.sum(batch.loss_mask)


def train_step(
    graphdef: nnx.GraphDef,
    recipe: Recipe,
    state: TrainState,
    batch: Batch | TaughtBatch,
    learning_rate: Float[Array, ""] | float,
) -> tuple[TrainState, StepMetrics]:
    """One update: the mean loss over the batch's targets, its gradient, AdamW. Needs `jax.set_mesh`.

    A batch too large for the memory is gone through in microbatches of `TrainConfig.microbatch` rows on each
    data-parallel device; the gradient is that of the whole batch, however many they are (up to rounding).

    Where a batch holds a teacher's distributions, the gradient is that of the mixed loss. The loss that is told, and
    that the guard against spikes looks at, is of the text alone: it can be compared with that of other runs.
    """
    targets = jnp.maximum(jnp.sum(batch.loss_mask), 1.0)
    weight: Float[Array, ""] | float = 0.0
    if isinstance(batch, TaughtBatch):
        start, end = recipe.train.teacher_weight
        weight = end + (start - end) * learning_rate / recipe.optimizer.peak_learning_rate

    def mean_losses(parameters: PyTree, part: Batch | TaughtBatch) -> tuple[Float[Array, ""], Float[Array, ""]]:
        losses = [loss / targets for loss in _losses(graphdef, recipe, parameters, part, weight)]
        return losses[0], losses[-1]

    one_part = partial(jax.value_and_grad(mean_losses, has_aux=True), state.parameters)
    (_, loss), gradient = _over_microbatches(recipe, batch, one_part)

    with jax.named_scope("optimizer"):
        norm = optax.tree.norm(gradient)
        transformation = optimizer_of(recipe)
        updates, optimizer = transformation.update(gradient, state.optimizer, state.parameters, loss=loss, norm=norm)
        parameters = jax.tree.map(lambda weight, update: weight - learning_rate * update, state.parameters, updates)
    guard = optimizer if isinstance(optimizer, SpikeState) else None
    none = jnp.zeros((), jnp.int32)
    metrics = StepMetrics(loss, norm, guard.skipped if guard else none, guard.in_a_row if guard else none)
    return TrainState(state.step + 1, parameters, optimizer), metrics


def compiled_train_step(
    recipe: Recipe, mesh: Mesh
) -> Callable[[TrainState, Batch | TaughtBatch, float], tuple[TrainState, StepMetrics]]:
    """`train_step` for a mesh, under `jax.jit`; the memory of the state that it's given becomes that of the new one.

    Rows of another length compile another program. Recipes that differ in their schedules alone share one.
    """
    shardings = jax.tree.map(lambda shape: shape.sharding, abstract_state(recipe, mesh))
    return jax.jit(
        partial(train_step, decoder.abstract(recipe.model)[0], recipe),
        donate_argnums=0,
        out_shardings=(shardings, meshes.replicated(mesh)),
        compiler_options=dict(recipe.train.tpu_options) if mesh.devices.flat[0].platform == "tpu" else None,
    )


def _losses(
    graphdef: nnx.GraphDef,
    recipe: Recipe,
    parameters: PyTree,
    batch: Batch | TaughtBatch,
    weight: Float[Array, ""] | float = 0.0,
) -> tuple[Float[Array, ""], ...]:
    """The summed loss of the text; where a teacher of that weight has a part, before it the loss that both make."""
    model, tokens, positions = nnx.merge(graphdef, parameters), jnp.asarray(batch.tokens), jnp.asarray(batch.positions)
    hidden = model.after_embedding(_embedded(model, tokens), positions, recipe.train.remat)
    expected: list[Any] = [batch.targets, batch.loss_mask]
    if isinstance(batch, TaughtBatch):
        expected += [batch.teacher_ids, batch.teacher_log_probabilities, weight]
    return _summed_losses(hidden, model.to_logits, [jnp.asarray(each) for each in expected], recipe.train.loss_chunk)


# XLA's partitioner places the collectives of the layers well. Those of the vocabulary's two tables are placed here, but
# where their vocabulary is divided, too, which the partitioner alone knows how to compute with, where the width isn't,
# and where that is divided over all devices: XLA on TPUs fails when such a sum is scattered in a loop.


def _placed_by_partitioner() -> bool:
    mesh = jax.sharding.get_abstract_mesh()
    return mesh.shape["tensor"] > 1 or mesh.shape["fsdp"] in (1, mesh.size)


def _embedded(model: decoder.Decoder, tokens: Int[Array, "B S"]) -> Float[Array, "B S W"]:
    """The embedding's row of each token.

    The table is divided along its width, as weights are: the devices along `fsdp` look up their part of the width for
    each other's rows, and exchange the parts; so they do with the gradients on the way back. The partitioner may gather
    the gradients of all rows, or sum up the gradient of the whole table on every device.
    """
    if _placed_by_partitioner():
        return meshes.handed_out(model.embed(tokens))

    def part(table: Array, tokens: Array) -> Array:
        tokens = jax.lax.all_gather(tokens, "fsdp", axis=0, tiled=True)
        with jax.named_scope("embed"):
            x = table[tokens].astype(model.config.dtype)
        return jax.lax.all_to_all(x, "fsdp", split_axis=0, concat_axis=2, tiled=True)

    batch, axes = meshes.dividing_axes(jax.sharding.get_abstract_mesh())
    in_specs = (PartitionSpec(None, "fsdp"), batch)
    look_up = jax.shard_map(part, in_specs=in_specs, out_specs=batch, axis_names=set(axes), check_vma=False)
    return look_up(model.embedding[...], tokens)


def _summed_losses(
    hidden: Float[Array, "B S W"],
    head: Float[Array, "W V"],
    expected: Sequence[Array],  # targets and mask, and perhaps what the teacher expects, and its weight
    chunk: int,
) -> tuple[Float[Array, ""], ...]:
    """The summed losses of all devices, each of which takes its own positions through the head.

    The head is gathered once, and its gradient scattered once, both in the dtype of the products, as the layers' are.
    The partitioner does both for every chunk, the second in float32.
    """
    if _placed_by_partitioner():
        return _cross_entropies(hidden, head, expected, chunk)

    def part(hidden: Array, head: Array, *expected: Array) -> tuple[Array, ...]:
        head = jax.lax.all_gather(head.astype(hidden.dtype), "fsdp", axis=0, tiled=True)
        own = _cross_entropies(hidden, head, expected, math.gcd(chunk, hidden.shape[1]))
        return tuple(loss[None] for loss in own)

    batch, axes = meshes.dividing_axes(jax.sharding.get_abstract_mesh())
    in_specs = (batch, PartitionSpec("fsdp"), *(batch if each.ndim else PartitionSpec() for each in expected))
    out_specs = PartitionSpec(axes)
    losses = jax.shard_map(part, in_specs=in_specs, out_specs=out_specs, axis_names=set(axes), check_vma=False)
    return tuple(jnp.sum(each) for each in losses(hidden, head, *expected))


def _cross_entropies(hidden: Array, head: Array, expected: Sequence[Array], chunk: int) -> tuple[Array, ...]:
    targets, mask, *teacher = expected
    if not teacher:
        return (cross_entropy(hidden, head, targets, mask, chunk),)
    ids, log_probabilities, weight = teacher
    return distilled_cross_entropy(hidden, head, targets, mask, ids, log_probabilities, weight, chunk)


def _over_microbatches(recipe: Recipe, batch: Batch | TaughtBatch, compute: Callable[[Any], PyTree]) -> PyTree:
    """The sum of `compute` over the microbatches of a batch."""
    rows = len(batch.tokens)
    count = recipe.train.microbatches(rows, meshes.data_parallel(jax.sharding.get_abstract_mesh()))
    if count == 1:
        return compute(batch)

    def divide(x: Array) -> Array:
        # A microbatch takes every count-th row: so no row moves to another device.
        x = x.reshape(rows // count, count, *x.shape[1:]).swapaxes(0, 1)
        return jax.lax.with_sharding_constraint(x, PartitionSpec(None, *meshes.BATCH_AXES))

    def add(total: PyTree, part: Batch) -> tuple[PyTree, None]:
        return jax.tree.map(jnp.add, total, compute(part)), None

    nothing = jax.tree.map(lambda shape: jnp.zeros(shape.shape, shape.dtype), jax.eval_shape(compute, batch))
    return jax.lax.scan(add, nothing, jax.tree.map(divide, batch))[0]
