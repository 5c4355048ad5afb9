"""A server in OpenAI's protocol that answers as a test tells it, in a thread of the test."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Planned = tuple[int, dict[str, str], Any]  # status, headers, body


class Script:
    """A server that answers as it is told, and keeps what it was asked."""

    def __init__(self) -> None:
        self.plan: list[Planned] = []
        self.asked: list[tuple[str, dict[str, Any], str | None]] = []
        script, lock = self, threading.Lock()

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                length = int(self.headers.get("Content-Length") or 0)
                body = json.loads(self.rfile.read(length) or b"{}")
                with lock:
                    script.asked.append((self.path, body, self.headers.get("Authorization")))
                    status, headers, answer = script.plan.pop(0) if script.plan else (200, {}, said(body))
                content = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
                self.send_response(status)
                for name, value in ({"Content-Length": str(len(content))} | headers).items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(content)

            def do_GET(self) -> None:
                self.do_POST()

            def log_message(self, *_: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()
        self.url = f"http://127.0.0.1:{self.server.server_port}"


MODELS = {"data": [{"id": "tiny"}]}


def said(body: dict[str, Any]) -> dict[str, Any]:
    if "messages" in body:
        choice: dict[str, Any] = {"message": {"content": body["messages"][-1]["content"].upper()}}
    else:
        choice = {"text": str(body.get("prompt", "")).upper()}
    return {"choices": [choice | {"finish_reason": "stop"}], "usage": {"completion_tokens": 3}} | MODELS
