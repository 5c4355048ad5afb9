"""Inside the jail: runs one program, and writes the completion record after its last statement.

An exit code proves nothing (`os._exit(0)`), so a program counts as completed only when this record arrives on a private
file descriptor, with a token that was drawn for this run. What that is worth depends on who shares the process:

- A program alone (`run_alone`) shares its interpreter with this module. Leaving early, closing descriptors, printing
  whatever, or scribbling on every descriptor is caught. A program that attacks *this file* (walks the frames up to the
  token) can forge its record: never draw a verdict about code that had a reason to do so.
- A judge with a candidate (`judge`, `serve`): no statement of the candidate ever runs in the judge's process. The
  candidate has its own jail and says plain values over a socket (`_values.py`), so neither frames, nor patched
  built-ins, nor objects that equal everything reach the judge. This is what evaluation uses.

The descriptors of a program: 0, 1 and 2, then STATUS, and CHANNEL where there is a candidate.
"""

import builtins
import json
import linecache
import os
import sys
import traceback
from collections.abc import Callable
from functools import partial
from types import ModuleType
from typing import Any

from opencoder_jax.sandbox import _values
from opencoder_jax.sandbox._frames import receive, send
from opencoder_jax.sandbox.program import Status

STATUS, CHANNEL = 3, 4
FILE = "<program>"  # what tracebacks call the program
CANDIDATE = "candidate"  # the name by which a judge calls
_OURS = (__file__, send.__code__.co_filename)


class CandidateLost(BaseException):
    """The candidate's process ended, or said something that is no encoded value."""


def run_alone(source: str, token: str) -> None:
    """Runs a program to its end and records how it ended."""
    process = os.getpid()
    status, error = _execute(source, ModuleType("__main__"))
    if os.getpid() == process:  # a fork of the program reaches this line too
        _record(token, status, error)


def judge(source: str, token: str) -> None:
    """Runs a trusted program in which `candidate(...)` calls the untrusted function at the other end of CHANNEL."""
    lost = False

    def candidate(*arguments: Any, **keywords: Any) -> Any:
        nonlocal lost
        message = _values.encode([list(arguments), keywords])
        try:
            send(CHANNEL, message)
            kind, content = _values.decode(receive(CHANNEL, _values.MESSAGE_BYTES))
        except (OSError, EOFError, TypeError, ValueError) as error:
            lost = True
            raise CandidateLost(str(error)) from None
        if kind == "returned":
            return content
        name, message = content
        raised = getattr(builtins, str(name), None)
        if isinstance(raised, type) and issubclass(raised, Exception):
            raise raised(message)
        raise RuntimeError(f"{name}: {message}")

    module = ModuleType("__main__")
    setattr(module, CANDIDATE, candidate)
    status, error = _execute(source, module)
    if lost:  # also where the judge expected some exception or other
        status, error = "exception", CandidateLost.__name__
    _record(token, status, error)


def serve(source: str, name: str, token: str) -> None:
    """Runs an untrusted program that defines the function `name`, then answers calls until the judge hangs up.

    Records how the definitions ended, and what ended a call that is no Exception (sys.exit). "ok" says nothing about
    the answers: they are the judge's affair.
    """
    module = ModuleType("candidate")  # so that its `if __name__ == "__main__":` blocks stay quiet
    status, error = _execute(source, module)
    if status != "ok":
        return _record(token, status, error)
    function = module.__dict__.get(name)
    if not callable(function):
        print(f"NameError: the program does not define {name}", file=sys.stderr, flush=True)
        return _record(token, "exception", "NameError")
    while True:
        try:
            arguments, keywords = _values.decode(receive(CHANNEL, _values.MESSAGE_BYTES))
        except (OSError, EOFError):
            return _record(token, "ok", "")
        status, error = _guard(partial(_answer, function, arguments, keywords))
        if status != "ok":
            return _record(token, status, error)


def _answer(function: Callable[..., Any], arguments: list[Any], keywords: dict[str, Any]) -> None:
    try:
        message = _values.encode(["returned", function(*arguments, **keywords)])
    except Exception as error:
        _print_traceback(error)
        message = _values.encode(["raised", [type(error).__name__, _text(error)]])
    send(CHANNEL, message)


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
        _print_traceback(error)
        return ("memory" if isinstance(error, MemoryError) else "exception"), name
    finally:
        _flush()
    return "ok", ""


def _record(token: str, status: Status, error: str) -> None:
    os.write(STATUS, json.dumps({"token": token, "status": status, "error": error}).encode() + b"\n")


def _flush() -> None:
    for stream in sys.stdout, sys.stderr, sys.__stdout__, sys.__stderr__:
        try:
            stream.flush()  # type: ignore[union-attr]
        except Exception:
            continue  # the program closed or replaced it: its affair


def _text(error: BaseException) -> str:
    try:
        return str(error)
    except Exception:
        return "<the exception cannot be printed>"


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
