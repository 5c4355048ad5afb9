"""How well a model predicts records that it is never trained on, source by source.

A loss in nats a token can't be compared between tokenizers, or between languages whose tokens differ in length; bits a
byte of text can: the targets' summed loss over ln 2 and over the bytes that they stand for.
"""

import dataclasses
import math
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh
from jaxtyping import PyTree

from opencoder_jax.data.batches import Batch, Batches
from opencoder_jax.data.references import ReferenceRows
from opencoder_jax.model.decoder import abstract
from opencoder_jax.parallel.mesh import replicated
from opencoder_jax.recipe import UserError
from opencoder_jax.tokenization.tokenizer import TextTokenizer
from opencoder_jax.training.feed import global_batch
from opencoder_jax.training.run import Recipe
from opencoder_jax.training.step import summed_loss


class HeldOutLoss(NamedTuple):
    """What the records of one source cost."""

    loss: float  # nats a token
    bits_per_byte: float


class HeldOut:
    """The first `TrainConfig.evaluate_batches` batches of each held-out source, and the references of benchmarks."""

    def __init__(self, recipe: Recipe, data: Path, tokenizer: TextTokenizer, mesh: Mesh):
        """Raises UserError when records are missing or were made with another tokenizer."""
        self._mesh, self._vocabulary = mesh, recipe.model.vocab_size
        self._loss = jax.jit(
            partial(summed_loss, abstract(recipe.model)[0], recipe), out_shardings=(replicated(mesh), replicated(mesh))
        )
        self._batches: dict[str, Batches | ReferenceRows] = {}
        self._sources = recipe.train.held_out
        self._bytes: dict[str, float] = {}
        for source in recipe.train.held_out:
            # The same texts for every seed: runs that differ in it alone are compared by what they learnt.
            config = dataclasses.replace(recipe.data, mixture={source: 1.0}, fim_rate=0.0, teacher="", seed=0)
            batches = Batches(config, data, tokenizer.pad, tokenizer.end_of_document)
            if batches.sources[source].tokenizer_fingerprint != tokenizer.fingerprint:
                raise UserError(f"{data / source}: made by another tokenizer than the mixture; tokenise both with one")
            rows = [batches(step) for step in range(recipe.train.evaluate_batches)]
            if not any(batch.loss_mask.any() for batch in rows):
                raise UserError(
                    f"{data / source}: no token of its first {len(rows)} batches is a target, so there is no loss;"
                    " take it out of TrainConfig.held_out, or raise TrainConfig.evaluate_batches"
                )
            self._batches[source], self._bytes[source] = batches, _bytes(rows, tokenizer)
        self._steps = dict.fromkeys(self._batches, recipe.train.evaluate_batches)
        for benchmark in recipe.train.references:
            _, length, count = recipe.data.phases[0]
            answers = ReferenceRows(benchmark, tokenizer, count, length)
            self._batches[answers.name], self._steps[answers.name] = answers, answers.steps
            self._bytes[answers.name] = _bytes([answers(step) for step in range(answers.steps)], tokenizer)

    def __call__(self, parameters: PyTree) -> dict[str, HeldOutLoss]:
        """The loss of each source, of all held-out ones together under `all` when there are several, of references."""
        losses, targets = {}, {}
        for source, batches in self._batches.items():
            rows = (global_batch(batches, step, self._mesh, self._vocabulary) for step in range(self._steps[source]))
            sums = [self._loss(parameters, batch) for batch in rows]
            losses[source], targets[source] = np.array(jax.device_get(sums), np.float64).sum(axis=0)
        scores = {source: _score(losses[source], targets[source], self._bytes[source]) for source in losses}
        if len(self._sources) > 1:
            counts = (losses, targets, self._bytes)
            scores["all"] = _score(*(sum(count[source] for source in self._sources) for count in counts))
        return scores


def _bytes(rows: Sequence[Batch], tokenizer: TextTokenizer) -> float:
    """Of the text that the targets stand for."""
    return sum(float((tokenizer.byte_lengths[batch.targets] * batch.loss_mask).sum()) for batch in rows)


def _score(loss: float, targets: float, text: float) -> HeldOutLoss:
    return HeldOutLoss(float(loss / targets), float(loss / math.log(2) / text))
