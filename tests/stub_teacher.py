"""A teacher of the tests' own: well, wrong, slow, busy, broken, mute or cut off, as the number in its prompt says.

What it makes of a request depends on the request alone, but for troubles that pass, which come once. It keeps books of
how often it answered each.
"""

import json
import re
import threading
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

# What becomes of the seed of each number: by remainder.
KINDS = (
    "good",
    "wrong",
    "slow",
    "busy",
    "fails",
    "broken",
    "foreign",
    "cut at times",
    "cut",
    "empty",
    "always fails",
    "refused",
    "malformed",
)
TROUBLES = {"busy", "fails", "broken", "foreign"}


def seed_text(number: int) -> str:
    return f"def seed_{number}(x):\n    return x + {number}\n"


def exercise(number: int, right: bool = True) -> str:
    """An answer in the sections of Educational-Instruct; not right, its solution fails its tests."""
    solution = f"def add_{number}(x):\n    return x + {number if right else number + 1}"
    tests = "\n".join(f"assert add_{number}({x}) == {x + number}" for x in (0, 1, -5, 40))
    return (
        f"[Task]\nWrite add_{number}(x), which adds {number}.\n[Analysis]\nAdd.\n"
        f"[Solution]\n```python\n{solution}\n```\n[Test]\n```python\n{tests}\n```\n"
    )


class StubTeacher:
    """The server, in a thread of the test.

    Attributes:
        answered: how often each request got an answer, and was charged for it, by its Idempotency-Key.
        recorded: keys that must not be asked again, and `repeated`: those that were.
    """

    def __init__(self, kinds: tuple[str, ...] = KINDS) -> None:
        self.kinds = kinds
        self.requests = 0
        self.answered: Counter[str] = Counter()
        self.recorded: set[str] = set()
        self.repeated: list[str] = []
        self.troubled: set[str] = set()
        self.more = threading.Condition()
        stub = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                status, content = stub.reply(body, self.headers["Idempotency-Key"])
                self.send_response(status)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *_: Any) -> None:
                pass

        class Server(ThreadingHTTPServer):
            request_queue_size = 128
            daemon_threads = True

            def handle_error(self, *_: Any) -> None:  # a client that was killed
                pass

        self.server = Server(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    def kind(self, number: int) -> str:
        return self.kinds[number % len(self.kinds)]

    def reply(self, body: dict[str, Any], key: str) -> tuple[int, bytes]:
        text = body["messages"][-1]["content"]
        found = re.search(r"seed_(\d+)|add_(\d+)", text)
        assert found
        number = int(found[1] or found[2])
        kind = self.kind(number)
        with self.more:
            self.requests += 1
            if key in self.recorded:
                self.repeated.append(key)
            first = key not in self.troubled
            self.troubled.add(key)
            self.more.notify_all()
        if kind == "always fails":
            return 500, b"no"
        if kind == "refused":
            return 400, b'{"error": {"message": "too long"}}'
        if kind in TROUBLES and first:
            return {"busy": (429, b"{}"), "fails": (500, b"oh"), "broken": (200, b'{"choi'), "foreign": (200, b"[1]")}[
                kind
            ]
        if kind == "slow" and first:
            threading.Event().wait(0.05)
        answer, reason = exercise(number, kind != "wrong"), "stop"
        if found[2]:
            answer = "```python\n" + answer.split("```python\n")[1].split("```")[0] + "```\n"
        elif kind == "malformed":
            answer = answer.replace("[Test]", "")
        elif kind == "cut" or (kind == "cut at times" and body["seed"] % 2):
            answer, reason = answer[:60], "length"
        elif kind == "empty":
            answer = " \n"
        with self.more:
            self.answered[key] += 1
        content = {
            "choices": [{"message": {"content": answer}, "finish_reason": reason}],
            "usage": {"prompt_tokens": 100, "completion_tokens": 10},
        }
        return 200, json.dumps(content).encode()

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()
