"""The server as an ASGI application: its routes, and how a body becomes an answer.

A body is read and tokenised in one thread beside the event loop, so that a large one holds up no stream; the answer
is made while its client stays connected, and no longer than `ServeConfig.answer_seconds`.
"""

import asyncio
import json
import logging
import mimetypes
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from importlib import resources
from typing import Any, NamedTuple, TypeVar

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect
from starlette.requests import Request as HttpRequest
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from opencoder_jax.inference.requests import Piece
from opencoder_jax.recipe import UserError
from opencoder_jax.serving.bridge import Answers, Bridge, EngineFailed
from opencoder_jax.serving.config import ServeConfig
from opencoder_jax.serving.gate import Gate
from opencoder_jax.serving.metrics import CONTENT_TYPE
from opencoder_jax.serving.openai_answers import Envelope, Json, TokenNames
from opencoder_jax.serving.openai_requests import Asked, RequestReader
from opencoder_jax.serving.parameters import Refused, error_body, parse, shown
from opencoder_jax.tokenization.tokenizer import TextTokenizer

log = logging.getLogger(__name__)
T = TypeVar("T")

_GONE = 499  # as nginx counts a client that didn't wait; nobody reads it but the metrics


class ServedModel(NamedTuple):
    """What clients learn of the model, and what reads their texts."""

    name: str
    tokenizer: TextTokenizer
    context: int
    created: int  # seconds since 1970
    fingerprint: str


def application(
    model: ServedModel,
    bridge: Bridge,
    config: ServeConfig,
    keys: Sequence[str] = (),
    hosts: Sequence[str] = (),
) -> Starlette:
    """The application; its lifespan starts and stops the bridge."""
    server = _Server(model, bridge, config)

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        bridge.start()
        try:
            yield
        finally:
            await bridge.stop()
            server.reading.shutdown(wait=False, cancel_futures=True)

    return Starlette(
        routes=[
            Route("/", server.page),
            Route("/page/{name}", server.page),
            Route("/health", server.health),
            Route("/ready", server.ready),
            Route("/metrics", server.metrics),
            Route("/v1/models", server.models),
            Route("/v1/models/{name:path}", server.model),
            Route("/v1/completions", server.completions, methods=["POST"]),
            Route("/v1/chat/completions", server.chats, methods=["POST"]),
            Route("/tokenize", server.tokenize, methods=["POST"]),
            Route("/tokenizer_info", server.tokenizer_info),
            Route("/detokenize", server.detokenize, methods=["POST"]),
        ],
        middleware=[Middleware(Gate, metrics=bridge.metrics, keys=keys, hosts=hosts)],
        exception_handlers={
            Refused: _refused,
            UserError: _user_error,
            EngineFailed: _engine_failed,
            HTTPException: _http_error,
            Exception: _internal,
        },
        lifespan=lifespan,
    )


class _Server:
    """What the routes share."""

    def __init__(self, model: ServedModel, bridge: Bridge, config: ServeConfig) -> None:
        self._model = model
        self._bridge = bridge
        self._config = config
        self._reader = RequestReader(model.name, model.tokenizer, model.context, config)
        self._names = TokenNames(model.tokenizer)
        self.reading = ThreadPoolExecutor(1, "reading")  # one: the tokenizer's table is nobody else's meanwhile
        self._page = _page_files()

    # ------------------------------------------------------------------------------------------- for people, monitors

    async def page(self, request: HttpRequest) -> Response:
        name = request.path_params.get("name", "index.html")
        if (content := self._page.get(name)) is None:
            raise HTTPException(404)
        return Response(content, media_type=mimetypes.guess_type(name)[0], headers={"cache-control": "no-cache"})

    async def health(self, request: HttpRequest) -> Response:
        """Whether the process should live on: 503 says to restart it."""
        return _state(self._bridge.failure is None)

    async def ready(self, request: HttpRequest) -> Response:
        """Whether it should be sent requests."""
        return _state(self._bridge.working)

    async def metrics(self, request: HttpRequest) -> Response:
        return Response(self._bridge.metrics.text(), headers={"content-type": CONTENT_TYPE})

    # ----------------------------------------------------------------------------------------------- OpenAI's routes

    async def models(self, request: HttpRequest) -> Response:
        return JSONResponse({"object": "list", "data": [self._described()]})

    async def model(self, request: HttpRequest) -> Response:
        if (name := request.path_params["name"]) != self._model.name:
            message = f"there is no model {shown(name)} here; there is {self._model.name}"
            raise Refused(message, "model", "model_not_found", 404)
        return JSONResponse(self._described())

    def _described(self) -> Json:
        return {
            "id": self._model.name,
            "object": "model",
            "created": self._model.created,
            "owned_by": "opencoder_jax",
            "max_model_len": self._model.context,
        }

    async def completions(self, request: HttpRequest) -> Response:
        return self._answer(await self._read(request, self._reader.completion))

    async def chats(self, request: HttpRequest) -> Response:
        return self._answer(await self._read(request, self._reader.chat_completion))

    async def tokenize(self, request: HttpRequest) -> Response:
        tokens, strings = await self._read(request, self._reader.tokenize)
        said = {"tokens": tokens, "count": len(tokens), "max_model_len": self._model.context}
        return JSONResponse(said | ({"token_strs": list(map(self._names.name, tokens))} if strings else {}))

    async def tokenizer_info(self, request: HttpRequest) -> Response:
        """By this lm-evaluation-harness knows a server that has a tokenizer."""
        tokenizer, name = self._model.tokenizer, self._names.name
        bos = name(tokenizer.prefix[0]) if tokenizer.prefix else None
        return JSONResponse(
            {"eos_token": name(tokenizer.end_of_document), "pad_token": name(tokenizer.pad), "bos_token": bos}
        )

    async def detokenize(self, request: HttpRequest) -> Response:
        return JSONResponse({"prompt": await self._read(request, self._reader.detokenize)})

    # ------------------------------------------------------------------------------------------ from body to answer

    async def _read(self, request: HttpRequest, reader: Callable[[dict[str, Any]], T]) -> T:
        """What a reader makes of a request's body. Raises Refused."""
        body = await _body(request, self._config)
        return await asyncio.get_running_loop().run_in_executor(self.reading, lambda: reader(parse(body)))

    def _answer(self, asked: Asked) -> Response:
        envelope = Envelope(asked, self._model.name, self._model.fingerprint, self._names)
        answers = self._bridge.submit(asked.requests)
        return _Answering(answers, asked, envelope, self._config.answer_seconds)


class _Answering(Response):
    """An answer in the making. It's given up, and its slot is free, as soon as its client goes or its time is over."""

    def __init__(self, answers: Answers, asked: Asked, envelope: Envelope, seconds: float) -> None:
        self._answers = answers
        self._asked = asked
        self._envelope = envelope
        self._seconds = seconds
        self._begun = False
        self.background = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        make = self._stream if self._asked.stream else self._whole
        with self._answers:
            making = asyncio.create_task(make(scope, receive, send))
            gone = asyncio.create_task(_until_gone(receive))
            try:
                done, _ = await asyncio.wait({making, gone}, timeout=self._seconds, return_when="FIRST_COMPLETED")
                if not done:
                    await self._late(scope, receive, send)
                elif making in done:
                    await self._told(making, send)
            finally:
                making.cancel()
                gone.cancel()
                await asyncio.gather(making, gone, return_exceptions=True)

    async def _whole(self, scope: Scope, receive: Receive, send: Send) -> None:
        choices: list[list[Piece]] = [[] for _ in self._asked.requests]
        async for index, piece in self._answers:
            choices[index].append(piece)
        await JSONResponse(self._envelope.whole(choices))(scope, receive, send)

    async def _stream(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Server-sent events, one a chunk."""
        headers = [(b"content-type", b"text/event-stream; charset=utf-8"), (b"cache-control", b"no-store")]
        # Nginx would otherwise collect the events before it hands them on.
        headers.append((b"x-accel-buffering", b"no"))
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        self._begun = True
        form = self._envelope.format
        for index in range(len(self._asked.requests)):
            if opening := form.opening(index):
                await _event(send, self._envelope.chunk(opening))
        tokens, seen = 0, set[int]()
        async for index, piece in self._answers:
            tokens += len(piece.tokens)
            if piece.text or piece.tokens or piece.finish_reason or piece.prompt_logprobs:
                await _event(send, self._envelope.chunk(form.chunk(index, piece, index not in seen)))
                seen.add(index)
        if self._asked.include_usage:
            await _event(send, self._envelope.usage_chunk(tokens))
        await _last(send)

    async def _told(self, making: "asyncio.Task[None]", send: Send) -> None:
        """An error in a stream that has begun is an event of it: its status is gone already."""
        try:
            await making
        except EngineFailed as error:
            if not self._begun:
                raise
            await _event(send, error_body(str(error), "server_error"))
            await send({"type": "http.response.body", "body": b""})

    async def _late(self, scope: Scope, receive: Receive, send: Send) -> None:
        body = error_body(f"the answer took more than {self._seconds:g} seconds", "server_error", code="timeout")
        if self._begun:
            await _event(send, body)
            await send({"type": "http.response.body", "body": b""})
        else:
            await JSONResponse(body, 504)(scope, receive, send)


async def _event(send: Send, content: Json) -> None:
    data = json.dumps(content, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    await send({"type": "http.response.body", "body": f"data: {data}\n\n".encode(), "more_body": True})


async def _last(send: Send) -> None:
    await send({"type": "http.response.body", "body": b"data: [DONE]\n\n"})


async def _until_gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _body(request: HttpRequest, config: ServeConfig) -> bytes:
    """A request's body. Raises Refused for one that is too large, too slow, or not said to be JSON."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        # A form of another site's page can send anything but this without asking.
        raise Refused(f"Content-Type must be application/json; got {shown(kind)}", status=415)
    length = request.headers.get("content-length", "0")
    too_large = Refused(f"the body exceeds {config.body_bytes} bytes", code="body_too_large", status=413)
    if length.isdecimal() and int(length[:20]) > config.body_bytes:
        raise too_large
    body = bytearray()
    try:
        async with asyncio.timeout(config.body_seconds):
            async for chunk in request.stream():
                body += chunk
                if len(body) > config.body_bytes:
                    raise too_large
    except ClientDisconnect:
        raise Refused("the client has gone", status=_GONE) from None
    except TimeoutError:
        raise Refused(f"the body took more than {config.body_seconds:g} seconds", status=408) from None
    return bytes(body)


def _page_files() -> Mapping[str, bytes]:
    folder = resources.files("opencoder_jax.serving") / "page"
    return {file.name: file.read_bytes() for file in folder.iterdir() if file.is_file()}


# ------------------------------------------------------------------------------------------------------------- errors


def _state(good: bool) -> Response:
    return JSONResponse({"status": "ok" if good else "unavailable"}, 200 if good else 503)


async def _refused(request: HttpRequest, error: Exception) -> Response:
    assert isinstance(error, Refused)
    kinds = {429: "rate_limit_error", 503: "server_error", 504: "server_error"}
    body = error_body(str(error), kinds.get(error.status, "invalid_request_error"), error.param, error.code)
    headers = {"retry-after": str(error.retry_after)} if error.retry_after else None
    return JSONResponse(body, error.status, headers)


async def _user_error(request: HttpRequest, error: Exception) -> Response:
    """What the engine doesn't take."""
    return JSONResponse(error_body(str(error), "invalid_request_error"), 400)


async def _http_error(request: HttpRequest, error: Exception) -> Response:
    """No such route, or not by this method."""
    assert isinstance(error, HTTPException)
    message = f"{request.method} {shown(request.url.path)}: {error.detail.lower()}"
    return JSONResponse(error_body(message, "invalid_request_error"), error.status_code, error.headers)


async def _engine_failed(request: HttpRequest, error: Exception) -> Response:
    return JSONResponse(error_body(str(error), "server_error"), 500)


async def _internal(request: HttpRequest, error: Exception) -> Response:
    """An error of ours; the log has it, the client doesn't."""
    return JSONResponse(error_body("internal error", "server_error"), 500)
