"""A teacher: any model behind OpenAI's protocol, asked by many threads, never asked the same twice.

Every answer is recorded under its request's content before it's used (opencoder_jax/clients/recorded_answers.py), cut
and empty ones too, for they are paid as well. Such a one is asked again with another seed, a few times. What a server
refuses or fails at costs that question alone; a server that is away, a wrong key, a spent budget end the run, and the
same command goes on.
"""

import hashlib
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import astuple, dataclass

from opencoder_jax.checks import above, at_least, between, check, or_none
from opencoder_jax.clients.openai_client import OpenAIClient, RefusedError, ServerReply, UnansweredError
from opencoder_jax.clients.recorded_answers import RecordedAnswers, request_key
from opencoder_jax.recipe import UserError, configurable

Messages = Sequence[dict[str, str]]
Ask = Callable[[Messages, str], str]  # what is said, and a name that tells this question from others of the same words

_FAILURES = 20  # requests in a row that get no answer: then it isn't the requests
_TRIES = 6  # of a request that a server fails at


@configurable
@dataclass(frozen=True)
class TeacherConfig:
    """Who is asked, how, and for how much money.

    Attributes:
        server: the address of a server in OpenAI's protocol; "": only what was recorded is read.
        model: the teacher, as the server calls it.
        at_once: requests on their way at the same time.
        tries: of a question whose answer is empty or cut.
        temperature: of sampling.
        top_p: of sampling.
        max_tokens: of an answer.
        seed: of all answers; another one asks anew.
        price_read: of a million tokens that are read, in your currency.
        price_written: of a million tokens that are written.
        most_tokens: read and written; then the run stops.
        most_cost: in the same currency; then the run stops.
    """

    server: str = ""
    model: str = ""
    at_once: int = 16
    tries: int = 3
    temperature: float = 1.0
    top_p: float = 0.95
    max_tokens: int = 2048
    seed: int = 0
    price_read: float = 0.0
    price_written: float = 0.0
    most_tokens: int | None = None
    most_cost: float | None = None

    def __post_init__(self) -> None:
        check(self, at_once=at_least(1), tries=at_least(1), temperature=at_least(0), top_p=between(0, 1))
        check(self, max_tokens=at_least(1), price_read=at_least(0), price_written=at_least(0))
        check(self, most_tokens=or_none(at_least(1)), most_cost=or_none(above(0)))
        if not self.model:
            raise ValueError("model='': name the teacher, as its server calls it (--gin.TeacherConfig.model=NAME)")


class NoAnswerError(Exception):
    """A question stays without an answer; the message is the reason by which it's counted."""


@dataclass
class Spent:
    """Tokens, and what they cost."""

    read: int = 0
    written: int = 0
    requests: int = 0

    def add(self, reply: ServerReply) -> None:
        self.read += reply.prompt_tokens
        self.written += reply.tokens
        self.requests += 1

    @property
    def tokens(self) -> int:
        return self.read + self.written

    def cost(self, config: TeacherConfig) -> float:
        return (self.read * config.price_read + self.written * config.price_written) / 1e6

    def told(self, config: TeacherConfig) -> str:
        """`12 requests, 3,400 tokens read, 560 written, cost 0.0123`."""
        return (
            f"{self.requests:,} requests, {self.read:,} tokens read, {self.written:,} written, cost "
            f"{self.cost(config):.4f}"
        )


class Teacher:
    """Asks and records. Safe to call from several threads.

    Attributes:
        model: its name.
        counts: of the answers that were used: good ones, and the others by what was wrong with them.
        paid: in this run.
        known: what recorded answers that were read again had cost before.
    """

    def __init__(self, config: TeacherConfig, record: RecordedAnswers, client: OpenAIClient | None = None) -> None:
        self._config, self._record = config, record
        if client is None and config.server:
            client = OpenAIClient(config.server, config.model, tries=_TRIES)
        self.model = config.model
        self._client = client
        # Without a server it only says what a request would be.
        self._requests = client or OpenAIClient("http://localhost", config.model)
        self._lock = threading.Lock()
        self._failures = 0
        self._over: UserError | None = None
        self.counts: Counter[str] = Counter()
        self.paid, self.known = Spent(), Spent()

    def ask(self, messages: Messages, name: str) -> str:
        """An answer that is whole and not empty.

        Args:
            messages: of the conversation so far.
            name: of the question: others get other answers, though they say the same.

        Raises:
            NoAnswerError: there is none, however often it's asked.
            UserError: nothing more can be asked.
        """
        for number in range(self._config.tries):
            if self._over:
                raise self._over
            try:
                reply = self._reply(messages, f"{name}/{number}")
            except UserError as error:
                self._over = error
                raise
            if reply.finish_reason == "length":
                problem = "answer is cut"
            elif not reply.text.strip():
                problem = "answer is empty"
            else:
                self._count("answers: good")
                return reply.text
            self._count(f"answers: {problem}")
        raise NoAnswerError(problem)

    def spent(self) -> Spent:
        """All that the answers so far have cost, now or before."""
        with self._lock:
            return Spent(*(mine + was for mine, was in zip(astuple(self.paid), astuple(self.known), strict=True)))

    def _reply(self, messages: Messages, name: str) -> ServerReply:
        config = self._config
        path, body = self._requests.request(
            list(messages),
            temperature=config.temperature,
            top_p=config.top_p,
            max_tokens=config.max_tokens,
            seed=_seed(config.seed, name),
        )
        key = request_key(path, body)
        if found := self._record.find(key):
            with self._lock:
                self._failures = 0  # of a run that goes on, those that failed before stand between the recorded ones
                self.known.add(found)
            return found
        if self._client is None:
            raise UserError(f"{self._record.path}: has no answer to {name}; name a server (TeacherConfig.server)")
        self._refuse_to_overspend()
        settings = {name: value for name, value in body.items() if name not in ("model", "messages")}
        try:
            reply = self._client.answer(list(messages), **settings)
        except RefusedError:
            self._count("answers: refused")
            raise NoAnswerError("refused") from None
        except UnansweredError as error:
            self._count("answers: none")
            with self._lock:
                self._failures += 1
                if self._failures >= _FAILURES:
                    raise UserError(f"{_FAILURES} requests in a row got no answer; the last: {error}") from None
            raise NoAnswerError("no answer") from None
        self._record.keep(path, body, reply)
        with self._lock:
            self._failures = 0
            self.paid.add(reply)
        return reply

    def _refuse_to_overspend(self) -> None:
        config = self._config
        paid = self.spent()
        for name, spent, most in (
            ("most_tokens", paid.tokens, config.most_tokens),
            ("most_cost", paid.cost(config), config.most_cost),
        ):
            if most is not None and spent >= most:
                raise UserError(
                    f"the budget is spent: {spent:,.6g} of TeacherConfig.{name}={most:,.6g}; with a larger one the "
                    "same command goes on"
                )

    def _count(self, what: str) -> None:
        with self._lock:
            self.counts[what] += 1


def _seed(seed: int, name: str) -> int:
    """31 bits, which every server takes."""
    return int.from_bytes(hashlib.blake2b(f"{seed}/{name}".encode(), digest_size=4).digest()) >> 1
