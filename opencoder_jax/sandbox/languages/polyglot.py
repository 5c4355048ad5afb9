"""Compiles a source once and runs it many times: `Polyglot(sandbox).build("C++", source).run(stdin)`.

Both happen in jails: a compiler reads what its source names, and may run what it says. What a compiler made is kept in
memory, by its language and source, so that equal answers are compiled once.
"""

import re
import threading
from collections import OrderedDict
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace

from opencoder_jax.sandbox.languages.row import LanguageRow, Line
from opencoder_jax.sandbox.languages.toolchains import Toolchain, find
from opencoder_jax.sandbox.pool import Sandbox
from opencoder_jax.sandbox.program import Command, Limits, Outcome

COMPILING = Limits(
    cpu_seconds=30, idle_seconds=30.0, memory_bytes=2 << 30, file_bytes=256 << 20, open_files=256, output_bytes=4 << 20
)
_CACHED = 256 << 20  # bytes of compiled programs


@dataclass(frozen=True)
class Built:
    """A program that can be run.

    Attributes:
        failure: how the compiler ended, where it made none.
        kept: what it made, or the source of a language that isn't compiled.
    """

    polyglot: "Polyglot"
    toolchain: Toolchain
    main: str
    failure: Outcome | None
    kept: bytes
    source: str

    def run(self, stdin: str = "", arguments: Sequence[str] = ()) -> Outcome:
        """Runs it to its end. Without a program, the compiler's outcome again.

        Its status is "exited" where it ended by itself; "memory" also where its runtime said so, and failed.
        """
        if self.failure:
            return self.failure
        language, limits = self.toolchain.language, self.polyglot.limits
        line = self.toolchain.line(language.run, self.main, limits.memory_bytes)
        outcome = self.polyglot.sandbox.command(
            Command(
                steps=((*line, *arguments),),
                files={} if language.compile else {language.file.replace("{main}", self.main): self.source},
                stdin=stdin,
                kept=self.kept,
                environment=self.toolchain.environment(),
                reads=self.toolchain.reads(),
                proc=language.proc,
                forks=language.forks,
                counted=language.counted,
                limits=limits,
            )
        )
        exhausted = language.exhausted and language.exhausted in outcome.stderr
        if outcome.status in ("exited", "killed") and outcome.exit_code != 0 and exhausted:
            return replace(outcome, status="memory", error=language.exhausted, exit_code=None)
        return outcome


class Polyglot:
    """Programs of other languages in a sandbox. Safe to call from several threads.

    Args:
        sandbox: where they are compiled and run, as many at once as it has workers.
        limits: of each run; without them the sandbox's own. Open files are at least what runtimes need.
        compiling: limits of each compiler.
    """

    def __init__(self, sandbox: Sandbox, limits: Limits | None = None, compiling: Limits = COMPILING):
        limits = limits or sandbox.limits
        self.sandbox, self.compiling = sandbox, compiling
        self.limits = replace(limits, open_files=max(limits.open_files, 256))
        self._built: OrderedDict[tuple[str, str], Future[Built]] = OrderedDict()
        self._bytes = 0
        self._lock = threading.Lock()

    def build(self, language: str, source: str) -> Built:
        """Compiles a source, unless it was compiled before.

        Raises:
            ToolchainError: this machine cannot run the language.
            SandboxError: it has not the walls for it.
        """
        toolchain = find(language)
        toolchain.prepare()
        key = (language, source)
        with self._lock:
            known = self._built.get(key)
            if known is None:
                mine = self._built[key] = Future()
            else:
                self._built.move_to_end(key)
        if known is not None:
            return known.result()
        try:
            built = self._compile(toolchain, source)
        except BaseException as error:
            with self._lock:
                self._built.pop(key, None)
            mine.set_exception(error)
            raise
        mine.set_result(built)
        self._forget(key, built)
        return built

    def _forget(self, key: tuple[str, str], built: Built) -> None:
        """Makes room: the longest unused go. A failure of the sandbox is never remembered."""
        with self._lock:
            if built.failure and built.failure.status == "sandbox_error":
                self._built.pop(key, None)
                return
            self._bytes += len(built.kept)
            while self._bytes > _CACHED and len(self._built) > 1:
                oldest, future = next(iter(self._built.items()))
                if not future.done():
                    break
                del self._built[oldest]
                self._bytes -= len(future.result().kept)

    def _compile(self, toolchain: Toolchain, source: str) -> Built:
        language = toolchain.language
        main = _name(language, source)
        if not language.compile:
            return Built(self, toolchain, main, None, b"", source)
        outcome = None
        if language.quick and re.search(language.quick[0], source):
            outcome = self._steps(toolchain, language.quick[1], main, source)
        if outcome is None or outcome.exit_code != 0:
            outcome = self._steps(toolchain, language.compile, main, source)
        if outcome.status == "exited" and outcome.exit_code == 0:
            return Built(self, toolchain, main, None, outcome.kept, source)
        if outcome.status != "sandbox_error":
            said = "" if outcome.status == "exited" else outcome.error or outcome.status
            outcome = replace(outcome, status="compile_error", error=said, exit_code=None, kept=b"")
        return Built(self, toolchain, main, outcome, b"", source)

    def _steps(self, toolchain: Toolchain, lines: Sequence[Line], main: str, source: str) -> Outcome:
        language = toolchain.language
        return self.sandbox.command(
            Command(
                steps=tuple(toolchain.line(line, main, self.compiling.memory_bytes) for line in lines),
                files={language.file.replace("{main}", main): source},
                keep=tuple(pattern.replace("{main}", main) for pattern in language.keep),
                environment=toolchain.environment(),
                reads=toolchain.reads(),
                proc=language.proc,
                forks=True,
                counted=True,
                limits=self.compiling,
            )
        )


def _name(language: LanguageRow, source: str) -> str:
    for pattern in language.named:
        if found := re.search(pattern, source):
            return found[1]
    return "Main" if language.named else "main"
