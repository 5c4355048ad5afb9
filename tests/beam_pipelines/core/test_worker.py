"""Worker processes end with their driver: by Ctrl-C in one line, and when it's killed."""

import os
import signal
import subprocess
import sys
import sysconfig
import time
from collections.abc import Callable
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="children are looked up in /proc")


def until(condition: Callable[[], object], process: subprocess.Popen[str]) -> None:
    end = time.monotonic() + 120
    while not condition():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < end
        time.sleep(0.02)


def workers(driver: int) -> list[int]:
    """The worker processes that a driver started, also once it's gone; of those that are still there."""
    found = []
    for place in Path("/proc").glob("[0-9]*"):
        try:
            command = (place / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if b"opencoder_jax.beam_pipelines.core.worker" in command and str(driver).encode() in command:
            found.append(int(place.name))
    return found


def started(output: Path) -> subprocess.Popen[str]:
    library = Path(sysconfig.get_paths()["stdlib"]) / "asyncio"
    flags = [f"--folders={library}", f"--output={output}", "--direct_num_workers=2"]
    return subprocess.Popen(
        [sys.executable, "-m", "beam_pipelines", "refinecode", *flags],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def written(output: Path) -> bool:
    return any(output.rglob("reports/*.json")) or any(output.rglob("stage.json"))


def gone(driver: int) -> bool:
    end = time.monotonic() + 60
    while workers(driver) and time.monotonic() < end:
        time.sleep(0.1)
    return not workers(driver)


@pytest.mark.slow
@pytest.mark.parametrize("moment", ["workers start", "workers work"])
def test_interrupted_with_its_workers_it_says_one_line(moment: str, tmp_path: Path) -> None:
    process = started(tmp_path)
    until(lambda: workers(process.pid) if moment == "workers start" else written(tmp_path), process)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does it
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 130
    assert errors.endswith("\ninterrupted: run the same command again to go on from here\n"), errors
    assert "Traceback" not in errors
    assert gone(process.pid)


@pytest.mark.slow
def test_workers_end_when_their_driver_is_killed(tmp_path: Path) -> None:
    process = started(tmp_path)
    until(lambda: len(workers(process.pid)) == 2, process)
    process.kill()
    process.communicate()
    assert gone(process.pid)


@pytest.mark.slow
def test_a_worker_that_is_killed_ends_the_stage_in_one_line(tmp_path: Path) -> None:
    process = started(tmp_path)
    until(lambda: len(workers(process.pid)) == 2, process)
    os.kill(min(workers(process.pid)), signal.SIGKILL)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 75, errors
    assert "\nstopped: a worker process ended (code -9); the same command goes on from here\n" in errors
    assert "Traceback" not in errors
    assert gone(process.pid)
