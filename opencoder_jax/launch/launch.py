"""python -m opencoder_jax launch: a training on a Cloud TPU VM or pod, from asking for it to giving it back.

Thin over gcloud: `--dry_run` prints every command instead of running it, so whatever is done here can be done by hand.
Nothing is remembered on this machine; what is known is the slice's name, and the rest is asked of the cloud. So any
action can be interrupted and given again.
"""

import argparse
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from opencoder_jax.launch import cloud_tpu
from opencoder_jax.launch.cloud_tpu import Command, Slice
from opencoder_jax.recipe import ROOT, TryAgain, UserError, refuse_unknown

ACTIONS = {
    "run": "create, start and watch: all that a training needs",
    "create": "asks for the slice and waits for it",
    "start": "copies the code of this checkout to every host, and starts the training there",
    "watch": "follows the log; starts again what was preempted or lost; ends with the training",
    "logs": "prints the end of the first host's log",
    "status": "prints the state of the slice and of the training on each host",
    "stop": "lets the training save a checkpoint and leave",
    "delete": "gives the slice back",
}
# The states of a queued resource that it never leaves: the slice was taken away, or never came.
LOST = ("SUSPENDED", "SUSPENDING", "FAILED")


def main(argv: list[str]) -> None:
    """Parses the flags and acts.

    Raises:
        UserError: a flag is wrong, gcloud is missing or refuses, or the training ended by a mistake in its recipe.
        TryAgain: the training stopped from outside more often than `--restarts`.
    """
    verb = argv[argv.index("--") + 1 :] if "--" in argv else []
    parser = argparse.ArgumentParser(
        prog="python -m opencoder_jax launch",
        description="Trains on a Cloud TPU VM or pod. Actions:\n"
        + "\n".join(f"  {name:8} {what}" for name, what in ACTIONS.items()),
        epilog=(
            "example:\n"
            "  python -m opencoder_jax launch run --name=opencoder --zone=us-east5-a --accelerator=v6e-256 --spot \\\n"
            "      --setup='mkdir -p ~/bucket && gcsfuse --implicit-dirs BUCKET ~/bucket' -- train \\\n"
            "      --gin_file=gin_configs/pretrain/opencoder_8b.gin --gin.TrainConfig.steps=1000 \\\n"
            "      --data=~/bucket/tokens --output=~/bucket/runs/pretrain\n"
        ),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("action", choices=ACTIONS, metavar="ACTION")
    parser.add_argument("--name", required=True, help="of the slice")
    parser.add_argument("--zone", required=True)
    parser.add_argument("--accelerator", required=True, metavar="TYPE", help="such as v5litepod-16, v5p-128, v6e-256")
    parser.add_argument("--project", help="gcloud's own by default")
    parser.add_argument("--spot", action="store_true", help="cheaper, and taken away at any time")
    parser.add_argument("--setup", metavar="SCRIPT", help="bash to run on each host once the code is there")
    parser.add_argument("--restarts", type=int, default=100, metavar="N", help="of the training, at most (100)")
    parser.add_argument("--poll", type=float, default=60, metavar="SECONDS", help="between two looks (60)")
    parser.add_argument("--dry_run", action="store_true", help="prints every command and runs none")
    flags, rest = parser.parse_known_args(argv[: argv.index("--")] if "--" in argv else argv)
    refuse_unknown(parser, rest)
    if flags.action in ("run", "start", "watch") and verb[:1] != ["train"]:
        raise UserError("say what to train after the flags: … -- train --gin_file=… --data=… --output=…")
    place = Slice(flags.name, flags.zone, flags.accelerator, flags.project, flags.spot)
    training = Training(place, [*verb, "--hosts=auto"], flags.setup, flags.poll, Gcloud(flags.dry_run))
    if flags.action in ("run", "create"):
        training.create()
    if flags.action in ("run", "start"):
        training.start()
    if flags.action in ("run", "watch"):
        training.watch(flags.restarts)
    if flags.action == "logs":
        print(training.gcloud(place.shell(cloud_tpu.tail(200), worker="0")), end="")
    if flags.action == "status":
        print(f"{place.name}: {training.state()}")
        for host, state in enumerate(training.hosts()):
            print(f"host {host}: {state}")
    if flags.action == "stop":
        training.gcloud(place.shell(cloud_tpu.STOP))
    if flags.action == "delete":
        training.gcloud(place.delete())


class Gcloud:
    """Runs gcloud's commands, or prints them."""

    def __init__(self, dry_run: bool) -> None:
        self.dry_run = dry_run

    def __call__(self, command: Command) -> str:
        """What a command printed.

        Raises:
            UserError: gcloud isn't installed, or the command failed; the message has its last words.
        """
        if self.dry_run:
            print(shlex.join(command))
            return ""
        try:
            done = subprocess.run(command, capture_output=True, text=True, check=False)
        except FileNotFoundError:
            raise UserError("gcloud isn't installed: https://cloud.google.com/sdk/docs/install") from None
        if done.returncode:
            words = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
            raise UserError(f"{shlex.join(command[:6])} …: {words[-1]}")
        return done.stdout


class Training:
    """A training on a slice."""

    def __init__(self, place: Slice, verb: Sequence[str], setup: str | None, poll: float, gcloud: Gcloud) -> None:
        self.place, self.verb, self.setup, self.poll, self.gcloud = place, verb, setup, poll, gcloud

    def create(self) -> None:
        """Asks for the slice, unless that was done, and waits until it's there.

        Raises:
            UserError: the request failed for good.
        """
        known = self.state()
        if known in LOST:  # a request never comes back from there
            self.gcloud(self.place.delete())
            known = ""
        if not known:
            self.gcloud(self.place.create())
        while not self.gcloud.dry_run and (state := self.state()) != "ACTIVE":
            if state in LOST:
                raise UserError(f"{self.place.name}: the request for {self.place.accelerator} is {state}")
            _say(f"{self.place.name}: {state or 'asked for'}")
            time.sleep(self.poll)

    def start(self) -> None:
        """Copies this checkout to every host, sets it up there and starts the training."""
        with tempfile.TemporaryDirectory() as directory:
            archive = Path(directory) / "opencoder-jax.tar.gz"
            pack = ["git", "-C", str(ROOT), "archive", "--format=tar.gz", f"--output={archive}", "HEAD"]
            if self.gcloud.dry_run:
                print(shlex.join(pack))
            else:
                _pack(pack)
            self.gcloud(self.place.copy(str(archive)))
            self.gcloud(self.place.shell(cloud_tpu.unpack(archive.name, self.setup)))
        self.gcloud(self.place.shell(cloud_tpu.start(self.verb)))

    def watch(self, restarts: int) -> None:
        """Looks from time to time, and starts again what stopped from outside, until the training has ended.

        Raises:
            UserError: the training ended by itself and not well; its log's last lines are printed.
            TryAgain: it stopped more often than `restarts`.
        """
        if self.gcloud.dry_run:
            for command in (self.place.state(), self.place.shell(cloud_tpu.STATE)):
                self.gcloud(command)
            return
        left = restarts
        while True:
            slice_lost = self.state() in (*LOST, "")
            hosts = [] if slice_lost else self.hosts()
            if hosts and all(host == "0" for host in hosts):
                _say(f"{self.place.name}: the training is done")
                return
            if any(host in ("1", "2") for host in hosts):
                print(self.gcloud(self.place.shell(cloud_tpu.tail(20), worker="0")), end="", file=sys.stderr)
                raise UserError(f"{self.place.name}: the training ended with an error (its log's end stands above)")
            if slice_lost or all(host != "running" for host in hosts):
                if not left:
                    raise TryAgain(f"{self.place.name}: the training was lost {restarts + 1} times")
                left -= 1
                _say(
                    f"{self.place.name}: {'the slice was taken away' if slice_lost else 'the training stopped'}; again"
                )
                if slice_lost:
                    self.create()
                    self.start()
                else:
                    self.gcloud(self.place.shell(cloud_tpu.start(self.verb)))
            else:
                _say(self.gcloud(self.place.shell(cloud_tpu.tail(1), worker="0")).strip().rsplit("\r", 1)[-1])
            time.sleep(self.poll)

    def state(self) -> str:
        """Where the request for the slice stands; empty when there is none."""
        try:
            return self.gcloud(self.place.state()).strip()
        except UserError as error:
            if "NOT_FOUND" in str(error) or "not found" in str(error).lower():
                return ""
            raise

    def hosts(self) -> list[str]:
        """The state of the training on each host: its exit code, "running" or "idle"."""
        return cloud_tpu.states(self.gcloud(self.place.shell(cloud_tpu.STATE)))


def _pack(command: Command) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise UserError(f"{ROOT}: the code is copied from a git checkout ({done.stderr.strip()})")


def _say(words: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {words}", file=sys.stderr, flush=True)
