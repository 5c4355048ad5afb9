"""Inside the jail: runs programs of the machine, a compiler or what it made, and writes how they ended.

This module runs in the jail's first process, the programs in others that it starts. None of them reaches it: no process
may look into another (seccomp, and it cannot be traced), signals of its own namespace don't end a namespace's first
process, and its descriptors close where another program begins. So its record of an exit code can be believed, unlike
what any of them writes; an exit code is the programs' own choice.

The descriptors: 0, 1 and 2, STATUS and SOURCE as `_runner.py` has them, then KEPT and KEEP. What is kept is a line of
JSON, [[name, mode, bytes], …], and the contents behind it. Where it is read, it's in a jail again.
"""

import fnmatch
import json
import os
import signal
from collections.abc import Iterator, Sequence

from opencoder_jax.sandbox import _jail
from opencoder_jax.sandbox._runner import SOURCE, STATUS

KEPT, KEEP = 5, 6
_PIECE = 1 << 20
NOT_STARTED = "NotStarted"


def run(forks: bool) -> None:
    """Runs the steps of a job, and keeps what it is to keep where all of them ended well."""
    job = json.loads(_read(SOURCE))
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    for descriptor in STATUS, SOURCE, KEPT, KEEP:
        os.set_inheritable(descriptor, False)
    _unpack(KEPT)
    for name, text in job["files"].items():
        os.makedirs(os.path.dirname(name) or ".", exist_ok=True)
        with open(name, "w", encoding="utf-8", errors="surrogateescape", newline="") as file:
            file.write(text)
    environment = {**job["environment"], "HOME": os.getcwd(), "TMPDIR": os.getcwd()}
    null = os.open(os.devnull, os.O_RDONLY)
    code = 0
    for number, step in enumerate(job["steps"], 1):
        code = _step(step, environment, 0 if number == len(job["steps"]) else null, forks)
        if code:
            break
    if code == 0 and job["keep"]:
        try:
            _pack(KEEP, job["keep"])
        except OSError as error:  # such as one file of more than the limit
            os.write(2, f"what the steps made: {error}\n".encode(errors="replace"))
            code = 1
    _record({"exit": code})


def _step(arguments: Sequence[str], environment: dict[str, str], stdin: int, forks: bool) -> int:
    """Runs one to its end; the exit code, or the number of the signal that ended it, negative."""
    child = os.fork()
    if child == 0:
        try:
            os.dup2(stdin, 0)
            for ignored in signal.SIGINT, signal.SIGPIPE, signal.SIGXFSZ:  # and Python ignores the last two
                signal.signal(ignored, signal.SIG_DFL)
            if not forks:
                _jail.confine()
            os.execvpe(arguments[0], list(arguments), environment)
        except BaseException as error:
            _record({"error": NOT_STARTED})
            os.write(2, f"{arguments[0]}: {error}\n".encode(errors="replace"))
        finally:
            os._exit(127)
    while True:  # orphans come to the first process of their namespace
        ended, status = os.waitpid(-1, 0)
        if ended == child:
            return os.waitstatus_to_exitcode(status)


def _record(content: dict[str, object]) -> None:
    os.write(STATUS, json.dumps(content).encode() + b"\n")


def _read(descriptor: int) -> bytes:
    """All of a file, from its beginning, wherever others have read to."""
    size = os.fstat(descriptor).st_size
    return os.pread(descriptor, size, 0) if size else b""


def _pack(descriptor: int, patterns: Sequence[str]) -> None:
    names = sorted(name for name in _files(".") if any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns))
    states = [os.lstat(name) for name in names]
    index = [(name, state.st_mode & 0o777, state.st_size) for name, state in zip(names, states, strict=True)]
    with open(descriptor, "wb", closefd=False) as out:
        out.write(json.dumps(index).encode() + b"\n")
        for name, _, left in index:
            with open(name, "rb") as file:
                while piece := file.read(min(_PIECE, left)):
                    out.write(piece)
                    left -= len(piece)
            if left:
                raise OSError(f"{name} shrinks")


def _files(folder: str) -> Iterator[str]:
    for entry in os.scandir(folder):
        name = os.path.normpath(os.path.join(folder, entry.name))
        if entry.is_dir(follow_symlinks=False):
            yield from _files(name)
        elif entry.is_file(follow_symlinks=False):
            yield name


def _unpack(descriptor: int) -> None:
    content = memoryview(_read(descriptor))
    if not content:
        return
    line = bytes(content[: 1 << 20]).partition(b"\n")[0]
    begin = len(line) + 1
    for name, mode, size in json.loads(line):
        os.makedirs(os.path.dirname(name) or ".", exist_ok=True)
        with open(os.open(name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode), "wb") as file:
            file.write(content[begin : begin + size])
        begin += size
