"""The loop of a training stage: batches in, checkpoints and metrics out.

The host is always one step ahead: while the devices work on a step, it reads what the step before measured and lays out
the next batch, so neither waits. A run is a function of its recipe and data: stopped or killed anywhere and started
again, it ends with the same parameters, bit for bit, as if it had never stopped (on the same devices).
"""

import dataclasses
import math
import time
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Self

import jax
import numpy as np
from jax.sharding import Mesh
from jaxtyping import PyTree
from tqdm import tqdm

from opencoder_jax.data.batches import Batch, Batches
from opencoder_jax.data.tokenizer import Tokenizer
from opencoder_jax.model.checkpoint import checkpoint_steps
from opencoder_jax.model.decoder import abstract
from opencoder_jax.recipe import UserError
from opencoder_jax.training import run as runs
from opencoder_jax.training.checkpoints import Checkpoints, restore, restore_newest
from opencoder_jax.training.mesh import batch_sharding, data_parallel, make_mesh
from opencoder_jax.training.metrics import MetricsFile, read_metrics, unigram_entropy
from opencoder_jax.training.optimizer import learning_rate
from opencoder_jax.training.run import Origin, Recipe
from opencoder_jax.training.step import (
    StepMetrics,
    TrainState,
    abstract_state,
    compiled_train_step,
    initial_state,
    optimizer_of,
    summed_loss,
)


def train(recipe: Recipe, data: Path, output: Path, init_from: Path | None = None) -> None:
    """Runs a stage to its last step, from its newest checkpoint if there is one; a finished run is left as it is.

    Args:
        data: a directory with the token records of the mixture, one directory a source.
        output: the run's directory, see run.py.
        init_from: the directory of the run whose weights this one starts from; None: new weights.

    Raises:
        UserError: the data, the other run or the output directory don't fit the recipe; the loss is no number any more;
            a checkpoint can't be written. The message names the file and says what to do.
    """
    tokenizer_model = data / next(iter(recipe.data.mixture)) / "tokenizer.model"
    tokenizer = Tokenizer.load(tokenizer_model)
    if tokenizer.vocab_size != recipe.model.vocab_size:
        raise UserError(
            f"{tokenizer_model} has {tokenizer.vocab_size} tokens, the model {recipe.model.vocab_size};"
            " change ModelConfig.vocab_size or the tokenizer"
        )
    batches = Batches(recipe.data, data, tokenizer.pad, tokenizer.end_of_document)
    mesh, shapes = _lay_out(recipe)
    origin = None if init_from is None else _origin(recipe, init_from, output, tokenizer.fingerprint)
    entropy = unigram_entropy(batches.sources, recipe.data.mixture)
    description = runs.describe(recipe, batches, tokenizer.fingerprint, origin, entropy)
    runs.enter(output, description, recipe, tokenizer_model)

    if max(checkpoint_steps(output / "checkpoints"), default=-1) >= recipe.train.steps:
        print(f"{output}: trained already, {recipe.train.steps:,} steps")
        return

    with jax.set_mesh(mesh), Checkpoints(output / "checkpoints", recipe.train.keep) as checkpoints:
        held_out = HeldOut(recipe, data, recipe.train.held_out, tokenizer, mesh) if recipe.train.held_out else None
        state = restore_newest(checkpoints.directory, shapes) or _first_state(recipe, shapes, init_from, origin)
        print(
            f"{output}: steps {int(state.step):,} to {recipe.train.steps:,}, "
            f"{batches.tokens_before(recipe.train.steps):,} tokens in all; {recipe.model.parameters():,} parameters; "
            f"{mesh.size} devices ({', '.join(f'{axis} {size}' for axis, size in mesh.shape.items())}); "
            f"unigram entropy {entropy:.4f} nats a token"
        )
        first = int(state.step)
        with MetricsFile(output / "metrics.jsonl", first) as metrics, Report(recipe, batches, metrics, first) as report:
            _run(recipe, mesh, state, batches, held_out, checkpoints, report)
    last = read_metrics(output / "metrics.jsonl")[-1]
    seen = f", held out {last['held_out_loss']:.4f}" if "held_out_loss" in last else ""
    print(f"{output}: loss {last['loss']:.4f}{seen}; unigram entropy {entropy:.4f} nats a token")


def _run(
    recipe: Recipe,
    mesh: Mesh,
    state: TrainState,
    batches: Batches,
    held_out: "HeldOut | None",
    checkpoints: Checkpoints,
    report: "Report",
) -> None:
    """The loop itself, from a state to the last step."""
    config = recipe.train
    update = compiled_train_step(recipe, mesh)
    for step in range(int(state.step), config.steps):
        rate = learning_rate(recipe.optimizer, config.steps, step)
        state, measured = update(state, place(batches, step, mesh), rate)
        report.read()
        report.later(step + 1, rate, measured)
        last = step + 1 == config.steps
        if held_out and (last or (step + 1) % config.evaluate_every == 0):
            report.read(held_out(state.parameters))
        if last or (step + 1) % config.checkpoint_every == 0:
            # A checkpoint's rows are in the file before it, and a state whose loss is no number isn't saved.
            report.read()
            checkpoints.save(state)


class Report:
    """What the steps measured, read one step late: into the metrics file, and onto a progress bar."""

    def __init__(self, recipe: Recipe, batches: Batches, metrics: MetricsFile, step: int):
        self._recipe, self._batches, self._metrics = recipe, batches, metrics
        self._pending: tuple[int, float, StepMetrics] | None = None
        self._began = time.perf_counter() - metrics.seconds
        self._tokens, self._seconds = batches.tokens_before(step), metrics.seconds  # as of the last row
        self._bar = tqdm(
            total=batches.tokens_before(recipe.train.steps),
            initial=self._tokens,
            desc="train",
            unit=" tokens",
            unit_scale=True,
            dynamic_ncols=True,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.close()

    def later(self, step: int, rate: float, measured: StepMetrics) -> None:
        """Takes what an update measured, while the devices still work on it."""
        self._pending = (step, rate, measured)

    def read(self, held_out_loss: float | None = None) -> None:
        """Waits for the update that was taken last, and reports it.

        Raises:
            UserError: its loss or gradient is not a finite number.
        """
        if self._pending is None:
            return
        step, rate, measured = self._pending
        self._pending = None
        loss, gradient_norm = (float(value) for value in jax.device_get(measured))
        if not (math.isfinite(loss) and math.isfinite(gradient_norm)):
            raise UserError(
                f"step {step}: the loss is {loss} and the gradient's norm {gradient_norm}; the checkpoints before it"
                " are sound. Lower OptimizerConfig.peak_learning_rate or change DataConfig.seed, in another --output"
            )
        tokens = self._batches.tokens_before(step)
        self._bar.update(tokens - self._bar.n)
        self._bar.set_postfix({"step": step, "loss": f"{loss:.4f}"}, refresh=False)
        config = self._recipe.train
        if step in (1, config.steps) or step % config.log_every == 0 or held_out_loss is not None:
            seconds = time.perf_counter() - self._began
            row = {"step": step, "tokens": tokens, "loss": loss, "learning_rate": rate, "gradient_norm": gradient_norm}
            row |= {} if held_out_loss is None else {"held_out_loss": held_out_loss}
            rate_of_tokens = (tokens - self._tokens) / (seconds - self._seconds)
            self._metrics.write(row | {"tokens_per_second": rate_of_tokens, "seconds": seconds})
            self._tokens, self._seconds = tokens, seconds


class HeldOut:
    """The loss on records that are never trained on: the first batches of `TrainConfig.held_out`."""

    def __init__(self, recipe: Recipe, data: Path, source: str, tokenizer: Tokenizer, mesh: Mesh):
        """Raises UserError when the records are missing or were made with another tokenizer."""
        config = dataclasses.replace(recipe.data, mixture={source: 1.0})
        self._batches = Batches(config, data, tokenizer.pad, tokenizer.end_of_document)
        if self._batches.sources[source].tokenizer_fingerprint != tokenizer.fingerprint:
            raise UserError(f"{data / source}: made by another tokenizer than the mixture; tokenise both with one")
        self._steps, self._mesh = range(recipe.train.evaluate_batches), mesh
        self._loss = jax.jit(partial(summed_loss, abstract(recipe.model)[0], recipe))

    def __call__(self, parameters: PyTree) -> float:
        """Mean loss, in nats a token."""
        sums = [self._loss(parameters, place(self._batches, step, self._mesh)) for step in self._steps]
        losses, targets = np.array(jax.device_get(sums), np.float64).sum(axis=0)
        return float(losses / targets)


def place(batches: Batches, step: int, mesh: Mesh) -> Batch:
    """A global batch on the mesh; each host lays out only the rows that its own devices need."""
    shape, sharding = batches.shape(step), batch_sharding(mesh)
    rows = [index[0].indices(shape[0]) for index in sharding.addressable_devices_indices_map(shape).values() if index]
    first, stop = min(start for start, _, _ in rows), max(stop for _, stop, _ in rows)
    local = batches(step, first, stop)

    def piece(array: np.ndarray, index: tuple[slice, ...]) -> np.ndarray:
        start, stop, _ = index[0].indices(shape[0])
        return array[start - first : stop - first, index[1]]

    return jax.tree.map(lambda array: jax.make_array_from_callback(shape, sharding, partial(piece, array)), local)


def _lay_out(recipe: Recipe) -> tuple[Mesh, TrainState]:
    """The mesh, and the state's shapes on it. Raises UserError when the recipe can't be divided over the devices."""
    try:
        mesh = make_mesh(recipe.mesh)
        for _, _, rows in recipe.data.phases:
            recipe.train.passes(rows, data_parallel(mesh))
        return mesh, abstract_state(recipe, mesh)
    except ValueError as error:
        raise UserError(str(error)) from None


def _origin(recipe: Recipe, init_from: Path, output: Path, tokenizer_fingerprint: str) -> Origin:
    """Which checkpoint of another run this one starts from; a continued run keeps to the one that it started from."""
    step = recipe.train.init_step
    if step is None and (output / "run.json").exists() and (known := runs.read(output)["origin"]):
        step = known["step"]
    if step is None:
        runs.read(init_from)
        step = max(checkpoint_steps(init_from / "checkpoints"), default=None)
        if step is None:
            raise UserError(f"{init_from}: has no checkpoint yet; train it first")
    return runs.origin(init_from, step, recipe, tokenizer_fingerprint)


def _first_state(recipe: Recipe, shapes: TrainState, init_from: Path | None, origin: Origin | None) -> TrainState:
    """Step 0: new weights, or those of another run."""
    shardings = jax.tree.map(lambda shape: shape.sharding, shapes)
    if init_from is None or origin is None:
        return jax.jit(partial(initial_state, recipe), out_shardings=shardings)()
    steps = checkpoint_steps(init_from / "checkpoints")
    if origin.step not in steps:
        raise UserError(f"{init_from}: no checkpoint of step {origin.step}; there are {steps}")
    theirs = restore(init_from / "checkpoints", origin.step, shapes, optimizer=recipe.train.init_optimizer)
    if not recipe.train.init_optimizer:
        new_moments = jax.jit(optimizer_of(recipe).init, out_shardings=shardings.optimizer)
        theirs = theirs._replace(optimizer=new_moments(theirs.parameters))
    return theirs._replace(step=jax.device_put(np.int32(0), shardings.step))
