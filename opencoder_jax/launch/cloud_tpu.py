"""Cloud TPU VMs through gcloud: every command that this house gives it, as data.

A slice is asked for as a queued resource, which waits for capacity and says when it was taken away; queue and node have
one name. Source: Google Cloud's TPU documentation, "Manage queued resources" and "Cloud TPU configurations".
"""

import shlex
from collections.abc import Sequence
from dataclasses import dataclass

from opencoder_jax.recipe import UserError

Command = list[str]

# Of each generation, the image that its documentation names.
RUNTIMES = {
    "v4": "tpu-ubuntu2204-base",
    "v5litepod": "v2-alpha-tpuv5-lite",
    "v5p": "v2-alpha-tpuv5",
    "v6e": "v2-alpha-tpuv6e",
    "tpu7x": "v2-alpha-tpu7-ubuntu2404",
}

# Where the code lies on each host, from its home directory; what a training leaves beside it.
HOME = "opencoder-jax"
LOG, PROCESS, ENDED = "train.log", "train.pid", "train.ended"

# Before each host's answer to STATE.
MARK = "opencoder-jax-state:"


@dataclass(frozen=True)
class Slice:
    """A slice of TPUs: one virtual machine, or a pod of them that train together.

    Attributes:
        name: of the queued resource and its node.
        zone: such as us-east5-a.
        accelerator: type and size as gcloud has them, such as v5litepod-16 or v6e-256.
        project: None: gcloud's own.
        spot: cheaper, and taken away at any time.
    """

    name: str
    zone: str
    accelerator: str
    project: str | None = None
    spot: bool = False

    def __post_init__(self) -> None:
        if self.accelerator.partition("-")[0] not in RUNTIMES:
            known = ", ".join(f"{generation}-…" for generation in RUNTIMES)
            raise UserError(f"--accelerator={self.accelerator}: expected one of {known}")

    def create(self) -> Command:
        """Asks for the slice."""
        return [
            *self._gcloud("queued-resources", "create", self.name),
            f"--node-id={self.name}",
            f"--accelerator-type={self.accelerator}",
            f"--runtime-version={RUNTIMES[self.accelerator.partition('-')[0]]}",
            *(["--spot"] if self.spot else []),
        ]

    def state(self) -> Command:
        """Prints where the request stands: ACCEPTED, WAITING_FOR_RESOURCES, PROVISIONING, ACTIVE, SUSPENDED, FAILED."""
        return [*self._gcloud("queued-resources", "describe", self.name), "--format=value(state.state)"]

    def delete(self) -> Command:
        """Gives the slice back, with what is on its disks."""
        return [*self._gcloud("queued-resources", "delete", self.name), "--force", "--quiet"]

    def copy(self, archive: str) -> Command:
        """Copies a file into every host's home directory."""
        return [*self._gcloud("tpu-vm", "scp", archive, f"{self.name}:"), "--worker=all"]

    def shell(self, script: str, worker: str = "all") -> Command:
        """Runs a script of bash on every host, or on one."""
        return [
            *self._gcloud("tpu-vm", "ssh", self.name),
            f"--worker={worker}",
            f"--command=bash -c {shlex.quote(script)}",
        ]

    def _gcloud(self, *words: str) -> Command:
        project = [f"--project={self.project}"] if self.project else []
        return ["gcloud", "compute", "tpus", *words, f"--zone={self.zone}", *project]


def unpack(archive: str, setup: str | None) -> str:
    """A script that lays out the code and its environment on a host.

    Args:
        archive: the name of the copied file.
        setup: more to do, such as mounting a bucket.
    """
    lines = [
        "set -e",
        f"rm -rf {HOME} && mkdir {HOME} && tar -xzf {shlex.quote(archive)} -C {HOME} && cd {HOME}",
        "python3 -c 'import venv, ensurepip' 2>/dev/null || sudo apt-get install -qq -y python3-venv make",
        "make .venv && .venv/bin/python -m pip install --quiet 'jax[tpu]'",
        *([setup] if setup else []),
    ]
    return "\n".join(lines)


def start(verb: Sequence[str]) -> str:
    """A script that starts `python -m opencoder_jax VERB …` on a host and returns; its exit code will be in ENDED."""
    # The words stay unquoted where the home directory is meant: the shell replaces a leading ~ after = only so.
    words = " ".join(_quoted(word) for word in verb)
    run = f".venv/bin/python -u -m opencoder_jax {words} >>{LOG} 2>&1; echo $? >{ENDED}"
    # The process that waits for it lives on when the connection ends.
    behind = f"setsid bash -c {shlex.quote(run)} </dev/null >/dev/null 2>&1 & echo $! >{PROCESS}"
    return f"cd {HOME} && rm -f {ENDED} && {{ {behind}; }}"


# Prints the exit code of a host's training, "running", or "idle" where none was started.
STATE = (
    f"cd {HOME} 2>/dev/null || {{ echo {MARK}idle; exit; }}; "
    f"if [ -f {ENDED} ]; then echo {MARK}$(cat {ENDED}); "
    f"elif kill -0 $(cat {PROCESS}) 2>/dev/null; then echo {MARK}running; else echo {MARK}idle; fi"
)

# Tells the training to save and to leave.
STOP = f"cd {HOME} && pkill -TERM -P $(cat {PROCESS}) || true"


def tail(lines: int) -> str:
    """A script that prints the end of a host's log."""
    return f"tail -n {lines} {HOME}/{LOG}"


def states(printed: str) -> list[str]:
    """The answers of all hosts to STATE; gcloud's own words around them are left out."""
    return [
        line.partition(MARK)[2].strip()
        for line in printed.splitlines()
        if line.startswith(MARK) and line.strip() != MARK
    ]


def _quoted(word: str) -> str:
    """Quotes a word for bash, but leaves a ~/ at the start of a flag's value to be the remote home directory."""
    flag, equals, value = word.partition("=")
    if equals and value.startswith("~/"):
        return f'{shlex.quote(flag)}="$HOME"/{shlex.quote(value[2:])}'
    return shlex.quote(word)
