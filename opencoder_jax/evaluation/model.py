"""A trained run as something that answers prompts: the only file of this room that loads JAX."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple, cast

from opencoder_jax.evaluation.generate import Answer, Generate, Prompt
from opencoder_jax.inference.engine import Engine
from opencoder_jax.inference.sampling import SamplingConfig
from opencoder_jax.recipe import build
from opencoder_jax.tokenization import chat


class Model(NamedTuple):
    """A model with its settings of sampling.

    Attributes:
        about: which checkpoint of which run it is and how it samples: what makes its answers what they are.
    """

    generate: Generate
    seed: int
    about: dict[str, Any]


def open_model(run: Path) -> Model:
    """Loads the newest checkpoint of a run, or of another model directory.

    Raises:
        UserError: `run` is no model directory, or holds no checkpoint.
    """
    sampling = build(SamplingConfig)
    engine = Engine.open(run)

    def generate(prompts: Sequence[Prompt], stops: Sequence[str], seeds: Sequence[int]) -> Iterator[tuple[int, Answer]]:
        ids = [
            engine.tokenizer.encode_prompt(prompt)
            if isinstance(prompt, str)
            else chat.encode_prompt(engine.tokenizer, cast(list[chat.Message], prompt))
            for prompt in prompts
        ]
        return enumerate(engine.generate(ids, sampling, stops, seeds))

    about = {
        "run": run.name,
        "sha256": engine.model.fingerprint,
        "step": engine.model.step,
        "sampling": asdict(sampling),
        "weights": engine.config.weights,
    }
    return Model(generate, sampling.seed, about)
