"""A corpus whose entropy is known, and a run that learns it.

A document counts upwards from one of 196 numbers, for one of 35 lengths, and ends. Only the first number and the end
can't be known from what came before, so no model can do better than (ln 196 + ln 35) nats a document, and one that has
learnt to count comes near. `PYTHONPATH=. python tests/opencoder_jax/training/learning.py` makes the golden curve anew.
"""

import json
import math
import sys
import tempfile
from pathlib import Path

import numpy as np

HERE = Path(__file__).resolve().parent
CURVE = HERE / "learning_curve.json"

STARTS, LENGTHS = range(4, 200), range(5, 40)


def write_corpus(directory: Path, tokenizer_model: bytes) -> float:
    """Writes the token records `refinecode`, and returns their entropy in nats a token."""
    from opencoder_jax.data.token_records import write_records

    random = np.random.default_rng(0)
    lengths, starts = random.choice(LENGTHS, 12_000), random.choice(STARTS, 12_000)
    records = [
        (np.append(np.arange(start, start + length), 2), None) for start, length in zip(starts, lengths, strict=True)
    ]
    write_records(directory / "refinecode", [records[::2], records[1::2]], tokenizer_model, 2**31)
    tokens = sum(len(record) for record, _ in records)
    return len(records) * (math.log(len(STARTS)) + math.log(len(LENGTHS))) / tokens


def learn(directory: Path, output: Path) -> dict[str, float]:
    """Trains on the corpus for an epoch; the mean loss of each 25 steps, in nats a token."""
    from opencoder_jax.training.loop import train
    from opencoder_jax.training.metrics import read_metrics
    from tests.opencoder_jax.training.small_run import small_recipe

    recipe = small_recipe(
        ModelConfig_width=64,
        ModelConfig_ffn_width=128,
        ModelConfig_context=256,
        DataConfig_phases=((0, 256, 4),),
        TrainConfig_steps=250,
        TrainConfig_loss_chunk=256,
        TrainConfig_checkpoint_every=250,
        OptimizerConfig_warmup_steps=10,
    )
    train(recipe, directory, output)
    losses = [row["loss"] for row in read_metrics(output / "metrics.jsonl")]
    return {str(last): float(np.mean(losses[last - 25 : last])) for last in range(25, 251, 25)}


if __name__ == "__main__":
    sys.path.insert(0, str(HERE))
    from conftest import make_tokenizer_model

    with tempfile.TemporaryDirectory() as place:
        write_corpus(Path(place), make_tokenizer_model())
        CURVE.write_text(json.dumps(learn(Path(place), Path(place) / "run"), indent=2) + "\n")
    print(CURVE.read_text())
