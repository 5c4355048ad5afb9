"""One owner at a time: who writes a directory holds it, and the next one is told who is there.

On this machine the system knows who lives: its lock on the directory goes with the process that holds it, however that
ends. A file beside the lock, `owner-….json`, says who it is.

A bucket has no locks, and those of some shared disks don't reach other hosts. There, an owner that was a process of
this system is dead once that has ended. Of others signs of life decide: an owner writes its file anew every `BEAT`
seconds, and one whose file stays the same for `SILENCE` seconds is dead. What is compared is the file with itself, no
clock of one host with that of another. Of two that begin at once in a bucket, one or both withdraw.
"""

import fcntl
import os
import secrets
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from opencoder_jax.beam_pipelines.core.storage import Directory
from opencoder_jax.recipe import UserError

BEAT, SILENCE = 10.0, 60.0
_PREFIX = "owner-"


def is_owner(name: str) -> bool:
    """Whether a file of a directory says who owns it."""
    return name.startswith(_PREFIX) and name.endswith(".json")


@contextmanager
def owned(directory: Directory) -> Iterator[None]:
    """Holds a directory for this process, and makes it if it's missing.

    Raises:
        UserError: another one holds it; the message says who, where and since when.
    """
    with ExitStack() as held:
        locked = held.enter_context(_locked(directory))
        about = {"host": socket.gethostname(), "process": os.getpid(), "since": _now(), "kernel": _kernel()}
        about |= {"processes": _processes(), "started": _started(os.getpid())}
        mine = f"{_PREFIX}{secrets.token_hex(4)}.json"
        held.enter_context(_signs_of_life(directory, mine, about))
        for name in filter(is_owner, directory.names()):
            if name != mine:
                other = _read(directory, name)
                # Where the lock is ours, no process of this machine has it.
                gone = other.get("kernel") == about["kernel"] and (locked or _has_ended(other))
                if not gone and _lives(directory, name, other):
                    raise _told(directory, other)
                directory.remove(name)
        yield


@contextmanager
def _locked(directory: Directory) -> Iterator[bool]:
    """Holds the system's lock on a directory of a disk; whether there is such a lock."""
    path = directory.local()
    if path is None:
        yield False
        return
    path.mkdir(parents=True, exist_ok=True)
    held = os.open(path, os.O_RDONLY)
    try:
        locked = True
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            others = [_read(directory, name) for name in directory.names() if is_owner(name)]
            # A dead one's file may still lie there; that of the living one came last.
            raise _told(directory, max(others, key=lambda other: str(other.get("since")), default={})) from None
        except OSError:  # a file system without locks
            locked = False
        yield locked
    finally:
        os.close(held)


@contextmanager
def _signs_of_life(directory: Directory, name: str, about: dict[str, Any]) -> Iterator[None]:
    """Writes a file now and every BEAT seconds, and removes it in the end."""
    ended = threading.Event()

    def beat() -> None:
        beats = 0
        while not ended.wait(BEAT):
            beats += 1
            with suppress(OSError):  # a full disk is told by whoever writes something that matters
                directory.write_json(name, {**about, "beats": beats})

    directory.write_json(name, about)
    thread = threading.Thread(target=beat, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        directory.remove(name)


def _lives(directory: Directory, name: str, first: dict[str, Any]) -> bool:
    """Whether an owner gives a sign of life within SILENCE seconds."""
    host, process = first.get("host", "a host"), first.get("process", "?")
    print(
        f"{directory.uri}: process {process} on {host} was writing there; it counts as dead after {SILENCE:.0f} s "
        "without a sign",
        file=sys.stderr,
    )
    until = time.monotonic() + SILENCE
    while time.monotonic() < until:
        time.sleep(min(1.0, BEAT / 2))
        if not directory.exists(name):
            return False
        if _read(directory, name) not in (first, {}):
            return True
    return False


def _read(directory: Directory, name: str) -> dict[str, Any]:
    """What an owner's file says; nothing where it has gone or is damaged."""
    with suppress(OSError, UserError):
        found = directory.read_json(name)
        return found if isinstance(found, dict) else {}
    return {}


def _told(directory: Directory, other: dict[str, Any]) -> UserError:
    who = f"process {other['process']} on {other['host']}" if {"process", "host"} <= other.keys() else "another process"
    since = f" since {other['since']}" if "since" in other else ""
    return UserError(
        f"{directory.uri}: {who} has been writing there{since}; wait for it, stop it, or choose another --output"
    )


def _now() -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S %z")


def _has_ended(other: dict[str, Any]) -> bool:
    """Whether an owner was a process that this one would see, on the same kernel, and isn't any more."""
    return (
        bool(_processes()) and other.get("processes") == _processes() and other["started"] != _started(other["process"])
    )


def _processes() -> str:
    """What tells the processes that one container sees from those of another; empty where the system doesn't say."""
    with suppress(OSError):
        return os.readlink("/proc/self/ns/pid")
    return ""


def _started(process: Any) -> str:
    """When a process began, in ticks of its system; empty where there's none."""
    with suppress(OSError):
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[19]
    return ""


def _kernel() -> str:
    """What tells one running system from another, containers of one from each other not: how far a lock reaches."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return socket.gethostname()
