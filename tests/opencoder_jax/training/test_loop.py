"""The loop, on a real run of a tiny model: what it leaves, and what kills, full disks and bad input do to it."""

import itertools
import json
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jax
import numpy as np
import pytest

from opencoder_jax import recipe as recipes
from opencoder_jax.data.token_records import write_records
from opencoder_jax.exchange.export_model import export_model
from opencoder_jax.exchange.import_model import import_model
from opencoder_jax.parallel.checkpoints import checkpoint_steps, restore
from opencoder_jax.parallel.mesh import make_mesh
from opencoder_jax.parallel.model_directory import read_config
from opencoder_jax.recipe import UserError
from opencoder_jax.training import loop
from opencoder_jax.training.held_out import HeldOut
from opencoder_jax.training.loop import train
from opencoder_jax.training.metrics import MetricsFile, read_metrics
from opencoder_jax.training.reporter import TIMING, Reporter
from opencoder_jax.training.run import Recipe, locked
from opencoder_jax.training.step import TrainState, abstract_state
from tests.opencoder_jax.training.small_run import small_recipe

ROOT = Path(__file__).resolve().parents[3]

# Runs the training command, and kills its own process at an exact point of the run:
# "row N" when the row of step N is written, "save N" while the checkpoint of step N is on its way to the disk.
KILLED = """
import os, signal, sys
from opencoder_jax.parallel import checkpoints
from opencoder_jax.training import metrics, train

def then_die(method, is_time):
    def wrapped(self, *items):
        method(self, *items)
        if is_time(items[0]):
            os.kill(os.getpid(), signal.SIGKILL)
    return wrapped

what, step = sys.argv[1], int(sys.argv[2])
if what == "row":
    metrics.MetricsFile.write = then_die(metrics.MetricsFile.write, lambda row: row["step"] == step)
else:
    checkpoints.Checkpoints.save = then_die(checkpoints.Checkpoints.save, lambda saved: saved == step)
train.main(sys.argv[3:])
"""


def saved(run: Path, step: int) -> TrainState:
    """A checkpoint's state."""
    shapes = abstract_state(small_recipe(), make_mesh(small_recipe().mesh))
    return shapes.restored(step, restore(run / "checkpoints", step, shapes.items))


def same_bits(one: Any, other: Any) -> bool:
    pairs = zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True)
    return all(np.asarray(a).tobytes() == np.asarray(b).tobytes() for a, b in pairs)


def losses(run: Path) -> list[dict[str, Any]]:
    """The rows of a run without their timing."""
    rows = read_metrics(run / "metrics.jsonl")
    return [{key: row[key] for key in row if key not in TIMING} for row in rows]


@pytest.fixture(scope="module")
def whole(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that nothing stopped."""
    output = tmp_path_factory.mktemp("runs") / "whole"
    train(small_recipe(), data, output)
    return output


def test_a_run_leaves_what_others_read(whole: Path, data: Path) -> None:
    assert sorted(path.name for path in whole.iterdir()) == [
        "checkpoints",
        "config.gin",
        "metrics.jsonl",
        "model.json",
        "run.json",
        "tokenizer.model",
    ]
    description = json.loads((whole / "run.json").read_text())
    assert description["recipe"]["ModelConfig"]["width"] == 32
    assert read_config(whole) == small_recipe().model
    assert description["parameters"] == small_recipe().model.parameters()
    assert (whole / "tokenizer.model").read_bytes() == (data / "refinecode" / "tokenizer.model").read_bytes()
    rows = read_metrics(whole / "metrics.jsonl")
    assert [row["step"] for row in rows] == [1, 2, 3, 4, 5, 6]
    assert [row["tokens"] for row in rows] == [128 * step for step in range(1, 7)]
    assert rows[-1]["loss"] < rows[0]["loss"]


def test_two_runs_are_the_same_to_the_last_digit(whole: Path, data: Path, tmp_path: Path) -> None:
    recipes.bind([str(whole / "config.gin")])
    train(Recipe.from_gin(), data, tmp_path / "again")
    assert losses(tmp_path / "again") == losses(whole)
    assert (tmp_path / "again" / "run.json").read_bytes() == (whole / "run.json").read_bytes()
    assert same_bits(saved(tmp_path / "again", 6), saved(whole, 6))


def test_killed_anywhere_it_ends_bit_for_bit_the_same(whole: Path, data: Path, tmp_path: Path) -> None:
    output = tmp_path / "killed"
    command = [f"--gin_file={whole / 'config.gin'}", f"--data={data}", f"--output={output}"]
    found = []
    for point in (("save", "2"), ("row", "5")):
        process = subprocess.run(
            [sys.executable, "-c", KILLED, *point, *command], cwd=ROOT, capture_output=True, text=True, check=False
        )
        assert process.returncode == -signal.SIGKILL, process.stderr
        found.append([row["step"] for row in read_metrics(output / "metrics.jsonl")])
    # Rows after the checkpoint that a run went on from are written again, and none stands twice.
    assert found == [[1, 2], [1, 2, 3, 4, 5]]
    assert max(checkpoint_steps(output / "checkpoints")) in (2, 4)  # 4 was being written when the last row was
    train(small_recipe(), data, output)
    assert losses(output) == losses(whole)
    assert same_bits(saved(output, 6), saved(whole, 6))


@pytest.mark.slow
def test_killed_at_twenty_moments_it_ends_bit_for_bit_the_same(data: Path, tmp_path: Path) -> None:
    """Every other kill falls into the writing of a checkpoint, the others anywhere between two rows."""
    recipe = small_recipe(TrainConfig_steps=2000, TrainConfig_keep=2, TrainConfig_checkpoint_every=20)
    (tmp_path / "recipe.gin").write_text(recipes.operative(*recipe))

    def start(name: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "opencoder_jax", "train", f"--gin_file={tmp_path / 'recipe.gin'}"]
        command += [f"--data={data}", f"--output={tmp_path / name}"]
        return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)

    assert start("whole").wait() == 0
    random, during_a_save, kills = np.random.default_rng(0), 0, 0
    while kills < 20:
        process = start("killed")
        before = len(losses(tmp_path / "killed"))
        rows = before + int(random.integers(1, 60))
        while process.poll() is None and len(losses(tmp_path / "killed")) < rows:
            time.sleep(0.001)
        half_written = lambda: list((tmp_path / "killed" / "checkpoints").glob("*tmp*"))  # noqa: E731
        while process.poll() is None and kills % 2 and not half_written():
            pass
        process.kill()
        assert process.wait() == -signal.SIGKILL, "it had ended before it could be killed: make the run longer"
        during_a_save += bool(half_written())
        kills += 1
    assert during_a_save >= 5
    ended = start("killed")
    assert ended.wait() == 0, ended.stderr
    assert losses(tmp_path / "killed") == losses(tmp_path / "whole")
    sums = [tmp_path / name / "checkpoints" / "2000" / "sums" / "metadata" for name in ("killed", "whole")]
    assert sums[0].read_bytes() == sums[1].read_bytes()
    assert same_bits(saved(tmp_path / "killed", 2000), saved(tmp_path / "whole", 2000))
    assert not list((tmp_path / "killed" / "checkpoints").glob("*tmp*"))


@pytest.mark.slow
def test_interrupted_before_its_first_checkpoint_it_begins_anew(
    whole: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(file: MetricsFile, row: Mapping[str, Any]) -> None:
        write(file, row)
        raise KeyboardInterrupt

    write = MetricsFile.write
    with monkeypatch.context() as patch:
        patch.setattr(MetricsFile, "write", interrupt)
        with pytest.raises(KeyboardInterrupt):
            train(small_recipe(), data, tmp_path / "run")
    assert len(losses(tmp_path / "run")) == 1
    train(small_recipe(), data, tmp_path / "run")
    assert losses(tmp_path / "run") == losses(whole)


def test_a_finished_run_is_left_alone(whole: Path, data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = {path: path.stat().st_mtime_ns for path in whole.rglob("*") if path.is_file()}
    train(small_recipe(), data, whole)
    assert "trained already" in capsys.readouterr().out
    assert {path: path.stat().st_mtime_ns for path in whole.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"OptimizerConfig_weight_decay": 0.2}, "OptimizerConfig.weight_decay was 0.1 and is 0.2"),
        ({"DataConfig_seed": 5}, "DataConfig.seed was 0 and is 5"),
        ({"ModelConfig_layers": 3}, "ModelConfig.layers was 2 and is 3"),
    ],
)
def test_another_recipe_is_refused(whole: Path, data: Path, changes: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError, match=re.escape(words)):
        train(small_recipe(**changes), data, whole)


def test_the_order_of_a_mixture_is_a_part_of_what_a_run_is(data: Path, tmp_path: Path) -> None:
    mixture = {"refinecode": 0.5, "held_out": 0.5}
    train(small_recipe(DataConfig_mixture=mixture, TrainConfig_steps=3), data, tmp_path / "run")
    with pytest.raises(UserError, match=r"order was \['refinecode', 'held_out'\] and is \['held_out', 'refinecode'\]"):
        train(small_recipe(DataConfig_mixture=dict(reversed(mixture.items()))), data, tmp_path / "run")


@pytest.mark.slow
def test_the_stable_stage_can_be_prolonged(whole: Path, data: Path, tmp_path: Path) -> None:
    train(small_recipe(TrainConfig_steps=3), data, tmp_path / "run")
    train(small_recipe(), data, tmp_path / "run")
    assert same_bits(saved(tmp_path / "run", 6), saved(whole, 6))
    train(small_recipe(OptimizerConfig_schedule="cosine"), data, tmp_path / "cosine")
    with pytest.raises(UserError, match=r"TrainConfig\.steps was 6 and is 7"):
        train(small_recipe(OptimizerConfig_schedule="cosine", TrainConfig_steps=7), data, tmp_path / "cosine")


def test_a_loss_that_is_no_number_stops_the_run(data: Path, tmp_path: Path) -> None:
    recipe = small_recipe(OptimizerConfig_peak_learning_rate=1e38, OptimizerConfig_warmup_steps=0)
    with pytest.raises(UserError, match=r"the gradient's norm nan.*peak_learning_rate"):
        train(recipe, data, tmp_path / "run")
    assert checkpoint_steps(tmp_path / "run" / "checkpoints") == []
    assert all(np.isfinite(row["loss"]) for row in read_metrics(tmp_path / "run" / "metrics.jsonl"))


def flip_a_bit(checkpoint: Path) -> None:
    file = max((checkpoint / "parameters").rglob("d/*"), key=lambda path: path.stat().st_size)
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


def truncate(checkpoint: Path) -> None:
    file = max((checkpoint / "optimizer").rglob("d/*"), key=lambda path: path.stat().st_size)
    file.write_bytes(file.read_bytes()[:100])


def delete_the_sums(checkpoint: Path) -> None:
    (checkpoint / "sums" / "metadata").unlink()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # from Orbax's threads
@pytest.mark.parametrize(
    "damage", [flip_a_bit, *(pytest.param(damage, marks=pytest.mark.slow) for damage in (truncate, delete_the_sums))]
)
def test_a_damaged_checkpoint_is_named_and_the_one_before_is_used(
    damage: Callable[[Path], None], whole: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "run"
    train(small_recipe(TrainConfig_steps=4), data, output)
    damage(output / "checkpoints" / "4")
    train(small_recipe(), data, output)
    assert f"checkpoint {output / 'checkpoints' / '4'} is damaged" in capsys.readouterr().err
    assert losses(output) == losses(whole)
    assert same_bits(saved(output, 6), saved(whole, 6))


@pytest.mark.slow
def test_a_damaged_last_checkpoint_is_trained_again_and_a_damaged_report_is_no_hindrance(
    whole: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = Path(shutil.copytree(whole, tmp_path / "run"))
    flip_a_bit(output / "checkpoints" / "6")
    lines = (output / "metrics.jsonl").read_text().splitlines(keepends=True)
    (output / "metrics.jsonl").write_text("".join(["\0\n", "[]\n", '{"step": "6"}\n', *lines[1:]]))
    train(small_recipe(), data, output)
    assert "metrics.jsonl, line 3: damaged, left out" in capsys.readouterr().err
    assert same_bits(saved(output, 6), saved(whole, 6))
    assert [row["step"] for row in read_metrics(output / "metrics.jsonl")] == [2, 3, 4, 5, 6]


def test_a_record_from_before_a_field_means_its_default_and_a_newer_one_is_refused(
    whole: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = Path(shutil.copytree(whole, tmp_path / "run"))
    record = json.loads((output / "run.json").read_text())
    del record["version"], record["recipe"]["TrainConfig"]["seed"], record["recipe"]["DataConfig"]["fim_rate"]
    (output / "run.json").write_text(json.dumps(record))
    train(small_recipe(), data, output)
    assert "trained already" in capsys.readouterr().out
    with pytest.raises(UserError, match=r"TrainConfig\.seed was 0 and is 1"):
        train(small_recipe(TrainConfig_seed=1), data, output)
    (output / "run.json").write_text(json.dumps(record | {"version": 99}))
    with pytest.raises(UserError, match=r"run\.json: written by a newer release"):
        train(small_recipe(), data, output)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_full_disk_leaves_the_last_checkpoint(whole: Path, data: Path, tmp_path: Path) -> None:
    output = tmp_path / "run"
    train(small_recipe(TrainConfig_steps=2), data, output)
    # No file may grow beyond 20 kB: what a full disk is to a write, without filling one.
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))
    try:
        with pytest.raises(UserError, match=r"can't be written .*; the last complete checkpoint is step 2"):
            train(small_recipe(), data, output)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    train(small_recipe(), data, output)
    assert losses(output) == losses(whole)
    assert same_bits(saved(output, 6), saved(whole, 6))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_save_that_fails_beside_the_training_ends_it_long_before_the_next(
    whole: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert whole.exists()  # so that its program is compiled, and kept whole for others
    taken = []

    def later(self: Reporter, step: int, *_: Any) -> None:
        taken.append(step)
        if step > 2000:
            threading.Event().wait(0.002)  # a real model's step takes longer than the start of a save

    monkeypatch.setattr(Reporter, "later", later)
    recipe = small_recipe(TrainConfig_steps=4000, TrainConfig_checkpoint_every=2000)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))
    try:
        with pytest.raises(UserError, match=r"can't be written .*; no checkpoint is left"):
            train(recipe, data, tmp_path / "run")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert 2000 <= taken[-1] < 4000


def test_an_evaluation_that_fails_costs_no_step(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(self: HeldOut, parameters: Any) -> None:
        raise RuntimeError("out of memory")

    monkeypatch.setattr(HeldOut, "__call__", fail)
    recipe = small_recipe(
        TrainConfig_held_out=("held_out",), TrainConfig_evaluate_every=3, TrainConfig_checkpoint_every=100
    )
    with pytest.raises(RuntimeError, match="out of memory"):
        train(recipe, data, tmp_path / "run")
    assert checkpoint_steps(tmp_path / "run" / "checkpoints") == [3]


def test_ctrl_c_saves_and_the_run_goes_on_bit_for_bit(
    whole: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def press(self: Reporter, step: int, *rest: Any) -> None:
        later(self, step, *rest)
        if step == 3:
            os.kill(os.getpid(), signal.SIGINT)

    later, handler = Reporter.later, signal.getsignal(signal.SIGINT)
    output = tmp_path / "run"
    with monkeypatch.context() as patch:
        patch.setattr(Reporter, "later", press)
        with pytest.raises(KeyboardInterrupt):
            train(small_recipe(TrainConfig_checkpoint_every=100), data, output)
    assert checkpoint_steps(output / "checkpoints") == [3]
    assert signal.getsignal(signal.SIGINT) is handler
    train(small_recipe(), data, output)
    assert same_bits(saved(output, 6), saved(whole, 6))


def test_two_runs_do_not_share_a_directory(data: Path, tmp_path: Path) -> None:
    output = tmp_path / "run"
    output.mkdir()
    with locked(output), pytest.raises(UserError, match="another process trains there"):
        train(small_recipe(), data, output)
    assert checkpoint_steps(output / "checkpoints") == []


def test_a_checkpoint_every_so_many_minutes(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seconds = itertools.count(step=25.0)
    monkeypatch.setattr(loop, "time", SimpleNamespace(monotonic=seconds.__next__))
    recipe = small_recipe(TrainConfig_checkpoint_minutes=1, TrainConfig_checkpoint_every=5)
    train(recipe, data, tmp_path / "run")
    # Three looks at the clock are more than a minute; the fifth step is saved by its number, and the clock starts anew.
    assert checkpoint_steps(tmp_path / "run" / "checkpoints") == [3, 5, 6]


@pytest.mark.slow
def test_rows_grow_longer_at_a_step(data: Path, tmp_path: Path) -> None:
    recipe = small_recipe(DataConfig_phases=((0, 16, 8), (3, 32, 4)))
    train(recipe, data, tmp_path / "run")
    rows = read_metrics(tmp_path / "run" / "metrics.jsonl")
    assert [row["tokens"] for row in rows] == [128 * step for step in range(1, 7)]
    assert rows[-1]["loss"] < rows[0]["loss"]


def test_the_next_stage_starts_from_the_last(whole: Path, data: Path, tmp_path: Path) -> None:
    changes = {"OptimizerConfig_schedule": "exponential", "OptimizerConfig_final_learning_rate": 1e-3}
    changes |= {"OptimizerConfig_warmup_steps": 0, "TrainConfig_steps": 2, "TrainConfig_held_out": ("held_out",)}
    for name, more in (
        ("with moments", {}),
        ("without", {"TrainConfig_init_optimizer": False}),
        ("drawn otherwise", {"ModelConfig_init_std": 0.5}),
        ("earlier", {"TrainConfig_init_step": 4}),
    ):
        train(small_recipe(**changes, **more), data, tmp_path / name, init_from=whole)
    first = {path.name: losses(path)[0] for path in tmp_path.iterdir()}
    # Same weights and batch, so the same loss; the schedule starts anew, at its peak.
    assert first["with moments"]["loss"] == first["without"]["loss"] != first["earlier"]["loss"]
    assert first["drawn otherwise"]["loss"] == first["with moments"]["loss"]
    assert first["with moments"]["learning_rate"] == pytest.approx(1e-2)
    counts = [saved(tmp_path / name, 2).optimizer[1].count for name in ("with moments", "without", "earlier")]
    assert [int(count) for count in counts] == [8, 2, 6]
    last = losses(tmp_path / "with moments")[-1]
    assert abs(last["held_out"]["held_out"]["loss"] - last["loss"]) < 1
    assert json.loads((tmp_path / "earlier" / "run.json").read_text())["origin"]["step"] == 4

    with pytest.raises(UserError, match=r"no checkpoint of step 5; there are 2, 4, 6"):
        train(small_recipe(**changes, TrainConfig_init_step=5), data, tmp_path / "none", init_from=whole)
    with pytest.raises(UserError, match=r"its ModelConfig\.ffn_width is 64, this recipe's is 32"):
        train(small_recipe(**changes, ModelConfig_ffn_width=32), data, tmp_path / "other", init_from=whole)
    with pytest.raises(UserError, match=r"no run\.json there"):
        train(small_recipe(**changes), data, tmp_path / "nothing", init_from=data)


@pytest.mark.slow
def test_a_converted_model_starts_a_run_as_the_run_does_that_it_was(whole: Path, data: Path, tmp_path: Path) -> None:
    export_model(whole, tmp_path / "theirs")
    import_model(tmp_path / "theirs", tmp_path / "ours")
    changes = {"TrainConfig_steps": 1, "TrainConfig_init_optimizer": False}
    for name, origin in (("from run", whole), ("from model", tmp_path / "ours")):
        train(small_recipe(**changes), data, tmp_path / name, init_from=origin)
    assert losses(tmp_path / "from run")[0]["loss"] == losses(tmp_path / "from model")[0]["loss"]
    assert json.loads((tmp_path / "from model" / "run.json").read_text())["origin"]["step"] == 0
    with pytest.raises(UserError, match=r"converted and has none; set TrainConfig\.init_optimizer=False"):
        train(small_recipe(), data, tmp_path / "moments", init_from=tmp_path / "ours")
    (tmp_path / "ours" / "tokenizer.model").write_bytes(b"another")
    with pytest.raises(UserError, match="its tokenizer is not the one"):
        train(small_recipe(**changes), data, tmp_path / "tokens", init_from=tmp_path / "ours")


def test_data_and_model_must_share_a_vocabulary(data: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="has 300 tokens, the model 512"):
        train(small_recipe(ModelConfig_vocab_size=512), data, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_token_outside_the_vocabulary_is_named(data: Path, tokenizer_model: bytes, tmp_path: Path) -> None:
    documents = [(np.append(np.arange(4, 30), 2), None) for _ in range(20)]
    documents[7][0][3] = 300
    write_records(tmp_path / "refinecode", [documents], tokenizer_model, 2**31)
    with pytest.raises(UserError, match=r"has the token 300 at \d+, outside the vocabulary of 300; tokenise again"):
        train(small_recipe(), tmp_path, tmp_path / "run")


def test_a_batch_that_cannot_be_divided_is_refused(data: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"8 rows can't be divided .* microbatch=3; change DataConfig\.phases"):
        train(small_recipe(TrainConfig_microbatch=3), data, tmp_path / "run")
    assert not (tmp_path / "run").exists()
