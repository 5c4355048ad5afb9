"""What a program does line by line: the lines in the order in which they run, and what each of them changes.

As data it needs no teacher: the interpreter says it (CRUXEval, arXiv 2401.03065, asks for what comes out and what goes
in; SemCoder, arXiv 2406.01006, and CWM, arXiv 2510.02387, learn from what lies between).
"""

import copy
import sys
from collections.abc import Callable, Sequence
from types import FrameType
from typing import Any, NamedTuple

from opencoder_jax.beam_pipelines.synthesis.grammar.examples import compile_function
from opencoder_jax.beam_pipelines.synthesis.grammar.tasks import Parameter


class Ran(NamedTuple):
    """A line that was run, and what it changed: the variables' new values, or what it returned, as Python writes it."""

    line: str
    changed: dict[str, str]
    returned: str | None = None

    def __str__(self) -> str:
        told = ", ".join(f"{name} = {value}" for name, value in self.changed.items())
        return f"{self.line}  # {told if self.returned is None else self.returned}".removesuffix("  # ")


def trace(lines: Sequence[str], parameters: Sequence[Parameter], arguments: Sequence[Any]) -> list[Ran]:
    """Runs a function's body, line by line.

    Whatever the body raises goes on to the caller. Another tracer, a debugger's say, is back in its place afterwards.
    """
    function = compile_function(lines, parameters)
    ran: list[Ran] = []
    known: dict[str, str] = {}
    at: int | None = None

    def finish(frame: FrameType, returned: str | None = None) -> None:
        """Notes what the line that has just run changed."""
        now = {name: repr(value) for name, value in frame.f_locals.items()}
        if at is not None:
            changed = {name: value for name, value in now.items() if known.get(name) != value}
            ran.append(Ran(lines[at], changed, returned))
        known.update(now)

    def follow(frame: FrameType, event: str, value: Any) -> Callable[..., Any] | None:
        nonlocal at
        if frame.f_code is not function.__code__:
            return None
        if event == "line":
            finish(frame)
            at = frame.f_lineno - 2  # the first is the signature
        elif event == "return":
            finish(frame, repr(value))
        return follow

    before = sys.gettrace()
    sys.settrace(follow)
    try:
        function(*copy.deepcopy(list(arguments)))
    finally:
        sys.settrace(before)
    return ran
