"""The train command: its help, and mistakes in its flags."""

from pathlib import Path

import pytest

from opencoder_jax.recipe import UserError
from opencoder_jax.training.command import main


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
