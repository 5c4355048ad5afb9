"""Who shares the batch doesn't change a bit of an answer: requests in random mixes against each of them alone."""

import random
import time
from collections.abc import Callable, Iterable

import numpy as np
import pytest

from opencoder_jax.inference.config import EngineConfig
from opencoder_jax.inference.engine import Engine
from opencoder_jax.inference.requests import Piece, Request, TokenLogprob
from opencoder_jax.inference.sampling import SamplingConfig
from opencoder_jax.parallel.model_directory import LoadedModel
from opencoder_jax.tokenization.tokenizer import Tokenizer

Whole = tuple[tuple[int, ...], tuple[TokenLogprob, ...], str, str | None]
STEMS = [np.random.default_rng(stem).integers(4, 290, 90).tolist() for stem in range(4)]


def any_request(number: int) -> Request:
    """A request with a prompt that may begin as another's does, and settings of all kinds."""
    draw = random.Random(number)
    own = [draw.randrange(4, 290) for _ in range(draw.choice((1, 2, 7, 30, 60)))]
    prompt = STEMS[draw.randrange(4)][: draw.choice((0, 0, 33, 70, 90))] + own
    sampling = SamplingConfig(
        temperature=draw.choice((0.0, 0.7, 1.5)),
        top_k=draw.choice((0, 0, 5, 50)),
        top_p=draw.choice((1.0, 0.9, 0.5)),
        min_p=draw.choice((0.0, 0.0, 0.1)),
        repetition_penalty=draw.choice((1.0, 1.0, 1.3)),
        max_tokens=draw.choice((1, 3, 10, 40)),
        seed=draw.randrange(3),
    )
    stop = draw.choice(((), (), ("a", "in"), ("return",)))
    return Request(tuple(prompt), sampling, draw.randrange(1 << 32), stop, top_logprobs=draw.choice((0, 2)))


def joined(pieces: Iterable[Piece]) -> Whole:
    """An answer's tokens, log-probabilities, text and end."""
    pieces = list(pieces)
    logprobs = tuple(each for piece in pieces for each in piece.logprobs or ())
    tokens = tuple(token for piece in pieces for token in piece.tokens)
    return tokens, logprobs, "".join(piece.text for piece in pieces), pieces[-1].finish_reason


def finish(engine: Engine, said: dict[int, list[Piece]], patience: float = 0.05) -> None:
    while engine.busy:
        for piece in engine.step(patience):
            said.setdefault(piece.request, []).append(piece)


def alone(engine: Engine, request: Request) -> Whole:
    (number,) = engine.submit([request])
    said: dict[int, list[Piece]] = {}
    finish(engine, said)
    return joined(said[number])


def mixed(engine: Engine, requests: list[Request], seed: int) -> list[Whole]:
    """The answers to requests that come a few at a time, some of others cancelled in between."""
    draw = random.Random(seed)
    said: dict[int, list[Piece]] = {}
    wanted: list[int] = []
    others: set[int] = set()
    coming = list(requests)
    while coming or engine.busy:
        if coming and draw.random() < 0.7:
            few, coming = coming[: (count := draw.randint(1, 12))], coming[count:]
            wanted += engine.submit(few)
            if draw.random() < 0.3:
                others.update(engine.submit([any_request(draw.randrange(10**9))]))
        if others and draw.random() < 0.3:
            engine.cancel(others.pop())
        for piece in engine.step(draw.choice((0.0, 0.05, 1.0))):
            said.setdefault(piece.request, []).append(piece)
    return [joined(said[number]) for number in wanted]


def differing(found: list[Whole], expected: list[Whole]) -> list[int]:
    return [index for index, pair in enumerate(zip(found, expected, strict=True)) if pair[0] != pair[1]]


def test_a_mix_gives_what_each_gives_alone(make: Callable[[EngineConfig], Engine]) -> None:
    """200 requests, eight at a time; the first 30 of them one at a time, too."""
    requests = [any_request(number) for number in range(200)]
    together = mixed(make(EngineConfig(rows=8)), requests, 0)
    one = make(EngineConfig(rows=1))
    assert differing(together[:30], [alone(one, request) for request in requests[:30]]) == []
    assert len({whole[0] for whole in together}) > 150
    assert {whole[3] for whole in together} == {"stop", "length"}


@pytest.mark.slow
def test_rows_and_guesses_change_nothing(make: Callable[[EngineConfig], Engine]) -> None:
    requests = [any_request(number) for number in range(200)]
    expected = mixed(make(EngineConfig(rows=8)), requests, 0)
    assert differing(mixed(make(EngineConfig(rows=40)), requests, 1), expected) == []
    assert differing(mixed(make(EngineConfig(rows=8, draft=3)), requests, 2), expected) == []


@pytest.mark.slow
def test_ten_thousand_requests(make: Callable[[EngineConfig], Engine]) -> None:
    """Each in four mixes of 1 to 64 rows, with engines that are made anew in between; prints what that took."""
    requests = [any_request(number) for number in range(10_000)]
    expected: list[Whole] = []
    for rows, draft in ((16, 0), (64, 0), (3, 2), (1, 0)):
        engine, began, found = make(EngineConfig(rows=rows, draft=draft)), time.perf_counter(), []
        for first in range(0, 10_000, 2_500):
            found += mixed(engine, requests[first : first + 2_500], first + rows)
            engine = make(EngineConfig(rows=rows, draft=draft))  # a restart
        print(f"{rows} rows, {draft} guesses: {len(found)} requests, {time.perf_counter() - began:.0f} s")
        expected = expected or found
        assert differing(found, expected) == []


@pytest.fixture(scope="module")
def make(model: LoadedModel, tokenizer: Tokenizer) -> Callable[[EngineConfig], Engine]:
    return lambda config: Engine(model, tokenizer, config)
