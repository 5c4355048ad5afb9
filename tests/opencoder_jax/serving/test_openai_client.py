"""OpenAI's own client, unmodified, against a real server on this machine."""

import asyncio
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import openai
import pytest

from opencoder_jax.serving.config import ServeConfig
from opencoder_jax.serving.serve import http_server

HELLO: list[Any] = [{"role": "user", "content": "hello"}]


@contextmanager
def listening(scripted: Any) -> Iterator[str]:
    """A real server around a scripted one, for a while; yields its address."""
    server = scripted.http_server = http_server(scripted.app, scripted.config)
    listener = socket.create_server(("127.0.0.1", 0))
    thread = threading.Thread(target=lambda: asyncio.run(server.serve(sockets=[listener])))
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(20)
        assert not thread.is_alive()


def wait_until(holds: Callable[[], bool]) -> None:
    """Waits, for 20 seconds at most."""
    deadline = time.monotonic() + 20
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def lets_in(address: str) -> bool:
    """Whether a new connection is taken."""
    try:
        socket.create_connection(("127.0.0.1", int(address.rpartition(":")[2])), timeout=5).close()
    except ConnectionRefusedError:
        return False
    return True


@pytest.fixture
def served(scripted: Callable[..., Any]) -> Iterator[tuple[Any, openai.OpenAI]]:
    it = scripted(keys=("secret",), config=ServeConfig(waiting=8, choices=8))
    with (
        listening(it) as address,
        openai.OpenAI(base_url=f"{address}/v1", api_key="secret", max_retries=0, timeout=20) as client,
    ):
        yield it, client


def test_completions(served: tuple[Any, openai.OpenAI]) -> None:
    it, client = served
    said = client.completions.create(model="small", prompt=["a", "b"], n=2, logprobs=2, max_tokens=4, stop=["x"])
    assert [choice.text for choice in said.choices] == [it.engine.text(request) for request in it.engine.asked]
    assert said.usage is not None
    assert said.usage.completion_tokens == 16
    logprobs = said.choices[0].logprobs
    assert logprobs is not None
    assert logprobs.token_logprobs is not None
    assert len(logprobs.token_logprobs) == 4


def test_chats(served: tuple[Any, openai.OpenAI]) -> None:
    it, client = served
    said = client.chat.completions.create(model="small", messages=HELLO, logprobs=True, top_logprobs=2, seed=3)
    assert said.choices[0].message.content == it.engine.text(it.engine.asked[0])
    assert said.choices[0].logprobs is not None
    assert said.choices[0].logprobs.content is not None
    assert len(said.choices[0].logprobs.content[0].top_logprobs) == 2
    # What came back can be sent back.
    again = [*HELLO, said.choices[0].message, *HELLO]
    assert client.chat.completions.create(model="small", messages=again, max_completion_tokens=2).choices


def test_streams(served: tuple[Any, openai.OpenAI]) -> None:
    it, client = served
    options: Any = {"include_usage": True}
    chunks = list(client.chat.completions.create(model="small", messages=HELLO, stream=True, stream_options=options))
    text = "".join(choice.delta.content or "" for chunk in chunks for choice in chunk.choices)
    assert text == it.engine.text(it.engine.asked[0])
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens == len(it.engine.answer(it.engine.asked[0]))
    parts = client.completions.create(model="small", prompt="a", stream=True)
    assert "".join(part.choices[0].text for part in parts) == it.engine.text(it.engine.asked[1])


def test_a_stream_that_is_closed_is_cancelled(served: tuple[Any, openai.OpenAI]) -> None:
    it, client = served
    it.engine.held = True
    it.engine.may_step.release(2)
    stream = client.completions.create(model="small", prompt="a", stream=True, max_tokens=60)
    next(iter(stream))
    stream.close()
    wait_until(lambda: it.engine.cancelled == [0])
    it.engine.may_step.release(60)
    assert client.completions.create(model="small", prompt="b", max_tokens=2).choices[0].finish_reason == "length"


def test_errors_are_the_clients_own(served: tuple[Any, openai.OpenAI]) -> None:
    it, client = served
    with pytest.raises(openai.BadRequestError) as error:
        client.chat.completions.create(model="small", messages=HELLO, extra_body={"temprature": 1})
    assert error.value.param == "temprature"
    with pytest.raises(openai.NotFoundError):
        client.completions.create(model="other", prompt="a")
    with pytest.raises(openai.AuthenticationError):
        client.with_options(api_key="guess").completions.create(model="small", prompt="a")
    it.engine.held = True
    streams = [client.completions.create(model="small", prompt="a", n=6, stream=True) for _ in range(2)]
    with pytest.raises(openai.RateLimitError) as limited:
        client.completions.create(model="small", prompt="a", n=2)
    assert int(limited.value.response.headers["retry-after"]) >= 1
    it.engine.held = False
    it.engine.may_step.release()
    for stream in streams:
        assert sum(part.choices[0].finish_reason is not None for part in stream) == 6


def test_a_server_that_stops_finishes_what_runs(scripted: Any) -> None:
    it = scripted()
    it.engine.held = True
    with listening(it) as address:
        client = openai.OpenAI(base_url=f"{address}/v1", api_key="-", max_retries=0, timeout=20)
        stream = client.completions.create(model="small", prompt="a", stream=True, n=2, max_tokens=30)
        it.engine.may_step.release()
        said = next(stream).choices[0].text
        it.http_server.should_exit = True
        wait_until(lambda: not lets_in(address))
        it.engine.held = False
        it.engine.may_step.release()
        said += "".join(part.choices[0].text for part in stream)
        client.close()
    assert sorted(said) == sorted("".join(map(it.engine.text, it.engine.asked)))
