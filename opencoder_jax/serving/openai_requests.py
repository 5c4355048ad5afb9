"""What a body in OpenAI's format asks of the engine, and how its answer is to look.

Beside OpenAI's own parameters there are those that vLLM has added: top_k, min_p, repetition_penalty. What is known but
can't be done is refused where it asks for something, and what isn't known is refused always: a parameter that is
ignored is an answer to another question.
"""

import hashlib
import json
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, cast

from opencoder_jax.inference.requests import Request
from opencoder_jax.inference.sampling import SamplingConfig
from opencoder_jax.recipe import UserError
from opencoder_jax.serving.config import ServeConfig
from opencoder_jax.serving.parameters import (
    Reader,
    Refused,
    boolean,
    list_of,
    number,
    only,
    read,
    shown,
    text,
    whole,
)
from opencoder_jax.tokenization import chat
from opencoder_jax.tokenization.tokenizer import FIM_MIDDLE, FIM_PREFIX, FIM_SUFFIX, TextTokenizer

STOPS, STOP_LENGTH = 32, 1000  # OpenAI takes 4 stop strings; evaluations of base models want a dozen
TOP_LOGPROBS = 20
MESSAGES = 10_000
COMPLETION_TOKENS = 16  # OpenAI's default of /v1/completions


class Prompt(NamedTuple):
    """A prompt as it is read and as it is echoed."""

    ids: list[int]
    text: str


@dataclass(frozen=True)
class Asked:
    """A body, read.

    Attributes:
        requests: `n` answers to the first prompt, then to the second.
        echo: whether the texts of the prompts stand before the answers.
        answer: False: nothing but the echo is wanted.
        logprobs: how many alternatives each token is shown with; None: no log-probabilities.
    """

    chat: bool
    prompts: list[Prompt]
    n: int
    requests: list[Request]
    stream: bool
    include_usage: bool
    logprobs: int | None
    echo: bool = False
    answer: bool = True


def _stops(value: Any) -> list[str]:
    found = [value] if isinstance(value, str) else value
    wanted = f"a string, or a list of up to {STOPS} strings, of 1 to {STOP_LENGTH} characters each"
    if not isinstance(found, list) or len(found) > STOPS:
        raise ValueError(wanted)
    if not all(isinstance(stop, str) and 0 < len(stop) <= STOP_LENGTH for stop in found):
        raise ValueError(wanted)
    return list(map(text, found))


def _stream_options(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ValueError("an object such as {'include_usage': true}")
    options = {"include_usage": boolean, "include_obfuscation": only(False)}
    return read(value, options, "stream_options.")


def _prompts(value: Any) -> list[str] | list[list[int]]:
    """Every form of `prompt` as a list of prompts."""
    match value:
        case str():
            return [text(value)]
        case [str(), *_] if all(isinstance(each, str) for each in value):
            return list(map(text, value))
        case [int(), *_] if _all_ids(value):
            return [value]
        case [[int(), *_], *_] if all(isinstance(each, list) and each and _all_ids(each) for each in value):
            return cast(list[list[int]], value)
    raise ValueError("a string, a list of strings, a list of token ids, or a list of such lists, none of them empty")


def _all_ids(values: list[Any]) -> bool:
    return all(isinstance(each, int) and not isinstance(each, bool) for each in values)


def _messages(value: Any) -> list[chat.Message]:
    return [_message(each, f"messages[{number}].") for number, each in enumerate(_message_list(value))]


_message_list = list_of(lambda value: value, MESSAGES, "messages")


def _role(value: Any) -> str:
    if value not in (*chat.ROLES, "developer"):
        raise ValueError(f"one of {', '.join(chat.ROLES)}")
    return "system" if value == "developer" else str(value)


def _content(value: Any) -> str:
    """A text, or the texts of a list of parts."""
    if not isinstance(value, list):
        return text(value)
    parts = [read(part, {"type": only("text"), "text": text}) if isinstance(part, dict) else {} for part in value]
    if not all(part.keys() == {"type", "text"} for part in parts):
        raise ValueError("a string, or a list of parts of type text")
    return "".join(part["text"] for part in parts)


_MESSAGE: dict[str, Reader] = {
    "role": _role,
    "content": _content,
    # What an answer of ours, sent back as it came, has besides.
    **dict.fromkeys(("refusal", "tool_calls", "function_call", "annotations", "audio"), only(None)),
}


def _message(value: Any, within: str) -> chat.Message:
    if not isinstance(value, dict):
        raise ValueError(f"a list of objects with role and content ({within[:-1]} isn't one)")
    found = read(value, _MESSAGE, within)
    for name in ("role", "content"):
        if name not in found:
            raise Refused(f"{within}{name} is missing", within + name, "missing_parameter")
    return chat.turn(found["role"], found["content"])


_SHARED: dict[str, Reader] = {
    "model": text,
    "n": whole(1),
    "seed": whole(-(2**63)),
    "stop": _stops,
    "stream": boolean,
    "stream_options": _stream_options,
    "temperature": number(0, 1e6),
    "top_p": number(0, 1),
    "top_k": whole(-1, 2**31 - 1),
    "min_p": number(0, 1),
    "repetition_penalty": number(1e-3, 1e3),
    "max_tokens": whole(0),
    # Read, and of no consequence.
    "user": text,
    "safety_identifier": text,
    "metadata": only({}),
    # What this server can't do.
    "frequency_penalty": only(0, 0.0),
    "presence_penalty": only(0, 0.0),
    "logit_bias": only({}),
    "service_tier": only("auto", "default"),
}
_COMPLETION: dict[str, Reader] = {
    **_SHARED,
    "prompt": _prompts,
    "suffix": text,
    "echo": boolean,
    "logprobs": whole(0, TOP_LOGPROBS),
    "best_of": whole(1),
}
_CHAT: dict[str, Reader] = {
    **_SHARED,
    "messages": _messages,
    "max_completion_tokens": whole(1),
    "logprobs": boolean,
    "top_logprobs": whole(0, TOP_LOGPROBS),
    "response_format": only({"type": "text"}),
    "modalities": only(["text"]),
    "store": only(False),
    "tools": only([]),
    "tool_choice": only("none", "auto"),
    "parallel_tool_calls": boolean,
}


_TOKENIZE: dict[str, Reader] = {
    "model": text,
    "prompt": text,
    "messages": _messages,
    "add_special_tokens": boolean,
    "return_token_strs": boolean,
}


class RequestReader:
    """Reads bodies for one model. Not to be used by two threads at a time, as the tokenizer isn't."""

    def __init__(self, name: str, tokenizer: TextTokenizer, context: int, config: ServeConfig) -> None:
        self.name = name
        self.tokenizer = tokenizer
        self.context = context
        self.config = config
        self._longest = max(int(tokenizer.byte_lengths.max()), 1)  # bytes of a token

    def completion(self, body: dict[str, Any]) -> Asked:
        """What a body of /v1/completions asks. Raises Refused."""
        found = self._read(body, _COMPLETION, "prompt")
        prompts = [
            self._prompt(prompt, f"prompt[{number}]" if len(found["prompt"]) > 1 else "prompt")
            for number, prompt in enumerate(found["prompt"])
        ]
        if found.get("suffix"):
            if found.get("echo"):
                raise Refused("echo: can't be combined with suffix", "echo", "invalid_value")
            prompts = [self._in_the_middle(prompt, found["suffix"]) for prompt in prompts]
        if found.get("best_of", found.get("n", 1)) != found.get("n", 1):
            raise Refused("best_of: must equal n, or be left out", "best_of", "invalid_value")
        found.setdefault("max_tokens", COMPLETION_TOKENS)
        if not found["max_tokens"] and not found.get("echo"):
            raise Refused("max_tokens: must be 1 or more, unless the prompt is echoed", "max_tokens", "invalid_value")
        return self._asked(False, prompts, found, found.get("logprobs"))

    def chat_completion(self, body: dict[str, Any]) -> Asked:
        """What a body of /v1/chat/completions asks. Raises Refused."""
        found = self._read(body, _CHAT, "messages")
        if "top_logprobs" in found and not found.get("logprobs"):
            raise Refused("top_logprobs: needs logprobs to be true", "top_logprobs", "invalid_value")
        if "max_completion_tokens" in found:
            found["max_tokens"] = found["max_completion_tokens"]
        elif not found.get("max_tokens", 1):
            raise Refused("max_tokens: must be a whole number from 1 up; got 0", "max_tokens", "invalid_value")
        logprobs = found.get("top_logprobs", 0) if found.get("logprobs") else None
        return self._asked(True, [self._conversation(found["messages"])], found, logprobs)

    def tokenize(self, body: dict[str, Any]) -> tuple[list[int], bool]:
        """For /tokenize: ids of a text, or of a conversation up to its answer; whether strings are wanted, too.

        Raises Refused.
        """
        found = read(body, _TOKENIZE)
        self._check_model(found)
        if ("prompt" in found) == ("messages" in found):
            raise Refused("give either prompt or messages", "prompt", "missing_parameter")
        strings = found.get("return_token_strs", False)
        if "messages" in found:
            return self._conversation(found["messages"]).ids, strings
        ids = self._encoded(found["prompt"]).ids
        return ids if found.get("add_special_tokens", True) else ids[len(self.tokenizer.prefix) :], strings

    def detokenize(self, body: dict[str, Any]) -> str:
        """The text of ids, for /detokenize. Raises Refused."""
        most = self.config.body_bytes
        found = read(body, {"model": text, "tokens": list_of(whole(0, self.tokenizer.vocab_size - 1), most, "ids")})
        self._check_model(found)
        if "tokens" not in found:
            raise Refused("tokens is missing", "tokens", "missing_parameter")
        return self.tokenizer.decode(found["tokens"])

    def _read(self, body: dict[str, Any], readers: dict[str, Reader], needed: str) -> dict[str, Any]:
        found = read(body, readers)
        self._check_model(found)
        if needed not in found:
            raise Refused(f"{needed} is missing", needed, "missing_parameter")
        if "stream_options" in found and not found.get("stream"):
            raise Refused("stream_options: needs stream to be true", "stream_options", "invalid_value")
        return found

    def _check_model(self, found: dict[str, Any]) -> None:
        if found.get("model", self.name) != self.name:
            message = f"there is no model {shown(found['model'])} here; there is {self.name}"
            raise Refused(message, "model", "model_not_found", 404)

    def _prompt(self, given: str | list[int], place: str) -> Prompt:
        if isinstance(given, str):
            return self._encoded(given, place)
        if not 0 <= min(given) <= max(given) < self.tokenizer.vocab_size:
            message = f"{place}: a token id must be from 0 to {self.tokenizer.vocab_size - 1}"
            raise Refused(message, "prompt", "invalid_value")
        return Prompt(given, self.tokenizer.decode(given))

    def _encoded(self, given: str, place: str = "prompt") -> Prompt:
        """A text and its ids. One that can't fit isn't tokenised: it costs no more than its letters."""
        if len(given.encode()) > self._longest * self._most():
            raise self._too_long(place, f"more than {self._most()}")
        return Prompt(self.tokenizer.encode_prompt(given), given)

    def _conversation(self, messages: list[chat.Message]) -> Prompt:
        if sum(len(message["content"].encode()) for message in messages) > self._longest * self._most():
            raise self._too_long("messages", f"more than {self._most()}")
        try:
            return Prompt(chat.encode_prompt(self.tokenizer, messages), "")
        except (ValueError, UserError) as error:
            raise Refused(f"messages: {error}", "messages", "invalid_value") from None

    def _in_the_middle(self, prompt: Prompt, suffix: str) -> Prompt:
        """What a model that learned to fill in the middle is asked (data/fim.py)."""
        marks = [self.tokenizer.controls.get(name) for name in (FIM_PREFIX, FIM_SUFFIX, FIM_MIDDLE)]
        if None in marks:
            raise Refused(
                "suffix: this model can't fill in: its tokenizer has no tokens for it", "suffix", "unsupported"
            )
        before, between, behind = cast(list[int], marks)
        after = self._encoded(suffix, "suffix").ids
        prefix = len(self.tokenizer.prefix)  # stands in front of all
        ids = [*prompt.ids[:prefix], before, *prompt.ids[prefix:], between, *after[prefix:], behind]
        return Prompt(ids, prompt.text)

    def _asked(self, is_chat: bool, prompts: list[Prompt], found: dict[str, Any], logprobs: int | None) -> Asked:
        n, echo = found.get("n", 1), bool(found.get("echo"))
        wanted = n * len(prompts)
        if wanted > self.config.choices:
            message = f"n: {wanted} answers are more than the {self.config.choices} that one request may want"
            raise Refused(message, "n", "invalid_value")
        requests = [
            Request(
                tuple(prompt.ids),
                sampling,
                seed=place * n + sample,
                stop=tuple(found.get("stop", ())),
                top_logprobs=logprobs,
                prompt_logprobs=echo and logprobs is not None,
            )
            for sampling_seed in [_seed(found.get("seed"))]
            for place, prompt in enumerate(prompts)
            for sampling in [self._sampling(found, sampling_seed, len(prompt.ids), is_chat)]
            for sample in range(n)
        ]
        return Asked(
            is_chat,
            prompts,
            n,
            requests,
            found.get("stream", False),
            found.get("stream_options", {}).get("include_usage", False),
            logprobs,
            echo,
            found.get("max_tokens") != 0,
        )

    def _sampling(self, found: dict[str, Any], seed: int, length: int, is_chat: bool) -> SamplingConfig:
        """How a prompt of so many tokens is answered."""
        place = "messages" if is_chat else "prompt"
        if not length:
            raise Refused(f"{place}: must hold at least one token", place, "invalid_value")
        if length > self._most():
            raise self._too_long(place, str(length))
        tokens = max(found.get("max_tokens", self.context - length), 1)
        if length + tokens > self.context:
            name = "max_completion_tokens" if "max_completion_tokens" in found else "max_tokens"
            message = (
                f"{name}: the prompt has {length} tokens; {tokens} more exceed the model's context of {self.context}"
            )
            raise Refused(message, name, "context_length_exceeded")
        given = {name: found[name] for name in ("top_p", "min_p", "repetition_penalty") if name in found}
        try:
            return SamplingConfig(
                temperature=found.get("temperature", 1.0),
                top_k=max(found.get("top_k", 0), 0),  # vLLM writes -1 for all
                max_tokens=tokens,
                seed=seed,
                **given,
            )
        except ValueError as error:
            message = str(error).splitlines()[0]  # gin adds lines of its own
            raise Refused(message, message.partition("=")[0], "invalid_value") from None

    def _most(self) -> int:
        """Tokens of the longest prompt: one token of an answer must fit behind it."""
        return min(self.config.prompt_tokens or self.context, self.context - 1)

    def _too_long(self, place: str, tokens: str) -> Refused:
        message = f"{place}: has {tokens} tokens; this server takes prompts of at most {self._most()}"
        return Refused(message, place.partition("[")[0], "context_length_exceeded")


def _seed(given: int | None) -> int:
    """The engine's seed, in 0 .. 2**32 - 1: the given one where it is such a number, so that others find it again."""
    if given is None:
        return secrets.randbelow(2**32)
    return given if 0 <= given < 2**32 else int.from_bytes(hashlib.sha256(json.dumps(given).encode()).digest()[:4])


def prompt_tokens(prompts: Sequence[Prompt]) -> int:
    """Tokens of all prompts, each counted once however many answers it has."""
    return sum(len(prompt.ids) for prompt in prompts)
