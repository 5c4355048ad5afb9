"""The loop of a training stage: batches in, checkpoints and metrics out.

The host is always ahead: while the devices work on a step, a thread lays out the next batches (feed.py), and the loop
reads what the step before measured (reporter.py); neither waits. A run is a function of its recipe and data: stopped or
killed anywhere and started again, it ends with the same parameters, bit for bit, as if it had never stopped (on the
same devices). Every host runs this same loop (hosts.py).
"""

import json
import math
import time
from functools import partial
from pathlib import Path

import jax
from jax.sharding import Mesh

from opencoder_jax.data.batches import Batches
from opencoder_jax.data.fim import fim_tokens
from opencoder_jax.distillation.taught import TaughtBatches
from opencoder_jax.files import need_directory
from opencoder_jax.parallel.checkpoints import Checkpoints, checkpoint_steps, restore, verify
from opencoder_jax.parallel.hosts import Preemption, all_agree, leads, leave, refuse_differences, wait_for_all
from opencoder_jax.parallel.mesh import data_parallel, make_mesh
from opencoder_jax.parallel.model_directory import CHECKPOINTS, CONFIG, choose_step
from opencoder_jax.recipe import TryAgain, UserError
from opencoder_jax.tokenization.hugging_face import open_tokenizer
from opencoder_jax.tokenization.tokenizer import Tokenizer
from opencoder_jax.training import run as runs
from opencoder_jax.training.counts import check_counts, count_sources, counts_table
from opencoder_jax.training.feed import Feed
from opencoder_jax.training.held_out import HeldOut
from opencoder_jax.training.metrics import read_metrics, unigram_entropy
from opencoder_jax.training.optimizer import learning_rate
from opencoder_jax.training.reporter import Reporter, speed_words
from opencoder_jax.training.run import Origin, Recipe
from opencoder_jax.training.step import TrainState, abstract_state, compiled_train_step, initial_state, optimizer_of
from opencoder_jax.training.trace import Trace


def train(recipe: Recipe, data: Path, output: Path, init_from: Path | None = None) -> None:
    """Runs a stage to its last step, from its newest checkpoint if there is one; a finished run is left as it is.

    Args:
        data: a directory with the token records of the mixture, one directory a source.
        output: the run's directory, see run.py; the same for every host, on a file system that they share.
        init_from: the directory of the run whose weights this one starts from; None: new weights.

    Raises:
        UserError: the data, the other run or the output directory don't fit the recipe; the loss is no number any more;
            a checkpoint can't be written. The message names the file and says what to do.
        TryAgain: this host, or another, was told to go; a checkpoint is saved.
        KeyboardInterrupt: Ctrl-C; a checkpoint is saved.
    """
    refuse_differences(runs.plan(recipe))
    need_directory(data, "a directory of token records for each source of DataConfig.mixture")
    for source in recipe.data.mixture:
        need_directory(data / source, "token records, made by python -m beam_pipelines records")
    if output.exists():
        need_directory(output, "this run, or nothing yet")
    of_tokenizer = data / next(iter(recipe.data.mixture))
    tokenizer = open_tokenizer(of_tokenizer)
    # A foreign model may have more ids than its tokenizer, to be divided well.
    spare = recipe.model.vocab_size - tokenizer.vocab_size
    if spare < 0 or (spare and isinstance(tokenizer, Tokenizer)):
        raise UserError(
            f"{of_tokenizer}: its tokenizer has {tokenizer.vocab_size} tokens, the model {recipe.model.vocab_size};"
            " change ModelConfig.vocab_size or the tokenizer"
        )
    batches = Batches(recipe.data, data, tokenizer.pad, tokenizer.end_of_document, fim_tokens(tokenizer.controls))
    counts, length = count_sources(batches, recipe.train.steps), recipe.data.phases[0][1]
    check_counts(counts, length)
    mesh, shapes = _lay_out(recipe)
    origin = None if init_from is None else _origin(recipe, init_from, output, tokenizer.fingerprint)
    entropy = unigram_entropy(batches.sources, recipe.data.mixture)
    taught = TaughtBatches(batches, data) if recipe.data.teacher else None
    distributions = taught.distributions if taught else {}
    description = runs.describe(recipe, batches, tokenizer.fingerprint, origin, entropy, distributions)
    refuse_differences({name: json.dumps(value) for name, value in runs.flat(description).items()})
    if leads():
        runs.enter(output, description, recipe, of_tokenizer)
    wait_for_all("the run's directory is made")

    if _is_trained(output / CHECKPOINTS, recipe.train.steps):
        _say(f"{output}: trained already, {recipe.train.steps:,} steps")
        return

    with runs.locked(output), jax.set_mesh(mesh), Checkpoints(output / CHECKPOINTS, recipe.train.keep) as checkpoints:
        held_out = HeldOut(recipe, data, tokenizer, mesh) if recipe.train.held_out or recipe.train.references else None
        saved = checkpoints.restore_newest(shapes.items)
        state = shapes.restored(*saved) if saved else _first_state(recipe, shapes, init_from, origin)
        first = int(state.step)
        _say(
            f"{output}: steps {first:,} to {recipe.train.steps:,}, "
            f"{batches.tokens_before(recipe.train.steps):,} tokens in all; {recipe.model.parameters():,} parameters; "
            f"{mesh.size} devices ({', '.join(f'{axis} {size}' for axis, size in mesh.shape.items())}) on "
            f"{jax.process_count()} hosts; unigram entropy {entropy:.4f} nats a token\n{speed_words(recipe, mesh)}\n"
            f"{counts_table(counts, length)}"
        )
        with (
            Reporter(recipe, batches, mesh, output, first) as report,
            Feed(taught or batches, mesh, recipe.model.vocab_size, first, recipe.train.steps) as feed,
            Preemption() as preemption,
            Trace(output / "profile", recipe.train.profile) as trace,
        ):
            try:
                _run(recipe, mesh, state, feed, held_out, checkpoints, report, preemption, trace, output)
            except jax.errors.JaxRuntimeError as error:
                if jax.process_count() == 1:
                    raise
                leave(error)
    if leads():
        last = (read_metrics(output / "metrics.jsonl") or [{}])[-1]
        seen = "".join(
            f"; {source} {score['loss']:.4f} nats a token, {score['bits_per_byte']:.4f} bits a byte"
            for source, score in last.get("held_out", {}).items()
        )
        print(f"{output}: loss {last.get('loss', math.nan):.4f}{seen}; unigram entropy {entropy:.4f} nats a token")


def _run(
    recipe: Recipe,
    mesh: Mesh,
    state: TrainState,
    feed: Feed,
    held_out: HeldOut | None,
    checkpoints: Checkpoints,
    report: Reporter,
    preemption: Preemption,
    trace: Trace,
    output: Path,
) -> None:
    """The loop itself, from a state to the last step."""
    config = recipe.train
    update, clock = compiled_train_step(recipe, mesh), SaveClock(config.checkpoint_minutes, config.log_every)
    for step in range(int(state.step), config.steps):
        rate = learning_rate(recipe.optimizer, config.steps, step)
        with trace.step(step):
            state, measured = update(state, feed.next(), rate)
        report.read(feed)
        checkpoints.check()
        report.later(step + 1, rate, measured, feed.content)
        last, preempted = step + 1 == config.steps, preemption.reached(step + 1)
        trace.after(step, state)
        if held_out and (last or (step + 1) % config.evaluate_every == 0):
            try:
                scores = held_out(state.parameters)
            except Exception:  # what fails beside training costs none of its steps
                report.read(feed)
                checkpoints.save(step + 1, state.items)
                raise
            report.read(feed, scores)
        if clock.due(step + 1) or last or preempted or (step + 1) % config.checkpoint_every == 0:
            # A checkpoint's rows are in the file before it, and a state whose loss is no number isn't saved.
            report.read(feed)
            checkpoints.save(step + 1, state.items)
            clock.restart()
        if preempted and not last:
            if preemption.by_keyboard:
                raise KeyboardInterrupt
            raise TryAgain(f"{output}: this host or another was told to go; step {step + 1:,} is saved")


class SaveClock:
    """Says when so many minutes have passed since it was started; hosts whose clocks differ hear the same."""

    def __init__(self, minutes: float | None, every: int) -> None:
        """`every`: steps from one look of several hosts to the next, as they must ask each other."""
        self._seconds, self._every = None if minutes is None else 60 * minutes, every
        self.restart()

    def restart(self) -> None:
        self._began = time.monotonic()

    def due(self, step: int) -> bool:
        """Every host asks after every step."""
        if self._seconds is None or (jax.process_count() > 1 and step % self._every):
            return False
        return not all_agree(time.monotonic() - self._began < self._seconds)


def _is_trained(checkpoints: Path, steps: int) -> bool:
    """Whether the last checkpoint is there and whole; a damaged one is trained again, from the one before."""
    done = [step for step in checkpoint_steps(checkpoints) if step >= steps]
    try:
        for step in done[-1:]:
            verify(checkpoints, step)
    except UserError:
        return False  # `restore_newest` names it
    return bool(done)


def _say(words: str) -> None:
    """Prints what all hosts know, once."""
    if leads():
        print(words)


def _lay_out(recipe: Recipe) -> tuple[Mesh, TrainState]:
    """The mesh, and the state's shapes on it. Raises UserError when the recipe can't be divided over the devices."""
    try:
        mesh = make_mesh(recipe.mesh)
        for _, _, rows in recipe.data.phases:
            recipe.train.microbatches(rows, data_parallel(mesh))
        return mesh, abstract_state(recipe, mesh)
    except ValueError as error:
        raise UserError(str(error)) from None


def _origin(recipe: Recipe, init_from: Path, output: Path, tokenizer_fingerprint: str) -> Origin:
    """Which checkpoint of another run this one starts from; a continued run keeps to the one that it started from."""
    step = recipe.train.init_step
    if step is None and (output / "run.json").exists() and (known := runs.read(output)["origin"]):
        step = known["step"]
    if step is None:
        if not (init_from / CONFIG).exists():
            runs.read(init_from)  # says what is missing
        step = choose_step(init_from)
    return runs.origin(init_from, step, recipe, tokenizer_fingerprint)


def _first_state(recipe: Recipe, shapes: TrainState, init_from: Path | None, origin: Origin | None) -> TrainState:
    """Step 0: new weights, or those of another run."""
    shardings = jax.tree.map(lambda shape: shape.sharding, shapes)
    if init_from is None or origin is None:
        return jax.jit(partial(initial_state, recipe), out_shardings=shardings)()
    wanted = shapes.items if recipe.train.init_optimizer else {"parameters": shapes.parameters}
    theirs = restore(init_from / CHECKPOINTS, choose_step(init_from, origin.step), wanted)
    if not recipe.train.init_optimizer:
        new_moments = jax.jit(optimizer_of(recipe).init, out_shardings=shardings.optimizer)
        theirs["optimizer"] = new_moments(theirs["parameters"])
    return shapes.restored(0, theirs)
