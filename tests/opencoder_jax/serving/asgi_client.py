"""A client of an ASGI application in the same event loop: it decides when the body comes, and when it goes away."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

from starlette.types import ASGIApp, Message

JSON = {"content-type": "application/json"}


class Answer(NamedTuple):
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def error(self) -> dict[str, Any]:
        assert self.json.keys() == {"error"}
        assert self.json["error"].keys() == {"message", "type", "param", "code"}
        return self.json["error"]

    @property
    def events(self) -> list[Any]:
        """The data of a stream, which ends as OpenAI's do."""
        assert self.headers["content-type"].startswith("text/event-stream")
        *events, last, rest = self.body.decode().split("\n\n")
        assert (last, rest) == ("data: [DONE]", "")
        return [json.loads(event.removeprefix("data: ")) for event in events]


@asynccontextmanager
async def running(app: ASGIApp) -> AsyncIterator[None]:
    """The application's lifespan."""
    inbox: asyncio.Queue[Message] = asyncio.Queue()
    outbox: asyncio.Queue[Message] = asyncio.Queue()
    scope = {"type": "lifespan", "asgi": {"version": "3.0"}, "state": {}}
    task = asyncio.create_task(app(scope, inbox.get, outbox.put))
    await inbox.put({"type": "lifespan.startup"})
    assert (await outbox.get())["type"] == "lifespan.startup.complete"
    try:
        yield
    finally:
        await inbox.put({"type": "lifespan.shutdown"})
        await outbox.get()
        await task


class Exchange:
    """One request under way."""

    def __init__(
        self, app: ASGIApp, method: str, path: str, headers: dict[str, str], chunks: Sequence[bytes], ends: bool
    ) -> None:
        self._inbox: asyncio.Queue[Message] = asyncio.Queue()
        for place, chunk in enumerate(chunks):
            more = not ends or place < len(chunks) - 1
            self._inbox.put_nowait({"type": "http.request", "body": chunk, "more_body": more})
        self.messages: list[Message] = []
        self._grown = asyncio.Event()
        scope = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": "1.1",
            "method": method,
            "path": path,
            "raw_path": path.encode(),
            "root_path": "",
            "query_string": b"",
            "scheme": "http",
            "headers": [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers.items()],
            "client": ("127.0.0.1", 1),
            "server": ("127.0.0.1", 2),
        }
        self.task = asyncio.create_task(app(scope, self._inbox.get, self._send))

    async def _send(self, message: Message) -> None:
        self.messages.append(message)
        self._grown.set()

    async def until(self, holds: Callable[["Exchange"], bool]) -> None:
        """Waits until what has come fulfils a condition."""
        while not holds(self):
            self._grown.clear()
            await asyncio.wait_for(self._grown.wait(), 20)

    async def leave(self) -> None:
        """The client goes away."""
        self._inbox.put_nowait({"type": "http.disconnect"})
        await asyncio.wait_for(self.task, 20)

    @property
    def body(self) -> bytes:
        return b"".join(message.get("body", b"") for message in self.messages)

    async def answer(self) -> Answer:
        await asyncio.wait_for(self.task, 20)
        first = self.messages[0]
        headers = {name.decode(): value.decode("latin-1") for name, value in first["headers"]}
        return Answer(first["status"], headers, self.body)


class Client:
    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    def open(self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None) -> Exchange:
        """Begins a request. A body of bytes is sent as it is; a list of them begins one that never ends."""
        sent = {"host": "localhost:1", **(JSON if method == "POST" else {}), **(headers or {})}
        match body:
            case bytes():
                chunks = [body]
            case [bytes(), *_]:
                chunks = body
            case _:
                chunks = [b"" if body is None else json.dumps(body).encode()]
        return Exchange(self._app, method, path, sent, chunks, ends=chunks is not body)

    async def get(self, path: str, **headers: str) -> Answer:
        return await self.open("GET", path, headers=headers).answer()

    async def post(self, path: str, body: Any, **headers: str) -> Answer:
        return await self.open("POST", path, body, headers).answer()
