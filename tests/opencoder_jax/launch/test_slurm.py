"""The Slurm script, against an srun that runs its tasks here and, as Slurm's, gives the highest of their exit codes."""

import os
import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[3] / "opencoder_jax" / "launch" / "slurm.sh"

# A task's python exits with the code that is the task's.
SRUN = """#!/bin/bash
while [[ $1 == --* ]]; do echo "$1" >>flags; shift; done
worst=0
for code in $CODES; do
    CODE=$code "$@"
    code=$?
    ((code > worst)) && worst=$code
done
exit $worst
"""
PYTHON = """#!/bin/bash
echo "$@" >>ran
if [[ -n ${TERM_FIRST:-} ]]; then kill -TERM $PPID; sleep 0.2; fi
exit $CODE
"""


def run(home: Path, codes: list[int], **environment: str) -> subprocess.CompletedProcess[str]:
    for name, text in (
        ("srun", SRUN),
        ("scontrol", '#!/bin/sh\necho "$@" >>requeued\n'),
        (".venv/bin/python", PYTHON),
    ):
        (home / name).parent.mkdir(parents=True, exist_ok=True)
        (home / name).write_text(text)
        (home / name).chmod(0o755)
    known = {"PATH": f"{home}{os.pathsep}{os.environ['PATH']}", "SLURM_SUBMIT_DIR": str(home), "SLURM_JOB_ID": "41"}
    known |= {"SLURM_GPUS_ON_NODE": "4", "CODES": " ".join(map(str, codes))}
    return subprocess.run(
        ["bash", SCRIPT, "train", "--data=my data"],
        env=os.environ | known | environment,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize(
    ("codes", "code", "requeued"),
    [
        ([0, 0], 0, False),
        ([75, 75], 75, True),
        ([75, 137], 137, True),  # a node is gone
        ([0, 134], 134, True),
        ([2, 75, 75], 2, False),  # one task's recipe is wrong, its peers find it gone
        ([75, 1], 1, False),
        ([1, 137], 1, False),
        ([130, 75], 130, False),
    ],
)
def test_only_what_was_stopped_from_outside_is_requeued(
    tmp_path: Path, codes: list[int], code: int, requeued: bool
) -> None:
    assert run(tmp_path, codes).returncode == code
    assert (tmp_path / "requeued").exists() == requeued
    assert "-m opencoder_jax train --data=my data --hosts=auto" in (tmp_path / "ran").read_text()


def test_a_task_that_is_told_to_go_lets_its_training_save(tmp_path: Path) -> None:
    assert run(tmp_path, [75], TERM_FIRST="yes").returncode == 75


def test_a_job_is_requeued_only_so_often(tmp_path: Path) -> None:
    done = run(tmp_path, [137], SLURM_RESTART_COUNT="100")
    assert (done.returncode, "101st time" in done.stdout, (tmp_path / "requeued").exists()) == (137, True, False)


@pytest.mark.parametrize("given", ["24", None])
def test_a_task_gets_the_cpus_of_the_job(tmp_path: Path, given: str | None) -> None:
    run(tmp_path, [0], **({"SLURM_CPUS_PER_TASK": given} if given else {}))
    assert f"--cpus-per-task={given or 16}" in (tmp_path / "flags").read_text()
