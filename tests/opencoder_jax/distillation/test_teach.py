"""The command that asks a teacher: every token once, with what it may see, whatever was killed on the way."""

import fcntl
import os
import shutil
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from flax import nnx
from hypothesis import given
from hypothesis import strategies as st

from opencoder_jax.data.token_records import TokenRecords, write_records
from opencoder_jax.distillation import teach
from opencoder_jax.distillation.distributions import Distributions
from opencoder_jax.model.decoder import abstract
from opencoder_jax.parallel.model_directory import LoadedModel, load
from opencoder_jax.recipe import UserError
from opencoder_jax.training.loop import train
from opencoder_jax.training.metrics import read_metrics
from tests.opencoder_jax.training.conftest import make_tokenizer_model
from tests.opencoder_jax.training.small_run import VOCABULARY, small_recipe

CONTEXT = 16
STUDENT: dict[str, Any] = {"TrainConfig_steps": 30, "TrainConfig_seed": 3}
FLAGS = [f"--gin.TeachConfig.context={CONTEXT}", "--gin.TeachConfig.rows=2", "--gin.TeachConfig.k=5"]


@given(st.integers(1, 500), st.integers(2, 40))
def test_each_token_is_new_in_one_window_and_sees_half_a_window(length: int, context: int) -> None:
    found = teach.windows(length, context)
    assert [token for part in found for token in range(part.new, part.stop)] == list(range(length))
    for part in found:
        assert part.stop - part.start <= context
        assert part.start == 0 or part.new - part.start >= context // 2
        assert part.start == 0 or part.stop - part.start == context


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A trained model, and records with documents shorter and longer than what it sees at once."""
    root, random = tmp_path_factory.mktemp("teach"), np.random.default_rng(5)
    model = make_tokenizer_model()
    lengths = ([3, 60, 1, 15, 16, 17], [40, 2], [5])
    shards = [
        [(np.append(random.integers(4, VOCABULARY, length - 1), 2), None) for length in shard] for shard in lengths
    ]
    write_records(root / "refinecode", shards, model, VOCABULARY)
    train(small_recipe(TrainConfig_steps=4), root, root / "run")
    return root


def ask(place: Path, output: Path, *flags: str) -> None:
    records, run = f"--records={place / 'refinecode'}", f"--checkpoint={place / 'run'}"
    teach.main([run, records, f"--output={output}", *FLAGS, *flags])


@pytest.fixture(scope="module")
def taught(place: Path) -> Path:
    ask(place, place / "refinecode_teacher")
    return place / "refinecode_teacher"


def expected(model: LoadedModel, seen: np.ndarray) -> np.ndarray:
    """Log-probabilities of what follows some tokens, by the network alone: what comes after them it doesn't see."""
    row = np.pad(seen, (0, CONTEXT - len(seen)))  # of one length, so compiled once
    return np.asarray(_log_probabilities(abstract(model.config)[0], model.parameters, row)[len(seen) - 1])


@partial(jax.jit, static_argnums=0)
def _log_probabilities(graphdef: nnx.GraphDef[Any], parameters: Any, row: np.ndarray) -> jax.Array:
    network = nnx.merge(graphdef, parameters)
    hidden = network(row[None], np.arange(CONTEXT)[None])
    return jax.nn.log_softmax((hidden @ network.to_logits)[0].astype(np.float32))


def test_what_is_stored_is_what_the_network_expects_of_what_it_may_see(place: Path, taught: Path) -> None:
    records, model = TokenRecords.open(place / "refinecode"), load(place / "run")
    found = Distributions.open(taught, records)
    ids, stored = found.read(np.arange(records.tokens))
    for record in range(len(records)):
        tokens = records.read(record)[0]
        read = np.concatenate([[2], tokens[:-1]])  # a document begins after the end of another
        for part in teach.windows(len(tokens), CONTEXT):
            for token in {part.new, part.stop - 1}:
                right = expected(model, read[part.start : token + 1])
                at = records.start(record) + token
                np.testing.assert_allclose(stored[at], right[ids[at]], atol=5e-3)  # in half precision
                np.testing.assert_allclose(stored[at], np.sort(right)[::-1][:5], atol=5e-3)


def test_killed_between_shards_it_ends_in_the_same_bytes(
    place: Path, taught: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Killed(BaseException):
        pass

    calls = []

    def dies(*arguments: object) -> list[object]:
        calls.append(arguments)
        if len(calls) == 2:
            raise Killed
        return real(*arguments)

    real = teach.TeacherModel.__call__
    monkeypatch.setattr(teach.TeacherModel, "__call__", dies)
    with pytest.raises(Killed):
        ask(place, tmp_path / "teacher")
    assert not (tmp_path / "teacher" / "teacher.json").exists()
    with pytest.raises(UserError, match="holds no finished distributions"):
        Distributions.open(tmp_path / "teacher", TokenRecords.open(place / "refinecode"))
    ask(place, tmp_path / "teacher")
    assert len(calls) == 4  # the first shard wasn't asked about again
    for file in taught.iterdir():
        assert (tmp_path / "teacher" / file.name).read_bytes() == file.read_bytes()


def test_a_second_run_does_nothing(
    place: Path, taught: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(teach.TeacherModel, "__call__", None)
    ask(place, taught)
    assert "up to date; the 5 likeliest tokens" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("flag", "told"),
    [
        ("--gin.TeachConfig.context=8", "holds the distributions of another teacher"),
        ("--gin.TeachConfig.k=3", "holds the distributions of another teacher"),
        ("--gin.TeachConfig.k=5000", "k=5000: the vocabulary has 300 tokens"),
        ("--gin.TeachConfig.chunk=5", "chunk=5: must divide context=16"),
        ("--gin.MeshConfig.fsdp=7", "7"),
    ],
)
def test_what_does_not_fit_is_refused(place: Path, taught: Path, flag: str, told: str) -> None:
    with pytest.raises(UserError, match=told):
        ask(place, taught, flag)


def test_teacher_and_student_must_share_a_tokenizer(place: Path, tmp_path: Path) -> None:
    shutil.copytree(place / "run", tmp_path / "run")
    model = tmp_path / "run" / "tokenizer.model"
    model.write_bytes(model.read_bytes() + b"\x12\x00")  # an empty message more: a model with another fingerprint
    flags = [f"--checkpoint={tmp_path / 'run'}", f"--records={place / 'refinecode'}", f"--output={tmp_path / 'o'}"]
    with pytest.raises(UserError, match=r"its tokenizer isn't the one that made .*refinecode"):
        teach.main([*flags, *FLAGS])


def test_two_processes_do_not_write_one_directory(place: Path, tmp_path: Path) -> None:
    held = os.open(tmp_path, os.O_RDONLY)
    fcntl.flock(held, fcntl.LOCK_EX)
    with pytest.raises(UserError, match="another process writes there"):
        ask(place, tmp_path)
    os.close(held)
    ask(place, tmp_path)


def test_a_student_learns_from_the_teacher_and_tells_the_loss_of_the_text(place: Path, taught: Path) -> None:
    """From the teacher alone it comes nearer to the teacher than from the text alone, in as many steps."""
    losses, distances = {}, {}
    records = TokenRecords.open(place / "refinecode")
    tokens, count = records.read(0)[0], records.start(1)
    ids, log_shares = Distributions.open(taught, records).read(np.arange(count))
    for name, weight in (("text", 0.0), ("teacher", 1.0)):
        recipe = small_recipe(DataConfig_teacher="_teacher", TrainConfig_teacher_weight=(weight, weight), **STUDENT)
        train(recipe, place, place / name)
        losses[name] = [row["loss"] for row in read_metrics(place / name / "metrics.jsonl")]
        student = load(place / name)
        ours = np.stack([expected(student, np.concatenate([[2], tokens[:at]])) for at in range(count)])
        distances[name] = _divergence(ids, log_shares, np.take_along_axis(ours, ids, axis=1))
    assert distances["teacher"] < 0.5 * distances["text"]
    assert losses["teacher"][0] == pytest.approx(losses["text"][0], rel=1e-5)  # of the same weights, on the text
    plain = small_recipe(**STUDENT)
    train(plain, place, place / "plain")
    found = [row["loss"] for row in read_metrics(place / "plain" / "metrics.jsonl")]
    assert losses["text"] == pytest.approx(found, rel=1e-4)
    with pytest.raises(UserError, match=r"belongs to another run: DataConfig\.teacher was "):
        train(plain._replace(data=recipe.data), place, place / "plain")


def _divergence(ids: np.ndarray, teacher: np.ndarray, student: np.ndarray) -> float:
    """Of the student from the teacher, over the tokens that are known and "any other"."""
    rests = [np.log(np.maximum(1 - np.exp(each).sum(1), 1e-6)) for each in (teacher, student)]
    both = [np.column_stack([each, rest]) for each, rest in zip((teacher, student), rests, strict=True)]
    return float((np.exp(both[0]) * (both[0] - both[1])).sum())
