"""What anyone may send: it is refused in OpenAI's shape by the name of what is wrong, and nothing else happens."""

import json
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from opencoder_jax.serving.config import ServeConfig
from opencoder_jax.serving.openai_requests import Asked, RequestReader
from opencoder_jax.serving.parameters import Refused, error_body, parse
from opencoder_jax.tokenization.tokenizer import Tokenizer

COMPLETIONS, CHATS = "/v1/completions", "/v1/chat/completions"
MESSAGES = [{"role": "user", "content": "hello"}]

WRONG: list[tuple[dict[str, Any], str]] = [
    ({"temprature": 1}, "temprature"),
    ({"temperature": "hot"}, "temperature"),
    ({"temperature": -1}, "temperature"),
    ({"temperature": 10**400}, "temperature"),
    ({"temperature": True}, "temperature"),
    ({"top_p": 1.1}, "top_p"),
    ({"top_p": 0}, "top_p"),
    ({"top_k": 1.5}, "top_k"),
    ({"min_p": -0.1}, "min_p"),
    ({"repetition_penalty": 0}, "repetition_penalty"),
    ({"n": 0}, "n"),
    ({"n": 129}, "n"),
    ({"n": 10**30}, "n"),
    ({"seed": 0.5}, "seed"),
    ({"seed": 2**63}, "seed"),
    ({"stop": ""}, "stop"),
    ({"stop": ["a"] * 33}, "stop"),
    ({"stop": [1]}, "stop"),
    ({"stop": "\ud800"}, "stop"),
    ({"stream": "yes"}, "stream"),
    ({"stream": True, "stream_options": []}, "stream_options"),
    ({"stream": True, "stream_options": {"usage": True}}, "stream_options.usage"),
    ({"stream_options": {}}, "stream_options"),
    ({"max_tokens": -1}, "max_tokens"),
    ({"max_tokens": 257}, "max_tokens"),
    ({"max_tokens": 0}, "max_tokens"),
    ({"frequency_penalty": 0.5}, "frequency_penalty"),
    ({"logit_bias": {"5": 1}}, "logit_bias"),
    ({"\ud800": 1}, "\\ud800"),
    ({"user": {}}, "user"),
]
WRONG_COMPLETIONS: list[tuple[dict[str, Any], str]] = [
    ({}, "prompt"),
    *(({"prompt": wrong}, "prompt") for wrong in (3, [], [[]], ["a", 1], [True], "", "\udfff", [300], [-1], {"a": 1})),
    ({"prompt": "a" * 100_000}, "prompt"),
    ({"prompt": [5] * 256}, "prompt"),
    ({"prompt": ["a"] * 129}, "n"),
    ({"prompt": "a", "suffix": "b"}, "suffix"),
    ({"prompt": "a", "suffix": "b", "echo": True}, "echo"),
    ({"prompt": "a", "logprobs": 21}, "logprobs"),
    ({"prompt": "a", "logprobs": True}, "logprobs"),
    ({"prompt": "a", "best_of": 2}, "best_of"),
    ({"prompt": "a", "messages": MESSAGES}, "messages"),
]
WRONG_CHATS: list[tuple[dict[str, Any], str]] = [
    ({}, "messages"),
    *(({"messages": wrong}, "messages") for wrong in ([], {}, "hello", [3], [["a"]])),
    ({"messages": [{"role": "user"}]}, "messages[0].content"),
    ({"messages": [{"content": "a"}]}, "messages[0].role"),
    ({"messages": [*MESSAGES, {"role": "cat", "content": "a"}]}, "messages[1].role"),
    ({"messages": [{"role": "user", "content": 3}]}, "messages[0].content"),
    ({"messages": [{"role": "user", "content": ["a"]}]}, "messages[0].content"),
    ({"messages": [{"role": "user", "content": "\ud83d"}]}, "messages[0].content"),
    ({"messages": [{"role": "user", "content": "a", "colour": 1}]}, "messages[0].colour"),
    ({"messages": [*MESSAGES, {"role": "system", "content": "a"}]}, "messages"),
    ({"messages": [{"role": "user", "content": "a" * 100_000}]}, "messages"),
    ({"messages": [{"role": "user", "content": "añ" * 100}]}, "messages"),
    ({"messages": MESSAGES, "top_logprobs": 2}, "top_logprobs"),
    ({"messages": MESSAGES, "logprobs": 2}, "logprobs"),
    ({"messages": MESSAGES, "max_completion_tokens": 1000}, "max_completion_tokens"),
    ({"messages": MESSAGES, "tools": [{"type": "function"}]}, "tools"),
    ({"messages": MESSAGES, "response_format": {"type": "json_object"}}, "response_format"),
    ({"messages": MESSAGES, "prompt": "a"}, "prompt"),
]
CASES = [
    *((COMPLETIONS, {"prompt": "a", **body}, param) for body, param in WRONG),
    *((CHATS, {"messages": MESSAGES, **body}, param) for body, param in WRONG),
    *((COMPLETIONS, body, param) for body, param in WRONG_COMPLETIONS),
    *((CHATS, body, param) for body, param in WRONG_CHATS),
    ("/tokenize", {}, "prompt"),
    ("/tokenize", {"prompt": "a", "messages": MESSAGES}, "prompt"),
    ("/detokenize", {"tokens": [300]}, "tokens"),
    ("/detokenize", {"tokens": "a"}, "tokens"),
    ("/detokenize", {}, "tokens"),
]
BODIES = [
    (b"", 400, "JSON"),
    (b"{", 400, "JSON"),
    (b"[]", 400, "object"),
    (b"null", 400, "object"),
    (b'{"prompt": "\xff"}', 400, "UTF-8"),
    ('{"prompt": "a"}'.encode("utf-16"), 400, "UTF-8"),
    (b'{"prompt": "a", "temperature": NaN}', 400, "NaN"),
    (b'{"prompt": "a", "temperature": -Infinity}', 400, "Infinity"),
    (b'{"prompt": "a", "temperature": 1e999}', 400, "temperature"),
    (b'{"prompt": "a", "seed": ' + b"9" * 5000 + b"}", 400, "JSON"),
    (b'{"prompt": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", 400, "nested"),
    (b'{"a":' * 70_000 + b"1" + b"}" * 70_000, 400, "nested"),
    (b'{"prompt": ' + b"[" * 300 + b"]" * 300 + b"}", 400, "prompt"),
    (b'{"prompt": "' + b"a" * 600_000 + b'"}', 413, "500000"),
]


def test_what_is_wrong_is_named(scripted: Any) -> None:
    async def talk(it: Any) -> None:
        for path, body, param in CASES:
            answer = await it.client.post(path, body)
            assert (answer.status, answer.error["type"]) == (400, "invalid_request_error"), body
            assert answer.error["param"] == param, body
            assert param.partition("[")[0].rpartition(".")[2] in answer.error["message"], body
            assert len(answer.error["message"]) < 700
            assert "\n" not in answer.error["message"]
        assert it.engine.asked == []

    scripted().run(talk)


def test_bodies_that_are_none(scripted: Any) -> None:
    async def talk(it: Any) -> None:
        for body, status, words in BODIES:
            answer = await it.client.post(COMPLETIONS, body)
            assert (answer.status, words in answer.error["message"]) == (status, True), (body[:40], answer)
        answer = await it.client.open("POST", COMPLETIONS, {"prompt": "a"}, {"content-type": "text/plain"}).answer()
        assert (answer.status, answer.error["type"]) == (415, "invalid_request_error")
        answer = await it.client.open("POST", COMPLETIONS, [b"{"], {"content-length": "9" * 9}).answer()
        assert answer.status == 413
        assert it.engine.asked == []
        assert (await it.client.post(COMPLETIONS, {"prompt": "a"})).status == 200

    scripted(config=ServeConfig(body_bytes=500_000)).run(talk)


def test_a_body_that_never_ends(scripted: Any) -> None:
    async def talk(it: Any) -> None:
        exchange = it.client.open("POST", COMPLETIONS, [b'{"prompt"'])
        assert (await exchange.answer()).status == 408
        await it.client.open("POST", COMPLETIONS, [b'{"prompt"']).leave()

    scripted(config=ServeConfig(body_seconds=0.2)).run(talk)


def test_routes_that_are_none(scripted: Any) -> None:
    async def talk(it: Any) -> None:
        for method, path, status in (("GET", "/v2/x", 404), ("GET", COMPLETIONS, 405), ("DELETE", "/v1/models", 405)):
            answer = await it.client.open(method, path).answer()
            assert (answer.status, answer.error["type"]) == (status, "invalid_request_error")

    scripted().run(talk)


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(), max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=4,
)
NAMES = st.sampled_from(sorted({name for _, body, _ in CASES for name in body if name.isprintable()}))


@pytest.fixture(scope="module")
def reader(tokenizer: Tokenizer) -> RequestReader:
    return RequestReader("small", tokenizer, 256, ServeConfig())


@settings(max_examples=60)
@given(st.dictionaries(NAMES | st.text(max_size=5), JSON_VALUES, max_size=3), st.booleans())
def test_any_json_is_read_or_refused(reader: RequestReader, fields: dict[str, Any], is_chat: bool) -> None:
    body = {**({"messages": MESSAGES} if is_chat else {"prompt": "a"}), **fields}
    try:
        given_back = parse(json.dumps(body).encode())
        asked = (reader.chat_completion if is_chat else reader.completion)(given_back)
    except Refused as error:
        json.dumps(error_body(str(error), "x", error.param), ensure_ascii=False).encode()  # it can be told
    else:
        assert isinstance(asked, Asked)
        for request in asked.requests:
            assert len(request.prompt) + request.sampling.max_tokens <= 256
            assert all(0 <= token < 300 for token in request.prompt)


@given(st.binary(max_size=40))
def test_any_bytes_are_an_object_or_refused(body: bytes) -> None:
    with suppress(Refused):
        assert isinstance(parse(body), dict)
