"""After ten thousand programs the machine is as it was: no process, file or control group more."""

import os
import tempfile
import threading
from pathlib import Path

import pytest

from opencoder_jax.sandbox.languages.polyglot import Polyglot
from opencoder_jax.sandbox.pool import Sandbox
from opencoder_jax.sandbox.program import Limits


def descendants() -> set[int]:
    """All processes that this one started, and theirs."""
    found: set[int] = set()
    waiting = [os.getpid()]
    for pid in waiting:  # grows
        for task in Path(f"/proc/{pid}/task").glob("*/children"):
            try:
                waiting += map(int, task.read_text().split())
            except OSError:
                continue
    found.update(waiting[1:])
    return found


def groups() -> str:
    """The control groups of this process, whose children are in no others: the machine's own come and go."""
    return Path("/proc/self/cgroup").read_text()


@pytest.mark.slow
def test_after_ten_thousand_programs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    before = descendants(), len(os.listdir("/proc/self/fd")), groups(), threading.active_count()
    with Sandbox(Limits(cpu_seconds=2, idle_seconds=2), workers=2) as sandbox:
        writing = "import os\nopen('left', 'w').write('x' * 1000)\nos.mkdir('also')\nprint(1)"
        for _, outcome in sandbox.map(writing for _ in range(8_000)):
            assert outcome.stdout == "1\n"
        polyglot = Polyglot(sandbox)
        leaving = polyglot.build("Bash", "sleep 31416 & setsid sleep 31416 & echo x > left; mkdir also; echo 1")
        printing = polyglot.build("Perl", "print 1")
        for _ in range(1_000):
            for built in leaving, printing:
                outcome = built.run()
                assert outcome.stdout.strip() == "1", outcome
        assert all(len(os.listdir(place)) == 0 for place in tmp_path.iterdir())
    assert list(tmp_path.iterdir()) == []
    assert (descendants(), len(os.listdir("/proc/self/fd")), groups(), threading.active_count()) == before
