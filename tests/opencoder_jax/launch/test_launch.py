"""Launching, against a gcloud that runs its hosts' scripts here: what it is asked, what is shipped, what hosts do."""

import json
import os
import shlex
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import pytest

from opencoder_jax.launch import host_scripts
from opencoder_jax.launch.cloud_tpu import LABEL, Slice, user
from opencoder_jax.launch.host_scripts import Host
from opencoder_jax.launch.launch import main
from opencoder_jax.launch.ship import check_recipes, listing, pack
from opencoder_jax.recipe import ROOT, TryAgain, UserError

# A cloud in a directory: a request's states come from a list, and a host is a home directory whose scripts run.
FAKE = """#!{python}
import json, os, pathlib, shutil, subprocess, sys
cloud = pathlib.Path({cloud!r})
arguments = sys.argv[1:]
with open(cloud / "asked.jsonl", "a") as log:
    log.write(json.dumps(arguments) + "\\n")
flags = dict(word[2:].split("=", 1) for word in arguments if word.startswith("--") and "=" in word)
group, action = arguments[2:4]
hosts = sorted(cloud.glob("host*"))
every = len(hosts)
hosts = hosts if flags.get("worker", "all") == "all" else [hosts[int(flags["worker"])]]
if action == "describe" and group == "tpu-vm":
    print(json.dumps({{"state": "READY", "networkEndpoints": [{{}}] * every}}))
elif action == "describe":
    states = json.loads((cloud / "states.json").read_text())
    if not states[0]:
        sys.exit("ERROR: (gcloud.compute.tpus.queued-resources.describe) NOT_FOUND: Resource was not found")
    node = {{"labels": {labels}}}
    print(json.dumps({{"state": {{"state": states[0]}}, "tpu": {{"nodeSpec": [{{"node": node}}]}}}}))
    (cloud / "states.json").write_text(json.dumps(states[1:] if len(states) > 1 else states))
elif action == "create" and (cloud / "refuses").exists():
    print("Quota", file=sys.stderr)
    sys.exit("ERROR: (gcloud) RESOURCE_EXHAUSTED: Quota limit exceeded")
elif action == "create":
    states = json.loads((cloud / "states.json").read_text())
    (cloud / "states.json").write_text(json.dumps(states[1:] if not states[0] else states))
elif action == "delete":
    (cloud / "states.json").write_text(json.dumps(["", *json.loads((cloud / "states.json").read_text())]))
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
echo "$@" >>"$HOME/made"
mkdir -p .venv/bin
cat >.venv/bin/python <<'END'
#!/bin/sh
case "$*" in *"pip install"*|*ensurepip*) exit 0;; esac
echo "$@" >>"$HOME/ran"
echo "step of $(basename "$HOME")"
n=$(wc -l <"$HOME/ran")
exit $(sed -n "${n}p" "$HOME/plan")
END
chmod +x .venv/bin/python
"""

SLICE = ["--name=oc", "--zone=us-east5-a", "--accelerator=v6e-16", "--poll=0.05"]
TRAIN = ["--", "train", "--gin_file=gin_configs/pretrain/cookbook.gin", "--gin.TrainConfig.steps=7", "--data=~/my data"]


class Cloud:
    """The fake cloud of a test."""

    def __init__(self, directory: Path, states: list[str], plans: list[list[int]], label: str):
        self.directory = directory
        (directory / "states.json").write_text(json.dumps(states))
        for number, plan in enumerate(plans):
            host = directory / f"host{number}"
            host.mkdir()
            (host / "plan").write_text("".join(f"{code}\n" for code in plan))
        tools = directory / "bin"
        tools.mkdir()
        fake = FAKE.format(python=sys.executable, cloud=str(directory), labels={LABEL: label})
        for name, text in (("gcloud", fake), ("make", MAKE)):
            (tools / name).write_text(text)
            (tools / name).chmod(0o755)

    def asked(self, action: str | None = None) -> list[list[str]]:
        log = self.directory / "asked.jsonl"
        lines = [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []
        return [line for line in lines if action in (None, line[3])]

    def lines(self, file: str, host: int = 0) -> list[str]:
        return (self.directory / f"host{host}" / file).read_text().splitlines()


@pytest.fixture
def cloud(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Cloud:
    made = Cloud(tmp_path, *request.param[:2], *(request.param[2:] or [user()]))
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.chdir(tmp_path)
    return made


@pytest.mark.parametrize("cloud", [(["", "ACCEPTED", "WAITING_FOR_RESOURCES", "ACTIVE"], [[0], [0]])], indirect=True)
def test_a_training_from_nothing_to_its_end(cloud: Cloud) -> None:
    network = ["--network=n", "--subnetwork=s", "--service_account=a@b", "--internal_ips"]
    main(["run", *SLICE, "--spot", *network, "--setup=touch mounted", *TRAIN])
    (create,) = cloud.asked("create")
    assert create == [
        *("compute", "tpus", "queued-resources", "create", "oc", "--zone=us-east5-a", "--node-id=oc"),
        *("--accelerator-type=v6e-16", "--runtime-version=v2-alpha-tpuv6e", f"--labels={LABEL}={user()}"),
        *("--network=n", "--subnetwork=s", "--service-account=a@b", "--internal-ips", "--spot"),
    ]
    assert all("--internal-ip" in asked for asked in cloud.asked("ssh") + cloud.asked("scp"))
    for host in (0, 1):
        home = cloud.directory / f"host{host}"
        assert cloud.lines("ran", host) == [
            "-u -m opencoder_jax train --gin_file=gin_configs/pretrain/cookbook.gin --gin.TrainConfig.steps=7"
            f" --data={home}/my data --hosts=auto"
        ]
        assert cloud.lines("made", host)[0].startswith(".venv LOCK=requirements-train.txt PYTHON=python3")
        assert (home / "opencoder-jax" / "mounted").exists()
        assert (home / "opencoder-jax" / "opencoder_jax" / "__main__.py").exists()
    assert len(cloud.asked("delete")) == 1


@pytest.mark.parametrize("cloud", [(["ACTIVE", "ACTIVE", "SUSPENDED", "ACTIVE"], [[75, 75, 0]])], indirect=True)
def test_what_is_taken_away_is_asked_for_again(cloud: Cloud, capfd: pytest.CaptureFixture[str]) -> None:
    """The training is told to go (75), the slice is suspended, a new one is created, and it goes on to the end."""
    main(["start", *SLICE, *TRAIN])
    main(["watch", *SLICE, *TRAIN])
    assert len(cloud.asked("delete")) == 1
    assert len(cloud.asked("create")) == 1
    assert len(cloud.lines("ran")) == 3
    assert "its request is SUSPENDED; again" in capfd.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("cloud", [(["ACTIVE"], [[75, 134, 0]])], indirect=True)
def test_a_training_that_stops_from_outside_starts_again(cloud: Cloud) -> None:
    main(["run", *SLICE, *TRAIN])
    assert len(cloud.lines("ran")) == 3
    assert len(cloud.asked("scp")) == 1  # what is set up stays


@pytest.mark.slow
@pytest.mark.parametrize("cloud", [(["ACTIVE"], [[127, 0]])], indirect=True)
def test_a_host_without_its_python_is_set_up_again(cloud: Cloud) -> None:
    main(["run", *SLICE, *TRAIN])
    assert len(cloud.lines("made")) == 2


@pytest.mark.slow
@pytest.mark.parametrize("cloud", [(["ACTIVE"], [[75, 0]])], indirect=True)
def test_a_rebooted_host_is_set_up_again(cloud: Cloud) -> None:
    main(["start", *SLICE, "--setup=echo >>$HOME/mounted", *TRAIN])
    ready = cloud.directory / "host0" / "opencoder-jax" / host_scripts.READY
    ready.write_text(ready.read_text().split()[0] + " another-boot\n")
    main(["watch", *SLICE, "--setup=echo >>$HOME/mounted", *TRAIN])
    assert len(cloud.lines("mounted")) == 2


@pytest.mark.slow
@pytest.mark.parametrize("cloud", [(["ACTIVE"], [[75, 75, 75, 75]])], indirect=True)
def test_it_starts_again_only_so_often(cloud: Cloud) -> None:
    main(["start", *SLICE, *TRAIN])
    with pytest.raises(TryAgain, match="lost 3 times"):
        main(["watch", *SLICE, "--restarts=2", *TRAIN])


@pytest.mark.parametrize("cloud", [(["ACTIVE"], [[0], [2]])], indirect=True)
def test_a_mistake_in_the_recipe_ends_it_with_that_hosts_log(cloud: Cloud) -> None:
    with pytest.raises(UserError, match=r"ended with an error.*exit code 2; the logs' ends are in oc\.failed\.log"):
        main(["run", *SLICE, *TRAIN])
    log = (cloud.directory / "oc.failed.log").read_text()
    assert "step of host1" in log
    assert "step of host0" not in log
    assert len(cloud.asked("delete")) == 1


@pytest.mark.parametrize("cloud", [([""], [[0]])], indirect=True)
def test_what_gcloud_refuses_is_said(cloud: Cloud) -> None:
    (cloud.directory / "refuses").touch()
    with pytest.raises(UserError, match="RESOURCE_EXHAUSTED: Quota limit exceeded"):
        main(["create", *SLICE])


@pytest.mark.parametrize("cloud", [(["ACTIVE"], [[0], [0]])], indirect=True)
def test_status_and_delete(cloud: Cloud, capsys: pytest.CaptureFixture[str]) -> None:
    main(["status", *SLICE])
    name = os.uname().nodename
    assert capsys.readouterr().out == f"oc: ACTIVE\n{name}: idle (not set up)\n{name}: idle (not set up)\n"
    main(["delete", *SLICE, "--project=p"])
    assert cloud.asked("delete")[0][-3:] == ["--project=p", "--force", "--quiet"]


@pytest.mark.parametrize("cloud", [(["ACTIVE"], [[0]], "somebody")], indirect=True)
def test_what_somebody_else_made_is_not_deleted(cloud: Cloud) -> None:
    with pytest.raises(UserError, match="this launcher didn't make it"):
        main(["delete", *SLICE])
    assert not cloud.asked("delete")


@pytest.mark.parametrize("cloud", [(["ACTIVE"], [[0]])], indirect=True)
def test_stop_tells_the_training_alone(cloud: Cloud, capsys: pytest.CaptureFixture[str]) -> None:
    """A training that saves and leaves when told: its code, 75, is on the host, so its wrapper lived on."""
    home = cloud.directory / "host0" / "opencoder-jax"
    (home / ".venv" / "bin").mkdir(parents=True)
    python = home / ".venv" / "bin" / "python"
    python.write_text("#!/bin/bash\ntrap 'kill $!; exit 75' TERM\ntouch ready\nsleep 60 & wait\n")
    python.chmod(0o755)
    script = ["bash", "-c", host_scripts.start(["train"])]
    for _ in range(2):  # the second one finds it running
        subprocess.run(script, env=os.environ | {"HOME": str(home.parent)}, check=True, cwd=home.parent)
    process = (home / host_scripts.PROCESS).read_text()
    while not (home / "ready").exists():
        time.sleep(0.01)
    main(["status", *SLICE])
    assert ": running" in capsys.readouterr().out
    main(["stop", *SLICE])
    while not (home / host_scripts.ENDED).exists():
        time.sleep(0.01)
    assert (home / host_scripts.ENDED).read_text() == "75\n"
    while Path(f"/proc/{process.strip()}/cmdline").exists():
        time.sleep(0.01)
    main(["status", *SLICE])
    assert ": stopped" in capsys.readouterr().out  # so nobody starts it again


def test_a_hanging_training_is_ended(tmp_path: Path) -> None:
    home = tmp_path / "opencoder-jax"
    (home / ".venv" / "bin").mkdir(parents=True)
    python = home / ".venv" / "bin" / "python"
    python.write_text("#!/bin/bash\ntrap '' TERM\ntouch ready\nwhile :; do sleep 0.1; done\n")
    python.chmod(0o755)
    environment = os.environ | {"HOME": str(tmp_path)}
    for script in (host_scripts.start(["train"]), host_scripts.KILL.replace("seq 60", "seq 1"), host_scripts.STATE):
        done = subprocess.run(
            ["bash", "-c", script], env=environment, check=True, cwd=tmp_path, capture_output=True, text=True
        )
        while not (home / "ready").exists():
            time.sleep(0.01)
    assert [host.state for host in host_scripts.parse(done.stdout)] == ["idle"]


def test_dry_run_prints_commands_that_a_shell_takes(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for action in ("run", "create", "start", "watch", "logs", "status", "stop", "delete"):
        main([action, *SLICE, "--dry_run", *TRAIN])
        printed = capsys.readouterr().out
        words = shlex.split(printed, comments=True)
        assert "gcloud" in words
        assert subprocess.run(["bash", "-n"], input=printed, text=True, check=False).returncode == 0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--name=a", "--zone=z", "--accelerator=v3-8"], "expected one of v4-"),
        ([*SLICE], "say what to train after the flags"),
        ([*SLICE, "--sport", *TRAIN], r"unknown argument --sport; did you mean --spot\?"),
        ([*SLICE, *TRAIN, "--gin_file=mine.gin"], "--gin_file=mine.gin: not among the files that are copied"),
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
    mark = host_scripts.MARK
    printed = (
        f"Using ssh batch size of 1.\n{mark} w-1 - no idle 0 \nwarning\n{mark} w-0 ab12 yes 75 61 step 5: 3.1\n{mark}\n"
    )
    assert host_scripts.parse(printed) == [
        Host("w-0", "ab12", True, "75", 61, "step 5: 3.1"),
        Host("w-1", "-", False, "idle", 0),
    ]


@pytest.mark.parametrize("accelerator", ["v4-8", "v5litepod-16", "v5p-128", "v6e-256", "tpu7x-16"])
def test_each_generation_has_its_image(accelerator: str) -> None:
    assert any(word.startswith("--runtime-version=") for word in Slice("n", "z", accelerator).create())


def checkout(root: Path) -> None:
    for name, text in ((".gitignore", "data\n"), ("a.py", "1"), ("gone.py", "2"), ("data", "3")):
        (root / name).write_text(text)
    for command in (["init", "-q"], ["add", "."], ["-c", "user.name=a", "-c", "user.email=a@b", "commit", "-qm", "m"]):
        subprocess.run(["git", "-C", str(root), *command], check=True)


def test_the_tree_is_shipped_as_it_lies(tmp_path: Path) -> None:
    """Edited, new and deleted files count, ignored ones don't; the digest knows an edit."""
    checkout(tmp_path)
    before = pack(tmp_path, listing(tmp_path), tmp_path / "data")
    (tmp_path / "a.py").write_text("edited")
    (tmp_path / "new.gin").write_text("new")
    (tmp_path / "gone.py").unlink()
    names = listing(tmp_path)
    assert names == [".gitignore", "a.py", "new.gin"]
    assert pack(tmp_path, names, tmp_path / "data") != before
    with tarfile.open(tmp_path / "data") as tar:
        edited = tar.extractfile("a.py")
        assert edited is not None
        assert edited.read() == b"edited"
    check_recipes(["train", "--gin_file=new.gin", "--gin_file", "~/theirs.gin"], tmp_path, names)
    with pytest.raises(UserError, match="--gin_file=data: not among the files"):
        check_recipes(["train", "--gin_file=data"], tmp_path, names)


def test_a_tree_that_cannot_be_shipped_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match="copied from a git checkout"):
        listing(tmp_path)
    checkout(tmp_path)
    monkeypatch.setattr("opencoder_jax.launch.ship.LIMIT_BYTES", 100)
    (tmp_path / "big").write_bytes(bytes(200))
    with pytest.raises(UserError, match="big the largest"):
        listing(tmp_path)
    (tmp_path / "big").unlink()
    (tmp_path / "inner").mkdir()
    checkout(tmp_path / "inner")
    with pytest.raises(UserError, match=r"inner.*a repository of its own"):
        listing(tmp_path)


def test_this_checkout_can_be_shipped() -> None:
    assert "opencoder_jax/__main__.py" in listing(ROOT)
