"""The warm process that programs are forked from, one at a time; it never runs any of their code and never imports JAX.

Started by `pool.py` as `python -P -s` in a session of its own (isolated mode `-I` would also ignore PYTHONHASHSEED, and
the order of a set must not change between runs; the environment is empty but for what `pool.py` puts there). Speaks
frames of JSON on its stdin and stdout: first a greeting with the layers, then one outcome for each program. Ends when
its stdin ends, and takes the running program with it.

Cost: 0.1 s to start; then about 4 ms of processor time a program, and 5 to 10 ms until it is reaped, because the kernel
lets some milliseconds go by while it takes a pid namespace down. Several zygotes overlap that wait.
"""

import fcntl
import gc
import importlib
import json
import os
import resource
import secrets
import select
import shutil
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from typing import NamedTuple

from opencoder_jax.sandbox import _jail, _runner
from opencoder_jax.sandbox._frames import receive, send
from opencoder_jax.sandbox.program import Candidate, Limits, Outcome, Program, Status

_STDERR_KEPT = 4000
_PIECE = 1 << 16


def main(root: str, options: str) -> None:
    """Serves programs until stdin ends.

    Args:
        root: the directory on sys.path where this project lies; taken off again, programs have no business there.
        options: JSON: `limits` (fields of Limits) and `preload` (modules to import once, for all programs).
    """
    sys.path.remove(root)
    control, answers = os.dup(0), os.dup(1)
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 0)
    os.dup2(null, 1)
    settings = json.loads(options)
    for module in settings["preload"]:
        importlib.import_module(module)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent hears Ctrl-C, and closes our stdin
    base = tempfile.mkdtemp(prefix="sandbox-")
    try:
        zygote = Zygote(Limits(**settings["limits"]), base, control)
        gc.freeze()  # keeps the collector of a fork from copying the pages of everything imported here
        send(answers, json.dumps({"layers": zygote.layers, "directory": base}).encode())
        while True:
            source, stdin, candidate = json.loads(receive(control, sys.maxsize))
            program = Program(source, stdin, Candidate(*candidate) if candidate else None)
            send(answers, json.dumps(zygote.run(program).__dict__).encode())
    except (BrokenPipeError, EOFError):
        return  # the parent is gone
    finally:
        shutil.rmtree(base, ignore_errors=True)


class _Process:
    """One jailed process, seen from the zygote: its pipes, what they brought, and how it ended."""

    def __init__(self, pid: int, token: str, work: str, pipes: dict[str, int]):
        self.pid, self.token, self.work = pid, token, work
        self.handle = os.pidfd_open(pid)
        self.pipes = pipes
        self.read = {name: bytearray() for name in pipes}
        self.usage: resource.struct_rusage | None = None
        self.exit_code = 0  # negative: the signal that ended it
        self.killed_for: Status | None = None

    @property
    def ended(self) -> bool:
        return self.usage is not None

    def pump(self, name: str) -> int:
        """Takes what lies in a pipe; closes it at its end. Returns the number of bytes."""
        try:
            piece = os.read(self.pipes[name], _PIECE)
        except BlockingIOError:
            return 0
        if not piece:
            os.close(self.pipes.pop(name))
        self.read[name] += piece
        return len(piece)

    def written(self) -> int:
        return len(self.read["stdout"]) + len(self.read["stderr"])

    def kill(self, reason: Status | None = None) -> None:
        self.killed_for = self.killed_for or reason
        with suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        os.kill(self.pid, signal.SIGKILL)  # it is ours and not reaped, so the number is still its own

    def reap(self) -> None:
        _, status, self.usage = os.wait4(self.pid, 0)
        self.exit_code = os.waitstatus_to_exitcode(status)
        os.close(self.handle)
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)  # without a pid namespace its children outlive it
        for name in list(self.pipes):
            while name in self.pipes and self.pump(name):
                pass
            if name in self.pipes:
                os.close(self.pipes.pop(name))
        shutil.rmtree(self.work, ignore_errors=True)

    def records(self) -> tuple[_jail.Layers | None, dict[str, str] | None]:
        """The layers that it reported before the program began, and its completion record, if it is its own."""
        report, record = None, None
        for line in bytes(self.read["status"]).splitlines():
            with suppress(ValueError):
                content = json.loads(line)
                if report is None:
                    report = content
                elif isinstance(content, dict) and content.get("token") == self.token:
                    record = content
        return report, record


class _Ending(NamedTuple):
    status: Status
    error: str


class Zygote:
    """Forks programs into jails and watches them.

    Attributes:
        layers: which walls stand, as a program without a statement reported them. A later program that reports others
            ends as "sandbox_error".
    """

    def __init__(self, limits: Limits, base: str, control: int):
        self._limits, self._base, self._control = limits, base, control
        self._count = 0
        zygote_layers, self._before_fork = _jail.enclose_zygote()
        self.layers: _jail.Layers = {}
        process = self._start(lambda token: None, "", None)
        self._watch([process])
        report, _ = process.records()
        if report is None:
            raise RuntimeError(
                f"the jail could not be built: {process.read['stderr'].decode(errors='replace').strip()}"
            )
        self._program_layers = report
        self.layers = zygote_layers | report

    def run(self, program: Program) -> Outcome:
        """Runs one program, with its candidate if it has one."""
        begin = time.monotonic()
        if program.candidate is None:
            processes = [self._start(lambda token: _runner.run_alone(program.source, token), program.stdin, None)]
        else:
            source, name = program.candidate
            here, there = socket.socketpair()
            with here, there:
                processes = [
                    self._start(lambda token: _runner.judge(program.source, token), program.stdin, here.fileno()),
                    self._start(lambda token: _runner.serve(source, name, token), "", there.fileno()),
                ]
        self._watch(processes)
        endings = [self._ending(process) for process in processes]
        # The judge's word counts, unless its candidate had ended before it: then how that came about is the outcome.
        decisive = endings[0]
        if _lost_its_candidate(processes[0]) and endings[-1].status != "ok":
            decisive = endings[-1]
        stderr = b"".join(process.read["stderr"] for process in reversed(processes)).decode(errors="replace")
        usages = [process.usage for process in processes if process.usage]
        return Outcome(
            status=decisive.status,
            error=decisive.error,
            stdout=processes[-1].read["stdout"][: self._limits.output_bytes].decode(errors="replace"),
            stderr=stderr[-_STDERR_KEPT:],
            seconds=time.monotonic() - begin,
            cpu_seconds=sum(usage.ru_utime + usage.ru_stime for usage in usages),
            memory_bytes=max(usage.ru_maxrss for usage in usages) * 1024,
        )

    def _start(self, role: Callable[[str], None], stdin: str, channel: int | None) -> _Process:
        self._count += 1
        work = os.path.join(self._base, str(self._count))
        os.mkdir(work, 0o700)
        token = secrets.token_hex(16)
        ends = {name: os.pipe() for name in ("stdout", "stderr", "status")}
        given = _readable_file(stdin)
        self._before_fork()
        pid = os.fork()
        if pid == 0:
            try:
                descriptors = [
                    given,
                    *(write for _, write in ends.values()),
                    *([channel] if channel is not None else []),
                ]
                self._become(descriptors, work)
                role(token)
            except BaseException as error:
                with suppress(OSError):
                    os.write(2, f"{type(error).__name__}: {error}\n".encode(errors="replace"))
            finally:
                os._exit(0)
        os.close(given)
        for read, write in ends.values():
            os.close(write)
            os.set_blocking(read, False)
        return _Process(pid, token, work, {name: read for name, (read, _) in ends.items()})

    def _become(self, descriptors: list[int], work: str) -> None:
        """Turns this fork into a jailed program with `descriptors` as 0, 1, 2, STATUS and CHANNEL, and no others."""
        high = [fcntl.fcntl(descriptor, fcntl.F_DUPFD, 10) for descriptor in descriptors]  # out of the way of dup2
        for number, descriptor in enumerate(high):
            os.dup2(descriptor, number)
        os.closerange(len(high), os.sysconf("SC_OPEN_MAX"))
        signal.signal(signal.SIGINT, signal.default_int_handler)
        os.environ.update(HOME=work, TMPDIR=work)
        tempfile.tempdir = None
        sys.stdin = open(0, encoding="utf-8", errors="surrogateescape", closefd=False)
        sys.stdout = open(1, "w", encoding="utf-8", errors="backslashreplace", closefd=False)
        sys.stderr = open(2, "w", 1, encoding="utf-8", errors="backslashreplace", closefd=False)
        for stream in "stdin", "stdout", "stderr":
            setattr(sys, f"__{stream}__", getattr(sys, stream))
        sys.argv = [_runner.FILE]
        report = _jail.enclose_program(work, self._limits)
        os.write(_runner.STATUS, json.dumps(report).encode() + b"\n")

    def _watch(self, processes: list[_Process]) -> None:
        """Reads the pipes until all processes have ended, the first of which is the program, or the judge."""
        main, others = processes[0], processes[1:]
        deadline = time.monotonic() + self._limits.wall_seconds
        while not all(process.ended for process in processes):
            poll = select.poll()
            poll.register(self._control, select.POLLHUP)
            sources: dict[int, tuple[_Process, str]] = {}
            for process in processes:
                if not process.ended:
                    sources[process.handle] = process, ""
                    sources |= {descriptor: (process, name) for name, descriptor in process.pipes.items()}
            for descriptor in sources:
                poll.register(descriptor, select.POLLIN)
            ready = poll.poll(max(0.0, deadline - time.monotonic()) * 1000 + 1)
            for descriptor, _ in ready:
                if descriptor == self._control:
                    for process in processes:
                        if not process.ended:
                            process.kill()
                    raise EOFError
                process, name = sources[descriptor]
                if name and name in process.pipes:
                    process.pump(name)
                    if process.written() > self._limits.output_bytes or len(process.read["status"]) > _PIECE:
                        process.kill("output_limit")
            for descriptor, _ in ready:
                process, name = sources[descriptor]
                if not name:
                    process.reap()
            if main.ended:
                lost = _lost_its_candidate(main)
                for process in others:
                    # A judge that lost its candidate waits for the reason; any other is done with it.
                    if not process.ended and not lost:
                        process.kill("ok")
            if time.monotonic() >= deadline:
                for process in processes:
                    if not process.ended:
                        process.kill("timeout")

    def _ending(self, process: _Process) -> _Ending:
        report, record = process.records()
        usage = process.usage
        assert usage is not None
        if report != self._program_layers:
            detail = process.read["stderr"].decode(errors="replace").strip()
            return _Ending("sandbox_error", f"the layers were {report}, not {self._program_layers}; {detail}")
        if process.killed_for:
            return _Ending(process.killed_for, "")
        if process.written() > self._limits.output_bytes:  # and ended before it could be killed for it
            return _Ending("output_limit", "")
        # At the CPU limit the kernel sends SIGXCPU, which the first process of a pid namespace never sees, and
        # SIGKILL. It counts by the tick of its clock, and can be early by some of them.
        spent = usage.ru_utime + usage.ru_stime >= 0.75 * self._limits.cpu_seconds
        if process.exit_code in (-signal.SIGXCPU, -signal.SIGKILL) and spent:
            return _Ending("timeout", "")
        if process.exit_code < 0:
            return _Ending("killed", signal.Signals(-process.exit_code).name)
        if record is None:
            return _Ending("exited", "")
        return _Ending(record["status"], record["error"])  # type: ignore[arg-type]


def _lost_its_candidate(judge: _Process) -> bool:
    _, record = judge.records()
    return record is not None and record["error"] == _runner.CandidateLost.__name__


def _readable_file(text: str) -> int:
    """A nameless file with `text`, open for reading: unlike a pipe it needs nobody to feed it."""
    with tempfile.TemporaryFile() as file:
        file.write(text.encode(errors="surrogateescape"))
        file.flush()
        return os.open(f"/proc/self/fd/{file.fileno()}", os.O_RDONLY)
