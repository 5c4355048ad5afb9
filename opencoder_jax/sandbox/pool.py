"""The sandbox as the rest of the project sees it: `with Sandbox() as sandbox: sandbox.run("print(1)")`.

Programs are forked from warm zygotes (`_zygote.py`), one at a time each, so `workers` programs run at once. Outcomes do
not depend on the number of workers, nor on what else the machine does, except for programs at the edge of a time
limit. Safe to call from several threads, and from a process that has loaded JAX: nothing is ever forked from this
process.

Cost: 0.1 s to start a worker, then about 4 ms of processor time a program (twice that with a candidate) and some
milliseconds of waiting for the kernel, so that twice as many workers as cores are worth their while: on two busy cores
14 ms a program with one worker, 5.5 ms with four.
"""

import json
import os
import queue
import select
import shutil
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import asdict
from pathlib import Path
from typing import Any, Self

from opencoder_jax.sandbox._frames import send
from opencoder_jax.sandbox.program import Candidate, Limits, Outcome, Program

_ROOT = str(Path(__file__).resolve().parents[2])
_START = (
    "import sys; sys.path.insert(0, sys.argv[1]); from opencoder_jax.sandbox._zygote import main; main(*sys.argv[1:])"
)
_PATIENCE = 30.0  # seconds beyond the program's own limit before a silent zygote counts as lost


class SandboxError(RuntimeError):
    """The sandbox itself cannot work on this machine."""


class Sandbox:
    """Runs untrusted Python programs. Use as a context manager, or call `close`.

    Args:
        limits: of every program.
        workers: how many programs run at once.
        preload: modules that most programs import; loaded once, before the programs are forked.

    Attributes:
        layers: the walls of this machine, "active" or "missing: why" (see `_jail.py`). Store it beside every result.

    Raises:
        SandboxError: no program can be run at all.
    """

    def __init__(self, limits: Limits | None = None, workers: int = 1, preload: Sequence[str] = ()):
        if sys.platform != "linux":
            raise SandboxError(f"untrusted programs run only on Linux, this is {sys.platform}")
        if workers < 1:
            raise ValueError(f"workers={workers}: at least one")
        self.limits = limits or Limits()
        self.workers = workers
        options = json.dumps({"limits": asdict(self.limits), "preload": list(preload)})
        self._zygotes = [_Zygote(options) for _ in range(workers)]
        self._idle: queue.SimpleQueue[_Zygote] = queue.SimpleQueue()
        try:
            for zygote in self._zygotes:
                self._idle.put(zygote.start())
        except BaseException:
            self.close()
            raise
        self.layers: dict[str, str] = self._zygotes[0].layers

    def run(self, source: str, stdin: str = "", candidate: Candidate | None = None) -> Outcome:
        """Runs one program to its end; waits while all workers are busy.

        Never raises because of the program. A zygote that is lost under a program is replaced and the program run once
        more; lost again, the outcome is "sandbox_error".
        """
        zygote = self._idle.get()
        try:
            for _ in range(2):
                try:
                    patience = self.limits.wall_seconds + _PATIENCE
                    return Outcome(**zygote.ask([source, stdin, candidate], patience))
                except _Lost as error:
                    reason = str(error)
                    zygote.stop()
                    zygote.start()
            return Outcome("sandbox_error", error=reason)
        finally:
            self._idle.put(zygote)

    def map(self, programs: Iterable[Program | str]) -> Iterator[tuple[int, Outcome]]:
        """Runs many programs, `workers` at once; yields (index, outcome) in the order in which they end.

        Reads only as far ahead in `programs` as keeps the workers busy, so that it may be endless.
        """
        running: dict[Future[Outcome], int] = {}
        with ThreadPoolExecutor(self.workers) as threads:
            for index, program in enumerate(programs):
                running[threads.submit(self.run, *((program,) if isinstance(program, str) else program))] = index
                if len(running) >= 2 * self.workers:
                    yield from _finished(running)
            while running:
                yield from _finished(running)

    def close(self) -> None:
        """Ends the workers, and with them every program that still runs."""
        for zygote in self._zygotes:
            zygote.stop()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _finished(running: dict[Future[Outcome], int]) -> Iterator[tuple[int, Outcome]]:
    done, _ = wait(running, return_when=FIRST_COMPLETED)
    for future in sorted(done, key=running.__getitem__):
        yield running.pop(future), future.result()


class _Lost(Exception):
    """The zygote ended, or stopped answering."""


class _Zygote:
    """One zygote process and the two pipes to it."""

    def __init__(self, options: str):
        self._options = options
        self._process: subprocess.Popen[bytes] | None = None
        self._directory = ""
        self._stopping = threading.Lock()
        self.layers: dict[str, str] = {}

    def start(self) -> Self:
        environment = {
            "PATH": "/usr/bin:/bin",
            "LANG": "C.UTF-8",
            "TZ": "UTC",
            "TMPDIR": tempfile.gettempdir(),
            "PYTHONHASHSEED": "0",
            "PYTHONUTF8": "1",
            "OMP_NUM_THREADS": "1",
            "OPENBLAS_NUM_THREADS": "1",
        }
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-s", "-B", "-c", _START, _ROOT, self._options],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            bufsize=0,
            cwd="/",
            env=environment,
            start_new_session=True,
        )
        try:
            greeting = self._read(_PATIENCE)
        except _Lost as error:
            self.stop()
            raise SandboxError(f"the sandbox does not start: {error}") from None
        self.layers, self._directory = greeting["layers"], greeting["directory"]
        return self

    def ask(self, program: list[Any], patience: float) -> dict[str, Any]:
        process = self._process
        if process is None or process.stdin is None:
            raise _Lost("the sandbox is closed")
        try:
            send(process.stdin.fileno(), json.dumps(program).encode())
        except OSError as error:
            raise _Lost(f"the sandbox's zygote is gone: {error.strerror}") from None
        return self._read(patience)

    def stop(self) -> None:
        with self._stopping:
            process, self._process = self._process, None
        if process is None:
            return
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.close()  # it ends by itself, and removes its directory
        try:
            process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        process.stdout.close()
        if self._directory:
            shutil.rmtree(self._directory, ignore_errors=True)

    def _read(self, patience: float) -> Any:
        assert self._process is not None
        assert self._process.stdout is not None
        stream = self._process.stdout.fileno()
        poll = select.poll()
        poll.register(stream, select.POLLIN)
        deadline = time.monotonic() + patience
        data = bytearray()
        while len(data) < 4 or len(data) < 4 + struct.unpack("I", data[:4])[0]:
            if not poll.poll(max(0.0, deadline - time.monotonic()) * 1000):
                raise _Lost(f"the sandbox's zygote said nothing for {patience:.0f} s")
            piece = os.read(stream, 1 << 20)
            if not piece:
                raise _Lost("the sandbox's zygote ended")
            data += piece
        return json.loads(data[4:])
