"""Progress in a log: few lines, each whole, the last one always; and on a terminal a bar."""

import io
import sys
import time
from typing import Any

import pytest

from opencoder_jax import progress
from opencoder_jax.progress import Progress, waiting


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A clock that a test sets by hand."""

    class Clock:
        now = 1000.0

        def monotonic(self) -> float:
            return self.now

    clock = Clock()
    monkeypatch.setattr(progress, "time", clock)
    return clock


def test_off_a_terminal_there_is_one_line_a_minute_and_a_last_one(
    clock: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    with Progress("train", 12_000_000, "tokens") as shown:
        for second in range(1, 121):
            clock.now += 1
            shown.update_to(100_000 * second, step=second)
    assert capsys.readouterr().err.splitlines() == [
        "train: 6.00M of 12.0M tokens (50%), 100k tokens/s; step 60",
        "train: 12.0M of 12.0M tokens (100%), 100k tokens/s; step 120",
        "train: 12.0M of 12.0M tokens (100%), 100k tokens/s; step 120",
    ]


def test_what_was_done_before_does_not_count_in_the_rate(clock: Any, capsys: pytest.CaptureFixture[str]) -> None:
    with Progress("collect", 3_000_000, "B", done=1_000_000) as shown:
        clock.now += 10
        shown.update_to(2_000_000)
    assert capsys.readouterr().err == "collect: 2.00M of 3.00MB (67%), 100kB/s\n"


def test_a_job_that_fails_leaves_its_last_line(capsys: pytest.CaptureFixture[str]) -> None:
    def fail() -> None:
        with Progress("eval", 4, "programs") as shown:
            shown.update_to(3)
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert capsys.readouterr().err.startswith("eval: 3 of 4 programs (75%), ")


def test_an_empty_job_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    with Progress("filter", 0, "B") as shown:
        shown.update_to(0)
    assert capsys.readouterr().err == "filter: nothing to do\n"


def test_hidden_progress_says_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    with Progress("train", 0, "tokens", shown=False) as empty, Progress("train", 9, "tokens", shown=False) as shown:
        empty.update_to(0)
        shown.update_to(9)
    assert capsys.readouterr().err == ""


def test_a_terminal_gets_a_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = io.StringIO()
    terminal.isatty = lambda: True  # type: ignore[method-assign]
    monkeypatch.setattr(sys, "stderr", terminal)
    with Progress("train", 20_000, "tokens") as shown:
        shown.update_to(20_000, loss="0.5")
    assert "\r" in terminal.getvalue()
    assert "20.0k/20.0k" in terminal.getvalue()
    assert "loss=0.5" in terminal.getvalue()


def test_what_cannot_say_how_far_it_is_says_how_long_it_runs(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with waiting("short"):
        pass
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(progress, "SECONDS", 0.01)
    with waiting("long"):
        time.sleep(0.2)
    said = capsys.readouterr().err.splitlines()
    assert said
    assert set(said) == {"long: 0 s"}
