"""What every request passes before a route sees it: the address that it names, its key, the count of it.

It also puts the headers on every response that keep a browser from doing more with it than was meant.
"""

import hashlib
import hmac
import ipaddress
import secrets
from collections.abc import Sequence
from pathlib import Path

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from opencoder_jax.recipe import UserError
from opencoder_jax.serving.metrics import Metrics
from opencoder_jax.serving.parameters import error_body

OPEN = ("/", "/health", "/ready")  # and what lies below /page/: no key is needed, nothing is told

# The page takes scripts, styles and answers from this server and from nowhere else, and no other page may frame it.
_HEADERS = {
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
}


class Gate:
    """An ASGI application around another."""

    def __init__(self, app: ASGIApp, metrics: Metrics, keys: Sequence[str], hosts: Sequence[str]) -> None:
        """Around `app`.

        Args:
            keys: any of them opens the server; without any it's open.
            hosts: the names that a request may call this server by; without any, all. A page of somebody else's, whose
                name suddenly leads to this machine, otherwise reads what only this machine should.
        """
        self._app = app
        self._metrics = metrics
        self._keys = [_digest(key) for key in keys]
        self._hosts = frozenset(hosts)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        name = secrets.token_hex(8)
        status = 0

        async def counted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                headers["x-request-id"] = name
                for header, value in _HEADERS.items():
                    headers.setdefault(header, value)
            await send(message)

        scope.setdefault("state", {})["request_id"] = name
        try:
            await (self._refusal(scope) or self._app)(scope, receive, counted)
        finally:
            route = scope.get("route")
            self._metrics.requests.labels(getattr(route, "path", "other"), str(status or "gone")).inc()

    def _refusal(self, scope: Scope) -> ASGIApp | None:
        headers = Headers(scope=scope)
        if self._hosts and _host_name(headers.get("host", "")) not in self._hosts:
            message = "this server doesn't go by that name; start it with --host to be reached from elsewhere"
            return JSONResponse(error_body(message, "invalid_request_error", code="wrong_host"), 421)
        path: str = scope["path"]
        if path in OPEN or path.startswith("/page/") or not self._keys:
            return None
        scheme, _, key = headers.get("authorization", "").partition(" ")
        # Every key is compared, each in constant time: how long it takes tells nothing of them.
        given = _digest(key.strip())
        matches = sum(hmac.compare_digest(given, known) for known in self._keys)
        if scheme.lower() == "bearer" and matches:
            return None
        body = error_body("a valid API key is needed: Authorization: Bearer KEY", "authentication_error")
        return JSONResponse(body, 401, {"www-authenticate": "Bearer"})


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).digest()


def _host_name(header: str) -> str:
    """`localhost` of `localhost:8000`, `::1` of `[::1]:8000`."""
    if header.startswith("["):
        return header[1:].partition("]")[0]
    return header.partition(":")[0].lower()


def names_of(host: str) -> tuple[str, ...]:
    """The names that a server bound to `host` may be called by: of one for this machine only, its own; else all."""
    local = ("localhost", "127.0.0.1", "::1")
    try:
        is_local = ipaddress.ip_address(host).is_loopback
    except ValueError:
        is_local = host == "localhost"
    return (*local, host) if is_local else ()


def read_keys(path: Path | None) -> tuple[str, ...]:
    """The keys of a file, one a line; # begins a comment. Raises UserError when there is none in it."""
    if path is None:
        return ()
    try:
        lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]
    except FileNotFoundError:
        raise UserError(f"{path}: no such file of API keys") from None
    except UnicodeDecodeError:
        raise UserError(f"{path}: not a file of API keys, one a line: it isn't UTF-8") from None
    keys = tuple(line for line in lines if line and not line.startswith("#"))
    if not keys:
        raise UserError(f"{path}: holds no API key; write one a line, or leave --api_key_file out")
    if wrong := [number for number, key in enumerate(keys, 1) if not (key.isascii() and key.isprintable())]:
        raise UserError(f"{path}: key {wrong[0]} has characters that no HTTP header carries; use letters and digits")
    return keys
