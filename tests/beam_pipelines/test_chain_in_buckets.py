"""Source code to token records in a bucket: killed at any moment and begun again, the bytes are those of a disk."""

import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import sysconfig
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
from buckets import SCHEMES, bucket, objects

from opencoder_jax.beam_pipelines.core.storage import Directory

KILLS = 5
# They tell when files changed.
TIMES = {"chain/collect/stage.json", "chain/collect/parts.json", "chain/refinecode.json"}


def commands(folder: str, output: str) -> list[list[str]]:
    """The chain, a tokenizer of what it leaves, and the records."""
    sample, tokenizer = f"--documents={output}/chain/sample", f"{output}/tokenizer"
    verbs = [
        ["refinecode", f"--folders={folder}", f"--output={output}/chain", "--gin.CollectConfig.shards=2"],
        ["train_tokenizer", sample, f"--output={tokenizer}", "--gin.TokenizerConfig.vocab_size=400"],
        ["records", sample, f"--tokenizer={tokenizer}", f"--output={output}/tokens"],
    ]
    verbs[1].append("--gin.TokenizerConfig.reserved_ids=2")
    verbs[2].append("--gin.TokenRecordsConfig.shards=2")
    return [[sys.executable, "-m", "beam_pipelines", *verb] for verb in verbs]


def run_all(every: Sequence[Sequence[str]]) -> float:
    """Runs commands, and returns the seconds that they took."""
    began = time.monotonic()
    for command in every:
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    return time.monotonic() - began


def run_until(every: Sequence[Sequence[str]], seconds: float) -> None:
    """Runs commands, and kills whichever runs after some seconds, with all its processes."""
    until = time.monotonic() + seconds
    for command in every:
        process = subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
        )
        try:
            assert process.wait(max(0.0, until - time.monotonic())) == 0
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            return


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two repositories of real source with copies between them."""
    root, library = tmp_path_factory.mktemp("sources") / "code", Path(sysconfig.get_paths()["stdlib"])
    for repository, modules in {"one": ["json", "textwrap.py"], "two": ["json", "string.py", "fractions.py"]}.items():
        (root / repository).mkdir(parents=True)
        for module in modules:
            place = root / repository / module
            if (library / module).is_dir():
                shutil.copytree(library / module, place, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy(library / module, place)
    return root


@pytest.mark.slow
@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_chain_in_a_bucket_that_is_killed_gives_the_bytes_of_a_disk(
    scheme: str, folder: Path, tmp_path: Path
) -> None:
    whole = run_all(commands(str(folder), str(tmp_path)))
    expected = {
        path.relative_to(tmp_path).as_posix(): path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()
    }
    with bucket(scheme) as (address, _):
        for file in folder.rglob("*"):
            if file.is_file():
                Directory(f"{address}/code").write_bytes(file.relative_to(folder).as_posix(), file.read_bytes())
        every = commands(f"{address}/code", f"{address}/out")
        chance = random.Random(scheme)
        for kill in range(1, KILLS + 1):
            run_until(every, chance.uniform(0.5, 1) * whole * kill / KILLS)
        run_all(every)
        found = {path: data for path, data in objects(f"{address}/out").items() if not path.endswith("/")}
        assert found.keys() == expected.keys()
        assert {path for path in found if found[path] != expected[path]} <= TIMES
        run_all([[sys.executable, "-m", "beam_pipelines", "verify", f"{address}/out"]])
        told = [json.loads(files["chain/collect/stage.json"]) for files in (found, expected)]
        assert told[0]["files"] == told[1]["files"]
        assert told[0]["tally"] == told[1]["tally"]


@pytest.mark.slow
@pytest.mark.parametrize("scheme", SCHEMES)
def test_two_submitters_into_one_bucket(scheme: str, folder: Path) -> None:
    """The second is told who is there, and stops or comes to find all done: what is there at the end is true."""
    chance = random.Random(scheme)
    said = ""
    with bucket(scheme) as (address, _):
        for number in range(3):
            output = f"{address}/out_{number}"
            command = [sys.executable, "-m", "beam_pipelines", "collect", f"--folders={folder}", f"--output={output}"]
            pair = []
            for _ in range(2):
                pair.append(subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True))
                time.sleep(chance.uniform(0, 1))  # moments are what is drawn here
            for process in pair:
                told = process.communicate()[1]
                assert process.returncode == 0 or "has been writing there" in told, told
                said += told
            run_all([command])  # nobody is in the way
            run_all([[sys.executable, "-m", "beam_pipelines", "verify", output]])
            left = {path for path in objects(output) if not path.endswith("/")}
            assert not [path for path in left if "owner" in path or "listing" in path or "reports" in path]
    assert f"on {socket.gethostname()} was writing there" in said
