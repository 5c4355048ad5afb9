"""An engine without a model: what it says follows from the prompt and the seed, a token a step, in a few slots."""

import threading
from collections.abc import Sequence

from opencoder_jax.inference.requests import Piece, Request, TokenLogprob
from opencoder_jax.recipe import UserError
from opencoder_jax.tokenization.tokenizer import Tokenizer


class ScriptedEngine:
    def __init__(self, tokenizer: Tokenizer, slots: int = 4, context: int = 256) -> None:
        self.tokenizer = tokenizer
        self.context = context
        self.asked: list[Request] = []
        self.cancelled: list[int] = []
        self.says = ""  # a text to say whatever is asked
        self.fails = False
        self.may_step = threading.Semaphore(0)
        self.held = False  # a step waits for `may_step`
        self._slots = slots
        self._open: dict[int, tuple[Request, list[int], list[int]]] = {}  # with what is to be said, and was
        self._lock = threading.Lock()

    def answer(self, request: Request) -> list[int]:
        """All that it would say, the end included."""
        said = self.tokenizer.encode(self.says or f" é{request.prompt[-1] % 97}{request.seed}!" * 3)
        return [*said, self.tokenizer.end_of_document][: request.sampling.max_tokens]

    def text(self, request: Request) -> str:
        return self.tokenizer.decode(self.answer(request))

    def check(self, requests: Sequence[Request]) -> None:
        for request in requests:
            if len(request.prompt) + request.sampling.max_tokens > self.context:
                raise UserError("too long")

    def submit(self, requests: Sequence[Request]) -> list[int]:
        self.check(requests)
        with self._lock:
            ids = [len(self.asked) + place for place in range(len(requests))]
            self.asked += requests
            for name, request in zip(ids, requests, strict=True):
                self._open[name] = (request, self.answer(request), [])
        return ids

    def cancel(self, request: int) -> None:
        with self._lock:
            self.cancelled.append(request)
            self._open.pop(request, None)

    @property
    def busy(self) -> bool:
        return bool(self._open)

    @property
    def running(self) -> int:
        return min(len(self._open), self._slots)

    @property
    def waiting(self) -> int:
        return max(len(self._open) - self._slots, 0)

    def step(self) -> list[Piece]:
        if self.fails:
            raise RuntimeError("the accelerator has gone")
        if self.held:
            self.may_step.acquire(timeout=20)
        with self._lock:
            return [self._next(name) for name in list(self._open)[: self._slots]]

    def _next(self, name: int) -> Piece:
        request, script, said = self._open[name]
        before = self._whole(said)
        said.append(script[len(said)])
        ended = len(said) == len(script)
        shown = request.top_logprobs
        reason = None
        if ended:
            del self._open[name]
            reason = "stop" if said[-1] == self.tokenizer.end_of_document else "length"
        after = self.tokenizer.decode(said) if ended else self._whole(said)
        return Piece(
            name,
            after[len(before) :],
            (said[-1],),
            None if shown is None else (self.logprob(said[-1], shown),),
            tuple(self.logprob(token, shown or 0) for token in request.prompt[1:])
            if request.prompt_logprobs and len(said) == 1
            else None,
            reason,
        )

    def _whole(self, tokens: Sequence[int]) -> str:
        """The characters that are whole."""
        content = self.tokenizer.decode_bytes(tokens)
        return content.decode(errors="ignore") if b"\xc3" in content[-1:] else content.decode(errors="replace")

    @staticmethod
    def logprob(token: int, count: int) -> TokenLogprob:
        top = ((token, -token / 100), (65, -9.0), (66, -10.0), (67, -float("inf")))
        return TokenLogprob(token, -token / 100, top[:count])
