"""A client of any server that speaks OpenAI's protocol: vLLM, llama.cpp, a vendor's, or our own `serve`.

Of the standard library, so that data workers and evaluation need no other package. It waits when a server says how long
(Retry-After), tries again where that can help, and says in one line what a person must mend where it can't. The key is
read from OPENAI_API_KEY, goes to no other host that a server names, and appears in no message.
"""

import email.utils
import hashlib
import http.client
import json
import os
import random
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from opencoder_jax.recipe import UserError

_LATER = frozenset({408, 409, 425, 429, 500, 502, 503, 504, 529})  # these may go well later
_LONGEST_WAIT = 300.0  # seconds, whatever a server asks for
_STOPS = 4  # OpenAI's own servers take no more


class RefusedError(UserError):
    """The server doesn't take the request as it is."""


class UnansweredError(UserError):
    """The server is there, and failed at the request however often it was asked."""


@dataclass(frozen=True)
class ServerReply:
    """One answer.

    Attributes:
        tokens: how many were generated, 0 where the server doesn't say.
        finish_reason: the server's: "stop", "length", …; None where it doesn't say.
        prompt_tokens: how many were read, 0 where the server doesn't say.
    """

    text: str
    finish_reason: str | None
    tokens: int
    prompt_tokens: int = 0


@dataclass
class OpenAIClient:
    """Asks one model of one server. Safe to call from several threads.

    Attributes:
        url: of the server, with or without /v1.
        model: as the server calls it; "" takes the only one that it has.
        settings: fields that go with every request, such as temperature and max_tokens.
        tries: of a request, before its error is the user's.
        timeout: seconds without an answer.
        wait: sleeps; tests have another.
    """

    url: str
    model: str = ""
    settings: dict[str, Any] = field(default_factory=dict)
    tries: int = 8
    timeout: float = 600.0
    wait: Callable[[float], None] = time.sleep
    _few_stops: bool = False

    def __post_init__(self) -> None:
        address = urllib.parse.urlsplit(self.url)
        if address.scheme not in ("http", "https") or not address.netloc:
            raise UserError(f"{self.url}: not a server's address, such as http://localhost:8000")
        self.url = self.url.rstrip("/").removesuffix("/v1")
        if not self.model:
            models = self.models()
            if len(models) != 1:
                raise UserError(
                    f"{self.url} serves {', '.join(models) or 'no model'}: say which one is meant (--model)"
                )
            self.model = models[0]

    def models(self) -> list[str]:
        """What the server serves."""
        found = self._request("models", None)
        try:
            return [str(each["id"]) for each in found.get("data") or []]
        except (KeyError, TypeError):
            raise self._foreign(found) from None

    def answer(self, prompt: str | Sequence[dict[str, str]], stops: Sequence[str] = (), **settings: Any) -> ServerReply:
        """Asks once.

        Args:
            prompt: a text to go on with, or the messages of a conversation.
            stops: strings that end the answer. A server that takes only four gets the first four: the others must be
                looked for by the caller.

        Raises:
            RefusedError: the server doesn't take this request; it may take others.
            UnansweredError: it fails however often this is asked.
            UserError: it is not there, or takes no request of ours.
        """
        path, body = self.request(prompt, stops, **settings)
        chat = "messages" in body
        try:
            found = self._request(path, body)
        except RefusedError as error:
            if len(body.get("stop", ())) <= _STOPS or "stop" not in str(error):
                raise
            self._few_stops = True
            found = self._request(path, body | {"stop": body["stop"][:_STOPS]})
        try:
            choice = found["choices"][0]
            text = (choice["message"].get("content") or "") if chat else choice["text"]
            read, made = ((found.get("usage") or {}).get(f"{side}_tokens") for side in ("prompt", "completion"))
            return ServerReply(text, choice.get("finish_reason") or None, int(made or 0), int(read or 0))
        except (KeyError, IndexError, TypeError, AttributeError):
            raise self._foreign(found) from None

    def request(
        self, prompt: str | Sequence[dict[str, str]], stops: Sequence[str] = (), **settings: Any
    ) -> tuple[str, dict[str, Any]]:
        """What `answer` would send: the path below /v1, and the body."""
        chat = not isinstance(prompt, str)
        body = self.settings | settings | {"model": self.model, ("messages" if chat else "prompt"): prompt}
        if stops:
            body["stop"] = list(stops[:_STOPS] if self._few_stops else stops)
        return "chat/completions" if chat else "completions", body

    def _foreign(self, found: dict[str, Any]) -> UnansweredError:
        said = _without_key(json.dumps(found, ensure_ascii=False))
        return UnansweredError(f"{self.url}: an answer that isn't OpenAI's protocol: {said[:200]}")

    def answers(
        self, prompts: Sequence[Any], stops: Sequence[str], settings: Sequence[dict[str, Any]], at_once: int
    ) -> Iterator[tuple[int, ServerReply]]:
        """Asks many, so many at once, and yields each answer as it comes, with the number of its prompt.

        Raises:
            UserError: of an answer; after it nothing more is asked, and what was on its way is yielded first.
        """
        over = threading.Event()

        def ask(prompt: Any, own: dict[str, Any]) -> ServerReply | None:
            try:
                return None if over.is_set() else self.answer(prompt, stops, **own)
            except BaseException:
                over.set()
                raise

        with ThreadPoolExecutor(at_once) as threads:
            both = enumerate(zip(prompts, settings, strict=True))
            asked = {threads.submit(ask, prompt, own): number for number, (prompt, own) in both}
            try:
                for one in as_completed(asked):
                    if not one.exception() and (reply := one.result()):
                        yield asked[one], reply
            finally:
                over.set()
            for one in asked:
                one.result()  # raises

    def _request(self, path: str, body: dict[str, Any] | None) -> dict[str, Any]:
        data = None if body is None else json.dumps(body).encode()
        headers = {"Content-Type": "application/json", "Accept": "application/json"}
        if data:  # a server that knows this header doesn't charge twice for a request whose answer was lost on its way
            headers["Idempotency-Key"] = hashlib.sha256(path.encode() + b"\0" + data).hexdigest()
        request = urllib.request.Request(f"{self.url}/v1/{path}", data, headers)
        if key := _key():
            request.add_unredirected_header("Authorization", f"Bearer {key}")
        for number in range(self.tries):
            last = number == self.tries - 1
            try:
                with urllib.request.urlopen(request, timeout=self.timeout) as response:
                    found = json.loads(response.read())
                if not isinstance(found, dict):
                    raise ValueError("no object")
                return found
            except urllib.error.HTTPError as error:
                said = _said(error)
                if error.code not in _LATER or last:
                    raise self._refused(error.code, said, path) from None
                self.wait(_pause(number, error.headers.get("Retry-After", "")))
            except (urllib.error.URLError, http.client.HTTPException, OSError, ValueError) as error:
                reason = getattr(error, "reason", None)
                if last or (isinstance(reason, OSError) and number > 2):
                    kind = UserError if isinstance(reason, ConnectionRefusedError) else UnansweredError
                    reason = _without_key(str(reason or error))
                    raise kind(f"{self.url}: no answer ({reason}); is the server there?") from None
                self.wait(_pause(number))
        raise AssertionError

    def _refused(self, code: int, said: str, path: str) -> UserError:
        match code:
            case 401 | 403:
                known = "the key in OPENAI_API_KEY" if _key() else "no key: set OPENAI_API_KEY"
                return UserError(f"{self.url} refuses {known} ({code} {said})")
            case 404 if path != "models":
                serves = ", ".join(self.models())
                return UserError(f"{self.url}: no model {self.model} or no /v1/{path} (404 {said}); it serves {serves}")
            case 400 | 422:
                return RefusedError(f"{self.url} refuses the request ({code} {said})")
            case 429 | 503:
                return UserError(
                    f"{self.url}: too busy {self.tries} times in a row ({code} {said}); the same command goes on"
                )
            case 500 | 502 | 504 | 408:
                return UnansweredError(f"{self.url}/v1/{path}: {code} {said}, {self.tries} times in a row")
        return UserError(f"{self.url}/v1/{path}: {code} {said}")


def _key() -> str:
    return os.environ.get("OPENAI_API_KEY", "").strip()  # a newline behind it would be no header


def _without_key(said: str) -> str:
    """What may be shown: some servers repeat the key that they refuse. A key like "-", for those that want any, may."""
    return said.replace(_key(), "…") if len(_key()) > 3 else said


def _said(error: urllib.error.HTTPError) -> str:
    """What a server said with its error, in a line."""
    try:
        content = error.read(4096).decode(errors="replace")
    except (OSError, http.client.HTTPException):
        return _without_key(error.reason)
    try:
        found = json.loads(content)
        inner = found.get("error", found.get("detail", found)) if isinstance(found, dict) else found
        content = str(inner.get("message", inner) if isinstance(inner, dict) else inner)
    except ValueError:
        pass
    return " ".join(_without_key(content).split())[:300] or _without_key(error.reason)


def _pause(number: int, asked: str = "") -> float:
    """Seconds to wait: twice as long each time, with chance in it, and never less than the server says.

    Args:
        number: of the try, from 0.
        asked: Retry-After, in seconds or a date; 0 or a date that is past makes no storm of requests.
    """
    backoff = min(60.0, 2.0**number) * random.uniform(0.5, 1.0)
    wanted = 0.0
    try:
        wanted = float(asked or 0)
    except ValueError:
        with suppress(ValueError):
            wanted = email.utils.parsedate_to_datetime(asked).timestamp() - time.time()
    return min(_LONGEST_WAIT, max(backoff, wanted) + random.uniform(0.0, 1.0))
