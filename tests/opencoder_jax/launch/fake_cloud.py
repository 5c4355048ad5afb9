"""A Cloud TPU that plays whatever its seed says: every state, errors of every code, stalls, reboots, vanishings.

In a process it stands in for `gcloud.execute` and for the clock; run as a program it is gcloud itself, its state in a
file, where each command lets some minutes pass. It keeps what a launcher must not do in `sins`.
"""

import json
import os
import pickle
import random
import sys
from pathlib import Path
from typing import Any

from opencoder_jax.launch import host_scripts
from opencoder_jax.launch.cloud_tpu import LABEL, NODES, REQUESTS
from opencoder_jax.launch.gcloud import TIMED_OUT, Done

# What gcloud says, and its exit code. The last ones are for good.
PASSING_ERRORS = [
    ("UNAVAILABLE: The service is currently unavailable.", 1),
    ("DEADLINE_EXCEEDED: Deadline expired before operation could complete.", 1),
    ("INTERNAL: an internal error has occurred", 1),
    ("ABORTED: The operation was aborted.", 1),
    ("UNKNOWN: unknown error", 1),
    ("RESOURCE_EXHAUSTED: Quota exceeded for quota metric 'Read requests' per minute", 1),
    ("HTTPError 503: Service Unavailable", 1),
    ("gcloud crashed (ConnectionError): ('Connection aborted.', RemoteDisconnected())", 1),
    ("Failed to resolve 'tpu.googleapis.com' ([Errno -3] Temporary failure in name resolution)", 1),
]
FATAL_ERRORS = [
    ("PERMISSION_DENIED: Permission 'tpu.nodes.get' denied", 1),
    ("INVALID_ARGUMENT: Cloud TPU received a bad request.", 1),
    ("UNAUTHENTICATED: Request had invalid authentication credentials.", 16),
    ("RESOURCE_EXHAUSTED: Quota limit 'TPUV6EPerProjectPerZone' has been exceeded.", 1),
]
SSH_ERROR = ("(gcloud.compute.tpus.tpu-vm.ssh) [/usr/bin/ssh] exited with return code [255].", 255)
# How a training ends: trained, told to go, killed, a host lost, its Python gone, a defect, a mistake, the keyboard.
ENDINGS = ["0"] * 8 + ["75"] * 6 + ["137", "134", "76", "127"] * 2 + ["hang"] * 3 + ["1", "2", "130"]


class Cloud:
    """One slice's worth of cloud. `trouble` is the chance that something happens between two commands."""

    def __init__(self, seed: int, hosts: int = 2, step: float = 0.0) -> None:
        self.random = random.Random(seed)
        self.trouble = self.random.choice([0.0, 0.01, 0.05, 0.2])
        self.errors = self.random.choice([0.0, 0.05, 0.2, 0.5])
        self.fatal = self.random.choice([0.0, 0.0, 0.0, 0.002])
        self.sticky = self.random.random() < 0.15  # some state lasts for ever
        self.endings = self.random.choice([ENDINGS, ["0"], ["75", "137", "0"], [self.random.choice(ENDINGS)]])
        self.count, self.step, self.time = hosts, step, 0.0
        self.request = self.node = ""
        self.label = ""
        self.hosts: list[dict[str, Any]] = []
        self.trained = False
        self.sins: list[str] = []
        self.asked: list[str] = []
        self.seen: set[str] = set()
        if self.random.random() < 0.15:  # somebody's, or an earlier launch's, is there
            self._make(self.random.choice(["", "somebody", "me"]), self.random.choice(list(REQUESTS)[1:]))

    def now(self) -> float:
        return self.time

    def sleep(self, seconds: float) -> None:
        """Lets time pass; everything that happens by itself happens here."""
        self.time += seconds
        for host in self.hosts:
            if host["state"] == "running" and host["ends"] < self.time and host["ending"] != "hang":
                host["state"] = host["ending"]
                host["ready"] = host["ready"] and host["ending"] != "127"
            if host["state"] == "running" and host["ending"] != "hang":
                host["printed"] = self.time
        self.trained = self.trained or (bool(self.hosts) and all(host["state"] == "0" for host in self.hosts))
        if self.request and self.random.random() < self.trouble and not (self.sticky and self._is_bad()):
            self._trouble()
        elif self.request and self.random.random() < 0.5 and not (self.sticky and self._is_bad()):
            self._better()

    def execute(self, command: list[str], limit: float) -> Done:
        """Stands in for gcloud.execute."""
        if self.step:
            self.sleep(self.random.random() * self.step)
        group, action = command[3:5]
        self.asked.append(action)
        assert len(self.asked) < 200_000, "it asks for ever"
        flags = dict(word[2:].split("=", 1) for word in command if word.startswith("--") and "=" in word)
        if self.random.random() < self.fatal:
            return _failed(self.random.choice(FATAL_ERRORS))
        before = self.random.random() < 0.5  # whether a failed command did nothing, or all
        if self.random.random() < self.errors:
            if self.random.random() < 0.1:
                self.time += limit
                fault = Done(TIMED_OUT, "", "no answer")
            else:
                fault = _failed(SSH_ERROR if action in ("ssh", "scp") else self.random.choice(PASSING_ERRORS))
            if not before:
                self._do(group, action, flags, command)
            return fault
        return self._do(group, action, flags, command)

    def _do(self, group: str, action: str, flags: dict[str, str], command: list[str]) -> Done:
        missing = _failed(("NOT_FOUND: Resource was not found", 1))
        if action == "create":
            if self.request:
                return _failed(("ALREADY_EXISTS: Resource already exists", 1))
            self._make(flags["labels"].partition("=")[2], "CREATING")
            assert flags["labels"].startswith(f"{LABEL}=")
            return Done(0, "", "")
        if action == "describe" and group == "queued-resources":
            self.seen.add(self.request)
            if not self.request:
                return missing
            labels = {LABEL: self.label} if self.label else {}
            state = {"state": self.request}
            if self.request == "FAILED":
                state["failedData"] = {"error": {"code": 8, "message": "no capacity"}}  # type: ignore[assignment]
            return Done(0, json.dumps({"state": state, "tpu": {"nodeSpec": [{"node": {"labels": labels}}]}}), "")
        if action == "describe":
            self.seen.add(f"node {self.node}")
            if not self.node:
                return missing
            return Done(0, json.dumps({"state": self.node, "networkEndpoints": [{}] * self.count}), "")
        if action == "delete":
            if not self.request:
                return missing
            if self.label != "me":
                self.sins.append(f"deleted what {self.label or 'nobody'} made")
            self.request, self.node, self.hosts = ("DELETING" if self.random.random() < 0.3 else ""), "", []
            return Done(0, "", "")
        if self.node != "READY":
            return _failed((f"TPU is in state {self.node}", 1))
        return Done(0, "", "") if action == "scp" else self._shell(flags["command"])

    def _shell(self, script: str) -> Done:
        printed = ""
        for number, host in enumerate(self.hosts):
            if host["mute"]:
                continue
            running = host["state"] == "running"
            if host_scripts.MARK in script:
                ready = "yes" if host["ready"] else "no"
                silent = int(self.time - host["printed"])
                printed += f"{host_scripts.MARK} w-{number} {host['code']} {ready} {host['state']} {silent} step 5\n"
            elif "make .venv" in script:
                code = script.rpartition('echo "')[2].split()[0]
                if self.random.random() < 0.1 * bool(self.trouble):
                    return Done(2, "", "make: *** [Makefile:99: .venv] Error 1")
                if not running and (host["code"], host["ready"]) != (code, True):
                    host.update(code=code, ready=True, state="idle")
            elif "setsid" in script and not running:
                ending = self.random.choice(self.endings) if host["ready"] else "127"
                length = self.random.expovariate(1 / 20_000)
                host.update(state="running", ending=ending, ends=self.time + length, printed=self.time)
            elif "kill -KILL" in script and running:
                host["state"] = "75"
        # The hosts of a training end together, but for what only one of them meets.
        together = [host for host in self.hosts if host["state"] == "running"]
        for host in together if self.random.random() < 0.8 else []:
            host.update(ending=together[0]["ending"], ends=together[0]["ends"])
        if any(host["mute"] for host in self.hosts):
            return Done(255, printed, f"ERROR: {SSH_ERROR[0]}")
        return Done(0, printed, "Using ssh batch size of 1.")

    def _make(self, label: str, state: str) -> None:
        self.request, self.label, self.node, self.hosts = state, label, "", []
        if state == "ACTIVE":
            self._boot()

    def _boot(self) -> None:
        new = {
            "code": "-",
            "ready": False,
            "state": "idle",
            "mute": False,
            "printed": self.time,
            "ends": 0,
            "ending": "",
        }
        self.node, self.hosts = "READY", [dict(new) for _ in range(self.count)]

    def _is_bad(self) -> bool:
        return self.request != "ACTIVE" or self.node != "READY"

    def _better(self) -> None:
        onward = {
            "CREATING": "ACCEPTED",
            "ACCEPTED": "WAITING_FOR_RESOURCES",
            "WAITING_FOR_RESOURCES": "PROVISIONING",
            "PROVISIONING": "ACTIVE",
            "SUSPENDING": "SUSPENDED",
            "STATE_UNSPECIFIED": "WAITING_FOR_RESOURCES",
            "DELETING": "",
        }
        if self.request in onward:
            self.request = onward[self.request]
            if self.request == "ACTIVE":
                self._boot()
            return
        node = {"CREATING": "READY", "STARTING": "READY", "RESTARTING": "READY", "REIMAGING": "READY"}
        node |= {"REPAIRING": "READY", "UNHIDING": "READY", "STATE_UNSPECIFIED": "READY", "STOPPING": "STOPPED"}
        node |= {"DELETING": "", "HIDING": "HIDDEN"}
        self.node = node.get(self.node, self.node)
        for host in self.hosts:
            host["mute"] = False

    def _trouble(self) -> None:
        what = self.random.choice(["request", "node", "reboot", "mute", "vanish", "replaced", "kill"])
        if what == "request":
            self.request = self.random.choice(list(REQUESTS)[1:])
            if self.request == "ACTIVE":
                self._boot()
        elif what == "node":
            self.node = self.random.choice(list(NODES))
            if self.node in ("READY", "REIMAGING"):
                self._boot()
                self.node = self.random.choice(["READY", "REIMAGING"])
        elif what == "vanish":
            self.request, self.node, self.hosts = "", "", []
        elif what == "replaced" and self.random.random() < 0.1:
            self._make("somebody", self.random.choice(["ACTIVE", "SUSPENDED", "FAILED", "DELETING"]))
        for host in self.hosts if what in ("reboot", "mute", "kill") else []:
            if self.random.random() < 0.5:
                if what == "mute":
                    host["mute"] = True
                elif host["state"] == "running":
                    host["state"] = "idle" if what == "reboot" else "137"
                host["ready"] = host["ready"] and what != "reboot"


def _failed(error: tuple[str, int]) -> Done:
    return Done(error[1], "", f"ERROR: (gcloud) {error[0]}")


def main() -> None:
    """gcloud: the cloud lies pickled in the file that FAKE_CLOUD names."""
    file = Path(os.environ["FAKE_CLOUD"])
    cloud = pickle.loads(file.read_bytes())
    done = cloud.execute(["gcloud", *sys.argv[1:]], 0.0)
    file.write_bytes(pickle.dumps(cloud))
    sys.stdout.write(done.out)
    sys.stderr.write(done.errors)
    sys.exit(done.code)
