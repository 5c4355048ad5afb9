"""What an ablation would take, before it runs: steps, tokens, time.

Times are those of the commands that ran below this output before; of others a guess for two CPU cores. A pod's are told
by `compile`, which needs no chip.
"""

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

from opencoder_jax.ablations.config import AblationConfig
from opencoder_jax.chain import PIPELINES, STAGE, STEP, Step
from opencoder_jax.data.batches import DataConfig
from opencoder_jax.files import read_json, write_json
from opencoder_jax.model.config import ModelConfig
from opencoder_jax.recipe import bind, build, recipe_flags
from opencoder_jax.reports.page import compact, duration
from opencoder_jax.training.run import TrainConfig

TIMES = "times.json"

_STAGE_SECONDS, _OTHER_SECONDS = 5.0, 8.0
_FLOPS = 2e10  # a second, of a training on two cores


def note_time(file: Path, verb: str, seconds: float) -> None:
    """Keeps how long a command took, for dry runs to come."""
    times = read_json(file, {})
    times[verb] = [*times.get(verb, []), round(seconds, 1)][-50:]
    write_json(file, times)


def plan(name: str, config: AblationConfig, output: Path, chains: Sequence[tuple[int, list[Step], int]]) -> str:
    """What running takes, for the pilot and for all seeds; the commands of the pilot."""
    times = read_json(output / TIMES, {})
    lines = [f"{name}: {len(config.arms)} arms, {len(config.claims)} claims"]
    for seeds, steps, apart in chains:
        waiting = [step for step in steps if not _finished(step)]
        tokens = sum(_tokens(step) for step in waiting if step.verb == "train")
        seconds = sum(_seconds(step, times) for step in waiting)
        lines.append(
            f"  with {seeds} seeds: {len(steps)} steps ({apart} if arms shared nothing), {len(waiting)} to run;"
            f" {compact(tokens)} tokens to train on, about {duration(seconds)}"
        )
    lines += [f"  {'done ' if _finished(step) else 'to do'} {step.command()}" for step in chains[0][1]]
    lines.append(f"  on a pod: python -m opencoder_jax compile --gin_file={config.recipe} tells each step's time")
    return "\n".join(lines)


def _finished(step: Step) -> bool:
    """Whether it was once; a change since then may make it run again."""
    if step.program == PIPELINES:
        return Path(step.output, STAGE).exists()
    return bool(read_json(Path(step.output, STEP), {}).get("finished"))


def _seconds(step: Step, times: dict[str, list[float]]) -> float:
    if known := times.get(step.verb):
        return sum(known) / len(known)
    if step.verb == "train":
        bind(*recipe_flags(step.settings))
        return _OTHER_SECONDS + 6 * build(ModelConfig).parameters() * _tokens(step) / _FLOPS
    return _STAGE_SECONDS if step.program == PIPELINES else _OTHER_SECONDS


def _tokens(step: Step) -> int:
    """That a training sees."""
    bind(*recipe_flags(step.settings))
    last, phases = build(TrainConfig).steps, build(DataConfig).phases
    starts = [*(min(start, last) for start, _, _ in phases), last]
    return sum(
        (after - start) * length * rows
        for (start, after), (_, length, rows) in zip(pairwise(starts), phases, strict=True)
    )
