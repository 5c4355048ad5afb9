"""Running gcloud: no command waits for ever, and a failed one says whether another try may mend it."""

import os
import re
import shlex
import signal
import subprocess
from collections.abc import Callable
from typing import NamedTuple

from opencoder_jax.launch.cloud_tpu import Command
from opencoder_jax.recipe import UserError

# Seconds after which a command is taken to hang. Setting up a host takes minutes; so do creating and deleting, which
# wait for the cloud's operation, and gcloud itself tries ssh ten times.
_LIMITS = {"describe": 300, "create": 1800, "delete": 1800, "scp": 1800, "ssh": 3600}
TIMED_OUT = 124

_ABSENT = re.compile(r"NOT_FOUND|not found", re.IGNORECASE)
# gRPC's codes and their HTTP numbers for what passes; a rate, unlike a quota of chips; what is under way already (a
# create that was cut off); and a network's faults. ssh's own is exit code 255.
_PASSES = re.compile(
    r"UNAVAILABLE|DEADLINE_EXCEEDED|INTERNAL\b|ABORTED|CANCELLED|UNKNOWN\b|ALREADY_EXISTS|per minute|rate.?limit"
    r"|TOO_MANY_REQUESTS|\b(?:409|429|500|502|503|504)\b|timed? ?out|connection|network is unreachable|name resolution"
    r"|failed to resolve|broken pipe|return code \[255\]|temporar|try again|already exists|in progress",
    re.IGNORECASE,
)


class GcloudError(UserError):
    """A command of gcloud failed.

    Attributes:
        absent: what it asked for doesn't exist.
        passes: the same command may succeed later.
        printed: what it had printed until then: of several hosts some may have answered.
    """

    def __init__(self, message: str, absent: bool = False, passes: bool = False, printed: str = "") -> None:
        super().__init__(message)
        self.absent, self.passes, self.printed = absent, passes, printed


class Done(NamedTuple):
    """How a command ended; TIMED_OUT is the code of one that was cut off."""

    code: int
    out: str
    errors: str


def execute(command: Command, limit: float) -> Done:
    """Runs a command for at most `limit` seconds, then ends it with all that it has started.

    Raises:
        UserError: gcloud isn't installed.
    """
    try:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            start_new_session=True,  # its ssh would else hold the pipes open
        )
    except FileNotFoundError:
        raise UserError("gcloud isn't installed: https://cloud.google.com/sdk/docs/install") from None
    try:
        out, errors = process.communicate(timeout=limit)
        return Done(process.returncode, out, errors)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        out, errors = process.communicate()
        return Done(TIMED_OUT, out, f"{errors}\nno answer in {limit:.0f} seconds")
    except KeyboardInterrupt:
        os.killpg(process.pid, signal.SIGKILL)
        raise


class Gcloud:
    """Runs gcloud's commands by `run`, which is `execute` but in tests."""

    def __init__(self, run: Callable[[Command, float], Done] = execute) -> None:
        self.run = run

    def __call__(self, command: Command) -> str:
        """What a command printed.

        Raises:
            GcloudError: the command failed; the message has its last words.
            UserError: gcloud isn't installed.
        """
        action = command[4]
        done = self.run(command, _LIMITS[action])
        if not done.code:
            return done.out
        lines = [line for line in done.errors.splitlines() if line.strip()] or [f"exit code {done.code}"]
        # gcloud's own word comes with ERROR, maybe with details after it; a remote script's is the last line.
        words = next((line for line in reversed(lines) if line.startswith("ERROR")), lines[-1])
        remote = action in ("ssh", "scp")
        raise GcloudError(
            f"{shlex.join(command[:6])} …: {words}",
            absent=not remote and bool(_ABSENT.search(words)),
            passes=done.code in (TIMED_OUT, 255) or bool(_PASSES.search(words)),
            printed=done.out,
        )
