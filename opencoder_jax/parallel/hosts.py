"""Several hosts, one run: how they join, who writes, and what happens when one of them is told to go or dies.

Every host runs the same command. `supervise` keeps the process that trains in a child of its own: JAX ends the process
of every host, from inside and without a Python exception, when one of them is gone, and somebody has to say what that
means and start again. A run loses what came after its last checkpoint then, and nothing else.

A host that is about to be taken away gets SIGTERM from its cloud or scheduler. The hosts agree on a step that all of
them can still reach, save there, and leave with exit code 75 (`recipe.TRY_AGAIN`).
"""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import FrameType, TracebackType
from typing import Any, NoReturn, Self

import jax
import numpy as np
from jax.experimental import multihost_utils

from opencoder_jax.recipe import TRY_AGAIN, TryAgain, UserError

# What the child that trains exits with when another host is gone; the supervisor starts it again.
_LOST = 76
# Marks the child that trains, so that it doesn't become a supervisor itself.
_CHILD = "OPENCODER_JAX_TRAINS"
# A host that no longer answers is taken for dead after so many seconds; one whose process ended, at once.
_SILENCE_SECONDS = 60


@dataclass(frozen=True)
class Hosts:
    """Which hosts there are, and which of them this is.

    Attributes:
        count: hosts of the run; None: as Cloud TPU, Slurm or Open MPI tell it.
        index: this host among them, from 0; None likewise.
        coordinator: `address:port` of host 0, where the hosts meet; None likewise.
    """

    count: int | None = None
    index: int | None = None
    coordinator: str | None = None

    def join(self) -> None:
        """Waits for all hosts. Call it before anything asks JAX for its devices.

        Raises:
            UserError: the hosts aren't named as they must be.
        """
        try:
            jax.distributed.initialize(
                self.coordinator, self.count, self.index, heartbeat_timeout_seconds=_SILENCE_SECONDS
            )
        except (ValueError, TypeError) as error:
            raise UserError(
                f"hosts: {error} Give --hosts=N --host=I --coordinator=ADDRESS:PORT on each, or start them on Cloud"
                " TPU, by Slurm or by Open MPI with --hosts=auto"
            ) from None
        except jax.errors.JaxRuntimeError as error:
            leave(error, "the hosts didn't find each other")


def leads() -> bool:
    """Whether this host writes what a run writes once."""
    return jax.process_index() == 0


def wait_for_all(what: str) -> None:
    """Returns when every host has come to the same point; `what` names it."""
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(what)


def all_agree(yes: bool) -> bool:
    """Whether every host says yes."""
    return yes if jax.process_count() == 1 else bool(np.all(multihost_utils.process_allgather(np.array(yes))))


def refuse_differences(plan: Mapping[str, str]) -> None:
    """Compares what each host is about to do, before it does it: hosts that differ would wait for each other for ever.

    Raises:
        UserError: on every host, unless all say the same under each name; the message names the first that differs.
    """
    if jax.process_count() == 1:
        return
    told = np.frombuffer(json.dumps(dict(plan)).encode(), np.uint8)
    longest = int(np.max(multihost_utils.process_allgather(np.array(len(told)))))
    padded = np.pad(told, (0, longest - len(told)), constant_values=ord(" "))
    first, *others = (json.loads(row.tobytes()) for row in np.asarray(multihost_utils.process_allgather(padded)))
    for host, other in enumerate(others, 1):
        for name in first | other:
            if first.get(name) != other.get(name):
                raise UserError(
                    f"the hosts differ: {name} is {first.get(name)} on host 0 and {other.get(name)} on host {host};"
                    " start all with the same flags, data and release"
                )


def leave(error: Exception, why: str = "another host of this run is gone") -> NoReturn:
    """Ends this process at once, for the supervisor to start again: whoever waits for a lost host would wait long.

    Nothing is cleaned up, as after a kill: what a run writes is whole or not there.
    """
    print(f"\n{why} ({_first_line(error)})", file=sys.stderr, flush=True)
    sys.stdout.flush()
    os._exit(_LOST)


class Preemption:
    """Learns that this process is told to go: by SIGTERM, or by Ctrl-C. A second signal ends it as ever.

    Attributes:
        by_keyboard: it was Ctrl-C.
    """

    def __init__(self) -> None:
        self._told = self.by_keyboard = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Self:
        # With several hosts JAX catches SIGTERM on whichever host gets it, and the supervisor hears the keyboard.
        if jax.process_count() == 1:
            self._before = {number: signal.signal(number, self._notice) for number in (signal.SIGTERM, signal.SIGINT)}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._restore()

    def reached(self, step: int) -> bool:
        """Whether to stop after this step. Every host asks after every step, and all get the same answer."""
        if jax.process_count() == 1:
            return self._told
        return bool(multihost_utils.reached_preemption_sync_point(step))

    def _notice(self, number: int, frame: FrameType | None) -> None:
        self._told, self.by_keyboard = True, number == signal.SIGINT
        self._restore()

    def _restore(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)


def is_supervised() -> bool:
    """Whether this is the child that trains."""
    return _CHILD in os.environ


def supervise(command: Sequence[str], restarts: int) -> None:
    """Runs a command of several hosts in a child, and starts it again when it ended for a reason outside itself.

    Args:
        command: what to run.
        restarts: how often, at most.

    Raises:
        TryAgain: there are no restarts left.
        SystemExit: the child's own exit code, for what another try wouldn't mend.
    """
    told: list[int] = []
    for attempt in range(restarts + 1):
        child = subprocess.Popen(command, env=os.environ | {_CHILD: "1"})

        def hand_on(number: int, frame: FrameType | None, child: subprocess.Popen[bytes] = child) -> None:
            child.send_signal(signal.SIGKILL if told else signal.SIGTERM)
            told.append(number)

        before = {number: signal.signal(number, hand_on) for number in (signal.SIGTERM, signal.SIGINT)}
        try:
            code = child.wait()
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
        if code == 0:
            return
        # Told to go, a defect, a mistake, the keyboard: the child has said so, and another try would be the same.
        if told or code in (TRY_AGAIN, 1, 2, 130):
            sys.exit(TRY_AGAIN if told else code)
        ending = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
        print(
            f"this host's training ended ({ending}): the process was killed, or another host is gone; "
            + (f"starting again from the last checkpoint ({attempt + 1} of {restarts})" if attempt < restarts else ""),
            file=sys.stderr,
            flush=True,
        )
    raise TryAgain(f"a host was lost {restarts + 1} times; start all hosts again with the same command")


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0][:200]
