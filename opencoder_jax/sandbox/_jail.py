"""The walls around one program, from the outside in, and which of them this machine gives us.

No layer needs privileges and none is trusted alone: writing outside is stopped by read-only mounts and by Landlock, the
network by an empty namespace and by seccomp, leftover processes by the pid namespace and by seccomp. A machine may
refuse some (Ubuntu's AppArmor switch and Docker's default profile refuse user namespaces): then the rest is built, and
the report says what is missing and why. Nothing is ever weakened silently.

What a program still can do: read the interpreter's environment and /usr, burn its CPU seconds, fill its own working
directory, start threads, and exploit the kernel. The working directory is a memory file system of limited size; where
none can be mounted it cannot be written, so that no machine lets a program fill its disk.

Cost per program: about 3 ms of processor time, most of it the mount and pid namespaces.
"""

import os
import resource
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any, NamedTuple

from opencoder_jax.sandbox import _linux
from opencoder_jax.sandbox.program import Limits

ACTIVE = "active"

_SYSTEM = ("/usr", "/bin", "/lib", "/lib64", "/etc/ld.so.cache", "/etc/localtime")
# Beside the interpreter's own directories. The pwd and locale modules open these files of /etc.
_READABLE = (*_SYSTEM, "/etc/passwd", "/etc/group", "/etc/nsswitch.conf")
_DEVICES = ("/dev/null", "/dev/zero", "/dev/urandom", "/dev/random")

Layers = dict[str, str]  # layer -> "active", or "missing: why"

# Without one of these something lies open that no other layer closes: the files of this user, sockets, memory.
NECESSARY = ("no new privileges", "no capabilities", "landlock", "rlimits", "seccomp")
# A command's processes end with their namespace, and its directory is made of memory.
NECESSARY_TO_COMMANDS = ("pid namespace", "read-only mounts")

# What a runtime reserves and writes to without ever filling it, beyond twice the memory that is counted.
_SLACK = 256 << 20


class Rules(NamedTuple):
    """Descriptors of Landlock's rules, made once for all programs: with and without a directory to write in."""

    writing: int
    reading: int


class Walls(NamedTuple):
    """What differs between programs; these are Python's.

    Attributes:
        limits: fields of Limits.
        counted: whether the watcher counts the memory, because an address space of that size is too small.
        execute: whether it becomes another program, and may then become others.
        forks: whether it may start processes.
        reads: what may be read and executed beside the system's own.
        proc: whether it has a /proc, which shows its own processes alone.
    """

    limits: dict[str, Any]
    counted: bool = False
    execute: bool = False
    forks: bool = False
    reads: Sequence[str] = ()
    proc: bool = False


@contextmanager
def _layer(report: Layers, name: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        report[name] = f"missing: {error.strerror or error}"
    else:
        report[name] = ACTIVE


def enclose_zygote() -> tuple[Layers, Callable[[bool], None]]:
    """Moves the calling process, which will fork the programs, into namespaces: user, empty network, ipc, pid.

    They stay as long as the zygote lives; no process of one program is left there for the next to find. To enter its
    pid namespace the zygote forks: the caller goes on as the namespace's first process, whose end is the end of all
    the others; the original process only waits for it.

    Returns:
        The report, and the function to call before every fork, with whether the program is trusted. One that isn't
        becomes the first process of a pid namespace of its own: SIGKILL for it then ends every process that it
        started, and no other is in its reach. A trusted one is spared what that costs.
    """
    report: Layers = {}
    user, group = os.getuid(), os.getgid()
    with _layer(report, "user namespace"):
        _linux.unshare(_linux.NEW_USER)
        for file, text in ("setgroups", "deny"), ("uid_map", f"{user} {user} 1"), ("gid_map", f"{group} {group} 1"):
            with open(f"/proc/self/{file}", "w") as stream:
                stream.write(text)
    with _layer(report, "network namespace"):
        _linux.unshare(_linux.NEW_NET)
    with _layer(report, "ipc namespace"):
        _linux.unshare(_linux.NEW_IPC)
    _linux.bound_capabilities()
    with _layer(report, "pid namespace"):
        _linux.unshare(_linux.NEW_PID)
        if first := os.fork():
            os.waitpid(first, 0)
            os._exit(0)
        _linux.die_with_parent()
        home = os.open("/proc/self/ns/pid", os.O_RDONLY | os.O_CLOEXEC)

        def before_fork(trusted: bool) -> None:
            _linux.set_namespace(home, _linux.NEW_PID)
            if not trusted:
                _linux.unshare(_linux.NEW_PID)

        before_fork(False)
        with suppress(OSError):  # a machine without seccomp is told of as programs report their walls
            for process in 0, 1:  # built here once: for judges, and for the first process of each namespace
                _linux.seccomp_filter(process, metadata=True)
            _linux.seccomp_filter(1, metadata=True, execute=True, fork=True)  # that of a command
            _linux.seccomp_filter(2, metadata=True, execute=True)  # and its first step
        return report | {"pid namespace": ACTIVE}, before_fork
    return report, lambda trusted: None


def rules(base: str, hidden: Sequence[str], reads: Sequence[str] | None = None) -> Rules | None:
    """The files of the interpreter without those in `hidden`; `base` holds the working directories.

    With `reads`, these and the system's instead of the interpreter's, and all of them may be executed. None where the
    kernel has no Landlock.
    """
    execute = reads is not None
    paths = _readable() if reads is None else [*_SYSTEM, *reads]
    readable = list(_beside(paths, {os.path.realpath(path) for path in hidden}))
    with suppress(OSError):
        return Rules(
            _linux.landlock_rules(readable, [base], _DEVICES, execute=execute),
            _linux.landlock_rules([*readable, base], [], _DEVICES, execute=execute),
        )
    return None


def enclose_program(work: str, walls: Walls, find_rules: Callable[[], Rules | None], trusted: bool) -> Layers:
    """Locks this process, a fresh fork of the zygote, into the directory `work` for good.

    `find_rules` is called when everything is mounted.

    A trusted program may signal none, not even itself: so its filter needs not be built for its number. One that
    executes starts others, and each of them goes behind `confine`.
    """
    limits = Limits(**walls.limits)
    report: Layers = {}
    with suppress(OSError):  # where it fails, the zygote still ends its programs itself, unless it is killed
        _linux.die_with_parent()
    os.setsid()
    with _layer(report, "read-only mounts"):
        _linux.unshare(_linux.NEW_MOUNTS)
        _linux.private_mounts()
        _linux.mounts_read_only()
        if walls.proc:
            _linux.mount_processes()
        _linux.mount_memory(work, limits.file_bytes)
    with _layer(report, "no new privileges"):
        _linux.no_new_privileges()
    with _layer(report, "no capabilities"):
        _linux.drop_capabilities()
    mounted = report["read-only mounts"] == ACTIVE
    with _layer(report, "landlock"):
        if (rules := find_rules()) is None:
            raise OSError("the kernel has no Landlock")
        _linux.landlock(rules.writing if mounted else rules.reading)
    _linux.not_traced()
    os.chdir(work)
    with _layer(report, "rlimits"):
        _set_limits(limits, walls.counted)
    with _layer(report, "seccomp"):
        number = 0 if trusted else os.getpid()
        _linux.seccomp(_linux.seccomp_filter(number, metadata=mounted, execute=walls.execute, fork=walls.execute))
    return report


def confine() -> None:
    """Takes from a process that becomes another program what only the jail's first one needs: to start processes."""
    with suppress(OSError):  # where there's no seccomp, the report says so
        _linux.seccomp(_linux.seccomp_filter(os.getpid(), metadata=True, execute=True))


def _readable() -> list[str]:
    environment = (sys.prefix, sys.exec_prefix, sys.base_prefix, sys.base_exec_prefix, *sys.path)
    return [*_READABLE, *(path for path in environment if path not in ("", "/"))]


def _beside(paths: Iterable[str], hidden: set[str]) -> Iterator[str]:
    """The paths; of one that holds a hidden one, all that lies beside it."""
    for path in dict.fromkeys(map(os.path.realpath, paths)):
        if any(os.path.commonpath((path, place)) == place for place in hidden):
            continue
        if any(os.path.commonpath((path, place)) == path for place in hidden):
            with suppress(OSError):
                yield from _beside((entry.path for entry in os.scandir(path)), hidden)
        else:
            yield path


def _set_limits(limits: Limits, counted: bool) -> None:
    memory = (
        (resource.RLIMIT_DATA, 2 * limits.memory_bytes + _SLACK)
        if counted
        else (resource.RLIMIT_AS, limits.memory_bytes)
    )
    for kind, value in (
        (resource.RLIMIT_CPU, int(limits.cpu_seconds)),
        memory,
        (resource.RLIMIT_FSIZE, limits.file_bytes),
        (resource.RLIMIT_NOFILE, limits.open_files),
        (resource.RLIMIT_SIGPENDING, 256),  # timers and queued signals: memory of the kernel
        (resource.RLIMIT_CORE, 1),  # with 0 the kernel may still pipe a core to a program; 1 is too small for either
    ):
        ceiling = resource.getrlimit(kind)[1]
        value = value if ceiling == resource.RLIM_INFINITY else min(value, ceiling)
        resource.setrlimit(kind, (value, value))
