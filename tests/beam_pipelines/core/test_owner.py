"""One owner at a time: the second is told who is there, a dead one is in no way, and every manifest stays true."""

import json
import os
import random
import signal
import socket
import subprocess
import sys
import sysconfig
import threading
import time
from pathlib import Path

import pytest

from opencoder_jax.beam_pipelines.__main__ import main
from opencoder_jax.beam_pipelines.core import owner
from opencoder_jax.beam_pipelines.core.manifest import Manifest
from opencoder_jax.beam_pipelines.core.owner import is_owner, owned
from opencoder_jax.beam_pipelines.core.storage import Directory
from opencoder_jax.recipe import UserError

HOLD = """
import sys
from opencoder_jax.beam_pipelines.core.owner import owned
from opencoder_jax.beam_pipelines.core.storage import Directory
with owned(Directory(sys.argv[1])):
    print("mine", flush=True)
    sys.stdin.read()
"""


def hold(directory: Path) -> "subprocess.Popen[str]":
    """A process that owns a directory until its input ends."""
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(directory)], **pipes)  # type: ignore[call-overload]
    assert process.stdout.readline() == "mine\n"
    return process


def own(directory: Path) -> list[str]:
    """Owns a directory for a moment; the owners' files that lie in it then."""
    with owned(Directory(str(directory))):
        return [path.name for path in directory.iterdir() if is_owner(path.name)]


def test_the_second_is_told_who_is_there_and_since_when(tmp_path: Path) -> None:
    process = hold(tmp_path / "out")
    told = rf"out: process {process.pid} on {socket.gethostname()} has been writing there since \d{{4}}-.*; wait for it"
    with pytest.raises(UserError, match=told):
        own(tmp_path / "out")
    process.communicate("")
    assert len(own(tmp_path / "out")) == 1
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_one_that_was_killed_is_in_nobodys_way(tmp_path: Path, number: int) -> None:
    process = hold(tmp_path)
    process.send_signal(number)
    process.communicate()
    assert len(own(tmp_path)) == 1
    assert list(tmp_path.iterdir()) == []


def test_a_process_has_one_owner_too(tmp_path: Path) -> None:
    with owned(Directory(str(tmp_path))), pytest.raises(UserError, match=f"process {os.getpid()} on "):
        own(tmp_path)
    own(tmp_path)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(owner, "BEAT", 0.02)
    monkeypatch.setattr(owner, "SILENCE", 0.5)


@pytest.mark.usefixtures("quick")
def test_an_owner_of_another_host_lives_while_it_gives_signs(tmp_path: Path) -> None:
    other = {"host": "elsewhere", "process": 7, "since": "then", "kernel": "another"}
    directory = Directory(str(tmp_path))
    directory.write_json("owner-1.json", other)
    stop = threading.Event()

    def beat() -> None:
        beats = 0
        while not stop.wait(0.05):
            directory.write_json("owner-1.json", other | {"beats": (beats := beats + 1)})

    thread = threading.Thread(target=beat)
    thread.start()
    try:
        with pytest.raises(UserError, match="process 7 on elsewhere has been writing there since then"):
            own(tmp_path)
    finally:
        stop.set()
        thread.join()
    assert [path.name for path in tmp_path.iterdir()] == ["owner-1.json"]
    assert "owner-1.json" not in own(tmp_path)  # it says nothing any more


@pytest.mark.usefixtures("quick")
def test_where_there_are_no_locks_signs_of_life_decide(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A bucket, for one: there the file of a dead owner of this very host isn't told by a lock."""
    monkeypatch.setattr(Directory, "local", lambda self: None)
    with owned(Directory(str(tmp_path))), pytest.raises(UserError, match=f"process {os.getpid()} on "):
        own(tmp_path)
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "owner-dead.json").write_text('{"host": "here"}')
    (tmp_path / "owner-damaged.json").write_text("{")
    assert len(own(tmp_path)) == 1


def test_without_locks_a_killed_process_of_this_system_is_in_nobodys_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    process = hold(tmp_path)
    process.kill()
    process.communicate()
    [left] = tmp_path.iterdir()
    monkeypatch.setattr(Directory, "local", lambda self: None)
    monkeypatch.setattr(owner, "_lives", lambda *_: pytest.fail("waits for a sign of life"))
    assert left.name not in own(tmp_path)
    told = json.loads(f'{{"process": {os.getpid()}, "started": "long ago"}}')
    left.write_text(json.dumps(told | {"kernel": owner._kernel(), "processes": owner._processes()}))
    assert left.name not in own(tmp_path)  # its number is another process's by now
    monkeypatch.setattr(owner, "_lives", lambda *_: True)
    left.write_text(json.dumps(told | {"kernel": owner._kernel(), "processes": "of another container"}))
    with pytest.raises(UserError, match="has been writing there"):
        own(tmp_path)


@pytest.mark.usefixtures("quick")
def test_of_two_that_begin_at_once_without_locks_never_both_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Directory, "local", lambda self: None)
    inside: list[int] = []
    most: list[int] = []

    def work(number: int) -> None:
        try:
            with owned(Directory(str(tmp_path))):
                inside.append(number)
                most.append(len(inside))
                time.sleep(0.1)  # what the other one would have to meet
                inside.remove(number)
        except UserError:
            pass

    for _ in range(5):
        threads = [threading.Thread(target=work, args=(number,)) for number in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert max(most, default=1) == 1


def test_a_directory_of_something_else_is_not_touched(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.tex").write_text("precious")
    before = (tmp_path / "out").stat().st_mtime_ns
    library = Path(sysconfig.get_paths()["stdlib"]) / "json"
    with pytest.raises(UserError, match=r"holds other files, such as thesis\.tex"):
        main(["collect", f"--folders={library}", f"--output={tmp_path / 'out'}"])
    assert (tmp_path / "out").stat().st_mtime_ns == before


def collect(output: Path, shards: int) -> "subprocess.Popen[str]":
    library = Path(sysconfig.get_paths()["stdlib"]) / "email"
    flags = [f"--folders={library}", f"--output={output}", f"--gin.CollectConfig.shards={shards}"]
    command = [sys.executable, "-m", "beam_pipelines", "collect", *flags, "--direct_num_workers=2"]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.mark.slow
def test_of_two_submitters_at_random_moments_every_manifest_is_true(tmp_path: Path) -> None:
    """Ten times, with two recipes; now and then the first is killed alone, and its workers are left."""
    chance = random.Random(0)
    began = time.monotonic()
    assert collect(tmp_path / "timed", 2).wait() == 0
    whole = time.monotonic() - began
    told = 0
    for turn in range(10):
        output = tmp_path / f"out{turn % 3}"
        first = collect(output, 20 + turn)
        time.sleep(chance.uniform(0, whole))
        second = collect(output, 40 + turn)
        if turn % 3 == 2:
            time.sleep(chance.uniform(0, whole))
            first.kill()
        ends = [(process.communicate()[1], process.returncode) for process in (first, second)]
        finished = []
        for (errors, code), shards in zip(ends, (20 + turn, 40 + turn), strict=True):
            assert code in (0, 2, -signal.SIGKILL), errors
            assert code != 2 or "has been writing there" in errors, errors
            told += code == 2
            finished += [shards] if code == 0 else []
        if finished:
            main(["verify", str(output)])
            config = Manifest.read(str(output)).config
            assert config["config"]["shards"] in finished, json.dumps(config)[:200]
        elif (output / "stage.json").exists():
            main(["verify", str(output)])
    assert told
