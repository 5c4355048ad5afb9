"""Cloud TPU VMs through gcloud: every command that this house gives it, as data, and what its answers mean.

A slice is asked for as a queued resource, which waits for capacity and says when it was taken away; queue and node have
one name. Source: Google Cloud's TPU documentation, "Manage queued resources" and "Cloud TPU configurations"; the states
are those of the API's QueuedResourceState.State and Node.State (v2).
"""

import getpass
import json
import os
import re
import shlex
from dataclasses import dataclass
from enum import Enum, auto

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

# Whose launcher asked for a slice. Only what bears it is ever deleted.
LABEL = "opencoder-jax"


class Meaning(Enum):
    """What a state means for a training."""

    ABSENT = auto()  # there is nothing: ask for it
    QUEUED = auto()  # it waits for capacity, for days perhaps
    PASSING = auto()  # it is on its way to another state: wait, but not for long
    READY = auto()
    LOST = auto()  # it never comes back from there: delete it and ask again


REQUESTS = {
    "": Meaning.ABSENT,
    "STATE_UNSPECIFIED": Meaning.PASSING,
    "CREATING": Meaning.QUEUED,  # whether it can be honoured is being found out
    "ACCEPTED": Meaning.QUEUED,  # the older word for WAITING_FOR_RESOURCES
    "WAITING_FOR_RESOURCES": Meaning.QUEUED,
    "PROVISIONING": Meaning.QUEUED,
    "ACTIVE": Meaning.READY,  # its node may be gone all the same
    "SUSPENDING": Meaning.PASSING,
    "SUSPENDED": Meaning.LOST,
    "FAILED": Meaning.LOST,
    "DELETING": Meaning.PASSING,
}

NODES = {
    "": Meaning.LOST,  # gone, though its request is ACTIVE
    "STATE_UNSPECIFIED": Meaning.PASSING,
    "CREATING": Meaning.PASSING,
    "READY": Meaning.READY,
    "RESTARTING": Meaning.PASSING,
    "REIMAGING": Meaning.PASSING,
    "DELETING": Meaning.PASSING,
    "REPAIRING": Meaning.PASSING,
    "STOPPED": Meaning.LOST,  # its chips are given back: starting it again doesn't wait for capacity, a request does
    "STOPPING": Meaning.PASSING,
    "STARTING": Meaning.PASSING,
    "PREEMPTED": Meaning.LOST,
    "TERMINATED": Meaning.LOST,
    "HIDING": Meaning.PASSING,
    "HIDDEN": Meaning.LOST,
    "UNHIDING": Meaning.PASSING,
    "UNKNOWN": Meaning.LOST,  # after a failed repair
}


@dataclass(frozen=True)
class QueuedResource:
    """A queued resource as it stands; by default, none.

    Attributes:
        state: one of REQUESTS.
        ours: this user's launcher made it.
        why: it failed; empty where nothing is said.
    """

    state: str = ""
    ours: bool = False
    why: str = ""

    @staticmethod
    def parse(printed: str) -> "QueuedResource":
        """Reads what `describe` printed."""
        resource = json.loads(printed or "{}")
        state = resource.get("state", {})
        labels = [spec.get("node", {}).get("labels", {}) for spec in resource.get("tpu", {}).get("nodeSpec", [])]
        why = state.get("failedData", {}).get("error", {}).get("message", "")
        return QueuedResource(
            state.get("state", ""), bool(labels) and all(each.get(LABEL) == user() for each in labels), why
        )


@dataclass(frozen=True)
class Node:
    """The virtual machines of a slice; by default, none. `state` is one of NODES."""

    state: str = ""
    hosts: int = 0

    @staticmethod
    def parse(printed: str) -> "Node":
        """Reads what `describe` printed."""
        node = json.loads(printed or "{}")
        return Node(node.get("state", ""), max(1, len(node.get("networkEndpoints", []))))


@dataclass(frozen=True)
class Slice:
    """A slice of TPUs: one virtual machine, or a pod of them that train together.

    Attributes:
        name: of the queued resource and its node.
        zone: such as us-east5-a.
        accelerator: type and size as gcloud has them, such as v5litepod-16 or v6e-256.
        project: None: gcloud's own.
        spot: cheaper, and taken away at any time.
        network: None: `default`.
        subnetwork: None: the network's own.
        service_account: as which the hosts read and write buckets; None: Compute Engine's.
        internal_ips: the hosts have no address outside the network; this machine is in it.
    """

    name: str
    zone: str
    accelerator: str
    project: str | None = None
    spot: bool = False
    network: str | None = None
    subnetwork: str | None = None
    service_account: str | None = None
    internal_ips: bool = False

    def __post_init__(self) -> None:
        if self.accelerator.partition("-")[0] not in RUNTIMES:
            known = ", ".join(f"{generation}-…" for generation in RUNTIMES)
            raise UserError(f"--accelerator={self.accelerator}: expected one of {known}")

    def create(self) -> Command:
        """Asks for the slice."""
        network = {"network": self.network, "subnetwork": self.subnetwork, "service-account": self.service_account}
        return [
            *self._gcloud("queued-resources", "create", self.name),
            f"--node-id={self.name}",
            f"--accelerator-type={self.accelerator}",
            f"--runtime-version={RUNTIMES[self.accelerator.partition('-')[0]]}",
            f"--labels={LABEL}={user()}",
            *(f"--{flag}={value}" for flag, value in network.items() if value),
            *(["--internal-ips"] if self.internal_ips else []),
            *(["--spot"] if self.spot else []),
        ]

    def request(self) -> Command:
        """Prints the queued resource, for QueuedResource.parse."""
        return [*self._gcloud("queued-resources", "describe", self.name), "--format=json"]

    def node(self) -> Command:
        """Prints the node, for Node.parse."""
        return [*self._gcloud("tpu-vm", "describe", self.name), "--format=json"]

    def delete(self) -> Command:
        """Gives the slice back, with what is on its disks."""
        return [*self._gcloud("queued-resources", "delete", self.name), "--force", "--quiet"]

    def copy(self, archive: str) -> Command:
        """Copies a file into every host's home directory."""
        return [*self._gcloud("tpu-vm", "scp", archive, f"{self.name}:"), "--worker=all", *self._inside()]

    def shell(self, script: str, worker: str = "all") -> Command:
        """Runs a script of bash on every host, or on one."""
        return [
            *self._gcloud("tpu-vm", "ssh", self.name),
            f"--worker={worker}",
            *self._inside(),
            f"--command=bash -c {shlex.quote(script)}",
        ]

    def _inside(self) -> list[str]:
        return ["--internal-ip"] if self.internal_ips else []

    def _gcloud(self, *words: str) -> Command:
        project = [f"--project={self.project}"] if self.project else []
        return ["gcloud", "compute", "tpus", *words, f"--zone={self.zone}", *project]


def user() -> str:
    """Who runs the launcher, as the value of a label: small letters, digits, - and _."""
    try:
        name = getpass.getuser()
    except (KeyError, OSError):  # a container's user without a name
        name = f"uid-{os.getuid()}"
    return re.sub(r"[^a-z0-9_-]", "-", name.lower())[:63]
