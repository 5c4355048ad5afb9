"""The train command: its help, and mistakes in its flags."""

from pathlib import Path

import pytest

from opencoder_jax.recipe import UserError, operative
from opencoder_jax.training.train import main
from tests.opencoder_jax.training.small_run import small_recipe


def test_help_has_an_example(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["--help"])
    assert stopped.value.code == 0
    text = capsys.readouterr().out
    assert "python -m opencoder_jax train --gin_file=gin_configs/anneal/opencoder_1p5b.gin" in text
    assert "--init_from" in text


@pytest.mark.parametrize(
    ("argument", "words"),
    [
        ("--output=gs://bucket/run", "argument --output: gs://bucket/run: only folders are taken; mount the bucket"),
        ("--init_form=x", "did you mean --init_from"),
        ("--gin_file=gin_configs/pretrain/opencoder_2b.gin", "gin_configs/pretrain/opencoder_2b.gin: no such file"),
        ("--gin.TrainConfig.stepps=3", "stepps"),
        ("--gin.TrainConfig.steps=0", "TrainConfig: steps=0: must be 1 or more"),
        ("--gin.DataConfig.phases=((0, 8192, 8),)", "rows of 8192 tokens .* longer than ModelConfig.context=4096"),
        ("--gin.TrainConfig.loss_chunk=1000", "loss_chunk=1000: must divide the row length 4096"),
        ("--gin.OptimizerConfig.schedule=cosine", "no such|missing"),
    ],
)
def test_a_mistake_is_one_line(argument: str, words: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=words) as caught:
        main([f"--data={tmp_path / 'nowhere'}", f"--output={tmp_path / 'run'}", argument])
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("flag", "name", "words"),
    [
        ("data", "nowhere", "nowhere: no such directory; name one that holds a directory of token records"),
        ("data", "file", "file: not a directory; name one that holds a directory of token records"),
        ("data", "empty", "empty/refinecode: no such directory; name one that holds token records"),
        ("output", "file", "file: not a directory"),
        ("init_from", "nowhere", "nowhere: no such directory; name one that holds a training run"),
    ],
)
def test_a_directory_that_is_none_is_named(
    flag: str, name: str, words: str, data: Path, tmp_path: Path, small_gin: str
) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "empty").mkdir()
    paths = {"data": data, "output": tmp_path / "run"} | {flag: tmp_path / name}
    with pytest.raises(UserError, match=words):
        main([f"--gin_file={small_gin}", *(f"--{flag}={path}" for flag, path in paths.items())])
    assert not (tmp_path / "run").exists()


@pytest.fixture
def small_gin(tmp_path: Path) -> str:
    (tmp_path / "small.gin").write_text(operative(*small_recipe()))
    return str(tmp_path / "small.gin")
