"""Watches one program, and its candidate, from outside: what they say, their limits, how they end.

Every byte that a jail writes is hostile. Only the record of a judge, from a process in which no untrusted statement
ran, can say "ok" of a candidate; any other word is no more than a reason for a failure, out of a closed set.
"""

import json
import os
import random
import secrets
import select
import signal
import socket
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal, NamedTuple

from opencoder_jax.sandbox._calls import PeerLost
from opencoder_jax.sandbox._zygote import MESSAGE_BYTES
from opencoder_jax.sandbox.program import Limits, Outcome, Program, Status

_STDERR_KEPT = 4000
_RECORD_BYTES = 1 << 16  # of the layers and the completion record
_PIECE = 1 << 16
_TICK = 0.05  # mean seconds between two looks at what the processes do
_THREADS = 256  # of one process: their stacks may be small, but their numbers are the machine's
_PATIENCE = 30.0  # seconds without a word of the zygote, of a process that must have ended, before it counts as lost
# A process that is always ready to run gets its processor time in the end; this ends the wait where it doesn't.
_LONGEST = 100


class ZygoteLost(Exception):
    """The zygote ended, or stopped answering."""


class _Process:
    """One jailed process: the descriptors it is given, what it wrote, and how it ended."""

    def __init__(self, role: str, job: dict[str, Any], stdin: str, channel: int | None):
        self.role, self.token = role, job.get("token", "")
        self.index = 0
        self.pidfd = -1
        self.pipes: dict[str, int] = {}
        self.read = {name: bytearray() for name in ("stdout", "stderr", "status")}
        self.end: dict[str, Any] | None = None  # the zygote's word
        self.killed_for: Status | None = None
        self.given = [_file(stdin.encode(errors="surrogateescape"))]
        for name in self.read:
            here, there = _one_way() if name == "status" else os.pipe()
            os.set_blocking(here, False)
            self.pipes[name] = here
            self.given.append(there)
        self.given.append(_file(json.dumps(job).encode()))
        if channel is not None:
            self.given.append(os.dup(channel))

    def pump(self, name: str) -> int:
        """Takes what lies in a pipe. Returns the number of bytes, or -1 where there is nothing yet."""
        try:
            piece = os.read(self.pipes[name], _PIECE)
        except BlockingIOError:
            return -1
        self.read[name] += piece
        return len(piece)

    def written(self) -> int:
        return len(self.read["stdout"]) + len(self.read["stderr"])

    def close(self) -> None:
        for descriptor in (*self.given, *self.pipes.values(), self.pidfd):
            if descriptor >= 0:
                os.close(descriptor)

    def layers(self) -> bytes:
        """What it reported before the program began."""
        return bytes(self.read["status"]).partition(b"\n")[0]

    def record(self) -> tuple[Status | Literal["lost"], str] | None:
        """Its completion record: the last line that is one."""
        for line in reversed(bytes(self.read["status"]).splitlines()[1:]):
            try:
                content = json.loads(line)
            except (ValueError, RecursionError):
                continue
            match content:
                case {
                    "token": self.token,
                    "status": "ok" | "exception" | "exited" | "syntax_error" | "memory" as status,
                    "error": str(error),
                }:
                    return status, error[:200]
                case {"status": "unjudged" | "lost" as status} if self.role == "judge":
                    return status, ""
        return None

    def threads(self) -> list[str]:
        """What each thread of it does, as the kernel's letter: R runs, or waits for a processor."""
        with suppress(OSError, ValueError):
            fields = Path(f"/proc/self/fdinfo/{self.pidfd}").read_text()
            pid = int(fields.partition("\nPid:")[2].split()[0])
            stats = [Path(f"/proc/{pid}/task/{task}/stat").read_text() for task in os.listdir(f"/proc/{pid}/task")]
            # The name of a thread, in parentheses, is its own choice: its state stands behind the last one.
            return [stat.rpartition(")")[2].split()[0] for stat in stats]
        return []


class _Ending(NamedTuple):
    status: Status
    error: str


def watch(connection: socket.socket, program: Program, limits: Limits, layers: bytes | None) -> tuple[Outcome, bytes]:
    """Runs a program to its end.

    Args:
        connection: to an idle zygote.
        layers: what the processes must report as their walls; None believes them.

    Returns:
        The outcome, and the walls that the program reported.

    Raises:
        ZygoteLost: the zygote is of no more use.
    """
    begin = time.monotonic()
    here, there = socket.socketpair()
    processes: list[_Process] = []
    try:
        with here, there:
            if program.candidate is None:
                job = {"source": program.source, "token": secrets.token_hex(16)}
                processes.append(_Process("program", job, program.stdin, None))
            else:
                processes.append(_Process("judge", {"source": program.source}, program.stdin, here.fileno()))
                processes.append(_Process("candidate", program.candidate._asdict(), "", there.fileno()))
        _Watch(connection, processes, limits).run()
        endings = [_ending(process, limits, layers) for process in processes]
        # The judge's word counts, unless its candidate had ended before it: then how that came about is the outcome.
        decisive = endings[0]
        if _lost_its_candidate(processes[0]) and endings[-1].status != "ok":
            decisive = endings[-1]
        stderr = b"".join(process.read["stderr"] for process in reversed(processes)).decode(errors="replace")
        ends = [process.end for process in processes if process.end]
        outcome = Outcome(
            status=decisive.status,
            error=decisive.error,
            stdout=processes[-1].read["stdout"][: limits.output_bytes].decode(errors="replace"),
            stderr=stderr[-_STDERR_KEPT:],
            seconds=time.monotonic() - begin,
            cpu_seconds=sum(end["cpu"] for end in ends),
            memory_bytes=max(end["memory"] for end in ends),
        )
        return outcome, processes[0].layers()
    except OSError as error:
        raise ZygoteLost(f"the sandbox's zygote is gone: {error.strerror}") from None
    finally:
        for process in processes:
            process.close()


class _Watch:
    """The loop from the start to the end of some processes, the first of which is the program or the judge."""

    def __init__(self, connection: socket.socket, processes: Sequence[_Process], limits: Limits):
        self._connection, self._processes, self._limits = connection, processes, limits
        for index, process in enumerate(processes):
            process.index = index
        self._poll = select.poll()
        self._sources: dict[int, tuple[_Process, str]] = {}

    def run(self) -> None:
        self._start()
        self._poll.register(self._connection, select.POLLIN)
        begin = last = last_word = time.monotonic()
        look = begin + random.uniform(0, 2 * _TICK)
        idle = 0.0
        while not all(process.end for process in self._processes):
            ready = self._poll.poll(max(0.0, look - time.monotonic()) * 1000 + 1)
            now = time.monotonic()
            for descriptor, _ in ready:
                if descriptor in self._sources:
                    self._take(*self._sources[descriptor])
            if any(descriptor == self._connection.fileno() for descriptor, _ in ready):
                self._hear()
                last_word = now
            # At a moment that no program can guess: one that only works when it is looked at would never be idle.
            if now >= look:
                alive = [(process, process.threads()) for process in self._processes if not process.end]
                for process, threads in alive:
                    if len(threads) > _THREADS:
                        self._kill("memory", process)
                # Only the time in which nothing of it could have run is the program's fault: a busy machine isn't.
                if not any("R" in threads for _, threads in alive):
                    idle += now - last
                last, look = now, now + random.uniform(0, 2 * _TICK)
                longest = _LONGEST * (self._limits.idle_seconds + self._limits.cpu_seconds)
                if idle >= self._limits.idle_seconds or now - begin >= longest:
                    self._kill("timeout")
            if all(process.end or process.killed_for for process in self._processes):
                if now - last_word > _PATIENCE:
                    raise ZygoteLost(f"the sandbox's zygote said nothing for {_PATIENCE:.0f} s")
            else:
                last_word = now

    def _start(self) -> None:
        roles = [process.role for process in self._processes]
        given = [descriptor for process in self._processes for descriptor in process.given]
        socket.send_fds(self._connection, [json.dumps({"roles": roles}).encode()], given)
        for process in self._processes:
            while process.given:
                os.close(process.given.pop())
        self._connection.settimeout(_PATIENCE)
        try:
            data, handles, _, _ = socket.recv_fds(self._connection, MESSAGE_BYTES, len(roles))
        except TimeoutError:
            raise ZygoteLost(f"the sandbox's zygote said nothing for {_PATIENCE:.0f} s") from None
        if not data:
            raise ZygoteLost("the sandbox's zygote ended")
        for process, handle in zip(self._processes, handles, strict=True):
            process.pidfd = handle
            for name, descriptor in process.pipes.items():
                self._sources[descriptor] = process, name
                self._poll.register(descriptor, select.POLLIN)

    def _take(self, process: _Process, name: str) -> None:
        ended = process.pump(name) == 0
        if self._over(process):
            self._kill("output_limit", process)
            self._ignore(process)
        elif ended:
            self._ignore(process, name)

    def _over(self, process: _Process) -> bool:
        return process.written() > self._limits.output_bytes or len(process.read["status"]) > _RECORD_BYTES

    def _ignore(self, process: _Process, *names: str) -> None:
        """Hears no more of it: of all its pipes, unless some are named."""
        for name in names or process.pipes:
            if self._sources.pop(process.pipes[name], None):
                self._poll.unregister(process.pipes[name])

    def _hear(self) -> None:
        data = self._connection.recv(MESSAGE_BYTES)
        if not data:
            raise ZygoteLost("the sandbox's zygote ended")
        message = json.loads(data)
        ended, main = self._processes[message["index"]], self._processes[0]
        ended.end = message
        # What still lies in its pipes; a process that outlived it may hold them open.
        for name in ended.pipes:
            while not self._over(ended) and ended.pump(name) > 0:
                pass
        self._ignore(ended)
        # A judge that lost its candidate waits for the reason; any other is done with it.
        if main.end and not _lost_its_candidate(main):
            self._kill("ok")

    def _kill(self, reason: Status, *chosen: _Process) -> None:
        for process in chosen or self._processes:
            if not process.end and not process.killed_for:
                process.killed_for = reason
                self._connection.send(json.dumps({"kill": process.index}).encode())


def _ending(process: _Process, limits: Limits, layers: bytes | None) -> _Ending:
    end = process.end
    assert end is not None
    if layers is not None and process.layers() != layers:
        detail = process.read["stderr"].decode(errors="replace").strip()
        if process.killed_for in (None, "output_limit"):
            return _Ending("sandbox_error", f"the walls were {process.layers()[:500]!r}, not {layers!r}; {detail}")
    if process.killed_for:
        return _Ending(process.killed_for, "")
    if process.written() > limits.output_bytes:  # and ended before it could be killed for it
        return _Ending("output_limit", "")
    # At the CPU limit the kernel sends SIGXCPU, which the first process of a pid namespace never sees, and
    # SIGKILL. It counts by the tick of its clock, and can be early by some of them.
    if end["exit"] in (-signal.SIGXCPU, -signal.SIGKILL) and end["cpu"] >= 0.75 * limits.cpu_seconds:
        return _Ending("timeout", "")
    if end["exit"] < 0:
        return _Ending("killed", _signal_name(-end["exit"]))
    status, error = process.record() or ("exited", "")
    return _Ending("exception", PeerLost.__name__) if status == "lost" else _Ending(status, error)


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:  # the real-time ones between the first and the last
        return f"signal {number}"


def _lost_its_candidate(process: _Process) -> bool:
    return (process.record() or ("", ""))[0] == "lost"


def _one_way() -> tuple[int, int]:
    """Like a pipe, but its writer cannot open it anew to read from it."""
    here, there = socket.socketpair()
    here.shutdown(socket.SHUT_WR)
    return here.detach(), there.detach()


def _file(content: bytes) -> int:
    """A nameless file in memory: unlike a pipe it needs nobody to feed it."""
    descriptor = os.memfd_create("sandbox")
    left: memoryview | bytes = memoryview(content)
    while left:
        left = left[os.write(descriptor, left) :]
    try:
        return os.open(f"/proc/self/fd/{descriptor}", os.O_RDONLY | os.O_CLOEXEC)
    finally:
        os.close(descriptor)
