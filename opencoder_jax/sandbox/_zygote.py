"""The warm process that programs are forked from; it never runs, reads or hears any of them, and never imports JAX.

What a program finds in its memory is what the zygote had in its own. So nothing of a test may ever be there: sources,
inputs and outputs lie in descriptors that pass through unread. The zygote knows only roles, descriptors and how
processes ended. Reading what they say is `_watch.py`'s affair, on the other side of the socket.

Started by `pool.py` as `python -P -s` in a session of its own (isolated mode `-I` would also ignore PYTHONHASHSEED, and
the order of a set must not change between runs; the environment is empty but for what `pool.py` puts there). Messages
on its socket are JSON:

- out, first: {"layers": …, "directory": …};
- in: {"roles": [role, …], "walls": …}, with each one's descriptors (STDIN to SOURCE, and those that `_runner.py` and
  `_commands.py` name) in order; "walls" has the fields of _jail.Walls, where they aren't those of Python programs;
- out: {"roles": [role, …]}, with a descriptor of each process (pidfd);
- in: {"kill": index};
- out: {"index": …, "exit": …, "cpu": …, "memory": …} as each ends.

Ends when its socket does, and takes the running program with it.
"""

import fcntl
import gc
import importlib
import json
import os
import select
import shutil
import signal
import socket
import sys
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from opencoder_jax.sandbox import _commands, _jail, _runner

MESSAGE_BYTES, DESCRIPTORS = 1 << 16, 16


def main(root: str, options: str, control: str) -> None:
    """Serves programs until the socket ends.

    Args:
        root: the directory on sys.path where this project lies; taken off again, programs have no business there.
        options: JSON: `limits` (fields of Limits), `preload` (modules to import once, for all programs) and `hidden`
            (paths that no program may read).
        control: the number of the socket's descriptor.
    """
    sys.path.remove(root)
    _open_streams()
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 0)
    os.dup2(null, 1)
    settings = json.loads(options)
    for module in settings["preload"]:
        importlib.import_module(module)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent hears Ctrl-C, and closes our socket
    base = tempfile.mkdtemp(prefix="sandbox-")
    try:
        with socket.socket(fileno=int(control)) as connection:
            zygote = Zygote(connection, _jail.Walls(settings["limits"]), base, settings["hidden"])
            gc.freeze()  # keeps the collector of a fork from copying the pages of everything imported here
            zygote.serve()
    except (BrokenPipeError, ConnectionResetError, EOFError):
        return  # the parent is gone
    finally:
        shutil.rmtree(base, ignore_errors=True)


def _open_streams() -> None:
    """The standard streams of all programs: what lies behind their numbers changes with each fork."""
    read, write = os.pipe()
    own = os.dup(2)
    for number, descriptor in (0, read), (1, write), (2, write):  # a stream remembers that it is no file to seek in
        os.dup2(descriptor, number)
    sys.stdin = open(0, encoding="utf-8", errors="surrogateescape", closefd=False)
    sys.stdout = open(1, "w", encoding="utf-8", errors="backslashreplace", closefd=False)
    sys.stderr = open(2, "w", 1, encoding="utf-8", errors="backslashreplace", closefd=False)
    for stream in "stdin", "stdout", "stderr":
        setattr(sys, f"__{stream}__", getattr(sys, stream))
    os.dup2(own, 2)
    for descriptor in read, write, own:
        os.close(descriptor)
    sys.argv = [_runner.FILE]


class _Process:
    """A jailed process: its descriptor to wait on, and its directory."""

    def __init__(self, pid: int, work: str):
        self.pid, self.work = pid, work
        self.handle = os.pidfd_open(pid)
        self.ended = False

    def kill(self) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        os.kill(self.pid, signal.SIGKILL)  # it is ours and not reaped, so the number is still its own

    def reap(self) -> dict[str, float]:
        _, status, usage = os.wait4(self.pid, 0)
        self.ended = True
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)  # without a pid namespace its children outlive it
        os.close(self.handle)
        with suppress(OSError, RecursionError):
            os.rmdir(self.work)  # what the program wrote went with its own mounts
        if os.path.isdir(self.work):
            with suppress(RecursionError):
                shutil.rmtree(self.work, ignore_errors=True)
        return {
            "exit": os.waitstatus_to_exitcode(status),
            "cpu": usage.ru_utime + usage.ru_stime,
            "memory": usage.ru_maxrss * 1024,
        }


class Zygote:
    """Forks programs into jails and says how they ended."""

    def __init__(self, connection: socket.socket, walls: _jail.Walls, base: str, hidden: Sequence[str]):
        self._connection, self._walls, self._base, self._hidden = connection, walls, base, hidden
        self._count = 0
        self._layers, self._before_fork = _jail.enclose_zygote()
        self._rules: dict[Sequence[str] | None, _jail.Rules | None] = {}
        self._rules_of(None)

    def serve(self) -> None:
        """Answers until the other side hangs up, which raises EOFError."""
        self._say({"layers": self._layers, "directory": self._base})
        while True:
            message, descriptors = self._hear()
            if roles := message.get("roles"):  # a late "kill" is none's any more
                walls = _jail.Walls(**message["walls"]) if "walls" in message else self._walls
                self._run(roles, walls, descriptors)

    def _rules_of(self, reads: Sequence[str] | None) -> _jail.Rules | None:
        """Landlock's rules for Python's programs, or for commands that read these; made once."""
        if reads not in self._rules:
            rules = _jail.rules(self._base, self._hidden, reads)
            # Above every descriptor that a program is given.
            self._rules[reads] = rules and _jail.Rules(
                *(fcntl.fcntl(rule, fcntl.F_DUPFD_CLOEXEC, 64) for rule in rules)
            )
            for rule in rules or ():
                os.close(rule)
        return self._rules[reads]

    def _run(self, roles: Sequence[str], walls: _jail.Walls, descriptors: Sequence[int]) -> None:
        each = len(descriptors) // len(roles)
        given = [descriptors[each * number : each * (number + 1)] for number in range(len(roles))]
        processes: list[_Process] = []
        try:
            for role, own in zip(roles, given, strict=True):
                processes.append(self._start(role, walls, own))
            for descriptor in descriptors:
                os.close(descriptor)
            self._say({"roles": roles}, [process.handle for process in processes])
            while not all(process.ended for process in processes):
                self._step(processes)
        except BaseException:
            for process in processes:
                if not process.ended:
                    process.kill()
            raise

    def _step(self, processes: Sequence[_Process]) -> None:
        poll = select.poll()
        poll.register(self._connection, select.POLLIN)
        for process in processes:
            if not process.ended:
                poll.register(process.handle, select.POLLIN)
        ready = {descriptor for descriptor, _ in poll.poll()}
        if self._connection.fileno() in ready:
            message, _ = self._hear()
            victim = processes[message["kill"]]
            if not victim.ended:
                victim.kill()
        for index, process in enumerate(processes):
            if not process.ended and process.handle in ready:
                self._say({"index": index, **process.reap()})

    def _start(self, role: str, walls: _jail.Walls, descriptors: Sequence[int]) -> _Process:
        self._count += 1
        rules = None if walls.proc else self._rules_of(tuple(walls.reads) if walls.execute else None)
        work = os.path.join(self._base, str(self._count))
        os.mkdir(work, 0o700)
        trusted = role == "judge"
        self._before_fork(trusted)
        pid = os.fork()
        if pid == 0:
            try:
                self._become(descriptors, work, walls, rules, trusted)
                if role == "command":
                    _commands.run(walls.forks)
                else:
                    _runner.run(role)
            except BaseException as error:
                with suppress(OSError):
                    os.write(2, f"{type(error).__name__}: {error}\n".encode(errors="replace"))
            finally:
                os._exit(0)
        return _Process(pid, work)

    def _become(
        self, descriptors: Sequence[int], work: str, walls: _jail.Walls, rules: _jail.Rules | None, trusted: bool
    ) -> None:
        """Turns this fork into a jailed process with `descriptors` as 0, 1, 2, … and no others."""
        high = [fcntl.fcntl(descriptor, fcntl.F_DUPFD, 32) for descriptor in descriptors]  # out of the way of dup2
        for number, descriptor in enumerate(high):
            os.dup2(descriptor, number)
        # Landlock's rules are needed until the walls stand.
        kept = sorted(rules or ())
        begin = len(high)
        for descriptor in kept:
            os.closerange(begin, descriptor)
            begin = descriptor + 1
        os.closerange(begin, os.sysconf("SC_OPEN_MAX"))
        signal.signal(signal.SIGINT, signal.default_int_handler)
        os.environ.update(HOME=work, TMPDIR=work)
        tempfile.tempdir = None

        def find_rules() -> _jail.Rules | None:  # a rule of /proc is one of that /proc
            return _jail.rules(self._base, self._hidden, [*walls.reads, "/proc"]) if walls.proc else rules

        report = _jail.enclose_program(work, walls, find_rules, trusted)
        for descriptor in kept:
            os.close(descriptor)
        os.write(_runner.STATUS, json.dumps(report).encode() + b"\n")

    def _say(self, message: dict[str, Any], descriptors: Sequence[int] = ()) -> None:
        socket.send_fds(self._connection, [json.dumps(message).encode()], descriptors)

    def _hear(self) -> tuple[dict[str, Any], list[int]]:
        data, descriptors, _, _ = socket.recv_fds(self._connection, MESSAGE_BYTES, DESCRIPTORS)
        if not data:
            raise EOFError
        return json.loads(data), descriptors
