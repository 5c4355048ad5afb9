"""The client against a server that misbehaves as real ones do: busy, rude, mute, or not there."""

from collections.abc import Iterator
from email.utils import formatdate
from time import time
from typing import Any

import pytest

from opencoder_jax.openai_client import OpenAIClient
from opencoder_jax.recipe import UserError
from tests.scripted_openai import Script


@pytest.fixture
def script() -> Iterator[Script]:
    script = Script()
    yield script
    script.server.shutdown()
    script.server.server_close()


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    return []


def client(script: Script, waits: list[float], **settings: Any) -> OpenAIClient:
    return OpenAIClient(f"{script.url}/v1/", "tiny", settings, wait=waits.append)


def test_a_text_and_a_conversation(script: Script, waits: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "secret")
    asked = client(script, waits, temperature=0.5)
    assert asked.answer("go on", ["\n"], seed=7).text == "GO ON"
    reply = asked.answer([{"role": "user", "content": "hello"}])
    assert (reply.text, reply.finish_reason, reply.tokens) == ("HELLO", "stop", 3)
    (path, body, key), (chat, other, _) = script.asked
    assert (path, chat, key) == ("/v1/completions", "/v1/chat/completions", "Bearer secret")
    assert body == {"temperature": 0.5, "seed": 7, "model": "tiny", "prompt": "go on", "stop": ["\n"]}
    assert "stop" not in other


def test_the_only_model_needs_no_name(script: Script) -> None:
    assert OpenAIClient(script.url).model == "tiny"
    script.plan = [(200, {}, {"data": [{"id": "a"}, {"id": "b"}]})]
    with pytest.raises(UserError, match="serves a, b: say which one"):
        OpenAIClient(script.url)


def test_it_waits_as_long_as_the_server_says(script: Script, waits: list[float]) -> None:
    late = formatdate(time() + 100, usegmt=True)
    script.plan = [
        (429, {"Retry-After": "17"}, {"error": {"message": "slow down"}}),
        (503, {"Retry-After": late}, b"<html>busy</html>"),
        (429, {"Retry-After": "99999"}, {}),
        (500, {"Retry-After": "soon"}, {}),
        (200, {"Content-Length": "500"}, b'{"choi'),  # cut off in the middle
    ]
    assert client(script, waits).answer("a").text == "A"
    assert waits[0] == 17
    assert 90 < waits[1] <= 100
    assert waits[2] == 300
    assert 4 <= waits[3] <= 8  # twice as long each time, with chance in it
    assert len(script.asked) == 6


def test_busy_for_ever_is_an_error_and_no_loop(script: Script, waits: list[float]) -> None:
    script.plan = [(429, {}, {"error": {"message": "quota"}})] * 8
    with pytest.raises(UserError, match=r"too busy 8 times in a row \(429 quota\)"):
        client(script, waits).answer("a")
    assert len(waits) == 7


@pytest.mark.parametrize(
    ("status", "message"),
    [
        (401, "refuses no key: set OPENAI_API_KEY"),
        (403, "refuses no key"),
        (404, r"no model tiny or no /v1/completions \(404 no such model\); it serves tiny"),
        (400, r"refuses the request \(400 no such model\)"),
        (418, "418 no such model"),
    ],
)
def test_what_only_a_person_can_mend_is_not_asked_twice(
    script: Script, waits: list[float], status: int, message: str
) -> None:
    script.plan = [(status, {}, {"error": {"message": "no such\nmodel"}})]
    with pytest.raises(UserError, match=message):
        client(script, waits).answer("a")
    assert waits == []


def test_the_key_is_in_no_message(script: Script, waits: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "secret")
    script.plan = [(401, {}, {"error": "wrong"})]
    with pytest.raises(UserError, match="the key in OPENAI_API_KEY") as caught:
        client(script, waits).answer("a")
    assert "secret" not in str(caught.value)


def test_a_server_that_takes_four_stops_gets_four(script: Script, waits: list[float]) -> None:
    script.plan = [(400, {}, {"error": {"message": "'stop': at most 4"}})]
    asked = client(script, waits)
    stops = ["a", "b", "c", "d", "e"]
    assert asked.answer("x", stops).text == "X"
    asked.answer("x", stops)
    assert [body["stop"] for _, body, _ in script.asked] == [stops, stops[:4], stops[:4]]


def test_nobody_there_and_no_protocol(waits: list[float], script: Script) -> None:
    script.plan = [(200, {}, {"choices": []})]
    with pytest.raises(UserError, match="isn't OpenAI's protocol"):
        client(script, waits).answer("a")
    script.server.shutdown()
    script.server.server_close()
    with pytest.raises(UserError, match=r"no answer .*is the server there"):
        client(script, waits).answer("a")
    with pytest.raises(UserError, match="not a server's address"):
        OpenAIClient("localhost:8000")


def test_many_at_once_come_in_their_order(script: Script, waits: list[float]) -> None:
    prompts = [f"p{number}" for number in range(20)]
    found = client(script, waits).answers(prompts, (), [{"seed": number} for number in range(20)], 4)
    assert [reply.text for reply in found] == [prompt.upper() for prompt in prompts]
