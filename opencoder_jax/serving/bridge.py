"""Between the event loop, where requests come in, and the one thread in which the engine steps.

Answers are submitted and cancelled on the event loop; the thread steps while there is anything to do and hands every
step's pieces back to the loop, which sorts them into the queues of those who wait. Submitting and registering happen
in one go on the loop, so no piece comes before its queue is there.
"""

import asyncio
import logging
import math
import threading
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Protocol, Self

from opencoder_jax.inference.requests import Piece, Request
from opencoder_jax.serving.metrics import Metrics
from opencoder_jax.serving.parameters import Refused

log = logging.getLogger(__name__)

_RECENT = 60.0  # seconds over which the rate of answers is taken


class Steps(Protocol):
    """What is needed of an engine; opencoder_jax.inference's has it."""

    def check(self, requests: Sequence[Request]) -> None: ...
    def submit(self, requests: Sequence[Request]) -> list[int]: ...
    def cancel(self, request: int) -> None: ...
    def step(self) -> list[Piece]: ...
    @property
    def busy(self) -> bool: ...
    @property
    def waiting(self) -> int: ...
    @property
    def running(self) -> int: ...


class EngineFailed(Exception):
    """The engine's thread met an error that is no client's fault; it answers nothing any more."""


class Answers:
    """What becomes of requests that were submitted together. Leaving it cancels what isn't finished.

    with bridge.submit(requests) as answers:
        async for index, piece in answers: …
    """

    def __init__(self, bridge: "Bridge", ids: Sequence[int]) -> None:
        self._bridge = bridge
        self._index = {request: index for index, request in enumerate(ids)}  # of those that aren't finished
        self._pieces: asyncio.Queue[Piece | EngineFailed] = asyncio.Queue()
        self._submitted = time.monotonic()
        self._silent = set(ids)  # those that have no token yet

    async def __aiter__(self) -> AsyncIterator[tuple[int, Piece]]:
        """Yields (index of the request, piece) as they come, until all are finished. Raises EngineFailed."""
        while self._index:
            piece = await self._pieces.get()
            if isinstance(piece, EngineFailed):
                raise piece
            index = self._index[piece.request]
            if piece.finish_reason:
                del self._index[piece.request]
            yield index, piece

    def put(self, piece: Piece | EngineFailed) -> None:
        """Takes what is new; on the event loop."""
        self._pieces.put_nowait(piece)
        if isinstance(piece, EngineFailed):
            return
        metrics, elapsed = self._bridge.metrics, time.monotonic() - self._submitted
        metrics.tokens.inc(len(piece.tokens))
        if piece.request in self._silent and piece.tokens:
            self._silent.remove(piece.request)
            metrics.first_token.observe(elapsed)
        if piece.finish_reason:
            metrics.answers.labels(piece.finish_reason).inc()
            metrics.answer.observe(elapsed)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._bridge.forget(self._index)


class Bridge:
    """One engine, its thread, and the answers under way."""

    def __init__(self, engine: Steps, most_waiting: int) -> None:
        """`most_waiting`: answers that may wait for a slot."""
        self.on_failure: Callable[[], None] = lambda: None  # called on the event loop when the engine has failed
        self.metrics = Metrics(lambda: engine.running, lambda: engine.waiting)
        self.failure: BaseException | None = None
        self._engine = engine
        self._most_waiting = most_waiting
        self._open: dict[int, Answers] = {}
        self._ended: deque[float] = deque(maxlen=1000)  # when the latest answers ended
        self._wake = threading.Event()
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)

    def start(self) -> None:
        """Starts the thread; on the event loop to which pieces are to come."""
        self._loop = asyncio.get_running_loop()
        self._thread.start()

    async def stop(self) -> None:
        """Ends the thread after the step that it is in; what is under way is cancelled."""
        self.forget(list(self._open))
        self._stopping = True
        self._wake.set()
        await asyncio.to_thread(self._thread.join)

    @property
    def working(self) -> bool:
        """Whether answers can be expected."""
        return self._thread.is_alive() and self.failure is None and not self._stopping

    def submit(self, requests: Sequence[Request]) -> Answers:
        """Submits requests that belong together; on the event loop.

        Raises:
            Refused: too many wait already, or nothing is answered any more.
            UserError: what can't be answered, as the engine says.
        """
        if not self.working:
            raise Refused("the engine failed" if self.failure else "the server is stopping", status=503, retry_after=5)
        self._engine.check(requests)  # first: what can never be answered isn't to come again later
        if (waiting := self._engine.waiting) + len(requests) > self._most_waiting:
            message = f"{waiting} answers are waiting already; try again later"
            raise Refused(message, code="queue_full", status=429, retry_after=self._retry_after(waiting))
        ids = self._engine.submit(requests)
        answers = Answers(self, ids)
        self._open.update(dict.fromkeys(ids, answers))
        self._wake.set()
        prompts = {request.prompt for request in requests}
        self.metrics.prompt_tokens.inc(sum(map(len, prompts)))
        return answers

    def forget(self, ids: Sequence[int] | dict[int, int]) -> None:
        """Cancels what of these isn't finished; on the event loop."""
        for request in list(ids):
            if self._open.pop(request, None) is not None:
                self._engine.cancel(request)
                self.metrics.answers.labels("cancelled").inc()
        self._wake.set()

    def _retry_after(self, waiting: int) -> int:
        """Seconds until about half of those that wait are answered, by the latest rate."""
        now = time.monotonic()
        recent = sum(now - ended < _RECENT for ended in self._ended)
        return min(60, max(1, math.ceil(_RECENT * waiting / 2 / recent))) if recent else 10

    def _run(self) -> None:
        """The thread."""
        try:
            while not self._stopping:
                if self._engine.busy:
                    if pieces := self._engine.step():
                        self._loop.call_soon_threadsafe(self._deliver, pieces)
                else:
                    self._wake.wait()
                    self._wake.clear()
        except BaseException as error:
            log.exception("the engine failed")
            self.failure = error
            if not self._loop.is_closed():
                self._loop.call_soon_threadsafe(self._fail)

    def _deliver(self, pieces: Sequence[Piece]) -> None:
        for piece in pieces:
            if (answers := self._open.get(piece.request)) is None:
                continue  # nobody waits for it any more
            if piece.finish_reason:
                del self._open[piece.request]
                self._ended.append(time.monotonic())
            answers.put(piece)

    def _fail(self) -> None:
        for answers in set(self._open.values()):
            answers.put(EngineFailed("the engine failed"))
        self._open.clear()
        self.on_failure()
