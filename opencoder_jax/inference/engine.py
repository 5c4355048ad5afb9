"""The engine: requests in, answers out, piece by piece.

Each answer has a row of the cache. A step reads a part of the prompts that are new, and draws some tokens of all rows
that have read theirs; a row whose answer has ended takes the next prompt at once. What rows have read is never read
again: several samples of a prompt, or prompts that begin alike, cost one reading of what they share.

An answer is a function of the model, its prompt, its settings and its seeds: on CPUs the same bits come out whatever
else is answered at the same time, in whatever row, and however the reading was divided.
"""

import math
import threading
import time
from collections import deque
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, Self

import jax
import numpy as np
from flax import nnx
from jax.sharding import Mesh

from opencoder_jax.inference import programs
from opencoder_jax.inference.config import EngineConfig
from opencoder_jax.inference.placement import place_cache, place_weights
from opencoder_jax.inference.programs import MOST_LIKELY, STEPS, Likely, RowStates
from opencoder_jax.inference.requests import Completion, FinishReason, Piece, Request, TokenLogprob
from opencoder_jax.inference.sampling import SamplingConfig, Settings, random_numbers
from opencoder_jax.inference.slots import OpenAnswer, Slots, common
from opencoder_jax.inference.stops import AnswerText, StopStrings
from opencoder_jax.model.decoding import Alike, empty_cache
from opencoder_jax.parallel.model_directory import LoadedModel, load
from opencoder_jax.recipe import UserError, build
from opencoder_jax.tokenization.hugging_face import open_tokenizer
from opencoder_jax.tokenization.tokenizer import TextTokenizer

READS = (32, 256)  # tokens of a prompt that are read at once
READ_IN_A_STEP = 256  # at most, while others wait for their next token
WORTH_A_COPY = 32  # tokens of a prompt that another row has read
LEAST_ROWS, LEAST_SLOTS = 2, 256  # of a cache; it grows to four times the rows, and twice the slots, as it has to


class Engine:
    """Answers with one model."""

    def __init__(
        self, model: LoadedModel, tokenizer: TextTokenizer, config: EngineConfig | None = None, mesh: Mesh | None = None
    ) -> None:
        """`config` is the recipe's by default; `mesh` is where the weights and the cache are divided.

        Raises:
            UserError: the tokenizer isn't the model's, or the mesh can't divide the model.
        """
        if tokenizer.vocab_size != model.config.vocab_size:
            raise UserError(
                f"the tokenizer has {tokenizer.vocab_size} tokens and the model {model.config.vocab_size}: "
                "they don't belong together"
            )
        self.config = config or build(EngineConfig)
        self.model = model._replace(parameters=None)  # they would be held twice
        self.tokenizer = tokenizer
        self.ends = tokenizer.ends
        self._mesh = mesh
        with self._on_mesh():
            self._weights = place_weights(nnx.to_pure_dict(model.parameters), model.config, self.config, mesh)
        self._slots = Slots(self._sizes[0])
        self._cache = place_cache(
            empty_cache(model.config, self._sizes[0], self._lengths[0], self._weights.embedding.dtype), mesh
        )
        self._lock = threading.Lock()
        self._numbered = 0
        self._queue: deque[OpenAnswer] = deque()
        self._cancelled: set[int] = set()
        self._seconds_a_step = 0.0
        self.steps = 0  # of drawing, so far
        self.read_tokens = 0  # of prompts, so far
        self.device_seconds = 0.0  # that steps have waited for the device

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
        return len(self._slots.answers) - self._slots.free

    @property
    def busy(self) -> bool:
        """Whether `step` has anything to do."""
        return bool(self._queue or self._cancelled or self.running)

    def submit(self, requests: Sequence[Request]) -> list[int]:
        """Queues requests, and numbers them. Those with one prompt, submitted together, cost one reading of it.

        May be called from another thread than `step`.

        Raises:
            UserError: a request can't be answered, for what it names; then none of them is queued.
        """
        self.check(requests)
        stops = {stop: StopStrings(stop) for stop in {request.stop for request in requests}}
        answers = [self._answer(request, stops[request.stop]) for request in requests]
        with self._lock:
            for answer in answers:
                answer.number = self._numbered
                self._numbered += 1
            self._queue.extend(answers)
        return [answer.number for answer in answers]

    def check(self, requests: Sequence[Request]) -> None:
        """Raises UserError, as `submit` does, if one of these requests can't be answered."""
        for number, request in enumerate(requests):
            if (why := self._why_not(request)) is not None:
                raise UserError(f"prompt {number} {why}")

    def _answer(self, request: Request, stops: StopStrings) -> OpenAnswer:
        tokens = np.zeros(len(request.prompt) + request.sampling.max_tokens, np.int32)
        tokens[: len(request.prompt)] = request.prompt
        random = random_numbers(request.sampling.seed, request.seed, request.sampling.max_tokens)
        return OpenAnswer(-1, request, AnswerText(stops), tokens, random, len(request.prompt))

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
        if min(prompt) < 0 or max(prompt) >= self.model.config.vocab_size:
            return f"holds tokens that aren't in 0 .. {self.model.config.vocab_size - 1}"
        if not 0 <= request.seed < 1 << 32:
            return f"has the seed {request.seed}; it must lie in 0 .. 2**32 - 1"
        if "" in request.stop:
            return "has an empty stop string, which would end every answer at once"
        if request.top_logprobs is not None and not 0 <= request.top_logprobs <= MOST_LIKELY:
            return f"asks for {request.top_logprobs} likeliest tokens; it may be 0 to {MOST_LIKELY}"
        return None

    def cancel(self, request_id: int) -> None:
        """Ends an answer: its last piece says "cancelled". Of one that has ended nothing is heard.

        May be called from another thread than `step`.
        """
        with self._lock:
            self._cancelled.add(request_id)

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
        asked = zip(prompts, seeds, strict=True)
        ids = self.submit([Request(tuple(prompt), sampling, seed, tuple(stop)) for prompt, seed in asked])
        texts: dict[int, list[str]] = {number: [] for number in ids}
        tokens: dict[int, list[int]] = {number: [] for number in ids}
        reasons: dict[int, FinishReason] = {}
        while len(reasons) < len(ids):
            for piece in self.step(math.inf):
                texts[piece.request].append(piece.text)
                tokens[piece.request] += piece.tokens
                if piece.finish_reason:
                    reasons[piece.request] = piece.finish_reason
        return [Completion("".join(texts[number]), tokens[number], reasons[number]) for number in ids]

    def step(self, patience: float = 0.05) -> list[Piece]:
        """Does one round of work: what is new of each answer. [] when there is nothing to do.

        Args:
            patience: seconds, about, that drawing may take before it gives its tokens.
        """
        with self._on_mesh():
            pieces = self._cancel()
            self._begin()
            self._read()
            return pieces + self._draw(patience)

    # ------------------------------------------------------------------------------------------- what a step is made of

    def _cancel(self) -> list[Piece]:
        """Ends the answers that were cancelled."""
        with self._lock:
            cancelled, self._cancelled = self._cancelled, set()
            gone = [answer.number for answer in self._queue if answer.number in cancelled]
            if gone:
                self._queue = deque(answer for answer in self._queue if answer.number not in cancelled)
        for row, answer in self._slots.taken:
            if answer.number in cancelled:
                self._slots.leave(row)
                gone.append(answer.number)
        return [Piece(number, "", (), None, None, "cancelled") for number in gone]

    def _begin(self) -> None:
        """Gives rows to requests that wait."""
        rows, slots = self._cache.rows, self._cache.slots
        wanted = len(self._queue) + self.running
        enough = next((size for size in self._sizes if size >= wanted), self._sizes[-1])
        if self.running:
            rows = max(rows, enough)
        elif self._queue:  # nothing is lost by a smaller cache, and less is read in each step
            rows = enough
            longest = max(answer.known for answer in self._queue) + STEPS * (1 + self.config.draft)
            slots = next((length for length in self._lengths if length >= longest), self._lengths[-1])
        if (rows, slots) != (self._cache.rows, self._cache.slots):
            self._resize(rows, slots)
        while self._queue and self._slots.free:
            with self._lock:
                answer = self._queue.popleft()
            self._slots.place(answer)

    def _read(self) -> None:
        """Reads prompts, those that came first, first: all of them if no answer waits for its next token."""
        taken = self._slots.taken
        reading = [(row, answer) for row, answer in taken if not answer.has_read_its_prompt]
        budget = READ_IN_A_STEP if len(reading) < len(taken) else math.inf
        copies: list[tuple[int, int, int]] = []
        if reading:
            self._make_room(max(answer.length for _, answer in reading))
        for place, (row, answer) in enumerate(reading):
            earlier = [other for _, other in reading[:place] if not other.has_read_its_prompt]
            if any(shared(other, answer) >= max(answer.read, other.read) + WORTH_A_COPY for other in earlier):
                continue  # until the other has read it
            source, common = self._slots.most_like(answer)
            if common >= answer.read + WORTH_A_COPY:
                self._slots.use(source)
                self._slots.has_read(row, common)
                copies.append((source, row, common))
            if not answer.has_read_its_prompt and budget > 0:
                self._copy(copies)
                copies.clear()
            while not answer.has_read_its_prompt and budget > 0:
                budget -= self._read_part(row, answer)
        self._copy(copies)

    def _copy(self, copies: Sequence[tuple[int, int, int]]) -> None:
        """Copies of rows so many tokens to others: (source, target, tokens)."""
        if copies:
            padded = np.zeros((3, self._cache.rows), np.int32)
            padded[:, : len(copies)] = np.transpose(copies)
            began = time.perf_counter()
            self._cache = jax.block_until_ready(programs.copy(self._cache, padded, np.int32(len(copies))))
            self.device_seconds += time.perf_counter() - began

    def _read_part(self, row: int, answer: OpenAnswer) -> int:
        """Reads some more of a prompt, and returns how much."""
        rest = answer.length - 1 - answer.read
        size = next((size for size in READS if size >= rest), READS[-1])
        count, tokens, following = min(rest, size), np.zeros(size, np.int32), np.zeros(size, np.int32)
        tokens[:count] = answer.tokens[answer.read : answer.read + count]
        where = np.int32(answer.read), np.int32(count), np.int32(row)
        began = time.perf_counter()
        if answer.request.prompt_logprobs:
            following[:count] = answer.tokens[answer.read + 1 : answer.read + 1 + count]
            self._cache, likely = programs.read_and_rate(
                self._weights, self._cache, tokens, following, *where, self.model.config
            )
            answer.rated += told(
                jax.tree.map(np.asarray, likely), following[:count].tolist(), answer.request.top_logprobs or 0
            )
        else:
            self._cache = programs.read(self._weights, self._cache, tokens, *where, self.model.config)
        self.device_seconds += time.perf_counter() - began
        self._slots.has_read(row, answer.read + count)
        self.read_tokens += count
        return count

    def _draw(self, patience: float) -> list[Piece]:
        """Draws tokens of all answers that have read their prompts."""
        drawing = [(row, answer) for row, answer in self._slots.taken if answer.has_read_its_prompt]
        if not drawing:
            return []
        steps = STEPS
        if patience < math.inf and self._seconds_a_step:
            steps = max(1, min(STEPS, int(patience / self._seconds_a_step)))
        if len(drawing) < self.running:
            steps = 1  # others have prompts to be read
        at_once = steps * (1 + self.config.draft)
        self._make_room(max(min(answer.known + at_once, len(answer.tokens)) for _, answer in drawing))
        rate = any(answer.request.top_logprobs is not None for _, answer in drawing)
        began = time.perf_counter()
        self._cache, out = programs.answer(
            self._weights,
            self._cache,
            self._rows(drawing),
            np.int32(steps),
            np.bool_(rate),
            np.bool_(bool(self._queue)),
            self.model.config,
            tuple(sorted(self.ends)),
            self.config.draft,
        )
        tokens, counts = np.asarray(out.tokens), np.asarray(out.counts)
        likely = jax.tree.map(np.asarray, out.likely) if rate else None
        seconds, taken = time.perf_counter() - began, int(counts.any(axis=1).sum())
        self.device_seconds += seconds
        self.steps += taken
        self._seconds_a_step = seconds / max(1, taken)
        return [self._say(row, answer, tokens[:, row], counts[:, row], likely) for row, answer in drawing]

    def _rows(self, drawing: Sequence[tuple[int, OpenAnswer]]) -> RowStates:
        """Where the rows stand, for the device."""
        rows = self._cache.rows
        history = np.zeros((rows, self._cache.slots), np.int32)
        last, left = (np.zeros(rows, np.int32) for _ in range(2))
        temperature, min_p = (np.zeros(rows, np.float32) for _ in range(2))
        top_p, penalty = (np.ones(rows, np.float32) for _ in range(2))
        top_k, random = np.zeros(rows, np.int32), np.zeros((rows, STEPS * (1 + self.config.draft)), np.uint32)
        for row, answer in drawing:
            known = min(answer.known, self._cache.slots)
            history[row, :known] = answer.tokens[:known]
            last[row], left[row] = answer.known - 1, answer.left
            sampling = answer.request.sampling
            temperature[row], top_k[row], top_p[row] = sampling.temperature, sampling.top_k, sampling.top_p
            min_p[row], penalty[row] = sampling.min_p, sampling.repetition_penalty
            following = answer.random[answer.drawn :][: random.shape[1]]
            random[row, : len(following)] = following
        # The device takes numpy's arrays as its own.
        settings: Any = (temperature, top_k, top_p, min_p, penalty)
        alike: Any = self._slots.alike()
        state: Any = (history, last, left, Settings(*settings), random, Alike(*alike))
        return RowStates(*state)

    def _say(self, row: int, answer: OpenAnswer, tokens: np.ndarray, count: np.ndarray, likely: Likely | None) -> Piece:
        """What is new of an answer, from the tokens [steps, width] that were drawn."""
        first = answer.known
        text: list[str] = []
        new: list[int] = []
        reason: FinishReason | None = None
        for token in tokens[np.arange(tokens.shape[1]) < count[:, None]].tolist():
            ends = token in self.ends
            answer.tokens[answer.known] = token
            answer.known += 1
            new.append(token)
            more = b"" if ends else self.tokenizer.decode_bytes([token])
            text.append(answer.text.add(more, last=ends or not answer.left))
            if answer.text.stopped or ends or not answer.left:
                reason = "length" if not (answer.text.stopped or ends) else "stop"
                break
        # Everything known was read but the last token, which the next step reads.
        self._slots.has_read(row, answer.known - 1)
        if reason:
            self._slots.leave(row)
        logprobs = None
        if likely is not None and answer.request.top_logprobs is not None:
            drawn = np.arange(tokens.shape[1]) < count[:, None]
            rated = Likely(*(each[:, row][drawn][: answer.known - first] for each in likely))
            logprobs = tuple(told(rated, new, answer.request.top_logprobs))
        prompt_logprobs = tuple(answer.rated) if answer.request.prompt_logprobs and not answer.told_prompt else None
        answer.told_prompt = True
        return Piece(answer.number, "".join(text), tuple(new), logprobs, prompt_logprobs, reason)

    # ------------------------------------------------------------------------------------------------ the cache's sizes

    @property
    def _sizes(self) -> list[int]:
        """The numbers of rows that a cache may have."""
        sizes, most = [LEAST_ROWS], max(self.config.rows, LEAST_ROWS)
        while sizes[-1] * 4 < most:
            sizes.append(sizes[-1] * 4)
        return sizes if sizes[-1] == most else [*sizes, most]

    @property
    def _lengths(self) -> list[int]:
        """The numbers of slots that a row may have."""
        lengths, most = [LEAST_SLOTS], -(-self.model.config.context // 128) * 128
        while lengths[-1] * 2 < most:
            lengths.append(lengths[-1] * 2)
        return [most] if most <= LEAST_SLOTS else [*lengths, most]

    def _make_room(self, tokens: int) -> None:
        """Sees to it that rows have slots for so many tokens."""
        if tokens > self._cache.slots:
            self._resize(self._cache.rows, next(length for length in self._lengths if length >= tokens))

    def _resize(self, rows: int, slots: int) -> None:
        kept = list(range(rows)) if rows == self._cache.rows else self._slots.kept(rows)
        self._cache = place_cache(programs.resize(self._cache, np.array(kept, np.int32), slots), self._mesh)
        self._slots = self._slots.rearranged(kept, slots)

    def _on_mesh(self) -> AbstractContextManager[object]:
        return jax.set_mesh(self._mesh) if self._mesh else nullcontext()


def shared(one: OpenAnswer, other: OpenAnswer) -> int:
    """How many tokens two prompts begin with alike, if the other may take them from the one."""
    if other.request.prompt_logprobs:
        return 0
    return common(one.tokens[: one.length - 1], other.tokens[: other.length - 1])


def told(likely: Likely, tokens: Sequence[int], top: int) -> list[TokenLogprob]:
    """Log-probabilities of tokens, as they are handed out."""
    own, logprobs, ids = (each[: len(tokens)].tolist() for each in likely)
    return [
        TokenLogprob(int(token), logprob, tuple(zip(which[:top], each[:top], strict=True)))
        for token, logprob, each, which in zip(tokens, own, logprobs, ids, strict=True)
    ]
