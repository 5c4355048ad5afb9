"""Inside the jail: runs one program, and writes the completion record after its last statement.

An exit code proves nothing (`os._exit(0)`), so a program counts as completed only when this record arrives on a private
file descriptor. What that is worth depends on who shares the process:

- A program alone (`run_alone`) shares its interpreter with this module. Leaving early, closing descriptors, printing
  whatever, or scribbling on every descriptor is caught by a token that was drawn for this run. A program that attacks
  *this file* (walks the frames up to the token) can forge its record: never draw a verdict about code that had a reason
  to do so.
- A judge with a candidate (`judge`, `serve`): no statement of the candidate ever runs in the judge's process, and
  nothing of the judge ever lies in the candidate's: each process is forked before it reads its own source from its own
  descriptor. They say plain values over a socket (`_calls.py`), so neither frames, nor memory, nor patched built-ins,
  nor objects that equal everything help. What a candidate writes as its record can only say how it failed.
  This is what evaluation uses.

The descriptors of a process: 0, 1 and 2, then STATUS, SOURCE (closed before the program begins), and CHANNEL where
there are two.
"""

import json
import linecache
import os
import sys
import traceback
from collections.abc import Callable
from functools import partial
from types import ModuleType
from typing import Any, Literal

from opencoder_jax.sandbox.pair import _calls, _frames
from opencoder_jax.sandbox.program import Status

STATUS, SOURCE, CHANNEL = 3, 4, 5
FILE = "<program>"  # what tracebacks call the program
CANDIDATE = "candidate"  # the name by which a judge calls
_OURS = (__file__, _calls.__file__, _frames.__file__)


def run(role: str) -> None:
    """Reads what this process is to run, and runs it as a "program" alone, a "judge" or a "candidate"."""
    size = os.fstat(SOURCE).st_size
    job = json.loads(os.pread(SOURCE, size, 0) if size else b"{}")
    os.close(SOURCE)
    roles: dict[str, Callable[..., None]] = {"program": run_alone, "judge": judge, "candidate": serve}
    roles[role](**job)


def run_alone(source: str, token: str) -> None:
    """Runs a program to its end and records how it ended."""
    process = os.getpid()
    status, error = _execute(source, ModuleType("__main__"))
    if os.getpid() == process:  # a fork of the program reaches this line too
        _record(status, error, token)


def judge(source: str) -> None:
    """Runs a trusted program in which `candidate(...)` calls the untrusted function at the other end of CHANNEL."""
    conversation = _calls.Conversation(CHANNEL, None, lambda error: None)

    def candidate(*arguments: Any, **keywords: Any) -> Any:
        return conversation.call(_calls.ENTRY, arguments, keywords)

    module = ModuleType("__main__")
    setattr(module, CANDIDATE, candidate)
    status, error = _execute(source, module)
    # Also where the judge expected some exception or other.
    if conversation.lost:
        _record("lost", _calls.PeerLost.__name__)
    elif conversation.unjudged:
        _record("unjudged", "")
    else:
        _record(status, error)


def serve(source: str, name: str) -> None:
    """Runs an untrusted program that defines the function `name`, then answers calls until the judge hangs up.

    Records how the definitions ended, and what ended a call that is no Exception (sys.exit). "ok" says nothing about
    the answers: they are the judge's affair.
    """
    module = ModuleType("candidate")  # so that its `if __name__ == "__main__":` blocks stay quiet
    status, error = _execute(source, module)
    if status != "ok":
        _record(status, error)
        return
    function = module.__dict__.get(name)
    if not callable(function):
        print(f"NameError: the program does not define {name}", file=sys.stderr, flush=True)
        _record("exception", "NameError")
        return
    conversation = _calls.Conversation(CHANNEL, function, _print_traceback)
    status, error = _guard(conversation.serve)
    _record(*(("ok", "") if conversation.lost else (status, error)))


def _execute(source: str, module: ModuleType) -> tuple[Status, str]:
    sys.modules[module.__name__] = module
    linecache.cache[FILE] = (len(source), None, source.splitlines(keepends=True), FILE)
    try:
        code = compile(source, FILE, "exec", dont_inherit=True)
    except (SyntaxError, ValueError, OverflowError, RecursionError, MemoryError) as error:
        _print_traceback(error)
        return "syntax_error", type(error).__name__
    return _guard(partial(exec, code, module.__dict__))


def _guard(action: Callable[[], None]) -> tuple[Status, str]:
    try:
        action()
    except SystemExit:
        return "exited", "SystemExit"
    except BaseException as error:
        name = type(error).__name__
        if not isinstance(error, _calls.PeerLost):
            _print_traceback(error)
        return ("memory" if isinstance(error, MemoryError) else "exception"), name
    finally:
        _flush()
    return "ok", ""


def _record(status: Status | Literal["lost"], error: str, token: str = "") -> None:
    os.write(STATUS, json.dumps({"token": token, "status": status, "error": error}).encode() + b"\n")


def _flush() -> None:
    for stream in sys.stdout, sys.stderr, sys.__stdout__, sys.__stderr__:
        try:
            stream.flush()  # type: ignore[union-attr]
        except Exception:
            continue  # the program closed or replaced it: its affair


def _print_traceback(error: BaseException) -> None:
    """As Python prints it, without our own lines."""
    try:
        report = traceback.TracebackException.from_exception(error)
        report.stack = traceback.StackSummary.from_list(
            [frame for frame in report.stack if frame.filename not in _OURS]
        )
        os.write(2, "".join(report.format()).encode(errors="backslashreplace"))
    except BaseException:
        return  # an exception that cannot be printed: its class is in the record
