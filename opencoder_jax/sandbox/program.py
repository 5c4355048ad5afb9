"""What goes into the sandbox and what comes out: programs, limits, outcomes. Both sides of the pipe share it."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Literal, NamedTuple

Status = Literal[
    "ok",  # the last statement was reached, in the process that was started for the program
    "exception",  # an exception left the program; `error` is its class
    "exited",  # the process ended by itself before the last statement: sys.exit, os._exit, whatever the exit code
    "syntax_error",  # Python refused to compile it
    "compile_error",  # another language's compiler did; `error` says how it ended, where not by itself
    "timeout",  # the CPU time ran out, or it stood idle for too long
    "memory",  # MemoryError, more memory than the limit, or hundreds of threads or processes
    "output_limit",  # more than Limits.output_bytes on stdout and stderr together
    "unjudged",  # a value could not cross between a judge and its candidate: says nothing about the candidate
    "killed",  # a signal ended it; `error` is the signal's name
    "sandbox_error",  # the sandbox failed, the program was not judged: says nothing about the program
]


@dataclass(frozen=True)
class Limits:
    """What one program may use. A program and its candidate each have these limits; the idle time they share.

    The CPU time is the limit that means something: it hardly depends on what else the machine does. The idle time is
    for programs that sleep or wait: by the clock, but only while no thread of either runs or waits for a processor.
    The kernel counts CPU time in whole seconds.
    """

    cpu_seconds: int = 5
    idle_seconds: float = 11.0
    memory_bytes: int = 1 << 30  # address space
    file_bytes: int = 16 << 20  # one file, and the whole private working directory
    open_files: int = 64
    output_bytes: int = 1 << 20  # stdout and stderr together

    def __post_init__(self) -> None:
        for each in fields(self):
            value = getattr(self, each.name)
            if not value > 0:
                raise ValueError(f"Limits.{each.name}={value!r}: must be positive")
        if self.cpu_seconds != int(self.cpu_seconds):
            raise ValueError(f"Limits.cpu_seconds={self.cpu_seconds!r}: the kernel counts whole seconds; round up")
        if self.memory_bytes < 64 << 20:
            raise ValueError(f"Limits.memory_bytes={self.memory_bytes}: Python itself needs 64 MiB (67108864)")


class Candidate(NamedTuple):
    """An untrusted function: it lives in a second process, and the program calls it through `candidate(...)`."""

    source: str  # defines the function
    name: str  # of the function


class Program(NamedTuple):
    """A program to run. With a `candidate`, `source` is the judge: trusted, and alone in its own process."""

    source: str
    stdin: str = ""
    candidate: Candidate | None = None


@dataclass(frozen=True)
class Command:
    """Programs of the machine, such as compilers and what they made, run in a private working directory.

    The jail's first process is ours: it writes the files, starts each step when the one before ended well, and says how
    the last of them ended. All processes end with it.

    Attributes:
        steps: command lines, found by the PATH of `environment`.
        files: name and text of what lies in the working directory.
        stdin: of the last step; the others have none.
        kept: files that an earlier command has kept (Outcome.kept), laid there too.
        keep: patterns of what to keep.
        environment: beside HOME and TMPDIR, the working directory.
        reads: what may be read and executed beside /usr.
        proc: whether they have a /proc, which shows their own processes alone.
        forks: whether the steps may start processes of their own.
        counted: whether memory is counted as it is used, because a limit of the address space would break a runtime.
        limits: instead of the sandbox's own. Memory and processor time are of all processes together.
    """

    steps: tuple[tuple[str, ...], ...]
    files: Mapping[str, str] = field(default_factory=dict)
    stdin: str = ""
    kept: bytes = b""
    keep: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    reads: tuple[str, ...] = ()
    proc: bool = False
    forks: bool = False
    counted: bool = False
    limits: Limits | None = None


@dataclass(frozen=True)
class Outcome:
    """How a program ended, never whether it was right: "ok" means only that its last statement was reached.

    A command that ended by itself has "exited", whatever its exit code.
    """

    status: Status
    error: str = ""  # the exception's class, the signal's name, or what the sandbox could not do
    stdout: str = ""  # at most Limits.output_bytes; undecodable bytes are replaced
    stderr: str = ""  # its last 4,000 characters
    seconds: float = 0.0  # wall clock
    cpu_seconds: float = 0.0
    memory_bytes: int = 0  # largest resident set
    exit_code: int | None = None  # of a command's last step, where it ended by itself
    kept: bytes = b""  # what a command was to keep, for another
