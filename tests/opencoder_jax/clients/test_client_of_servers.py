"""The client against a server that misbehaves as real ones do: busy, rude, mute, or not there."""

import threading
from collections.abc import Iterator
from email.utils import formatdate
from time import time
from typing import Any

import pytest

from opencoder_jax.clients.openai_client import OpenAIClient, ServerReply
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
    assert 17 <= waits[0] <= 18
    assert 90 < waits[1] <= 101
    assert waits[2] == 300
    assert 4 <= waits[3] <= 9  # twice as long each time, with chance in it
    assert len(script.asked) == 6


def test_busy_for_ever_is_an_error_and_no_loop(script: Script, waits: list[float]) -> None:
    script.plan = [(429, {}, {"error": {"message": "quota"}})] * 8
    with pytest.raises(UserError, match=r"too busy 8 times in a row \(429 quota\)"):
        client(script, waits).answer("a")
    assert len(waits) == 7


@pytest.mark.parametrize("soon", ["0", "-5", "nan", formatdate(0, usegmt=True)])
def test_a_server_that_asks_for_no_wait_gets_no_storm(script: Script, waits: list[float], soon: str) -> None:
    script.plan = [(429, {"Retry-After": soon}, {})] * 7
    assert client(script, waits).answer("a").text == "A"
    assert [wait >= min(60, 2**number) / 2 for number, wait in enumerate(waits)] == [True] * 7


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
    asked = client(script, waits)
    script.plan = [
        (401, {}, {"error": {"message": f"{'x' * 296} secret is wrong"}}),
        (418, {}, b"secret"),
        (200, {}, {"choices": "secret"}),
    ]
    for message in ("the key in OPENAI_API_KEY", "418", "isn't OpenAI's protocol"):
        with pytest.raises(UserError, match=message) as caught:
            asked.answer("a")
        assert "…" in str(caught.value)
        assert "sec" not in str(caught.value)


def test_a_key_that_is_no_header_is_in_no_message_either(
    script: Script, waits: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "secret\n")
    client(script, waits).answer("a")
    assert script.asked[0][2] == "Bearer secret"
    monkeypatch.setenv("OPENAI_API_KEY", "-")  # for servers that want any
    script.plan = [(401, {}, {"error": "no-one"})]
    with pytest.raises(UserError, match="401 no-one"):
        client(script, waits).answer("a")


@pytest.mark.parametrize("status", [301, 302, 303, 307])
def test_the_key_goes_to_no_host_that_a_server_names(
    script: Script, monkeypatch: pytest.MonkeyPatch, status: int
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "secret")
    other = Script()
    script.plan = [(status, {"Location": f"{other.url}/v1/models"}, {})]
    try:
        assert OpenAIClient(script.url).model == "tiny"
    finally:
        other.server.shutdown()
        other.server.server_close()
    assert [key for _, _, key in script.asked] == ["Bearer secret"]
    assert [(path, key) for path, _, key in other.asked] == [("/v1/models", None)]


def test_a_server_that_takes_four_stops_gets_four(script: Script, waits: list[float]) -> None:
    script.plan = [(400, {}, {"error": {"message": "'stop': at most 4"}})]
    asked = client(script, waits)
    stops = ["a", "b", "c", "d", "e"]
    assert asked.answer("x", stops).text == "X"
    asked.answer("x", stops)
    assert [body["stop"] for _, body, _ in script.asked] == [stops, stops[:4], stops[:4]]


def test_nobody_there_and_no_protocol(waits: list[float], script: Script) -> None:
    none: list[Any] = [None, []]
    for data in none:
        script.plan = [(200, {}, {"data": data})]
        with pytest.raises(UserError, match="serves no model"):
            OpenAIClient(script.url)
    odd: list[Any] = [[{}], ["tiny"], 3]
    for data in odd:
        script.plan = [(200, {}, {"data": data})]
        with pytest.raises(UserError, match="isn't OpenAI's protocol"):
            OpenAIClient(script.url)
    script.plan = [(200, {}, {"choices": []})]
    with pytest.raises(UserError, match="isn't OpenAI's protocol"):
        client(script, waits).answer("a")
    script.server.shutdown()
    script.server.server_close()
    with pytest.raises(UserError, match=r"no answer .*is the server there"):
        client(script, waits).answer("a")
    with pytest.raises(UserError, match="not a server's address"):
        OpenAIClient("localhost:8000")


def test_a_server_that_does_not_say_how_it_ended_is_not_made_to(script: Script, waits: list[float]) -> None:
    script.plan = [(200, {}, {"choices": [{"text": "a", "finish_reason": None}]})]
    assert client(script, waits).answer("a").finish_reason is None


def test_one_failure_loses_no_answer_that_was_paid_for(waits: list[float], script: Script) -> None:
    """Those on their way when the first one fails are waited for and kept; nothing more is asked."""
    together = threading.Barrier(3, timeout=20)

    class Failing(OpenAIClient):
        def answer(self, prompt: Any, stops: Any = (), **settings: Any) -> ServerReply:
            if prompt in ("bad", "b", "c"):
                together.wait()
            if prompt == "bad":
                raise UserError("expired")
            return super().answer(prompt, stops, **settings)

    asked = Failing(script.url, "tiny", wait=waits.append)
    prompts = ["bad", "b", "c", *map(str, range(300))]
    kept: list[tuple[int, ServerReply]] = []
    with pytest.raises(UserError, match="expired"):
        kept.extend(asked.answers(prompts, (), [{} for _ in prompts], 3))
    assert {(1, "B"), (2, "C")} <= {(number, reply.text) for number, reply in kept}
    assert len(kept) == len(script.asked) < 300


def test_many_at_once_come_with_their_numbers(script: Script, waits: list[float]) -> None:
    prompts = [f"p{number}" for number in range(20)]
    found = client(script, waits).answers(prompts, (), [{"seed": number} for number in range(20)], 4)
    assert sorted((number, reply.text) for number, reply in found) == [
        (number, prompt.upper()) for number, prompt in enumerate(prompts)
    ]
