"""The engine: many prompts in, their completions out.

Prompts are answered in groups of a fixed number of rows. Those of a group are padded on the left to one length, so that
all rows stand at the same slot of the cache; lengths come in a few sizes, each compiled once. Tokens are made on the
device some at a time; in between, the host looks for stop strings, and leaves a group whose answers have all ended.

A completion is a function of the model, its prompt, the sampling and its seed: a prompt always meets the same shapes,
so it doesn't matter which others share its group.
"""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple, Self

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, Int

from opencoder_jax.data.token_records import TOKENIZER
from opencoder_jax.data.tokenizer import Tokenizer
from opencoder_jax.inference.sampling import SamplingConfig, choose
from opencoder_jax.inference.stops import cut
from opencoder_jax.model.decoder import Cache
from opencoder_jax.parallel.model_directory import LoadedModel, load
from opencoder_jax.recipe import UserError

ROWS = 32  # prompts of a group
PROMPT_STEP = 64  # prompts are padded to this times a power of two
TOKENS_AT_ONCE = 16  # made between two looks of the host


class Completion(NamedTuple):
    """What the model said."""

    text: str  # without the stop string
    tokens: list[int]  # as they were drawn, the one that ended the answer included
    finish_reason: Literal["stop", "length"]  # "length": cut off at max_tokens


class Engine:
    """Answers with one model."""

    def __init__(self, model: LoadedModel, tokenizer: Tokenizer) -> None:
        """Raises UserError when the tokenizer isn't the model's."""
        if tokenizer.vocab_size != model.config.vocab_size:
            raise UserError(
                f"the tokenizer has {tokenizer.vocab_size} tokens and the model {model.config.vocab_size}: "
                "they don't belong together"
            )
        self.model = model
        self.tokenizer = tokenizer
        self.ends = frozenset({tokenizer.end_of_document, tokenizer.im_end})

    @classmethod
    def open(cls, directory: Path, step: int | None = None) -> Self:
        """The engine of a model directory's newest checkpoint, or of another. Raises UserError as `load` does."""
        return cls(load(directory, step), Tokenizer.load(directory / TOKENIZER))

    def generate(
        self,
        prompts: Sequence[Sequence[int]],
        sampling: SamplingConfig,
        stop: Sequence[str] = (),
        seeds: Sequence[int] | None = None,
    ) -> list[Completion]:
        """Completes prompts.

        Args:
            prompts: token ids, at least one each.
            stop: strings that end an answer, beside the ends of documents and messages.
            seeds: one an answer, in 0 .. 2**31 - 1; by default their indices in `prompts`.

        Raises:
            UserError: a prompt is empty, or it and its answer don't fit into the model's context.
        """
        for number, prompt in enumerate(prompts):
            if not prompt:
                raise UserError(f"prompt {number} is empty")
            if len(prompt) + sampling.max_tokens > self.model.config.context:
                raise UserError(
                    f"prompt {number} has {len(prompt)} tokens; with {sampling.max_tokens} more they exceed the "
                    f"model's context of {self.model.config.context}; shorten it, or lower SamplingConfig.max_tokens"
                )
        seeds = range(len(prompts)) if seeds is None else seeds
        completions: dict[int, Completion] = {}
        for size, members in sorted(_by_size(prompts).items()):
            for first in range(0, len(members), ROWS):
                group = members[first : first + ROWS]
                chosen = [prompts[index] for index in group]
                drawn = self._answer(chosen, [seeds[index] for index in group], size, sampling, stop)
                completions.update(zip(group, drawn, strict=True))
        return [completions[index] for index in range(len(prompts))]

    def _answer(
        self,
        prompts: Sequence[Sequence[int]],
        seeds: Sequence[int],
        size: int,
        sampling: SamplingConfig,
        stop: Sequence[str],
    ) -> list[Completion]:
        """The completions of one group, whose prompts are padded to `size`."""
        tokens = np.full((ROWS, size), self.tokenizer.pad, np.int32)
        lengths = np.ones(ROWS, np.int32)  # rows without a prompt answer the padding, unheard
        for row, prompt in enumerate(prompts):
            tokens[row, size - len(prompt) :] = prompt
            lengths[row] = len(prompt)
        padded = np.zeros(ROWS, np.int32)
        padded[: len(seeds)] = seeds
        rounds = -(-sampling.max_tokens // TOKENS_AT_ONCE)
        slots = size + rounds * TOKENS_AT_ONCE
        graphdef, parameters = self.model.graphdef, self.model.parameters
        progress = _prefill(graphdef, parameters, tokens, lengths, padded, slots)
        drawn = np.zeros((ROWS, 0), np.int32)
        completions: list[Completion | None] = [None] * len(prompts)
        for _ in range(rounds):
            progress, new = _extend(graphdef, parameters, progress, sampling)
            drawn = np.concatenate([drawn, np.asarray(new)], axis=1)
            for row, completion in enumerate(completions):
                if completion is None:
                    completions[row] = self._finished(drawn[row, : sampling.max_tokens], sampling, stop)
            if None not in completions:
                break
        return [completion for completion in completions if completion is not None]

    def _finished(
        self, drawn: Int[np.ndarray, " N"], sampling: SamplingConfig, stop: Sequence[str]
    ) -> Completion | None:
        """The completion of a row, None if it isn't at its end."""
        tokens: list[int] = drawn.tolist()
        end = next((index for index, token in enumerate(tokens) if token in self.ends), None)
        said = tokens if end is None else tokens[:end]
        text, stopped = cut(self.tokenizer.decode(said), stop)
        if stopped:
            return Completion(text, self._until(said, stop), "stop")
        if end is not None:
            return Completion(text, tokens[: end + 1], "stop")
        return Completion(text, tokens, "length") if len(tokens) == sampling.max_tokens else None

    def _until(self, tokens: list[int], stop: Sequence[str]) -> list[int]:
        """The fewest first tokens that hold a stop string."""
        return next(
            tokens[:count] for count in range(1, len(tokens) + 1) if cut(self.tokenizer.decode(tokens[:count]), stop)[1]
        )


class _Progress(NamedTuple):
    """Where a group stands: what the next token is made of."""

    cache: Cache
    logits: Float[Array, "B V"]
    position: Int[Array, " B"]  # of the next token in its row
    slot: Int[Array, ""]  # of the next token in the cache
    length: Int[Array, ""]  # of the answers so far
    seeds: Int[Array, " B"]


@partial(jax.jit, static_argnames=("graphdef", "slots"))
def _prefill(
    graphdef: nnx.GraphDef[Any],
    parameters: Any,
    tokens: Int[Array, "B S"],
    lengths: Int[Array, " B"],
    seeds: Int[Array, " B"],
    slots: int,
) -> _Progress:
    """Reads the prompts, padded on their left."""
    decoder = nnx.merge(graphdef, parameters)
    rows, size = tokens.shape
    positions = jnp.maximum(jnp.arange(size) - (size - lengths)[:, None], 0)
    hidden, cache = decoder.decode(tokens, positions, decoder.empty_cache(rows, slots), 0)
    logits = _logits(decoder, hidden[:, -1])
    return _Progress(cache, logits, lengths, jnp.int32(size), jnp.int32(0), seeds)


@partial(jax.jit, static_argnames=("graphdef", "sampling"), donate_argnames="progress")
def _extend(
    graphdef: nnx.GraphDef[Any], parameters: Any, progress: _Progress, sampling: SamplingConfig
) -> tuple[_Progress, Int[Array, "B N"]]:
    """Draws TOKENS_AT_ONCE tokens of every row."""
    decoder = nnx.merge(graphdef, parameters)

    def draw(at: _Progress, _: None) -> tuple[_Progress, Int[Array, " B"]]:
        token = choose(at.logits, sampling, at.seeds, at.length).astype(jnp.int32)
        hidden, cache = decoder.decode(token[:, None], at.position[:, None], at.cache, at.slot)
        logits = _logits(decoder, hidden[:, -1])
        return _Progress(cache, logits, at.position + 1, at.slot + 1, at.length + 1, at.seeds), token

    progress, tokens = jax.lax.scan(draw, progress, length=TOKENS_AT_ONCE)
    return progress, tokens.T


def _logits(decoder: Any, hidden: Float[Array, "B W"]) -> Float[Array, "B V"]:
    head = decoder.head[...].astype(hidden.dtype)
    return jnp.matmul(hidden, head, preferred_element_type=jnp.float32)


def _by_size(prompts: Sequence[Sequence[int]]) -> dict[int, list[int]]:
    """Which prompts are padded to which length."""
    sizes: dict[int, list[int]] = {}
    for index, prompt in enumerate(prompts):
        size = PROMPT_STEP
        while size < len(prompt):
            size *= 2
        sizes.setdefault(size, []).append(index)
    return sizes
