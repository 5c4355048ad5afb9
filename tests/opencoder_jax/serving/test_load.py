"""Two minutes of 64 clients who ask, leave in the middle, send too much and send nonsense."""

import asyncio
import json
import os
import random
import time
from pathlib import Path
from typing import Any

import pytest
from test_serve_command import run as run  # a fixture
from test_serve_command import serving

from opencoder_jax.inference.engine import Engine
from opencoder_jax.inference.sampling import SamplingConfig

CLIENTS = 64
SECONDS = float(os.environ.get("LOAD_SECONDS", "120"))
NONSENSE = [
    b"",
    b"{",
    b"[" * 5000,
    b'{"prompt": 3}',
    b'{"prompt": "a", "n": NaN}',
    b"\xff\xfe",
    b'{"prompt": "\\ud800"}',
]
TOKENS = 24


async def ask(port: int, body: bytes, leave_after: float | None = None) -> bytes:
    """One request over a connection of its own; the raw answer, or b"" of one that was left."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        head = (
            f"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: {len(body)}\r\n"
        )
        writer.write(head.encode() + b"Content-Type: application/json\r\n\r\n" + body)
        if leave_after is None:
            return await asyncio.wait_for(reader.read(-1), 120)
        await asyncio.sleep(leave_after)
        return b""
    finally:
        writer.transport.abort()


def memory(process: int) -> float:
    """Megabytes that a process has in memory."""
    lines = Path(f"/proc/{process}/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmRSS")).split()[1]) / 1024


class Load:
    def __init__(self, port: int, process: int, right: dict[str, str]) -> None:
        self.port, self.process, self.right = port, process, right
        self.counts = dict.fromkeys(("right", "full", "refused", "left"), 0)
        self.memory: list[float] = []
        self.until = time.monotonic() + SECONDS

    async def client(self, number: int) -> None:
        draw = random.Random(number)
        while time.monotonic() < self.until:
            kind = draw.random()
            prompt = draw.choice(list(self.right))
            body: dict[str, Any] = {
                "prompt": prompt,
                "max_tokens": TOKENS,
                "temperature": 0,
                "stream": draw.random() < 0.5,
            }
            if kind < 0.2:
                sampled = {**body, "n": draw.randint(1, 4), "temperature": 1, "stream": True}
                await ask(self.port, json.dumps(sampled).encode(), draw.expovariate(4))
                self.counts["left"] += 1
            elif kind < 0.35:
                answer = await ask(self.port, draw.choice(NONSENSE))
                assert answer.startswith(b"HTTP/1.1 400"), answer[:300]
                self.counts["refused"] += 1
            elif kind < 0.4:
                too_long = prompt * (6000 // len(prompt) + 1)  # whatever its pieces are
                answer = await ask(self.port, json.dumps({**body, "prompt": too_long}).encode())
                assert answer.startswith(b"HTTP/1.1 400"), answer[:300]
                self.counts["refused"] += 1
            else:
                answer = await ask(self.port, json.dumps(body).encode())
                if answer.startswith(b"HTTP/1.1 429"):
                    assert b"retry-after" in answer
                    self.counts["full"] += 1
                else:
                    assert text_of(answer) == self.right[prompt], (prompt, answer[:500])
                    self.counts["right"] += 1

    async def watch(self) -> None:
        while time.monotonic() < self.until:
            await asyncio.sleep(SECONDS / 40)
            self.memory.append(memory(self.process))

    async def all_of_it(self) -> None:
        await asyncio.gather(self.watch(), *map(self.client, range(CLIENTS)))


def text_of(answer: bytes) -> str:
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200"), answer[:300]
    if b"chunked" in head:
        parts = []
        while body:
            size, _, rest = body.partition(b"\r\n")
            parts.append(rest[: int(size, 16)])
            body = rest[int(size, 16) + 2 :]
        events = b"".join(parts).split(b"\n\n")
        assert events[-2] == b"data: [DONE]"
        return "".join(json.loads(event[6:])["choices"][0]["text"] for event in events[:-2])
    return str(json.loads(body)["choices"][0]["text"])


@pytest.mark.slow
def test_load(run: Path, tmp_path: Path) -> None:
    """No crash, no slot that stays taken, no answer that is wrong or another's, and memory that doesn't grow."""
    draw = random.Random(0)
    prompts = ["".join(draw.choice("defadd(ab):\n return") for _ in range(draw.randint(1, 200))) for _ in range(48)]
    engine = Engine.open(run)
    offline = engine.generate([engine.tokenizer.encode(each) for each in prompts], SamplingConfig(max_tokens=TOKENS))
    right = {prompt: completion.text for prompt, completion in zip(prompts, offline, strict=True)}
    assert len(set(right.values())) > 20
    with serving(run, tmp_path, "--gin.ServeConfig.waiting=40", "--gin.ServeConfig.choices=8") as (process, client):
        load = Load(client.base_url.port or 0, process.pid, right)
        asyncio.run(load.all_of_it())
        assert process.poll() is None
        # Everything that was left is given up, and what is asked now is answered.
        assert client.completions.create(model="small", prompt=prompts[0], max_tokens=TOKENS, temperature=0)
        metrics = client._client.get(f"http://127.0.0.1:{load.port}/metrics").text
    print(load.counts, f"memory {load.memory[0]:.0f} to {load.memory[-1]:.0f} MB")
    assert "opencoder_running 0.0" in metrics
    assert "opencoder_waiting 0.0" in metrics
    assert all(count > 20 for kind, count in load.counts.items() if kind != "full")
    third = len(load.memory) // 3
    assert max(load.memory[-third:]) < 1.1 * max(load.memory[third : 2 * third])
