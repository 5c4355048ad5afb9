"""Launching, against a gcloud that runs its hosts' scripts here: what is asked of it, and what a lost slice does."""

import json
import os
import shlex
import subprocess
import sys
import time
from pathlib import Path

import pytest

from opencoder_jax.launch import cloud_tpu
from opencoder_jax.launch.cloud_tpu import Slice
from opencoder_jax.launch.launch import main
from opencoder_jax.recipe import TryAgain, UserError

# A cloud in a directory: what a slice's state is comes from a list, and a host is a home directory whose scripts run.
FAKE = """#!{python}
import json, os, pathlib, shutil, subprocess, sys
cloud = pathlib.Path({cloud!r})
arguments = sys.argv[1:]
with open(cloud / "asked.jsonl", "a") as log:
    log.write(json.dumps(arguments) + "\\n")
flags = dict(word[2:].split("=", 1) for word in arguments if word.startswith("--") and "=" in word)
group, action = arguments[2:4]
hosts = sorted(cloud.glob("host*"))
hosts = hosts if flags.get("worker", "all") == "all" else [hosts[int(flags["worker"])]]
if action == "describe":
    states = json.loads((cloud / "states.json").read_text())
    if not states[0]:
        sys.exit("ERROR: (gcloud.compute.tpus.queued-resources.describe) NOT_FOUND: Resource was not found")
    print(states[0])
    (cloud / "states.json").write_text(json.dumps(states[1:] if len(states) > 1 else states))
elif action == "create" and (cloud / "refuses").exists():
    print("Quota", file=sys.stderr)
    sys.exit("ERROR: (gcloud) RESOURCE_EXHAUSTED: Quota limit exceeded")
elif action == "create":
    states = json.loads((cloud / "states.json").read_text())
    (cloud / "states.json").write_text(json.dumps(states[1:] if not states[0] else states))
elif action == "scp":
    for host in hosts:
        shutil.copy(arguments[4], host)
elif action == "ssh":
    print("SSH: Attempting to connect to worker 0...", file=sys.stderr)
    for host in hosts:
        environment = os.environ | {{"HOME": str(host)}}
        done = subprocess.run(flags["command"], shell=True, cwd=host, env=environment)
        if done.returncode:
            sys.exit(done.returncode)
"""

# What stands in for the checkout's environment on a host: `make .venv` makes a python that does what `plan` says.
MAKE = """#!/bin/sh
mkdir -p .venv/bin
cat >.venv/bin/python <<'END'
#!/bin/sh
case "$*" in *"pip install"*) exit 0;; esac
echo "$@" >>"$HOME/ran"
n=$(wc -l <"$HOME/ran")
exit $(sed -n "${n}p" "$HOME/plan")
END
chmod +x .venv/bin/python
"""

SLICE = ["--name=oc", "--zone=us-east5-a", "--accelerator=v6e-16", "--poll=0.05"]
TRAIN = ["--", "train", "--gin_file=gin_configs/pretrain/cookbook.gin", "--gin.TrainConfig.steps=7", "--data=~/my data"]


class Cloud:
    """The fake cloud of a test."""

    def __init__(self, directory: Path, states: list[str], plans: list[list[int]]):
        self.directory = directory
        (directory / "states.json").write_text(json.dumps(states))
        for number, plan in enumerate(plans):
            host = directory / f"host{number}"
            host.mkdir()
            (host / "plan").write_text("".join(f"{code}\n" for code in plan))
        tools = directory / "bin"
        tools.mkdir()
        for name, text in (("gcloud", FAKE.format(python=sys.executable, cloud=str(directory))), ("make", MAKE)):
            (tools / name).write_text(text)
            (tools / name).chmod(0o755)

    def asked(self, action: str | None = None) -> list[list[str]]:
        log = self.directory / "asked.jsonl"
        lines = [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []
        return [line for line in lines if action in (None, line[3])]

    def ran(self, host: int = 0) -> list[str]:
        return (self.directory / f"host{host}" / "ran").read_text().splitlines()


@pytest.fixture
def cloud(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Cloud:
    states, plans = request.param
    made = Cloud(tmp_path, states, plans)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}")
    return made


@pytest.mark.parametrize("cloud", [(["", "ACCEPTED", "WAITING_FOR_RESOURCES", "ACTIVE"], [[0], [0]])], indirect=True)
def test_a_training_from_nothing_to_its_end(cloud: Cloud) -> None:
    main(["run", *SLICE, "--spot", "--setup=touch mounted", *TRAIN])
    (create,) = cloud.asked("create")
    assert create == [
        *("compute", "tpus", "queued-resources", "create", "oc", "--zone=us-east5-a", "--node-id=oc"),
        *("--accelerator-type=v6e-16", "--runtime-version=v2-alpha-tpuv6e", "--spot"),
    ]
    for host in (0, 1):
        home = cloud.directory / f"host{host}"
        assert cloud.ran(host) == [
            "-u -m opencoder_jax train --gin_file=gin_configs/pretrain/cookbook.gin --gin.TrainConfig.steps=7"
            f" --data={home}/my data --hosts=auto"
        ]
        assert (home / "opencoder-jax" / "mounted").exists()
        # The code is that of the checkout's last commit.
        assert (home / "opencoder-jax" / "opencoder_jax" / "__main__.py").exists()


@pytest.mark.parametrize(
    "cloud", [(["ACTIVE", "ACTIVE", "SUSPENDED", "SUSPENDED", "", "ACTIVE"], [[75, 75, 0]])], indirect=True
)
def test_what_is_taken_away_is_asked_for_again(cloud: Cloud, capfd: pytest.CaptureFixture[str]) -> None:
    """The training is told to go (75), the slice is suspended, a new one is created, and it goes on to the end."""
    main(["run", *SLICE, *TRAIN])
    assert len(cloud.asked("delete")) == 1
    assert len(cloud.asked("create")) == 1
    assert len(cloud.ran()) >= 2
    assert "the slice was taken away; again" in capfd.readouterr().err


@pytest.mark.parametrize("cloud", [(["ACTIVE"], [[75, 134, 0]])], indirect=True)
def test_a_training_that_stops_from_outside_starts_again(cloud: Cloud) -> None:
    main(["start", *SLICE, *TRAIN])
    main(["watch", *SLICE, *TRAIN])
    assert len(cloud.ran()) == 3


@pytest.mark.parametrize("cloud", [(["ACTIVE"], [[75, 75, 75, 75]])], indirect=True)
def test_it_starts_again_only_so_often(cloud: Cloud) -> None:
    main(["start", *SLICE, *TRAIN])
    with pytest.raises(TryAgain, match="lost 3 times"):
        main(["watch", *SLICE, "--restarts=2", *TRAIN])


@pytest.mark.parametrize("cloud", [(["ACTIVE"], [[2]])], indirect=True)
def test_a_mistake_in_the_recipe_ends_it(cloud: Cloud) -> None:
    main(["start", *SLICE, *TRAIN])
    with pytest.raises(UserError, match="ended with an error"):
        main(["watch", *SLICE, *TRAIN])
    assert len(cloud.ran()) == 1


@pytest.mark.parametrize("cloud", [([""], [[0]])], indirect=True)
def test_what_gcloud_refuses_is_said(cloud: Cloud) -> None:
    (cloud.directory / "refuses").touch()
    with pytest.raises(UserError, match="RESOURCE_EXHAUSTED: Quota limit exceeded"):
        main(["create", *SLICE])


@pytest.mark.parametrize("cloud", [(["ACTIVE"], [[0], [0]])], indirect=True)
def test_status_and_delete(cloud: Cloud, capsys: pytest.CaptureFixture[str]) -> None:
    main(["status", *SLICE])
    assert capsys.readouterr().out == "oc: ACTIVE\nhost 0: idle\nhost 1: idle\n"
    main(["delete", *SLICE, "--project=p"])
    assert cloud.asked("delete")[0][-3:] == ["--project=p", "--force", "--quiet"]


@pytest.mark.parametrize("cloud", [(["ACTIVE"], [[0]])], indirect=True)
def test_stop_tells_the_training_alone(cloud: Cloud, capsys: pytest.CaptureFixture[str]) -> None:
    """A training that saves and leaves when told: its code, 75, is on the host, so its wrapper lived on."""
    home = cloud.directory / "host0" / "opencoder-jax"
    (home / ".venv" / "bin").mkdir(parents=True)
    python = home / ".venv" / "bin" / "python"
    python.write_text("#!/bin/bash\ntrap 'kill $!; exit 75' TERM\ntouch ready\nsleep 60 & wait\n")
    python.chmod(0o755)
    subprocess.run(
        ["bash", "-c", cloud_tpu.start(["train"])],
        env=os.environ | {"HOME": str(home.parent)},
        check=True,
        cwd=home.parent,
    )
    while not (home / "ready").exists():
        time.sleep(0.01)
    main(["status", *SLICE])
    assert "host 0: running" in capsys.readouterr().out
    main(["stop", *SLICE])
    while not (home / cloud_tpu.ENDED).exists():
        time.sleep(0.01)
    main(["status", *SLICE])
    assert "host 0: 75" in capsys.readouterr().out


def test_dry_run_prints_commands_that_a_shell_takes(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "")  # nothing can be run
    main(["run", *SLICE, "--dry_run", *TRAIN])
    commands = [shlex.split(line) for line in capsys.readouterr().out.replace("\n'", "'").split("\ngcloud") if line]
    assert any("create" in words for words in commands)
    assert any("git" in words for words in commands)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--name=a", "--zone=z", "--accelerator=v3-8"], "expected one of v4-"),
        ([*SLICE], "say what to train after the flags"),
        ([*SLICE, "--sport", *TRAIN], r"unknown argument --sport; did you mean --spot\?"),
    ],
)
def test_bad_flags(words: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        main(["run", *words, *([] if "--" in words or words == SLICE else TRAIN)])


def test_gcloud_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(UserError, match="gcloud isn't installed"):
        main(["delete", *SLICE])


def test_a_state_is_read_through_what_gcloud_says_around_it() -> None:
    printed = f"Using ssh batch size of 1.\n{cloud_tpu.MARK}running\nwarning\n{cloud_tpu.MARK}75\n"
    assert cloud_tpu.states(printed) == ["running", "75"]


@pytest.mark.parametrize("accelerator", ["v4-8", "v5litepod-16", "v5p-128", "v6e-256", "tpu7x-16"])
def test_each_generation_has_its_image(accelerator: str) -> None:
    assert any(word.startswith("--runtime-version=") for word in Slice("n", "z", accelerator).create())
