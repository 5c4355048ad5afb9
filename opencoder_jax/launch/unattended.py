"""A training on a slice without anybody by: look, do one thing about it, wait, until it is trained or can't be.

Nothing is remembered from one look to the next but how long things have lasted and how often they were lost: what
stands is asked of the cloud and of the hosts. So a launcher that was interrupted, or whose command was cut off half
way, goes on from what is there. Every wait has an end, and nothing that others made is deleted.
"""

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import TypeVar

from opencoder_jax.launch import host_scripts
from opencoder_jax.launch.cloud_tpu import NODES, REQUESTS, Meaning, Node, QueuedResource, Slice
from opencoder_jax.launch.gcloud import Gcloud, GcloudError
from opencoder_jax.launch.host_scripts import Host
from opencoder_jax.recipe import TryAgain, UserError

T = TypeVar("T")

# Seconds: how long a state that passes may last, or a training print nothing, before it is taken for lost.
PATIENCE = 3600.0
# Seconds between two looks while gcloud fails, at most.
_SLOWEST = 600.0
# How often in a row a step may fail by itself (no capacity or network to blame) before it counts as a defect.
_TRIES = 5
# What a training exits with when another try would be the same: a defect, a mistake, the keyboard.
_DEFECTS = ("1", "2", "130")


class Goal(IntEnum):
    """How far to go."""

    SLICE = 0  # the hosts are there
    STARTED = 1  # the training was started, or runs already
    TRAINED = 2


class Ended(UserError):
    """The training, or what it needs, failed for good: the slice is of no more use."""


@dataclass(frozen=True)
class Clock:
    """Seconds since some moment, and how to let them pass."""

    now: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep


@dataclass(frozen=True)
class Job:
    """What hosts are to run.

    Attributes:
        archive: the packed code.
        digest: of the code, the command and the setup: a host that bears another one runs something else.
        verb: the command after `python -m opencoder_jax`.
        setup: bash to run on each host once the code is there.
    """

    archive: Path
    digest: str
    verb: list[str]
    setup: str | None = None


@dataclass(frozen=True)
class Bounds:
    """What ends a launch: so many losses, or so many seconds without a training. Between two looks: `poll` seconds."""

    restarts: int = 100
    wait: float = 168 * 3600.0
    poll: float = 60.0


class Training:
    """A training on a slice."""

    def __init__(self, place: Slice, job: Job, limits: Bounds, gcloud: Gcloud, clock: Clock) -> None:
        self.place, self.job, self.limits, self.gcloud, self.clock = place, job, limits, gcloud, clock
        self._ran = self._looked = clock.now()  # when a training ran last; when the last look was
        self._passing = 0.0  # seconds for which what should pass has lasted
        self._asked = self._started = False
        self._doubt = False  # the last look found the node lost
        self._losses = self._useless = self._failures = 0
        self._last = "never seen"

    def until(self, goal: Goal) -> None:
        """Goes on until the goal is reached.

        Raises:
            Ended: the training failed by itself, or its slice or set-up does each time.
            TryAgain: it was lost too often, or nothing has run for too long.
            UserError: gcloud refuses for good, or the slice is somebody else's or runs something else.
        """
        while True:
            pause = self.limits.poll
            try:
                if self._step(goal):
                    return
                self._failures = 0
            except GcloudError as error:
                self._failures += 1
                if not error.passes and self._failures >= _TRIES:
                    raise Ended(f"{self.place.name}: {error} ({_TRIES} times){_last_lines(error.printed)}") from None
                pause = min(pause * 2**self._failures, max(pause, _SLOWEST))
                self._say(f"{error}; again in {pause:.0f} s")
            if self.clock.now() - self._ran > self.limits.wait:
                hours = self.limits.wait / 3600
                raise TryAgain(f"{self.place.name}: no training has run for {hours:g} hours (it was {self._last})")
            self.clock.sleep(pause)

    def request(self) -> QueuedResource:
        """Where the request for the slice stands. Raises UserError where gcloud refuses to say."""
        return self._ask(self.place.request(), QueuedResource.parse)

    def hosts(self) -> list[Host]:
        """The hosts that answer."""
        try:
            return host_scripts.parse(self.gcloud(self.place.shell(host_scripts.STATE)))
        except GcloudError as error:
            self._say(str(error))
            return host_scripts.parse(error.printed)

    def delete(self) -> bool:
        """Gives the slice back, if it is there and this user's launcher made it; whether it is gone now.

        Raises:
            UserError: it can't be deleted; the message has the command to do it by hand.
        """
        asked = False
        for attempt in range(2 * _TRIES):
            if attempt > 1:  # the second look only sees whether it went
                self.clock.sleep(min(self.limits.poll * 2**attempt, _SLOWEST))
            try:
                request = self.request()
                if request.state in ("", "DELETING"):
                    return True
                if not request.ours:
                    return asked  # what has this name by now is another's
                self.gcloud(self.place.delete())
                asked = True
            except GcloudError as error:
                self._say(str(error))
        raise UserError(f"{self.place.name}: couldn't be deleted; it costs until then: {' '.join(self.place.delete())}")

    def _step(self, goal: Goal) -> bool:
        """Looks and does at most one thing; whether the goal is reached."""
        request = self.request()
        since, self._looked = self.clock.now() - self._looked, self.clock.now()
        meaning = REQUESTS.get(request.state, Meaning.PASSING)
        if meaning is not Meaning.READY:
            self._doubt = False
        if meaning is Meaning.ABSENT:
            if self._asked:
                self._lost("its request is gone")
            self._create()
        elif meaning is Meaning.QUEUED:
            self._passing = 0
            self._say(request.state)
        elif meaning is Meaning.PASSING:
            self._wait(request, request.state or "in no state", since)
        elif meaning is Meaning.LOST:
            why = f"its request is {request.state} {request.why}".strip()
            if request.state == "FAILED":
                self._give_up(why)
            self._replace(request, why)
        else:
            return self._look_at_node(goal, request, since)
        return False

    def _look_at_node(self, goal: Goal, request: QueuedResource, since: float) -> bool:
        self._asked = True
        node = self._ask(self.place.node(), Node.parse)
        meaning = NODES.get(node.state, Meaning.PASSING)
        if meaning is Meaning.LOST:
            # A slice is dear: one odd answer isn't enough.
            if self._doubt:
                self._replace(request, f"its node is {node.state or 'gone'}")
            self._doubt = not self._doubt
            return False
        self._doubt = False
        if meaning is not Meaning.READY:
            self._wait(request, f"its node is {node.state}", since)
            return False
        return goal == Goal.SLICE or self._look_at_hosts(goal, request, node, since)

    def _look_at_hosts(self, goal: Goal, request: QueuedResource, node: Node, since: float) -> bool:
        hosts = self.hosts()
        ours = [host for host in hosts if host.code == self.job.digest]
        running = [host for host in hosts if host.state == "running"]
        if any(host.code != self.job.digest for host in running):
            raise UserError(
                f"{self.place.name}: it runs other code, or another command, than this checkout and these flags; give"
                " it the same again, or `stop` it"
            )
        if len(ours) >= node.hosts and all(host.state == "0" for host in ours):
            return True
        if goal == Goal.TRAINED and any(host.state in _DEFECTS for host in ours):
            self._ended_by_itself(ours)
        if goal == Goal.TRAINED and not running and any(host.state == "stopped" for host in ours):
            raise UserError(f"{self.place.name}: `launch stop` has stopped the training; `launch start` goes on")
        if running and min(host.silent for host in running) < PATIENCE:
            self._ran, self._passing, self._useless = self.clock.now(), 0, 0
            self._say(min(running, key=lambda host: host.silent).last or "running")
            if goal == Goal.STARTED:
                return True
            if all(host.state in ("running", "0") for host in hosts):
                return False
            self._lost("hosts have left it")
        elif running:
            self._lost(f"it has printed nothing for {PATIENCE / 60:.0f} minutes")
            self.gcloud(self.place.shell(host_scripts.KILL))
        elif len(hosts) < node.hosts:
            self._wait(request, f"{node.hosts - len(hosts)} of {node.hosts} hosts don't answer", since)
            return False
        elif self._started:
            self._lost(f"the training stopped ({', '.join(sorted({host.state for host in hosts}))})")
        self._start(ready=len(ours) == len(hosts) and all(host.ready for host in ours))
        return goal == Goal.STARTED

    def _start(self, ready: bool) -> None:
        """Sets up the hosts where need be, and starts the training on those where it doesn't run."""
        if not ready:
            self._say("setting up its hosts")
            archive = self.job.archive
            self.gcloud(self.place.copy(str(archive)))
            self.gcloud(self.place.shell(host_scripts.set_up(archive.name, self.job.digest, self.job.setup)))
        self._started = True
        self.gcloud(self.place.shell(host_scripts.start(self.job.verb)))
        self._passing = 0

    def _create(self) -> None:
        try:
            self.gcloud(self.place.create())
        except GcloudError as error:
            if not error.passes:
                raise UserError(str(error)) from None
            raise
        self._asked = True
        self._say("asked for")

    def _wait(self, request: QueuedResource, what: str, since: float) -> None:
        """Waits for what should pass; replaces the slice when it doesn't."""
        self._say(what)
        self._passing += since
        if self._passing > PATIENCE:
            if request.state == "DELETING":
                raise Ended(f"{self.place.name}: it is being deleted for {PATIENCE / 60:.0f} minutes")
            why = f"{what}, for {PATIENCE / 60:.0f} minutes"
            self._give_up(why)
            self._replace(request, why)
            self._passing = 0

    def _replace(self, request: QueuedResource, why: str) -> None:
        """Gives a slice back from which no training comes back; the next look asks for another.

        Raises:
            UserError: somebody else made it.
        """
        if not request.ours:
            raise UserError(
                f"{self.place.name}: {why}; this launcher didn't make it, so it doesn't delete it. By hand:"
                f" {' '.join(self.place.delete())}"
            )
        if self._asked:
            self._lost(why)
        self._asked = self._doubt = False
        try:
            self.gcloud(self.place.delete())
        except GcloudError as error:
            if not error.absent:
                raise

    def _give_up(self, why: str) -> None:
        """Counts slices that were of no use, one after the other, though nobody took them. Raises Ended."""
        self._useless += 1
        if self._useless >= _TRIES:
            raise Ended(f"{self.place.name}: {_TRIES} slices in a row were of no use, now because {why}")

    def _lost(self, why: str) -> None:
        self._losses += 1
        if self._losses > self.limits.restarts:
            raise TryAgain(f"{self.place.name}: the training was lost {self._losses} times, now because {why}")
        self._say(f"{why}; again ({self._losses} of {self.limits.restarts})")

    def _ended_by_itself(self, hosts: list[Host]) -> None:
        """Fetches the logs of the hosts whose training failed. Raises Ended."""
        failed = ", ".join(f"{host.name} with exit code {host.state}" for host in hosts if host.state in _DEFECTS)
        kept = Path(f"{self.place.name}.failed.log")
        try:
            log = self.gcloud(self.place.shell(host_scripts.FAILED_LOG))
            kept.write_text(log, encoding="utf-8")
            where = f"the logs' ends are in {kept}"
        except (GcloudError, OSError) as error:
            log, where = getattr(error, "printed", ""), f"its log couldn't be kept: {error}"
        print(_last_lines(log), file=sys.stderr)
        raise Ended(f"{self.place.name}: the training ended with an error: {failed}; {where}")

    def _ask(self, describe: list[str], parse: Callable[[str], T]) -> T:
        """What `describe` says, parsed; "" where there is nothing. Raises UserError where gcloud refuses for good."""
        try:
            return parse(self.gcloud(describe))
        except GcloudError as error:
            if error.absent:
                return parse("")
            if not error.passes:
                raise UserError(str(error)) from None
            raise
        except ValueError:  # no JSON, or half of it
            raise GcloudError(f"{' '.join(describe[:6])} …: its answer can't be read", passes=True) from None

    def _say(self, words: str) -> None:
        self._last = words
        print(f"{time.strftime('%H:%M:%S')} {self.place.name}: {words}", file=sys.stderr, flush=True)


def _last_lines(text: str) -> str:
    return "".join(f"\n{line}" for line in text.splitlines()[-20:])
