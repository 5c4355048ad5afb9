"""Every way in which a program can end, and what happens when the sandbox itself is hurt."""

import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from opencoder_jax.sandbox.pool import Sandbox, SandboxError
from opencoder_jax.sandbox.program import Limits, Program

ROOT = str(Path(__file__).resolve().parents[3])


def inhabitants(*directories: str) -> list[str]:
    """The processes that stand in one of these directories or below."""
    found = []
    for process in os.listdir("/proc"):
        try:
            place = os.readlink(f"/proc/{process}/cwd")
        except OSError:
            continue
        if any(Path(place).is_relative_to(directory) for directory in directories):
            found.append(f"{process} {place}")
    return found


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.parametrize(
    ("source", "status", "error"),
    [
        ("x = 1", "ok", ""),
        ("", "ok", ""),
        ("1 / 0", "exception", "ZeroDivisionError"),
        ("class Mine(Exception): pass\nraise Mine", "exception", "Mine"),
        ("raise KeyboardInterrupt", "exception", "KeyboardInterrupt"),
        ("def f(:", "syntax_error", "SyntaxError"),
        ("x = '\ud800'", "syntax_error", "UnicodeEncodeError"),
        ("x = '\0'", "syntax_error", "SyntaxError"),
        ("import sys; sys.exit(0)", "exited", "SystemExit"),
        ("raise SystemExit", "exited", "SystemExit"),
        ("import os; os._exit(0)", "exited", ""),
        ("import os; os.closerange(3, 100); x = 1", "exited", ""),
        ("while True: pass", "timeout", ""),
        ("import time; time.sleep(60)", "timeout", ""),
        ("while True:\n  try:\n    while True: pass\n  except BaseException: pass", "timeout", ""),
        ("x = 'a' * 10**10", "memory", "MemoryError"),
        ("x = []\nwhile True: x.append(bytes(10**7))", "memory", "MemoryError"),
        ("while True: print('x' * 1000)", "output_limit", ""),
        ("import sys\nwhile True: sys.stderr.write('x' * 1000)", "output_limit", ""),
        ("print('x' * 101_000)", "output_limit", ""),
        ("import ctypes; ctypes.string_at(0)", "killed", "SIGSEGV"),
        ("open('big', 'wb').write(bytes(2 << 20))", "exception", "OSError"),
        ("kept = [open('f', 'w') for _ in range(100)]", "exception", "OSError"),
    ],
)
def test_how_a_program_ends(sandbox: Sandbox, source: str, status: str, error: str) -> None:
    outcome = sandbox.run(source)
    # Newer Pythons raise SyntaxError where older ones raised ValueError for a null byte.
    errors = {error, "ValueError"} if "\0" in source else {error}
    assert (outcome.status, outcome.error in errors) == (status, True), outcome
    assert len(outcome.stdout) <= 100_000
    assert inhabitants(*(zygote._directory for zygote in sandbox._zygotes)) == []


def test_output_and_traceback_come_back(sandbox: Sandbox) -> None:
    outcome = sandbox.run(
        "import sys\nprint('Grüße\\ud800')\nprint('warned', file=sys.stderr)\ndef f():\n    return 1 / 0\nf()"
    )
    assert outcome.stdout == "Grüße\\ud800\n"
    lines = outcome.stderr.splitlines()
    assert lines[0] == "warned"
    assert "    return 1 / 0" in lines  # with the source line
    assert lines[-1] == "ZeroDivisionError: division by zero"
    assert "_runner.py" not in outcome.stderr
    assert outcome.cpu_seconds < 1 < outcome.memory_bytes


def test_closed_outputs_and_threads_do_no_harm(sandbox: Sandbox) -> None:
    assert (
        sandbox.run("import sys, os\nsys.stdout.close(); sys.stderr.close(); os.close(1); os.close(2)").status == "ok"
    )
    assert sandbox.run("import sys\nsys.stdout = sys.stderr = None").status == "ok"
    assert sandbox.run("import threading, time\nthreading.Thread(target=time.sleep, args=(60,)).start()").status == "ok"


@pytest.mark.parametrize(
    "read",
    [
        "lines = [input(), input()]",
        "import sys; lines = sys.stdin.read().split()",
        "import sys; lines = [line.strip() for line in sys.stdin]",
        "import sys; lines = [line.decode().strip() for line in sys.stdin.buffer.readlines()]",
        "import sys; lines = [sys.stdin.readline().strip(), sys.stdin.read().strip()]",
        "import os; lines = os.read(0, 100).decode().split()",
        "lines = open(0).read().split()",
        "def read():\n    global lines\n    lines = [input(), input()]\nread()",
    ],
)
def test_every_way_to_read_stdin(sandbox: Sandbox, read: str) -> None:
    assert sandbox.run(f"{read}\nprint(lines)", stdin="one\ntwo\n").stdout == "['one', 'two']\n"


def test_large_stdin_needs_nobody_to_feed_it(sandbox: Sandbox) -> None:
    assert sandbox.run("print(len(input()))", stdin="x" * 1_000_000).stdout == "1000000\n"
    assert sandbox.run("input()").error == "EOFError"


def test_a_program_is_alone_with_a_clean_environment(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET_TOKEN", "hush")
    outcome = sandbox.run(
        "import os, sys\nassert 'SECRET_TOKEN' not in os.environ\nprint(__name__, sys.argv, os.listdir())\n"
        "open('mine', 'w').write('x')\nassert os.getcwd() == os.environ['HOME'] == os.environ['TMPDIR']"
    )
    assert (outcome.status, outcome.stdout) == ("ok", "__main__ ['<program>'] []\n")
    assert sandbox.run("import os; print(os.listdir())").stdout == "[]\n"  # nothing of the last program is left


def test_the_environment_of_this_python_can_be_imported(sandbox: Sandbox) -> None:
    outcome = sandbox.run(
        "import numpy, asyncio, zoneinfo\nprint(numpy.arange(3).sum(), asyncio.run(asyncio.sleep(0, 7)))"
    )
    assert outcome.stdout == "3 7\n", outcome
    assert sandbox.run("import opencoder_jax.recipe").error in ("ModuleNotFoundError", "PermissionError")


def test_sets_have_the_same_order_in_every_worker() -> None:
    program = "print({'a', 'b', 'c', 'd', 'e', 'f'})"
    with Sandbox(workers=3) as sandbox:
        assert len({outcome.stdout for _, outcome in sandbox.map([program] * 6)}) == 1


def test_map_gives_every_program_its_outcome(sandbox: Sandbox) -> None:
    programs = [f"print({number})" if number % 2 else Program("print(input())", str(number)) for number in range(30)]
    outcomes = dict(sandbox.map(programs))
    assert [outcomes[number].stdout for number in range(30)] == [f"{number}\n" for number in range(30)]


def test_map_reads_only_a_little_ahead(sandbox: Sandbox) -> None:
    taken = []

    def programs() -> Iterator[str]:
        for number in range(1000):
            taken.append(number)
            yield ""

    next(iter(sandbox.map(programs())))
    assert len(taken) <= 2 * sandbox.workers


def test_preloaded_modules_are_there() -> None:
    with Sandbox(preload=["decimal"]) as sandbox:
        assert sandbox.run("import sys; print('decimal' in sys.modules)").stdout == "True\n"


def test_a_killed_zygote_is_replaced() -> None:
    with Sandbox() as sandbox:
        (zygote,) = sandbox._zygotes
        assert zygote._process is not None
        zygote._process.send_signal(signal.SIGKILL)
        assert sandbox.run("print(1)").stdout == "1\n"


@pytest.mark.parametrize("victim", ["parent", "zygote"])
def test_a_program_dies_with_its_zygote_and_its_parent(victim: str, tmp_path: Path) -> None:
    program = "import time; time.sleep(3600)"
    script = f"from opencoder_jax.sandbox.pool import Sandbox\nSandbox().run({program!r})"
    parent = subprocess.Popen([sys.executable, "-c", script], cwd=ROOT, env=os.environ | {"TMPDIR": str(tmp_path)})
    try:
        wait_until(lambda: bool(inhabitants(str(tmp_path))))
        (zygote,) = Path(f"/proc/{parent.pid}/task/{parent.pid}/children").read_text().split()
        if victim == "parent":
            parent.kill()
        else:
            parent.send_signal(signal.SIGSTOP)  # or it would start another, and the program again
            os.kill(int(zygote), signal.SIGKILL)
        wait_until(lambda: not inhabitants(str(tmp_path)))
    finally:
        parent.kill()
        parent.wait()


def test_a_zygote_that_cannot_start_says_so() -> None:
    with pytest.raises(SandboxError, match="does not start"):
        Sandbox(preload=["no_such_module"])


def test_a_closed_sandbox_leaves_no_directory() -> None:
    with Sandbox() as sandbox:
        directory = sandbox._zygotes[0]._directory
        assert os.path.isdir(directory)
    assert not os.path.exists(directory)


def test_layers_name_every_wall(sandbox: Sandbox) -> None:
    walls = sandbox.layers
    assert set(walls) == {
        "user namespace",
        "network namespace",
        "pid namespace",
        "ipc namespace",
        "read-only mounts",
        "no new privileges",
        "no capabilities",
        "landlock",
        "rlimits",
        "seccomp",
    }
    assert all(state == "active" or state.startswith("missing: ") for state in walls.values())


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("cpu_seconds", 0, "cpu_seconds=0: must be positive"),
        ("cpu_seconds", 0.5, "whole seconds"),
        ("memory_bytes", 1 << 20, "64 MiB"),
        ("idle_seconds", -1.0, "must be positive"),
    ],
)
def test_limits_that_make_no_sense_are_refused(field: str, value: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Limits(**{field: value})


def test_a_sandbox_closed_between_two_looks_ends_its_program_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not only where the program's watcher happens to wait for its zygote's word: then its idle limit would end it."""
    sandbox = Sandbox(Limits(cpu_seconds=1, idle_seconds=3))

    class Poll:
        """What closes the sandbox before its first look."""

        def __init__(self) -> None:
            self._poll = real()
            self.register, self.unregister = self._poll.register, self._poll.unregister

        def poll(self, timeout: float) -> list[tuple[int, int]]:
            sandbox.close()
            return self._poll.poll(timeout)

    real = select.poll
    monkeypatch.setattr("opencoder_jax.sandbox._watch.select", SimpleNamespace(**vars(select) | {"poll": Poll}))
    outcome = sandbox.run("import time\nwhile True: time.sleep(0.01)")
    assert (outcome.status, outcome.error) == ("sandbox_error", "the sandbox is closed")
