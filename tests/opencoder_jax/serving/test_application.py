"""The server's answers: the same words whole and streamed, the right counts, and what becomes of those that leave."""

import asyncio
import json
from typing import Any

import pytest

from opencoder_jax.serving.config import ServeConfig
from opencoder_jax.tokenization import chat
from opencoder_jax.tokenization.tokenizer import Tokenizer

COMPLETIONS, CHATS = "/v1/completions", "/v1/chat/completions"
HELLO = {"messages": [{"role": "user", "content": "hello"}]}


def test_a_completion(scripted: Any) -> None:
    async def talk(it: Any) -> None:
        body = {"model": "small", "prompt": ["def add", "for i"], "n": 2, "seed": 7, "stop": "\n", "max_tokens": 30}
        answer = await it.client.post(COMPLETIONS, {**body, "temperature": 0.5, "top_p": 0.9, "top_k": 3, "min_p": 0.1})
        assert answer.status == 200
        said = answer.json
        assert (said["object"], said["model"], said["system_fingerprint"]) == (
            "text_completion",
            "small",
            "fp_0123456789ab",
        )
        asked = it.engine.asked
        assert [it.tokenizer.decode(request.prompt) for request in asked] == ["def add"] * 2 + ["for i"] * 2
        assert [request.seed for request in asked] == [0, 1, 2, 3]
        assert {(request.stop, request.sampling.seed, request.sampling.top_k) for request in asked} == {(("\n",), 7, 3)}
        sampling = asked[0].sampling
        assert (sampling.temperature, sampling.top_p, sampling.min_p, sampling.max_tokens) == (0.5, 0.9, 0.1, 30)
        assert [choice["text"] for choice in said["choices"]] == [it.engine.text(request) for request in asked]
        assert [choice["index"] for choice in said["choices"]] == [0, 1, 2, 3]
        assert {choice["finish_reason"] for choice in said["choices"]} == {"stop"}
        made = sum(len(it.engine.answer(request)) for request in asked)
        read = len(asked[0].prompt) + len(asked[2].prompt)  # each prompt counts once
        assert said["usage"] == {"prompt_tokens": read, "completion_tokens": made, "total_tokens": read + made}

    scripted().run(talk)


def test_a_chat(scripted: Any) -> None:
    async def talk(it: Any) -> None:
        parts = [{"type": "text", "text": "hel"}, {"type": "text", "text": "lo"}]
        for content in ("hello", parts):
            messages = [{"role": "developer", "content": "Be brief."}, {"role": "user", "content": content}]
            answer = await it.client.post(CHATS, {"messages": messages, "max_completion_tokens": 3})
            choice = answer.json["choices"][0]
            asked = it.engine.asked[-1]
            wanted = [chat.turn("system", "Be brief."), chat.turn("user", "hello")]
            assert list(asked.prompt) == chat.encode_prompt(it.tokenizer, wanted)
            assert choice["message"] == {"role": "assistant", "content": it.engine.text(asked), "refusal": None}
            assert (choice["finish_reason"], asked.sampling.max_tokens) == ("length", 3)
        await it.client.post(CHATS, HELLO)  # by default to the context's end
        assert len(it.engine.asked[-1].prompt) + it.engine.asked[-1].sampling.max_tokens == 256

    scripted().run(talk)


@pytest.mark.parametrize("body", [{"prompt": ["a", "bc"], "echo": True, "logprobs": 2}, {**HELLO, "logprobs": True}])
def test_a_stream_says_what_the_whole_answer_says(scripted: Any, body: dict[str, Any]) -> None:
    async def talk(it: Any) -> None:
        path = COMPLETIONS if "prompt" in body else CHATS
        asked = {**body, "n": 2, "max_tokens": 30, "seed": 1}
        whole = (await it.client.post(path, asked)).json
        stream = {"stream": True, "stream_options": {"include_usage": True}}
        answer = await it.client.post(path, {**asked, **stream})
        *chunks, last = answer.events
        assert (last["choices"], last["usage"]) == ([], whole["usage"])
        assert {chunk["usage"] for chunk in chunks} == {None}
        assert len({chunk["id"] for chunk in chunks}) == 1
        for choice in whole["choices"]:
            parts = [part for chunk in chunks for part in chunk["choices"] if part["index"] == choice["index"]]
            reasons = [part["finish_reason"] for part in parts]
            assert (reasons[-1], set(reasons[:-1])) == (choice["finish_reason"], {None})
            found = [part["logprobs"] for part in parts if part["logprobs"]]
            for name, values in choice["logprobs"].items():
                assert values is None or [each for part in found for each in part[name]] == values
            if "prompt" in body:
                assert "".join(part["text"] for part in parts) == choice["text"]
                assert choice["text"].startswith(body["prompt"][choice["index"] // 2])
            else:
                assert parts[0]["delta"] == {"role": "assistant", "content": ""}
                said = "".join(part["delta"].get("content", "") for part in parts)
                assert said == choice["message"]["content"]

    scripted().run(talk)


def test_log_probabilities_of_a_completion(scripted: Any) -> None:
    async def talk(it: Any) -> None:
        answer = await it.client.post(COMPLETIONS, {"prompt": "añb", "echo": True, "logprobs": 3, "max_tokens": 40})
        choice = answer.json["choices"][0]
        found = choice["logprobs"]
        prompt, said = list(it.engine.asked[0].prompt), it.engine.answer(it.engine.asked[0])
        assert found["token_logprobs"] == [None, *(-token / 100 for token in [*prompt[1:], *said])]
        assert found["top_logprobs"][0] is None
        assert found["top_logprobs"][1] == {found["tokens"][1]: -prompt[1] / 100, ";": -9.0, "<": -10.0}
        # Each token stands where it says; parts of a character stand where the character does.
        assert "bytes:\\xc3" in found["tokens"]
        assert found["tokens"][-1] == "</s>"
        for token, offset in zip(found["tokens"], found["text_offset"], strict=True):
            assert token in (choice["text"][offset : offset + len(token)], "</s>") or token.startswith("bytes:")

    scripted().run(talk)


def test_log_probabilities_of_a_chat(scripted: Any) -> None:
    async def talk(it: Any) -> None:
        answer = await it.client.post(CHATS, {**HELLO, "logprobs": True, "top_logprobs": 4, "max_tokens": 40})
        choice = answer.json["choices"][0]
        content = choice["logprobs"]["content"]
        assert b"".join(bytes(entry["bytes"]) for entry in content).decode() == choice["message"]["content"]
        assert [len(entry["top_logprobs"]) for entry in content] == [4] * len(content)
        assert content[0]["top_logprobs"][3] == {"token": "=", "logprob": -9999.0, "bytes": [61]}  # JSON knows no -inf

    scripted().run(talk)


def test_only_the_echo(scripted: Any) -> None:
    """What evaluations ask for to learn how likely a text is."""

    async def talk(it: Any) -> None:
        asked = {"prompt": [[70, 71, 72]], "echo": True, "logprobs": 1, "max_tokens": 0}
        said = (await it.client.post(COMPLETIONS, asked)).json
        (choice,) = said["choices"]
        assert (choice["text"], choice["finish_reason"]) == (it.tokenizer.decode([70, 71, 72]), "length")
        assert choice["logprobs"]["token_logprobs"] == [None, -0.71, -0.72]
        assert said["usage"]["completion_tokens"] == 0

    scripted().run(talk)


def test_filling_in_the_middle(scripted: Any, infilling_tokenizer: Tokenizer) -> None:
    async def talk(it: Any) -> None:
        before, behind = "def f():\n    return ", "\n\nprint(f())"
        answer = await it.client.post(COMPLETIONS, {"prompt": before, "suffix": behind})
        assert answer.status == 200
        ids, encode = it.tokenizer.controls, it.tokenizer.encode
        wanted = [ids["<|fim_prefix|>"], *encode(before), ids["<|fim_suffix|>"], *encode(behind), ids["<|fim_middle|>"]]
        assert list(it.engine.asked[0].prompt) == wanted

    scripted(tokenizer=infilling_tokenizer).run(talk)


def test_tokens_there_and_back(scripted: Any) -> None:
    async def talk(it: Any) -> None:
        said = (await it.client.post("/tokenize", {"prompt": "def añ"})).json
        assert (said["count"], said["max_model_len"]) == (len(said["tokens"]), 256)
        assert (await it.client.post("/detokenize", {"tokens": said["tokens"]})).json == {"prompt": "def añ"}
        said = (await it.client.post("/tokenize", {"prompt": "ñ", "return_token_strs": True})).json
        assert said["token_strs"] == ["bytes:\\xc3", "bytes:\\xb1"]
        info = (await it.client.get("/tokenizer_info")).json
        assert info == {"eos_token": "</s>", "pad_token": "<pad>", "bos_token": None}
        said = (await it.client.post("/tokenize", HELLO)).json
        assert said["tokens"] == chat.encode_prompt(it.tokenizer, [chat.turn("user", "hello")])

    scripted().run(talk)


def test_models(scripted: Any) -> None:
    async def talk(it: Any) -> None:
        (model,) = (await it.client.get("/v1/models")).json["data"]
        assert (model["id"], model["max_model_len"]) == ("small", 256)
        assert (await it.client.get("/v1/models/small")).json == model
        for answer in (
            await it.client.get("/v1/models/other"),
            await it.client.post(COMPLETIONS, {"model": "other", "prompt": "a"}),
        ):
            assert (answer.status, answer.error["code"], answer.error["param"]) == (404, "model_not_found", "model")

    scripted().run(talk)


@pytest.mark.parametrize("stream", [False, True])
def test_who_goes_away_frees_its_place(scripted: Any, stream: bool) -> None:
    async def talk(it: Any) -> None:
        it.engine.held = True
        exchange = it.client.open("POST", COMPLETIONS, {"prompt": "a", "n": 6, "stream": stream, "max_tokens": 50})
        if stream:
            it.engine.may_step.release()
            await exchange.until(lambda so_far: b"data:" in so_far.body)
        else:
            while len(it.engine.asked) < 6:
                await asyncio.sleep(0)
        await exchange.leave()
        assert it.engine.cancelled == [0, 1, 2, 3, 4, 5]
        assert not it.engine.busy
        it.engine.held = False
        it.engine.may_step.release()
        answer = await it.client.post(COMPLETIONS, {"prompt": "a"})
        assert answer.status == 200
        metrics = (await it.client.get("/metrics")).body.decode()
        assert 'opencoder_answers_total{finish_reason="cancelled"} 6.0' in metrics
        assert "opencoder_running 0.0" in metrics

    scripted().run(talk)


def test_a_full_queue_says_when_to_come_again(scripted: Any) -> None:
    async def talk(it: Any) -> None:
        it.engine.held = True
        first = it.client.open("POST", COMPLETIONS, {"prompt": "a", "n": 8})
        while it.engine.waiting < 4:
            await asyncio.sleep(0)
        answer = await it.client.post(COMPLETIONS, {"prompt": "a", "n": 5})
        assert (answer.status, answer.error["type"], answer.error["code"]) == (429, "rate_limit_error", "queue_full")
        assert 1 <= int(answer.headers["retry-after"]) <= 60
        never = await it.client.post(COMPLETIONS, {"prompt": "a" * 1000, "n": 5})
        assert never.status == 400  # what can never be answered isn't to come again
        second = it.client.open("POST", COMPLETIONS, {"prompt": "a", "n": 4})  # these still fit
        it.engine.held = False
        it.engine.may_step.release()
        assert [(await each.answer()).status for each in (first, second)] == [200, 200]

    scripted(config=ServeConfig(waiting=8, choices=8)).run(talk)


@pytest.mark.parametrize("stream", [False, True])
def test_an_answer_that_takes_too_long_is_given_up(scripted: Any, stream: bool) -> None:
    async def talk(it: Any) -> None:
        it.engine.held = True
        exchange = it.client.open("POST", COMPLETIONS, {"prompt": "a", "stream": stream})
        answer = await exchange.answer()
        it.engine.held = False
        it.engine.may_step.release()
        assert it.engine.cancelled == [0]
        if stream:
            assert json.loads(answer.body.split(b"data: ")[-1])["error"]["code"] == "timeout"
        else:
            assert (answer.status, answer.error["code"]) == (504, "timeout")

    scripted(config=ServeConfig(answer_seconds=0.2)).run(talk)


def test_an_engine_that_fails_is_told_and_seen(scripted: Any, caplog: pytest.LogCaptureFixture) -> None:
    async def talk(it: Any) -> None:
        gave_up = asyncio.Event()
        it.bridge.on_failure = gave_up.set
        it.engine.held = True
        streaming = it.client.open("POST", CHATS, {**HELLO, "stream": True})
        whole = it.client.open("POST", CHATS, HELLO)
        await streaming.until(lambda so_far: b"data:" in so_far.body)
        assert (await it.client.get("/ready")).status == 200
        while len(it.engine.asked) < 2:
            await asyncio.sleep(0)
        it.engine.fails, it.engine.held = True, False
        it.engine.may_step.release()
        assert b'"type":"server_error"' in (await streaming.answer()).body
        answer = await whole.answer()
        assert (answer.status, answer.error["message"]) == (500, "the engine failed")
        await asyncio.wait_for(gave_up.wait(), 20)
        assert [(await it.client.get(path)).status for path in ("/health", "/ready")] == [503, 503]
        assert (await it.client.post(CHATS, HELLO)).status == 503

    scripted().run(talk)
    assert "the accelerator has gone" in caplog.text


def test_keys(scripted: Any) -> None:
    async def talk(it: Any) -> None:
        for header in ({}, {"authorization": "Bearer second "[:-2]}, {"authorization": "Basic second"}):
            answer = await it.client.open("POST", CHATS, HELLO, header).answer()
            assert (answer.status, answer.error["type"]) == (401, "authentication_error")
        for key in ("first", "second"):
            assert (await it.client.post(CHATS, HELLO, authorization=f"Bearer {key}")).status == 200
        assert (await it.client.get("/metrics")).status == 401
        assert {(await it.client.get(path)).status for path in ("/", "/health", "/ready")} == {200}

    scripted(keys=("first", "second")).run(talk)


def test_other_names_for_this_machine(scripted: Any) -> None:
    """A page whose name was bent to this machine's address gets nothing."""

    async def talk(it: Any) -> None:
        for host in ("localhost:8000", "127.0.0.1", "[::1]:8000", "LOCALHOST"):
            assert (await it.client.get("/v1/models", host=host)).status == 200
        for host in ("evil.example:8000", "", "localhost.evil.example"):
            answer = await it.client.get("/v1/models", host=host)
            assert (answer.status, answer.error["code"]) == (421, "wrong_host")

    scripted(hosts=("localhost", "127.0.0.1", "::1")).run(talk)


def test_metrics(scripted: Any) -> None:
    async def talk(it: Any) -> None:
        await it.client.post(COMPLETIONS, {"prompt": "abc", "max_tokens": 5, "n": 2})
        await it.client.post(COMPLETIONS, {"prompt": 3})
        await it.client.get("/nowhere")
        metrics = (await it.client.get("/metrics")).body.decode()
        for line in (
            'opencoder_requests_total{route="/v1/completions",status="200"} 1.0',
            'opencoder_requests_total{route="/v1/completions",status="400"} 1.0',
            'opencoder_requests_total{route="other",status="404"} 1.0',
            'opencoder_answers_total{finish_reason="length"} 2.0',
            "opencoder_generated_tokens_total 10.0",
            f"opencoder_prompt_tokens_total {len(it.tokenizer.encode('abc'))}.0",
            "opencoder_time_to_first_token_seconds_count 2.0",
            "opencoder_waiting 0.0",
        ):
            assert line in metrics

    scripted().run(talk)


def test_the_page_asks_nobody_else(scripted: Any) -> None:
    async def talk(it: Any) -> None:
        page = await it.client.get("/")
        assert page.headers["content-type"].startswith("text/html")
        assert "default-src 'none'" in page.headers["content-security-policy"]
        for answer in (page, await it.client.get("/page/page.css"), await it.client.get("/page/page.js")):
            assert answer.status == 200
            assert b"http://" not in answer.body.replace(b"http://www.w3.org/", b"")
            assert b"https://" not in answer.body
        assert (await it.client.get("/page/../application.py")).status == 404

    scripted().run(talk)
