"""Every answer that was paid for, in a file that only grows: what was asked once is never asked again.

A line is one answer, and is kept under the content of its request: who asks the same again, in this run or another, on
this server or another, gets the recorded answer. The line is on its way to the disk before anybody uses the answer, so
a kill at any moment loses no more than what was on its way over the network. What a kill left of a line is cut off when
the file is opened; a line that was damaged later is told by its number, for to ask anew costs money.

    {"sum": "16 digits over all that follows", "key": "32 digits over the request", "path": …, "request": …, "reply": …}
"""

import fcntl
import hashlib
import json
import os
import threading
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, Self

import xxhash

from opencoder_jax.clients.openai_client import ServerReply
from opencoder_jax.recipe import UserError

FILE = "answers.jsonl"
_HEAD = b'{"sum": "0123456789abcdef", '
_KEY = b'"key": "'


def request_key(path: str, body: Mapping[str, Any]) -> str:
    """32 hexadecimal digits of a request's content; the order of its fields doesn't count."""
    content = json.dumps([path, body], sort_keys=True, ensure_ascii=False)
    return hashlib.blake2b(content.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


class RecordedAnswers:
    """The record in a directory. One process at a time, any number of its threads.

    It keeps the places of the answers in memory, about 150 bytes each, and not the answers.

    Raises:
        UserError: another process has it open, or a line is damaged.
    """

    def __init__(self, directory: Path) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.path = directory / FILE
        self._file = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
        self._lock = threading.Lock()
        self._places: dict[bytes, tuple[int, int]] = {}
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._end = self._read()
        except BlockingIOError:
            os.close(self._file)
            raise UserError(f"{self.path}: another process asks and records there; wait for its end") from None
        except BaseException:
            os.close(self._file)
            raise
        os.ftruncate(self._file, self._end)

    def _read(self) -> int:
        """Finds the places of all answers; returns where the last whole line ends."""
        end = 0
        with self.path.open("rb") as lines:
            for number, line in enumerate(lines, 1):
                if not line.endswith(b"\n"):
                    break
                rest = line[len(_HEAD) :]
                if line[: len(_HEAD)] != _head(rest) or not rest.startswith(_KEY):
                    raise UserError(
                        f"{self.path}, line {number}: damaged after it was written; delete that line, and what it "
                        "answered is asked again"
                    )
                self._places[bytes.fromhex(rest[len(_KEY) : len(_KEY) + 32].decode())] = end, len(line)
                end += len(line)
        return end

    def __len__(self) -> int:
        return len(self._places)

    def find(self, key: str) -> ServerReply | None:
        """The answer to the request of this key, if there is one."""
        place = self._places.get(bytes.fromhex(key))
        if place is None:
            return None
        start, length = place
        return ServerReply(**json.loads(os.pread(self._file, length, start))["reply"])

    def keep(self, path: str, body: Mapping[str, Any], reply: ServerReply) -> None:
        """Records an answer; it's in the file when this returns. A disk that is full leaves the file as it was."""
        key = request_key(path, body)
        content = {"key": key, "path": path, "request": body, "reply": asdict(reply)}
        rest = json.dumps(content).encode()[1:] + b"\n"
        line = _head(rest) + rest
        with self._lock:
            written = 0
            try:
                while written < len(line):
                    written += os.write(self._file, line[written:])
            except BaseException:
                os.ftruncate(self._file, self._end)
                raise
            self._places[bytes.fromhex(key)] = self._end, len(line)
            self._end += len(line)

    def all(self) -> Iterator[dict[str, Any]]:
        """Every line's content, in the order in which the answers came."""
        for start, length in sorted(self._places.values()):
            yield json.loads(os.pread(self._file, length, start))

    def close(self) -> None:
        os.fsync(self._file)
        os.close(self._file)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _head(rest: bytes) -> bytes:
    return b'{"sum": "%s", ' % xxhash.xxh3_64_hexdigest(rest).encode()
