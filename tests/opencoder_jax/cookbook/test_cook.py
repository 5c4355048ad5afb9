"""The whole recipe, tiny: it ends in a report, redoes nothing, repeats itself in another folder, and survives kills."""

import contextlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from opencoder_jax.chain import STEP, clear
from opencoder_jax.recipe import UserError
from tests.miniature import TINY, copy_source
from tests.quick import QUICK


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("source")
    copy_source(folder)
    return folder


def start(source: Path, output: Path) -> subprocess.Popen[str]:
    """The cookbook as a process of its own."""
    command = [sys.executable, "-m", "opencoder_jax", "cookbook", f"--source={source}", f"--output={output}", *TINY]
    return subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | QUICK,
        start_new_session=True,
    )


def cook(source: Path, output: Path) -> str:
    """Runs the cookbook to its end; what it wrote to stderr."""
    with start(source, output) as process:
        _, errors = process.communicate()
    assert process.returncode == 0, errors[-4000:]
    return errors


@pytest.fixture(scope="module")
def cooked(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("cooked") / "run"
    cook(source, output)
    return output


def outputs(run: Path) -> dict[str, str]:
    """What must be equal between two runs: every file of every stage by its digest, and every loss by its digits."""
    found = {}
    for manifest in sorted(run.rglob("stage.json")):
        found[str(manifest.relative_to(run))] = manifest.read_text()
    for metrics in sorted(run.rglob("metrics.jsonl")):
        rows = [json.loads(line) for line in metrics.read_text().splitlines()]
        kept = [{key: row[key] for key in ("step", "tokens", "loss", "gradient_norm")} for row in rows]
        found[str(metrics.relative_to(run))] = json.dumps(kept)
    for samples in sorted(run.rglob("samples.jsonl")):
        found[str(samples.relative_to(run))] = samples.read_text()
    return found


def test_ends_in_a_report(cooked: Path) -> None:
    report = (cooked / "report.html").read_text()
    assert "pass@1" in report
    scores = [json.loads(path.read_text()) for path in sorted(cooked.glob("evaluation/*/score.json"))]
    assert len(scores) == 8  # four models on two benchmarks
    duplicates = json.loads((cooked / "data/exact_duplicates/stage.json").read_text())
    assert duplicates["tally"]["drop"]["documents"]["duplicate"] >= 4  # the forked package
    assert json.loads((cooked / "data/snippets/stage.json").read_text())["tally"]["count"]["doctests: ok"] > 5


@pytest.mark.slow
def test_a_second_run_redoes_nothing(source: Path, cooked: Path) -> None:
    def times() -> dict[str, int]:
        kept = [path for path in cooked.rglob("*") if path.is_file() and path.name != "report.html"]
        return {str(path): path.stat().st_mtime_ns for path in kept}

    before = times()
    errors = cook(source, cooked)
    assert times() == before
    assert errors.count("up to date") >= 56


def test_what_others_left_is_not_deleted(tmp_path: Path) -> None:
    """Files of the user's own stay; a stale output that a kill left half deleted goes."""
    output = tmp_path / "pretrain"
    output.mkdir()
    (output / "weights").write_text("precious")
    with pytest.raises(UserError, match="pretrain: holds files that the chain didn't write"):
        clear(output)
    assert (output / "weights").read_text() == "precious"
    (output / STEP).write_text("{}")
    (tmp_path / "pretrain.stale").mkdir()
    clear(output)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_another_folder_holds_the_same(source: Path, cooked: Path, tmp_path: Path) -> None:
    cook(source, tmp_path / "elsewhere")
    assert outputs(tmp_path / "elsewhere") == outputs(cooked)


@pytest.mark.slow
def test_killed_anywhere_it_goes_on(source: Path, cooked: Path, tmp_path: Path) -> None:
    """Killed with all its workers as a step begins; kills within training are tested there."""
    output = tmp_path / "killed"
    for kill_at in range(2, 56, 5):
        process = start(source, output)
        seen = 0
        assert process.stderr is not None
        for line in process.stderr:
            seen += line.startswith("[")
            if seen > kill_at:
                break
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        if process.returncode == 0:
            break
    cook(source, output)
    assert outputs(output) == outputs(cooked)
