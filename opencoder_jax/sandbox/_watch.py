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
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal, NamedTuple

from opencoder_jax.sandbox._zygote import MESSAGE_BYTES
from opencoder_jax.sandbox.pair._calls import PeerLost
from opencoder_jax.sandbox.program import Command, Limits, Outcome, Program, Status

_STDERR_KEPT = 4000
_RECORD_BYTES = 1 << 16  # of the layers and the completion record
_PIECE = 1 << 16
_TICK = 0.05  # mean seconds between two looks at what the processes do
_THREADS = 256  # of all processes: their stacks may be small, but their numbers are the machine's
_PATIENCE = 30.0  # seconds without a word of the zygote, of a process that must have ended, before it counts as lost
# A process that is always ready to run gets its processor time in the end; this ends the wait where it doesn't.
_LONGEST = 100
# Processes that start others can hide some of their processor time: no more than that many times the limit of it.
_LONGEST_OF_MANY = 10
_OVER = 0.5  # seconds of processor time beyond the limit: a single process the kernel ends in time
_TICKS, _PAGE = os.sysconf("SC_CLK_TCK"), os.sysconf("SC_PAGE_SIZE")


class ZygoteLost(Exception):
    """The zygote ended, or stopped answering."""


class _Process:
    """One jailed process: the descriptors it is given, what it wrote, and how it ended."""

    def __init__(self, role: str, job: dict[str, Any], stdin: str, others: Sequence[int] = ()):
        self.role, self.token = role, job.get("token", "")
        self.index = 0
        self.pidfd = -1
        self.cpu: dict[int, float] = {}  # of each of its processes, when last seen
        self.pipes: dict[str, int] = {}
        self.read = {name: bytearray() for name in ("stdout", "stderr", "status")}
        self.end: dict[str, Any] | None = None  # the zygote's word
        self.killed_for: Status | None = None
        end, self.feed = os.pipe()  # some programs ask whether it can be read twice
        os.set_blocking(self.feed, False)
        self.stdin = memoryview(stdin.encode(errors="surrogateescape"))
        self.given = [end]
        for name in self.read:
            here, there = _one_way() if name == "status" else os.pipe()
            os.set_blocking(here, False)
            self.pipes[name] = here
            self.given.append(there)
        self.given.append(_file(json.dumps(job).encode()))
        self.given += map(os.dup, others)
        self.push()

    def push(self) -> None:
        """Writes what of stdin is left and finds room, and hangs up behind it or where nobody reads any more."""
        try:
            while self.stdin:
                self.stdin = self.stdin[os.write(self.feed, self.stdin) :]
        except BlockingIOError:
            return
        except BrokenPipeError:
            pass
        os.close(self.feed)
        self.feed = -1

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
        for descriptor in (*self.given, *self.pipes.values(), self.pidfd, self.feed):
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

    def exit(self) -> int | None:
        """How the last step of a command ended; None where it didn't, or couldn't be started."""
        for line in bytes(self.read["status"]).splitlines()[1:]:
            match json.loads(line):
                case {"exit": int(code)}:
                    return code
                case _:
                    return None
        return None

    def look(self) -> "_Look":
        """What it and all processes that it started do, and what they hold."""
        threads, memory = [], 0
        with suppress(OSError, ValueError):
            fields = Path(f"/proc/self/fdinfo/{self.pidfd}").read_text()
            waiting = [int(fields.partition("\nPid:")[2].split()[0])]
            for pid in waiting:  # grows
                with suppress(OSError, ValueError, IndexError):
                    # The name of a process, in parentheses, is its own choice: the rest stands behind the last one.
                    stat = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
                    memory += int(stat[21]) * _PAGE
                    self.cpu[pid] = (int(stat[11]) + int(stat[12])) / _TICKS
                    for task in os.listdir(f"/proc/{pid}/task"):
                        state = Path(f"/proc/{pid}/task/{task}/stat").read_text().rpartition(")")[2]
                        threads.append(state.split()[0])
                        if self.role == "command":
                            waiting += map(int, Path(f"/proc/{pid}/task/{task}/children").read_text().split())
        return _Look(threads, memory, sum(self.cpu.values()))


class _Look(NamedTuple):
    """What the processes of a jail do at one moment."""

    threads: list[str]  # of each the kernel's letter: R runs, or waits for a processor
    memory: int  # bytes
    cpu: float  # seconds, of all that were seen


class _Ending(NamedTuple):
    status: Status
    error: str


def watch(
    connection: socket.socket, program: Program | Command, limits: Limits, layers: bytes | None
) -> tuple[Outcome, bytes]:
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
    processes: list[_Process] = []
    walls = None
    keep = os.memfd_create("kept")
    try:
        if isinstance(program, Command):
            limits = program.limits or limits
            walls = _walls(program, limits)
            processes.append(_command(program, keep))
        elif program.candidate is None:
            job = {"source": program.source, "token": secrets.token_hex(16)}
            processes.append(_Process("program", job, program.stdin))
        else:
            here, there = socket.socketpair()
            with here, there:
                processes.append(_Process("judge", {"source": program.source}, program.stdin, [here.fileno()]))
                processes.append(_Process("candidate", program.candidate._asdict(), "", [there.fileno()]))
        _Watch(connection, processes, limits, walls).run()
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
            exit_code=processes[0].exit() if decisive.status == "exited" and walls else None,
            kept=_content(keep) if walls else b"",
        )
        return outcome, processes[0].layers()
    except OSError as error:
        raise ZygoteLost(f"the sandbox's zygote is gone: {error.strerror}") from None
    finally:
        os.close(keep)
        for process in processes:
            process.close()


def _command(command: Command, keep: int) -> _Process:
    job = {
        "steps": command.steps,
        "files": dict(command.files),
        "environment": dict(command.environment),
        "keep": command.keep,
    }
    kept = _file(command.kept)
    try:
        return _Process("command", job, command.stdin, [kept, keep])
    finally:
        os.close(kept)


def _walls(command: Command, limits: Limits) -> dict[str, Any]:
    """As _jail.Walls has them. What an earlier command has kept doesn't count as what this one writes."""
    inside = asdict(limits) | {"file_bytes": limits.file_bytes + len(command.kept)}
    return {
        "limits": inside,
        "counted": command.counted,
        "execute": True,
        "forks": command.forks,
        "reads": command.reads,
        "proc": command.proc,
    }


class _Watch:
    """The loop from the start to the end of some processes, the first of which is the program or the judge."""

    def __init__(
        self,
        connection: socket.socket,
        processes: Sequence[_Process],
        limits: Limits,
        walls: dict[str, Any] | None,
    ):
        self._connection, self._processes, self._limits, self._walls = connection, processes, limits, walls
        for index, process in enumerate(processes):
            process.index = index
        self._poll = select.poll()
        self._sources: dict[int, tuple[_Process, str]] = {}
        self._sinks: dict[int, _Process] = {}

    def run(self) -> None:
        self._start()
        self._poll.register(self._connection, select.POLLIN)
        begin = last = last_word = time.monotonic()
        look = begin + random.uniform(0, 2 * _TICK)
        idle = 0.0
        times = _LONGEST_OF_MANY if self._walls and self._walls["forks"] else _LONGEST
        longest = times * (self._limits.idle_seconds + self._limits.cpu_seconds)
        while not all(process.end for process in self._processes):
            ready = self._poll.poll(max(0.0, look - time.monotonic()) * 1000 + 1)
            now = time.monotonic()
            if self._connection.fileno() < 0:  # by another thread: its number may be that of another file by now
                raise ZygoteLost("the sandbox is closed")
            for descriptor, _ in ready:
                if descriptor in self._sources:
                    self._take(*self._sources[descriptor])
                elif descriptor in self._sinks:
                    self._feed(self._sinks[descriptor])
            if any(descriptor == self._connection.fileno() for descriptor, _ in ready):
                self._hear()
                last_word = now
            # At a moment that no program can guess: one that only works when it is looked at would never be idle.
            if now >= look:
                alive = [(process, process.look()) for process in self._processes if not process.end]
                for process, seen in alive:
                    if len(seen.threads) > _THREADS or (self._walls and seen.memory > self._limits.memory_bytes):
                        self._kill("memory", process)
                    if self._walls and seen.cpu > self._limits.cpu_seconds + _OVER:
                        self._kill("timeout", process)
                # Only the time in which nothing of it could have run is the program's fault: a busy machine isn't.
                if not any("R" in seen.threads for _, seen in alive):
                    idle += now - last
                last, look = now, now + random.uniform(0, 2 * _TICK)
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
        message = {"roles": roles} | ({"walls": self._walls} if self._walls else {})
        socket.send_fds(self._connection, [json.dumps(message).encode()], given)
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
            if process.feed >= 0:
                self._sinks[process.feed] = process
                self._poll.register(process.feed, select.POLLOUT)

    def _feed(self, process: _Process) -> None:
        descriptor = process.feed
        self._poll.unregister(descriptor)
        process.push()
        if process.feed < 0:
            del self._sinks[descriptor]
        else:
            self._poll.register(descriptor, select.POLLOUT)

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
    if process.role == "command":
        return _ending_of_command(process, limits)
    # At the CPU limit the kernel sends SIGXCPU, which the first process of a pid namespace never sees, and
    # SIGKILL. It counts by the tick of its clock, and can be early by some of them.
    if end["exit"] in (-signal.SIGXCPU, -signal.SIGKILL) and end["cpu"] >= 0.75 * limits.cpu_seconds:
        return _Ending("timeout", "")
    if end["exit"] < 0:
        return _Ending("killed", _signal_name(-end["exit"]))
    status, error = process.record() or ("exited", "")
    return _Ending("exception", PeerLost.__name__) if status == "lost" else _Ending(status, error)


def _ending_of_command(process: _Process, limits: Limits) -> _Ending:
    """By the word of the jail's first process, which is ours."""
    assert process.end is not None
    code = process.exit()
    if code is None:
        detail = process.read["stderr"].decode(errors="replace").strip()
        return _Ending("sandbox_error", f"the command could not be run: {detail[-500:]}")
    if code in (-signal.SIGXCPU, -signal.SIGKILL) and process.end["cpu"] >= 0.75 * limits.cpu_seconds:
        return _Ending("timeout", "")
    return _Ending("killed", _signal_name(-code)) if code < 0 else _Ending("exited", "")


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


def _content(descriptor: int) -> bytes:
    size = os.fstat(descriptor).st_size
    return os.pread(descriptor, size, 0) if size else b""


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
