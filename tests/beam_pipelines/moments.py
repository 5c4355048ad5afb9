"""Kills a command at random moments, for tests that what it leaves is whole all the same."""

import contextlib
import os
import random
import shutil
import signal
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path


def kill_often(command: Sequence[str], output: Path, kills: int) -> None:
    """SIGKILL to all its processes, at moments drawn over the time that a whole run takes; then it runs to its end.

    Args:
        output: the directory that the command writes.
    """
    began = time.monotonic()
    subprocess.run(command, check=True, capture_output=True)
    whole = time.monotonic() - began
    shutil.rmtree(output)
    chance = random.Random(0)
    killed = 0
    while killed < kills:
        process = subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
        )
        try:
            # A run that is never let past its first stages would test those alone: the later kills come later.
            process.wait(chance.uniform(0.05, 1) * whole * (killed + 1) / kills + 1)
            shutil.rmtree(output)  # it came to its end: the next ones begin anew
        except subprocess.TimeoutExpired:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            killed += 1
    subprocess.run(command, check=True, capture_output=True)
