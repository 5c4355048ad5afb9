"""What a run tells: its rows, the boards, the trace, and the arithmetic of MFU and of bits a byte."""

import gzip
import json
import math
import shutil
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from opencoder_jax import recipe as recipes
from opencoder_jax.data.batches import Batches
from opencoder_jax.data.references import ReferenceRows
from opencoder_jax.data.token_records import write_records
from opencoder_jax.model import flops
from opencoder_jax.model.config import ModelConfig
from opencoder_jax.model.flops import PEAK_FLOPS, flops_per_token, mfu
from opencoder_jax.recipe import ROOT, UserError
from opencoder_jax.tokenization.tokenizer import Tokenizer
from opencoder_jax.training.loop import train
from opencoder_jax.training.metrics import read_metrics
from opencoder_jax.training.run import Recipe
from tests.opencoder_jax.training.small_run import small_recipe


def watched(recipe: Recipe, data: Path, output: Path) -> None:
    """Trains in a process of its own: JAX's profiler doesn't share one with TensorFlow's, which other tests load."""
    gin_file = output.with_suffix(".gin")
    gin_file.write_text(recipes.operative(*recipe))
    command = [sys.executable, "-m", "opencoder_jax", "train"]
    command += [f"--gin_file={gin_file}", f"--data={data}", f"--output={output}"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def traced(output: Path) -> list[list[int]]:
    """The steps in each trace of a run, in the order of the traces."""
    found = []
    for trace in sorted((output / "profile").rglob("*.xplane.pb")):
        lines = [line for plane in jax.profiler.ProfileData.from_file(str(trace)).planes for line in plane.lines]
        events = [event for line in lines for event in line.events]
        found.append([dict(event.stats)["step_num"] for event in events if event.name == "train"])
        # No call of Python's: hooks for them, set in other threads, crash a process now and then.
        assert not [event.name for event in events if event.name.startswith("$")]
    return found


def test_every_way_to_watch_a_run(data: Path, tmp_path: Path) -> None:
    output = tmp_path / "run"
    watched(small_recipe(TrainConfig_tensorboard=True, TrainConfig_profile=(2, 4), TrainConfig_steps=5), data, output)
    assert traced(output) == [[2, 3]]
    events = list((output / "tensorboard").glob("events.*"))
    assert len(events) == 1
    written = events[0].read_bytes()
    assert b"gradient_norm" in written
    assert b"tokens_per_second" in written
    last = read_metrics(output / "metrics.jsonl")[-1]
    assert 0 <= last["input_wait"] < 1
    assert 0.05 < last["memory_gb"] < 100
    assert last["tokens_per_second"] > 0
    assert "mfu" not in last  # of a CPU, nobody knows the peak


@pytest.mark.slow
def test_a_run_goes_on_and_ends_among_the_steps_that_it_traces(data: Path, tmp_path: Path) -> None:
    output = tmp_path / "run"
    recipe = small_recipe(TrainConfig_profile=(1, 9), TrainConfig_steps=5)
    watched(recipe, data, output)
    for step in (4, 5):
        shutil.rmtree(output / "checkpoints" / str(step))
    watched(recipe, data, output)
    assert traced(output) == [[1, 2, 3, 4], [2, 3, 4]]


def test_a_board_that_is_not_installed_is_named(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(UserError, match=r"TrainConfig\.wandb_project needs .*: pip install wandb"):
        train(small_recipe(TrainConfig_wandb_project="opencoder"), data, tmp_path / "run")


def test_references_are_rows_whose_answers_alone_are_targets(tmp_path: Path, tokenizer_model: bytes) -> None:
    tokenizer, benchmark = Tokenizer(tokenizer_model), tmp_path / "toy.jsonl.gz"
    lines = [
        {"task_id": f"toy/{number}", "prompt": "def f(a):\n\n", "canonical_solution": f"    return {number}" * times}
        for number, times in ((1, 1), (2, 1), (3, 1), (4, 99))
    ]
    benchmark.write_bytes(gzip.compress("".join(json.dumps(line) + "\n" for line in lines).encode()))
    rows = ReferenceRows(str(benchmark), tokenizer, 2, 64)
    assert (rows.name, rows.steps, rows.left_out, rows.shape(0)) == ("references_toy", 2, 1, (2, 64))
    batches = [rows(0, 0, 1), rows(0, 1, 2), rows(1)]
    tokens, targets, _, mask = (np.concatenate(parts) for parts in zip(*batches, strict=True))
    for row in range(3):
        assert tokenizer.decode(targets[row][mask[row] > 0]) == f"    return {row + 1}"
        last = int(np.flatnonzero(mask[row])[-1])
        assert targets[row][last] == tokenizer.end_of_document
        assert tokenizer.decode(tokens[row][: last + 1]) == f"def f(a):\n    return {row + 1}"
    assert not mask[3].any()
    with pytest.raises(UserError, match="no problem has a prompt and an answer that fit a row of 4 tokens"):
        ReferenceRows(str(benchmark), tokenizer, 2, 4)


def test_bits_a_byte_are_counted_by_hand(data: Path, tmp_path: Path, tokenizer_model: bytes) -> None:
    output = tmp_path / "run"
    benchmark = tmp_path / "toy.jsonl"
    benchmark.write_text(json.dumps({"task_id": "toy/0", "prompt": "ab\n", "canonical_solution": "cd"}) + "\n")
    sources = {"TrainConfig_held_out": ("held_out", "refinecode"), "TrainConfig_references": (str(benchmark),)}
    # Whatever the run's seed, the texts are those of seed 0.
    train(small_recipe(**sources, TrainConfig_evaluate_batches=1, DataConfig_seed=7), data, output)
    scores = read_metrics(output / "metrics.jsonl")[-1]["held_out"]
    assert list(scores) == ["held_out", "refinecode", "references_toy", "all"]

    tokenizer = Tokenizer(tokenizer_model)
    asked = len(tokenizer.encode("cd")) + 1  # and the end
    bits = scores["references_toy"]["loss"] * asked / math.log(2) / len("cd")
    assert scores["references_toy"]["bits_per_byte"] == pytest.approx(bits)
    sizes = {}
    for source in ("held_out", "refinecode"):
        changed = small_recipe(DataConfig_mixture={source: 1.0})
        batch = Batches(changed.data, data, tokenizer.pad, tokenizer.end_of_document)(0)
        counted = batch.targets[batch.loss_mask > 0]
        text = sum(len(tokenizer.decode_bytes([int(token)])) for token in counted)
        sizes[source] = len(counted), text
        loss = scores[source]["loss"]
        assert scores[source]["bits_per_byte"] == pytest.approx(loss * len(counted) / math.log(2) / text)
    mean = sum(scores[source]["loss"] * sizes[source][0] for source in sizes) / sum(size[0] for size in sizes.values())
    assert scores["all"]["loss"] == pytest.approx(mean)


def test_padding_is_told_apart_and_attention_is_what_documents_need(
    data: Path, tmp_path: Path, tokenizer_model: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(flops.PEAK_FLOPS, jax.devices()[0].device_kind, 1e12)  # type: ignore[arg-type]
    changes = {"DataConfig_packing": "pad", "DataConfig_attend_across_documents": False}
    recipe = small_recipe(
        DataConfig_phases=((0, 48, 8),), TrainConfig_loss_chunk=48, TrainConfig_log_every=4, **changes
    )
    train(recipe, data, tmp_path / "run")
    rows = read_metrics(tmp_path / "run" / "metrics.jsonl")
    assert [row["step"] for row in rows] == [1, 4, 6]
    tokenizer = Tokenizer(tokenizer_model)
    batches = Batches(recipe.data, data, tokenizer.pad, tokenizer.end_of_document)
    for row, steps in zip(rows, ((0,), (1, 2, 3), (4, 5)), strict=True):
        parts = [batches(step) for step in steps]
        there = np.concatenate([part.tokens for part in parts]) != tokenizer.pad
        keys = np.concatenate([part.positions for part in parts])[there] + 1
        assert row["padding"] == pytest.approx(1 - there.mean())
        assert 0.05 < row["padding"] < 0.95
        assert row["targets"] == pytest.approx(sum(part.loss_mask.sum() for part in parts) / there.sum())
        pairs = 12 * recipe.model.layers * recipe.model.heads * recipe.model.head_size * keys.mean()
        cost = 6 * recipe.model.matrix_parameters() + pairs
        assert row["mfu"] == pytest.approx(row["tokens_per_second"] * cost / 1e12 / jax.device_count())


def test_a_held_out_source_without_targets_is_refused(data: Path, tmp_path: Path, tokenizer_model: bytes) -> None:
    shutil.copytree(data, tmp_path / "data")
    write_records(
        tmp_path / "data/mute", [[(np.append(np.arange(4, 98), 2), np.zeros(95, np.uint8))]], tokenizer_model, 300
    )
    with pytest.raises(UserError, match=r"mute: no token of its first 8 batches is a target"):
        train(small_recipe(TrainConfig_held_out=("mute",)), tmp_path / "data", tmp_path / "run")


def test_flops_of_a_token() -> None:
    model = ModelConfig()
    assert model.matrix_parameters() == model.parameters() - model.vocab_size * model.width - model.width * (
        2 * model.layers + 1
    )
    # 6 N, and attention as a sum over the pairs of a query and a key: two products, thrice (forward, backward twice).
    length = 4096
    pairs = length * (length + 1) / 2
    attention = 3 * 2 * 2 * pairs * model.heads * model.head_size * model.layers / length
    assert flops_per_token(model, length) == pytest.approx(6 * model.matrix_parameters() + attention)
    # OpenCoder's 1.5B: 19,800 tokens a second on an H800 is 23 % of its peak.
    share = mfu(19_800, flops_per_token(model, length), 1, "NVIDIA H100 80GB HBM3")
    assert share is not None
    assert 0.2 < share < 0.25


def test_an_unknown_chip_has_no_mfu() -> None:
    assert mfu(1e6, 1e9, 1, "Abacus") is None
    assert mfu(1e6, 1e9, 1, jax.devices()[0].device_kind) is None
    assert all(np.isfinite(peak) and peak > 1e13 for peak in PEAK_FLOPS.values())
