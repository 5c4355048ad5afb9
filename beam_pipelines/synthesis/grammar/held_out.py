"""Problems of the task grammar for evaluation: compositions that no item for training holds, as a benchmark's file."""

import json
from collections import Counter
from dataclasses import dataclass
from itertools import count, islice

from opencoder_jax.beam_pipelines.core.manifest import Manifest, Tally, digest
from opencoder_jax.beam_pipelines.core.runner import BeamOptions
from opencoder_jax.beam_pipelines.core.stage import Stage
from opencoder_jax.beam_pipelines.core.storage import Directory
from opencoder_jax.beam_pipelines.synthesis.grammar import forms
from opencoder_jax.beam_pipelines.synthesis.grammar.grammar import PROBLEMS, items
from opencoder_jax.beam_pipelines.synthesis.grammar.tasks import SCOPES
from opencoder_jax.checks import at_least, check, one_of
from opencoder_jax.recipe import configurable


@configurable
@dataclass(frozen=True)
class HeldOutConfig:
    """Which problems are written.

    Attributes:
        problems: how many.
        scope: as GrammarConfig's.
        seed: of the draws.
    """

    problems: int = 200
    scope: str = "full"
    seed: int = 0

    def __post_init__(self) -> None:
        check(self, problems=at_least(1), scope=one_of(*SCOPES))


def run(*, output: str, config: HeldOutConfig, options: BeamOptions) -> Manifest:
    """Writes problems.jsonl, each line a problem in HumanEval's form; its level is how many operations it has."""

    def work(directory: Directory) -> tuple[Tally, dict[str, str]]:
        counts: Counter[str] = Counter()
        found = islice(items(config.seed, count(), True, counts, config.scope), config.problems)
        lines = [json.dumps(forms.problem(each), ensure_ascii=False) for each in found]
        with directory.atomic(PROBLEMS) as stream:
            stream.write("".join(f"{line}\n" for line in lines).encode())
        return {"count": dict(counts)}, {PROBLEMS: digest(directory, PROBLEMS)}

    return Stage("held_out", __name__, config, (), output).run(work, options)
