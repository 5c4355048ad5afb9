"""Several hosts, as processes of their own with real collectives between them: one run, and what kills do to it."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from opencoder_jax import recipe as recipes
from opencoder_jax.parallel.checkpoints import checkpoint_steps
from opencoder_jax.parallel.hosts import supervise
from opencoder_jax.recipe import TRY_AGAIN, TryAgain, UserError
from opencoder_jax.training.loop import train
from opencoder_jax.training.metrics import read_metrics
from opencoder_jax.training.reporter import TIMING
from opencoder_jax.training.train import main
from tests.opencoder_jax.training.small_run import first_steps, small_recipe
from tests.quick import XLA_FLAGS

ROOT = Path(__file__).resolve().parents[3]
DEVICES = 8


# Losses and gradient norms of the first steps on every mesh, from each host.
ALL_MESHES = """
import itertools, json, sys
from pathlib import Path
import jax
from tests.opencoder_jax.training.small_run import first_steps

data, coordinator, hosts, host = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
if hosts > 1:
    jax.distributed.initialize(coordinator, hosts, host)
assert jax.device_count() == 8
found = {}
for fsdp, context, tensor in itertools.product((1, 2, 4, 8), (1, 2, 4), (1, 2)):
    used = fsdp * context * tensor
    if used == 8 or (used == 4 and fsdp > 1):
        sizes = {"replica": 8 // used, "fsdp": fsdp, "context": context, "tensor": tensor}
        found[str(sizes)] = first_steps(data, **{f"MeshConfig_{axis}": size for axis, size in sizes.items()})
print(json.dumps(found))
"""


def free_address() -> str:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{free.getsockname()[1]}"


def environment(hosts: int) -> dict[str, str]:
    """So many hosts have eight devices in all."""
    devices = f"--xla_force_host_platform_device_count={DEVICES // hosts}"
    return os.environ | {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": f"{XLA_FLAGS} {devices}"}


def gin(file: Path, **changes: Any) -> Path:
    """The small recipe as a file."""
    file.write_text(recipes.operative(*small_recipe(**changes)))
    return file


class Run:
    """One run on so many hosts of this machine, with eight devices in all; the last host may get flags of its own."""

    def __init__(self, recipe: Path, data: Path, output: Path, hosts: int, *flags: str, last: Sequence[str] = ()):
        coordinator = free_address()
        several = lambda host: [f"--hosts={hosts}", f"--host={host}", f"--coordinator={coordinator}"]  # noqa: E731
        train_command = [sys.executable, "-m", "opencoder_jax", "train", f"--gin_file={recipe}"]
        train_command += [f"--data={data}", f"--output={output}"]
        self.processes = [
            subprocess.Popen(
                [*train_command, *(several(host) if hosts > 1 else []), *flags, *(last if host == hosts - 1 else ())],
                cwd=ROOT,
                env=environment(hosts),
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
            for host in range(hosts)
        ]

    def finish(self) -> list[tuple[int, str]]:
        """Exit code and words of each host."""
        ends = [process.communicate(timeout=600) for process in self.processes]
        return [(process.returncode, "".join(end)) for process, end in zip(self.processes, ends, strict=True)]

    def trainers(self) -> list[int]:
        """The processes that train: the children of the supervisors."""
        children = [Path(f"/proc/{process.pid}/task/{process.pid}/children") for process in self.processes]
        return [int(pid) for file in children for pid in file.read_text().split()]


def wait_for(run: Run, metrics: Path, rows: int) -> None:
    """Returns when so many rows are written, or the run has ended."""
    while len(read_metrics(metrics)) < rows and all(process.poll() is None for process in run.processes):
        time.sleep(0.02)


def losses(output: Path) -> list[float]:
    return [row["loss"] for row in read_metrics(output / "metrics.jsonl")]


def rows(output: Path) -> list[dict[str, Any]]:
    return [
        {key: value for key, value in row.items() if key not in TIMING}
        for row in read_metrics(output / "metrics.jsonl")
    ]


def checkpoint(output: Path, step: int) -> dict[str, str]:
    """The checksums of a checkpoint's arrays, which don't depend on the mesh."""
    (file,) = (output / "checkpoints" / str(step) / "sums").glob("metadata")
    return json.loads(file.read_text())


MESHES = {
    (1, 8): {"MeshConfig_fsdp": 8},
    (2, 4): {"MeshConfig_fsdp": 2, "MeshConfig_context": 2, "MeshConfig_tensor": 2},
    (4, 2): {"MeshConfig_replica": 2, "MeshConfig_fsdp": 4},
}


@pytest.fixture(scope="module")
def two_hosts(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two hosts that nothing stopped."""
    output = tmp_path_factory.mktemp("runs") / "two"
    recipe = gin(output.parent / "two.gin", **MESHES[2, 4], TrainConfig_steps=8)
    for code, words in Run(recipe, data, output, 2).finish():
        assert code == 0, words
    return output


@pytest.mark.slow
def test_two_hosts_are_one_run(two_hosts: Path, data: Path, tmp_path: Path) -> None:
    train(small_recipe(TrainConfig_steps=8), data, tmp_path / "one")
    assert losses(two_hosts) == pytest.approx(losses(tmp_path / "one"), rel=1e-4)
    assert [row["step"] for row in rows(two_hosts)] == list(range(1, 9))
    # What two hosts saved, one goes on with.
    recipe = small_recipe(TrainConfig_steps=10)
    train(recipe, data, two_hosts)
    train(recipe, data, tmp_path / "one")
    assert losses(two_hosts) == pytest.approx(losses(tmp_path / "one"), rel=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("hosts", [1, 2, 4])
def test_hosts_and_meshes_give_the_same_losses(hosts: int, data: Path) -> None:
    """Every shape of (fsdp, context, tensor) over eight devices; what is left of them are replicas."""
    coordinator = free_address()
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", ALL_MESHES, str(data), coordinator, str(hosts), str(host)],
            cwd=ROOT,
            env=environment(hosts) | {"PYTHONPATH": os.pathsep.join(sys.path)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for host in range(hosts)
    ]
    ends = [process.communicate(timeout=600) for process in processes]
    one = first_steps(data)
    for process, (out, err) in zip(processes, ends, strict=True):
        assert process.returncode == 0, err
        found = json.loads(out.splitlines()[-1])
        assert len(found) == 9
        for mesh, steps in found.items():
            for expected, measured in zip(one, steps, strict=True):
                assert measured == pytest.approx(expected, rel=2e-5), mesh


@pytest.mark.slow
def test_a_run_moves_from_mesh_to_mesh(data: Path, tmp_path: Path) -> None:
    train(small_recipe(TrainConfig_steps=8), data, tmp_path / "one")
    moves: Sequence[tuple[int, dict[str, Any]]] = [
        (4, MESHES[4, 2]),
        (1, MESHES[1, 8]),
        (2, MESHES[2, 4]),
        (2, {"MeshConfig_fsdp": 2, "MeshConfig_context": 4}),
    ]
    for number, (hosts, changes) in enumerate(moves, 1):
        recipe = gin(tmp_path / f"{number}.gin", **changes, TrainConfig_steps=2 * number)
        for code, words in Run(recipe, data, tmp_path / "run", hosts).finish():
            assert code == 0, words
    assert losses(tmp_path / "run") == pytest.approx(losses(tmp_path / "one"), rel=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("victim", [0, 1])
def test_a_killed_host_stops_the_others_and_the_run_goes_on(
    victim: int, two_hosts: Path, data: Path, tmp_path: Path
) -> None:
    recipe = gin(tmp_path / "recipe.gin", **MESHES[2, 4], TrainConfig_steps=40)
    run = Run(recipe, data, tmp_path / "run", 2)
    wait_for(run, tmp_path / "run" / "metrics.jsonl", 5)
    os.kill(run.trainers()[victim], signal.SIGKILL)
    for code, words in run.finish():
        assert code == 0, words
        assert "another host is gone; starting again from the last checkpoint (1 of 3)" in words
    whole = Run(recipe, data, tmp_path / "whole", 2)
    assert [code for code, _ in whole.finish()] == [0, 0]
    assert rows(tmp_path / "run") == rows(tmp_path / "whole")
    assert checkpoint(tmp_path / "run", 40) == checkpoint(tmp_path / "whole", 40)


@pytest.mark.slow
def test_a_lost_host_that_never_returns_is_said(data: Path, tmp_path: Path) -> None:
    recipe = gin(tmp_path / "recipe.gin", **MESHES[2, 4], TrainConfig_steps=400)
    run = Run(recipe, data, tmp_path / "run", 2, "--restarts=0")
    wait_for(run, tmp_path / "run" / "metrics.jsonl", 3)
    run.processes[1].kill()
    os.kill(run.trainers()[-1], signal.SIGKILL)
    code, words = run.finish()[0]
    assert code == TRY_AGAIN
    assert "start all hosts again with the same command" in words


@pytest.mark.slow
@pytest.mark.parametrize("hosts", [1, 2])
def test_a_preempted_host_saves_and_leaves(hosts: int, data: Path, tmp_path: Path) -> None:
    changes = MESHES[hosts, DEVICES // hosts] | {"TrainConfig_checkpoint_every": 1000}
    recipe = gin(tmp_path / "recipe.gin", **changes, TrainConfig_steps=2000)
    run = Run(recipe, data, tmp_path / "run", hosts)
    wait_for(run, tmp_path / "run" / "metrics.jsonl", 3)
    run.processes[-1].send_signal(signal.SIGTERM)
    ends = run.finish()
    (step,) = checkpoint_steps(tmp_path / "run" / "checkpoints")
    assert step < 1000
    for code, words in ends:  # the others, too: they can't go on without it
        assert code == TRY_AGAIN, words
    assert any(f"told to go; step {step:,} is saved" in words for _, words in ends)


@pytest.mark.parametrize(
    ("flag", "told"),
    [
        ("--gin.TrainConfig.seed=7", "TrainConfig.seed is 0 on host 0 and 7 on host 1"),
        pytest.param(
            "--gin.DataConfig.mixture={'held_out': 1.0, 'refinecode': 1.0}",
            "DataConfig.mixture is {'refinecode': 1.0, ",
            marks=pytest.mark.slow,
        ),
        pytest.param("--data={other}", "data.refinecode is ", marks=pytest.mark.slow),
    ],
)
def test_hosts_that_differ_are_refused_before_the_first_step(flag: str, told: str, data: Path, tmp_path: Path) -> None:
    mixture = {"refinecode": 1.0, "held_out": 1.0}
    recipe = gin(tmp_path / "recipe.gin", **MESHES[2, 4], DataConfig_mixture=mixture)
    other = tmp_path / "other"
    for name, source in (("refinecode", "held_out"), ("held_out", "held_out")):
        shutil.copytree(data / source, other / name)
    for code, words in Run(recipe, data, tmp_path / "run", 2, last=[flag.replace("{other}", str(other))]).finish():
        assert code == 2, words
        assert f"error: the hosts differ: {told}" in words
    assert not (tmp_path / "run").exists()


def test_a_supervisor_passes_on_what_cannot_be_mended_by_trying() -> None:
    for code in (1, 2, TRY_AGAIN):
        with pytest.raises(SystemExit, match=str(code)):
            supervise([sys.executable, "-c", f"import sys; sys.exit({code})"], restarts=3)
    supervise([sys.executable, "-c", ""], restarts=0)


def test_a_supervisor_tries_so_often(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    count = f"open({str(tmp_path / 'tries')!r}, 'a').write('x'); import os; os.abort()"
    with pytest.raises(TryAgain, match="a host was lost 3 times"):
        supervise([sys.executable, "-c", count], restarts=2)
    assert (tmp_path / "tries").read_text() == "xxx"
    assert capfd.readouterr().err.count("signal SIGABRT") == 3


@pytest.mark.parametrize(
    "flags", [["--hosts=2"], ["--host=0"], ["--hosts=two", "--host=0"], ["--hosts=2", "--host=2", "--coordinator=a:1"]]
)
def test_hosts_that_are_half_named_are_refused(flags: list[str], data: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"give --hosts=N --host=I \(from 0 to N-1\) --coordinator"):
        main([f"--data={data}", f"--output={tmp_path / 'run'}", *flags])
