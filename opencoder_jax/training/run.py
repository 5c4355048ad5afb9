"""A run: the recipe of one training stage, and the directory that the stage fills.

    RUN/run.json         what the run is: recipe, model, tokenizer, data, the run it started from. Written once
    RUN/config.gin       the operative recipe; `--gin_file=RUN/config.gin` repeats the run
    RUN/tokenizer.model  a copy, so that a run directory is all that inference needs
    RUN/metrics.jsonl    one line a logged step (metrics.py)
    RUN/checkpoints/     one directory a checkpoint, named by its step (checkpoints.py)
    RUN/tensorboard/, RUN/profile/   where the recipe asks for them

A directory belongs to one run: going on in it needs the same recipe, data and tokenizer, and what differs is said.
"""

import dataclasses
import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, Self

from opencoder_jax import recipe as recipes
from opencoder_jax.data.batches import Batches, DataConfig
from opencoder_jax.model.config import ModelConfig
from opencoder_jax.parallel.mesh import MeshConfig
from opencoder_jax.recipe import UserError, configurable
from opencoder_jax.training.optimizer import OptimizerConfig

REMATS = ("none", "dots", "offload", "attention", "full")  # opencoder_jax/model/decoder.py says what each keeps


@configurable
@dataclass(frozen=True)
class TrainConfig:
    """How long a stage trains, and what it writes on the way. Steps are updates of the weights."""

    steps: int = 484_865  # the last released pretraining checkpoint of the 1.5B
    seed: int = 0  # of the initial weights
    micro_batch: int | None = None  # rows of a data-parallel device in memory at once; None: all of them
    # What the backward pass finds stored of each layer: "none" (all of it), "dots" (the products), "offload" (these, in
    # the host's memory), "attention" (its result), "full" (the layer's input only): less memory for more time.
    remat: str = "dots"
    loss_chunk: int = 1024  # positions of a row whose logits are in memory at once; divides the row length
    log_every: int = 10
    checkpoint_every: int = 1000  # the last step is always kept too
    keep: int | None = 2  # newest checkpoints that stay on the disk; None: all
    held_out: tuple[str, ...] = ()  # directories of token records under --data that are only evaluated on
    evaluate_every: int = 1000
    evaluate_batches: int = 8
    init_step: int | None = None  # which checkpoint of --init_from; None: its newest
    init_optimizer: bool = True  # takes over the optimizer's moments of --init_from, too
    tensorboard: bool = False  # writes the metrics for TensorBoard, too
    wandb_project: str | None = None  # sends the metrics to this project of Weights & Biases, too
    profile: tuple[int, int] | None = None  # traces the steps from the first to before the second
    tpu_options: Mapping[str, str] = field(default_factory=dict)  # of the compiler, where it compiles for TPUs

    def __post_init__(self) -> None:
        for name in ("steps", "loss_chunk", "log_every", "checkpoint_every", "evaluate_every", "evaluate_batches"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)}: must be 1 or more")
        if self.remat not in REMATS:
            raise ValueError(f"remat={self.remat!r}: choose one of {', '.join(REMATS)}")
        if isinstance(self.held_out, str):
            raise ValueError(f"held_out={self.held_out!r}: give the names in a tuple, ({self.held_out!r},)")
        if self.profile is not None and not 0 <= self.profile[0] < self.profile[1]:
            raise ValueError(f"profile={self.profile}: give (first step, step after the last), or None")
        for name in ("micro_batch", "keep"):
            if (value := getattr(self, name)) is not None and value < 1:
                raise ValueError(f"{name}={value}: must be 1 or more, or None")

    def passes(self, rows: int, parts: int) -> int:
        """In how many passes a batch of `rows` goes through `parts` data-parallel devices.

        Raises:
            ValueError: the rows can't be divided so.
        """
        at_once = rows if self.micro_batch is None else min(self.micro_batch * parts, rows)
        if rows % at_once or at_once % parts:
            raise ValueError(
                f"a batch of {rows} rows can't be divided over {parts} data-parallel devices"
                f" with micro_batch={self.micro_batch}; change DataConfig.phases, TrainConfig.micro_batch or MeshConfig"
            )
        return rows // at_once


class Recipe(NamedTuple):
    """The configurations of one stage."""

    model: ModelConfig
    data: DataConfig
    mesh: MeshConfig
    optimizer: OptimizerConfig
    train: TrainConfig

    @classmethod
    def from_gin(cls) -> Self:
        """The recipe that is bound now. Raises UserError for values that don't make sense, alone or together."""
        recipe = cls(
            recipes.build(ModelConfig),
            recipes.build(DataConfig),
            recipes.build(MeshConfig),
            recipes.build(OptimizerConfig),
            recipes.build(TrainConfig),
        )
        recipe.check()
        return recipe

    def check(self) -> None:
        """Raises UserError where the configurations contradict each other."""
        for start, length, rows in self.data.phases:
            if length > self.model.context:
                raise UserError(
                    f"DataConfig.phases: rows of {length} tokens (from step {start}) are longer than"
                    f" ModelConfig.context={self.model.context}"
                )
            if length % min(self.train.loss_chunk, length):
                raise UserError(f"TrainConfig.loss_chunk={self.train.loss_chunk}: must divide the row length {length}")
        if self.optimizer.schedule != "stable" and self.optimizer.warmup_steps >= self.train.steps:
            raise UserError(
                f"OptimizerConfig.warmup_steps={self.optimizer.warmup_steps}: must be below TrainConfig.steps="
                f"{self.train.steps}, for the schedule {self.optimizer.schedule!r} decays after the warm-up"
            )


# What a continued run may change: where it runs, and how often it reports and saves. (What follows from the recipe, and
# stands in run.json for those who read it, isn't compared.)
MAY_CHANGE = (
    "recipe.MeshConfig.",
    "recipe.TrainConfig.log_every",
    "recipe.TrainConfig.checkpoint_every",
    "recipe.TrainConfig.keep",
    "recipe.TrainConfig.tensorboard",
    "recipe.TrainConfig.wandb_project",
    "recipe.TrainConfig.profile",
    "recipe.TrainConfig.remat",
    "recipe.TrainConfig.tpu_options",
    "model.",
    "parameters",
    "unigram_entropy",
)


class Origin(NamedTuple):
    """The checkpoint of another run that a run started from."""

    run: str  # sha256 of the other run's run.json
    step: int


def describe(
    recipe: Recipe, batches: Batches, tokenizer_fingerprint: str, origin: Origin | None, entropy: float
) -> dict[str, Any]:
    """The content of run.json. It names no path and no time: the same run anywhere has the same description."""
    description = {
        "model": dataclasses.asdict(recipe.model),
        "recipe": {type(config).__name__: dataclasses.asdict(config) for config in recipe},
        "tokenizer": tokenizer_fingerprint,
        "data": {name: records.fingerprint for name, records in batches.sources.items()},
        "origin": origin and origin._asdict(),
        "parameters": recipe.model.parameters(),
        "unigram_entropy": entropy,
    }
    return json.loads(json.dumps(description))  # tuples as lists, as they will be read back


def enter(output: Path, description: dict[str, Any], recipe: Recipe, tokenizer_model: Path) -> None:
    """Makes the run's directory, or makes sure that it is this run's.

    Raises:
        UserError: the directory belongs to another run; the message names the first thing that differs.
    """
    file = output / "run.json"
    if not file.exists():
        output.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(tokenizer_model, output / "tokenizer.model")
        _write(output / "config.gin", recipes.operative(*recipe))
        _write(file, json.dumps(description, indent=2) + "\n")  # last: whoever sees it finds the others
        return
    ours, theirs = _flat(description), _flat(read(output))
    free = MAY_CHANGE + (("recipe.TrainConfig.steps",) if recipe.optimizer.schedule == "stable" else ())
    for name in sorted(ours.keys() | theirs.keys()):
        was, now = theirs.get(name), ours.get(name)
        if was != now and not name.startswith(free):
            raise UserError(
                f"{output} belongs to another run: {name.removeprefix('recipe.')} was {was} and is {now};"
                " choose another --output, or the recipe and data of that run"
            )


def read(run: Path) -> dict[str, Any]:
    """The description of a run. Raises UserError when `run` is not a run directory."""
    try:
        return json.loads((run / "run.json").read_text())
    except FileNotFoundError:
        raise UserError(f"{run}: no run.json there; name the --output directory of a training run") from None
    except ValueError:
        raise UserError(f"{run / 'run.json'}: not valid JSON; the run has to be made again") from None


def origin(run: Path, step: int, recipe: Recipe, tokenizer_fingerprint: str) -> Origin:
    """Names the checkpoint that a run starts from.

    Raises:
        UserError: its weights don't fit this recipe's model, or its tokenizer is another one.
    """
    theirs = read(run)
    for name, now in dataclasses.asdict(recipe.model).items():
        # Any context and any dtype of the computation can go on from the same float32 weights.
        if name not in ("context", "dtype") and (was := theirs["model"].get(name)) != now:
            raise UserError(f"{run} can't start this run: its ModelConfig.{name} is {was}, this recipe's is {now}")
    guards = [
        limit is not None
        for limit in (theirs["recipe"]["OptimizerConfig"]["spike_limit"], recipe.optimizer.spike_limit)
    ]
    if recipe.train.init_optimizer and guards[0] != guards[1]:
        raise UserError(
            f"{run} can't start this run with its moments: it has {'a' if guards[0] else 'no'} spike guard; set"
            " OptimizerConfig.spike_limit as there, or TrainConfig.init_optimizer=False"
        )
    if theirs["tokenizer"] != tokenizer_fingerprint:
        raise UserError(f"{run} can't start this run: its tokenizer is not the one that --data was made with")
    return Origin(hashlib.sha256((run / "run.json").read_bytes()).hexdigest(), step)


def _flat(tree: Any, name: str = "") -> dict[str, Any]:
    """The leaves of nested dictionaries, named by their dotted path."""
    if not isinstance(tree, dict):
        return {name: tree}
    return {
        path: leaf for key, value in tree.items() for path, leaf in _flat(value, f"{name}.{key}".lstrip(".")).items()
    }


def _write(file: Path, text: str) -> None:
    """Writes a file whole or not at all."""
    partial = file.with_name(file.name + ".partial")
    partial.write_text(text)
    os.replace(partial, file)
