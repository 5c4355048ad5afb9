"""What a run makes of its data is told, and a run that loses most of it is refused."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from opencoder_jax.data.token_records import write_records
from opencoder_jax.recipe import UserError
from opencoder_jax.training.counts import SourceCounts, check_counts, counts_table
from opencoder_jax.training.loop import train
from opencoder_jax.training.metrics import read_metrics
from tests.opencoder_jax.training.small_run import small_recipe


def test_a_line_a_source_and_what_is_out_of_the_ordinary() -> None:
    counts = {
        "chats": SourceCounts(records=1_000, dropped=20, epochs=3.0, padding=0.25, trained=0.5),
        "tiny": SourceCounts(records=4, dropped=0, epochs=52_800.0, padding=0.0, trained=1.0),
    }
    lines = counts_table(counts, 64).splitlines()
    assert lines[1].split() == ["chats", "1,000", "20", "980", "3.00", "25.0%", "50.0%"]
    assert lines[2].split() == ["tiny", "4", "0", "4", "52,800.00", "0.0%", "100.0%"]
    assert lines[3].startswith("warning: chats: 20 of 1,000 examples fit no row of 64 tokens and are dropped; raise")
    assert lines[4].startswith("warning: tiny is read 52,800 times; lower its weight")
    check_counts(counts, 64)


def test_a_run_tells_its_data_and_refuses_to_lose_most_of_it(
    tmp_path: Path, tokenizer_model: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, kept in (("refinecode", 12), ("lossy", 2)):
        examples = [(np.arange(4, 24), None)] * kept + [(np.arange(4, 104), None)] * (20 - kept)
        write_records(tmp_path / name, [examples], tokenizer_model, 2**31)
    recipe = small_recipe(DataConfig_packing="pad", DataConfig_phases=((0, 32, 8),), TrainConfig_steps=2)
    train(recipe, tmp_path, tmp_path / "run")
    said = [line.split() for line in capsys.readouterr().out.splitlines()]
    (told,) = [words for words in said if words[:1] == ["refinecode"]]
    assert told[1:4] == ["20", "8", "12"]
    rows = recipe.data.phases[0][2]
    assert read_metrics(tmp_path / "run/metrics.jsonl")[-1]["epochs"] == {"refinecode": pytest.approx(2 * rows / 12)}
    lossy = recipe._replace(data=dataclasses.replace(recipe.data, mixture={"lossy": 1.0}))
    with pytest.raises(UserError, match=r"lossy: 18 of 20 examples fit no row of .* tokens and are dropped; raise the"):
        train(lossy, tmp_path, tmp_path / "other")
