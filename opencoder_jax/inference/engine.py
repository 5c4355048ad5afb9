"""The engine: many prompts in, their completions out.

Prompts are answered in groups of a fixed number of rows. Those of a group are padded on the left to one length, so that
all rows stand at the same slot of the cache; lengths come in a few sizes, each compiled once. Tokens are made on the
device some at a time; in between, the host looks for stop strings, and leaves a group whose answers have all ended.

A completion is a function of the model, its prompt, the sampling and its seed: a prompt always meets the same shapes,
so it doesn't matter which others share its group.
"""

import threading
from collections import deque
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, Self

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, Int

from opencoder_jax.data.tokenizer import TextTokenizer
from opencoder_jax.exchange.tokenizer import open_tokenizer
from opencoder_jax.inference.requests import Completion, Piece, Request
from opencoder_jax.inference.sampling import SamplingConfig, choose
from opencoder_jax.inference.stops import AnswerText, StopStrings
from opencoder_jax.model.decoder import Cache
from opencoder_jax.parallel.model_directory import LoadedModel, load
from opencoder_jax.recipe import UserError

ROWS = 32  # prompts of a group
PROMPT_STEP = 64  # prompts are padded to this times a power of two
TOKENS_AT_ONCE = 16  # made between two looks of the host
MOST_LIKELY = 20  # likeliest tokens that can be asked for in a token's place


class Engine:
    """Answers with one model."""

    def __init__(self, model: LoadedModel, tokenizer: TextTokenizer) -> None:
        """Raises UserError when the tokenizer isn't the model's."""
        if tokenizer.vocab_size != model.config.vocab_size:
            raise UserError(
                f"the tokenizer has {tokenizer.vocab_size} tokens and the model {model.config.vocab_size}: "
                "they don't belong together"
            )
        self.model = model
        self.tokenizer = tokenizer
        self.ends = tokenizer.ends
        self._lock = threading.Lock()
        self._numbered = 0
        self._queue: deque[tuple[int, Request]] = deque()
        self._cancelled: list[int] = []

    @classmethod
    def open(cls, directory: Path, step: int | None = None) -> Self:
        """The engine of a model directory's newest checkpoint, or of another. Raises UserError as `load` does."""
        return cls(load(directory, step), open_tokenizer(directory))

    @property
    def waiting(self) -> int:
        """Requests that nothing has been done for yet."""
        return len(self._queue)

    @property
    def running(self) -> int:
        """Requests that are being answered."""
        return 0

    @property
    def busy(self) -> bool:
        """Whether `step` has anything to do."""
        return bool(self._queue or self._cancelled)

    def submit(self, requests: Sequence[Request]) -> list[int]:
        """Queues requests, and numbers them. Those with one prompt, submitted together, cost one reading of it.

        May be called from another thread than `step`.

        Raises:
            UserError: a request can't be answered, for what it names; then none of them is queued.
        """
        for number, request in enumerate(requests):
            if (why := self._why_not(request)) is not None:
                raise UserError(f"prompt {number} {why}")
        with self._lock:
            ids = list(range(self._numbered, self._numbered + len(requests)))
            self._numbered += len(requests)
            self._queue.extend(zip(ids, requests, strict=True))
        return ids

    def _why_not(self, request: Request) -> str | None:
        """Why a request can't be answered."""
        prompt, sampling, context = request.prompt, request.sampling, self.model.config.context
        if not prompt:
            return "is empty"
        if len(prompt) + sampling.max_tokens > context:
            return (
                f"has {len(prompt)} tokens; with {sampling.max_tokens} more they exceed the model's context of "
                f"{context}; shorten it, or lower SamplingConfig.max_tokens"
            )
        if not all(0 <= token < self.model.config.vocab_size for token in prompt):
            return f"holds tokens that aren't in 0 .. {self.model.config.vocab_size - 1}"
        if not 0 <= request.seed < 1 << 32:
            return f"has the seed {request.seed}; it must lie in 0 .. 2**32 - 1"
        if "" in request.stop:
            return "has an empty stop string, which would end every answer at once"
        if request.top_logprobs is not None and not 0 <= request.top_logprobs <= MOST_LIKELY:
            return f"asks for {request.top_logprobs} likeliest tokens; it may be 0 to {MOST_LIKELY}"
        if sampling.top_k or sampling.min_p or sampling.repetition_penalty != 1 or request.prompt_logprobs:
            return "asks for top_k, min_p, repetition_penalty or the prompt's log-probabilities, which don't work yet"
        if request.top_logprobs is not None:
            return "asks for log-probabilities, which don't work yet"
        return None

    def cancel(self, request_id: int) -> None:
        """Ends an answer: its last piece says "cancelled". Of one that has ended nothing is heard.

        May be called from another thread than `step`.
        """
        with self._lock:
            for queued in self._queue:
                if queued[0] == request_id:
                    self._queue.remove(queued)
                    self._cancelled.append(request_id)
                    return

    def step(self) -> list[Piece]:
        """Does one round of work: what is new of each answer. [] when there is nothing to do."""
        with self._lock:
            pieces = [Piece(number, "", (), None, None, "cancelled") for number in self._cancelled]
            self._cancelled.clear()
            like = [each for each in self._queue if _alike(each[1], self._queue[0][1])][:ROWS]
            for each in like:
                self._queue.remove(each)
        for (number, _), done in zip(like, self._answer([request for _, request in like]), strict=True):
            pieces.append(Piece(number, done.text, tuple(done.tokens), None, None, done.finish_reason))
        return pieces

    def generate(
        self,
        prompts: Sequence[Sequence[int]],
        sampling: SamplingConfig,
        stop: Sequence[str] = (),
        seeds: Sequence[int] | None = None,
    ) -> list[Completion]:
        """Completes prompts, and returns when all are done; nobody else may call `step` meanwhile.

        Args:
            prompts: token ids, at least one each.
            stop: strings that end an answer, beside the ends of documents and messages.
            seeds: one an answer, in 0 .. 2**32 - 1; by default their indices in `prompts`.

        Raises:
            UserError: a prompt is empty, or it and its answer don't fit into the model's context.
        """
        seeds = range(len(prompts)) if seeds is None else seeds
        ids = self.submit(
            [Request(tuple(prompt), sampling, seed, tuple(stop)) for prompt, seed in zip(prompts, seeds, strict=True)]
        )
        answers = {number: Completion("", [], "length") for number in ids}
        while self.busy:
            for piece in self.step():
                text, tokens, _ = answers[piece.request]
                reason = piece.finish_reason or "length"
                answers[piece.request] = Completion(text + piece.text, [*tokens, *piece.tokens], reason)
        return list(answers.values())

    def _answer(self, requests: Sequence[Request]) -> list[Completion]:
        """The completions of one group."""
        if not requests:
            return []
        sampling = requests[0].sampling
        size = _padded(len(requests[0].prompt))
        tokens = np.full((ROWS, size), self.tokenizer.pad, np.int32)
        lengths = np.ones(ROWS, np.int32)  # rows without a prompt answer the padding, unheard
        seeds = np.zeros(ROWS, np.uint32)
        for row, request in enumerate(requests):
            tokens[row, size - len(request.prompt) :] = request.prompt
            lengths[row] = len(request.prompt)
            seeds[row] = request.seed
        rounds = -(-sampling.max_tokens // TOKENS_AT_ONCE)
        slots = size + rounds * TOKENS_AT_ONCE
        graphdef, parameters = self.model.graphdef, self.model.parameters
        progress = _prefill(graphdef, parameters, tokens, lengths, seeds, slots)
        drawn = np.zeros((ROWS, 0), np.int32)
        completions: list[Completion | None] = [None] * len(requests)
        for _ in range(rounds):
            progress, new = _extend(graphdef, parameters, progress, sampling)
            drawn = np.concatenate([drawn, np.asarray(new)], axis=1)
            for row, completion in enumerate(completions):
                if completion is None:
                    completions[row] = self._finished(drawn[row, : sampling.max_tokens], requests[row])
            if None not in completions:
                break
        return [completion for completion in completions if completion is not None]

    def _finished(self, drawn: Int[np.ndarray, " N"], request: Request) -> Completion | None:
        """The completion of a row, None if it isn't at its end."""
        text, answer, tokens = "", AnswerText(StopStrings(request.stop)), drawn.tolist()
        for count, token in enumerate(tokens, 1):
            last = token in self.ends or count == request.sampling.max_tokens
            text += answer.add(b"" if token in self.ends else self.tokenizer.decode_bytes([token]), last)
            if answer.stopped or token in self.ends:
                return Completion(text, tokens[:count], "stop")
            if last:
                return Completion(text, tokens, "length")
        return None


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
    head = decoder.to_logits.astype(hidden.dtype)
    return jnp.matmul(hidden, head, preferred_element_type=jnp.float32)


def _padded(length: int) -> int:
    size = PROMPT_STEP
    while size < length:
        size *= 2
    return size


def _alike(one: Request, other: Request) -> bool:
    return one.sampling == other.sampling and _padded(len(one.prompt)) == _padded(len(other.prompt))
