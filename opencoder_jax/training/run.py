"""A run: the recipe of one training stage, and the directory that the stage fills.

    RUN/run.json         what the run is: recipe, tokenizer, data, the run it started from. Written once
    RUN/config.gin       the operative recipe; `--gin_file=RUN/config.gin` repeats the run
    RUN/model.json, RUN/tokenizer.*, RUN/checkpoints/    a model directory (parallel/model_directory.py)
    RUN/metrics.jsonl    one line a logged step (metrics.py)
    RUN/tensorboard/, RUN/profile/   where the recipe asks for them

A directory belongs to one run: going on in it needs the same recipe, data and tokenizer, and what differs is said.
"""

import dataclasses
import fcntl
import hashlib
import json
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple, Self

from opencoder_jax import recipe as recipes
from opencoder_jax.checks import Requirement, above, at_least, between, check, each, one_of, or_none
from opencoder_jax.code_version import tree_digest
from opencoder_jax.data.batches import Batches, DataConfig
from opencoder_jax.distillation.distributions import Distributions
from opencoder_jax.files import need_directory, read_json, write_whole
from opencoder_jax.model.config import ModelConfig
from opencoder_jax.model.decoder import REMAT
from opencoder_jax.parallel.hosts import all_agree, leads
from opencoder_jax.parallel.mesh import MeshConfig
from opencoder_jax.parallel.model_directory import CHECKPOINTS, read_config, write_config
from opencoder_jax.recipe import UserError, configurable
from opencoder_jax.tokenization.tokenizer_files import fingerprint, read_tokenizer
from opencoder_jax.training.metrics import flat
from opencoder_jax.training.optimizer import OptimizerConfig


@configurable
@dataclass(frozen=True)
class TrainConfig:
    """How long a stage trains, and what it writes on the way. Steps are updates of the weights.

    Attributes:
        steps: the default is the last released pretraining checkpoint of the 1.5B.
        seed: of the initial weights.
        microbatch: rows that a data-parallel device has in memory at once; None: all of them.
        remat: what the backward pass finds stored of each layer, the less the longer it takes: "none" (all of it),
            "dots" (the products), "offload" (these, in the host's memory), "attention" (its result), "full" (the
            layer's input only).
        loss_chunk: positions of a row whose logits are in memory at once; divides the row length.
        log_every: steps from one row of metrics to the next.
        checkpoint_every: steps from one checkpoint to the next; the last step is always kept too.
        checkpoint_minutes: saves also when so many have passed since the last one; None: steps alone decide. Several
            hosts look at the clock every `log_every` steps.
        keep: newest checkpoints that stay on the disk; None: all.
        held_out: directories of token records under --data that are only evaluated on.
        teacher_weight: of the teacher's distributions in the loss (DataConfig.teacher), at the peak of the learning
            rate and where that is 0; between, it follows the rate. The text has the rest.
        references: benchmarks whose own answers are evaluated on, too: their files, or the names of the project's own
            ("problems"). The loss of their tokens joins the metrics as held_out/references_NAME.
        evaluate_every: steps from one evaluation to the next.
        evaluate_batches: batches of each held-out source in an evaluation.
        init_step: which checkpoint of --init_from; None: its newest.
        init_optimizer: takes over the optimizer's moments of --init_from, too.
        tensorboard: writes the metrics for TensorBoard, too.
        wandb_project: sends the metrics to this project of Weights & Biases, too.
        profile: traces the steps from the first to before the second.
        tpu_options: of the compiler, where it compiles for TPUs.
    """

    steps: int = 484_865
    seed: int = 0
    microbatch: int | None = None
    remat: str = "dots"
    loss_chunk: int = 1024
    log_every: int = 10
    checkpoint_every: int = 1000
    checkpoint_minutes: float | None = None
    keep: int | None = 2
    held_out: tuple[str, ...] = ()
    teacher_weight: tuple[float, float] = (0.5, 0.5)
    references: tuple[str, ...] = ()
    evaluate_every: int = 1000
    evaluate_batches: int = 8
    init_step: int | None = None
    init_optimizer: bool = True
    tensorboard: bool = False
    wandb_project: str | None = None
    profile: tuple[int, int] | None = None
    tpu_options: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        counts = ("steps", "loss_chunk", "log_every", "checkpoint_every", "evaluate_every", "evaluate_batches")
        check(self, **dict.fromkeys(counts, at_least(1)), **dict.fromkeys(("microbatch", "keep"), or_none(at_least(1))))
        check(self, checkpoint_minutes=or_none(above(0)))
        steps = Requirement(lambda pair: 0 <= pair[0] < pair[1], "(first step, step after the last)")
        check(self, teacher_weight=each(between(0, 1)))
        name = Requirement(lambda value: isinstance(value, str), "a name")
        check(self, remat=one_of(*REMAT), held_out=each(name), references=each(name), profile=or_none(steps))

    def microbatches(self, rows: int, parts: int) -> int:
        """Into how many microbatches a batch of `rows` is divided on `parts` data-parallel devices.

        Raises:
            ValueError: the rows can't be divided so.
        """
        at_once = rows if self.microbatch is None else min(self.microbatch * parts, rows)
        if rows % at_once or at_once % parts:
            raise ValueError(
                f"a batch of {rows} rows can't be divided over {parts} data-parallel devices"
                f" with microbatch={self.microbatch}; change DataConfig.phases, TrainConfig.microbatch or MeshConfig"
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
        configs = (ModelConfig, DataConfig, MeshConfig, OptimizerConfig, TrainConfig)
        recipe = cls._make(map(recipes.build, configs))
        recipe.check()
        return recipe

    @property
    def settings(self) -> dict[str, Any]:
        """Every setting by its name in gin files."""
        return {f"{type(part).__name__}.{name}": value for part in self for name, value in vars(part).items()}

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
_TRAIN = (
    "log_every",
    "checkpoint_every",
    "checkpoint_minutes",
    "keep",
    "tensorboard",
    "wandb_project",
    "profile",
    "remat",
    "tpu_options",
)
MAY_CHANGE = ("recipe.MeshConfig.", "parameters", "unigram_entropy", *(f"recipe.TrainConfig.{name}" for name in _TRAIN))


VERSION = 1  # of run.json


class Origin(NamedTuple):
    """The checkpoint of another run that a run started from."""

    run: str  # sha256 of the other run's run.json; of a converted model's, of the checksums of its weights
    step: int


def describe(
    recipe: Recipe,
    batches: Batches,
    tokenizer_fingerprint: str,
    origin: Origin | None,
    entropy: float,
    distributions: Mapping[str, Distributions],
) -> dict[str, Any]:
    """The content of run.json. It names no path and no time: the same run anywhere has the same description."""
    description = {
        "version": VERSION,
        "recipe": {type(config).__name__: dataclasses.asdict(config) for config in recipe},
        "tokenizer": tokenizer_fingerprint,
        "data": {name: records.fingerprint for name, records in batches.sources.items()},
        **({"teacher": {name: each.fingerprint for name, each in distributions.items()}} if distributions else {}),
        "origin": origin and origin._asdict(),
        "parameters": recipe.model.parameters(),
        "unigram_entropy": entropy,
    }
    return json.loads(json.dumps(description))  # tuples as lists, as they will be read back


def plan(recipe: Recipe) -> dict[str, str]:
    """What all hosts must agree on before they look at the data: recipe, code and versions."""
    bound = dict(line.split(" = ", 1) for line in recipes.operative(*recipe).splitlines())
    packages = {
        name: metadata.version(name) for name in ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")
    }
    return bound | packages | {"python": sys.version, "the code": tree_digest()}


def enter(output: Path, description: dict[str, Any], recipe: Recipe, of_tokenizer: Path) -> None:
    """Makes the run's directory, or makes sure that it is this run's.

    Raises:
        UserError: the directory belongs to another run; the message names the first thing that differs.
    """
    file = output / "run.json"
    if not file.exists():
        write_whole(output / "config.gin", recipes.operative(*recipe))
        write_config(output, recipe.model)
        for name, content in read_tokenizer(of_tokenizer).items():
            write_whole(output / name, content)
        write_whole(file, json.dumps(description, indent=2) + "\n")  # last: whoever sees it finds the others
        return
    was = read(output)
    for config in recipe:  # a field that the run is older than meant what its default does
        name = type(config).__name__
        was["recipe"][name] = json.loads(json.dumps(dataclasses.asdict(type(config)()))) | was["recipe"].get(name, {})
    ours, theirs = (flat({"version": VERSION} | each | {"order": _order(each)}) for each in (description, was))
    free = MAY_CHANGE + (("recipe.TrainConfig.steps",) if recipe.optimizer.schedule == "stable" else ())
    for name in sorted(ours.keys() | theirs.keys()):
        before, now = theirs.get(name), ours.get(name)
        if before != now and not name.startswith(free):
            raise UserError(
                f"{output} belongs to another run: {name.removeprefix('recipe.')} was {before} and is {now};"
                " choose another --output, or the recipe and data of that run"
            )


@contextmanager
def locked(output: Path) -> Iterator[None]:
    """Holds a run's directory for this process. Raises UserError on every host when another run holds it."""
    held = os.open(output, os.O_RDONLY) if leads() else None
    try:
        free = True
        if held is not None:
            try:
                fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                free = False
            except OSError:
                pass  # a file system without locks
        if not all_agree(free):
            raise UserError(f"{output}: another process trains there; wait for it, stop it or choose another --output")
        yield
    finally:
        if held is not None:
            os.close(held)


def read(run: Path) -> dict[str, Any]:
    """The description of a run. Raises UserError if `run` is not a run's directory."""
    need_directory(run, "a training run")
    if (description := read_json(run / "run.json")) is None:
        raise UserError(f"{run}: no run.json there; name the --output directory of a training run")
    if description.get("version", 1) > VERSION:
        raise UserError(f"{run / 'run.json'}: written by a newer release of this project; go on with that one")
    return description


def _order(description: Mapping[str, Any]) -> list[str]:
    """The sources as the mixture lists them: the order in which they are dealt follows it."""
    return list(description["recipe"]["DataConfig"]["mixture"])


def origin(run: Path, step: int, recipe: Recipe, tokenizer_fingerprint: str) -> Origin:
    """Names the checkpoint that a run starts from.

    Raises:
        UserError: its weights don't fit this recipe's model, or its tokenizer is another one.
    """
    model, trained = dataclasses.asdict(read_config(run)), (run / "run.json").exists()
    theirs: dict[str, Any] = read(run) if trained else {}
    for name, now in dataclasses.asdict(recipe.model).items():
        # Any context and any dtype of the computation can go on from the same float32 weights, however they were drawn.
        if name not in ("context", "dtype", "init_std") and (was := model[name]) != now:
            raise UserError(f"{run} can't start this run: its ModelConfig.{name} is {was}, this recipe's is {now}")
    if recipe.train.init_optimizer and not trained:
        raise UserError(
            f"{run} can't start this run with its moments: it was converted and has none; set"
            " TrainConfig.init_optimizer=False"
        )
    guarded = trained and theirs["recipe"]["OptimizerConfig"].get("spike_limit") is not None
    if recipe.train.init_optimizer and guarded != (recipe.optimizer.spike_limit is not None):
        raise UserError(
            f"{run} can't start this run with its moments: it has {'a' if guarded else 'no'} spike guard; set"
            " OptimizerConfig.spike_limit as there, or TrainConfig.init_optimizer=False"
        )
    if (theirs["tokenizer"] if trained else _tokenizer_fingerprint(run)) != tokenizer_fingerprint:
        raise UserError(f"{run} can't start this run: its tokenizer is not the one that --data was made with")
    # What was converted is known by its weights.
    file = run / "run.json" if trained else run / CHECKPOINTS / str(step) / "sums" / "metadata"
    return Origin(_digest(file) or "", step)


def _tokenizer_fingerprint(model: Path) -> str | None:
    """Of a converted model's tokenizer; None: it has none."""
    try:
        return fingerprint(read_tokenizer(model))
    except FileNotFoundError:
        return None


def _digest(file: Path) -> str | None:
    """The SHA-256 of a file; None: it isn't there."""
    return hashlib.sha256(file.read_bytes()).hexdigest() if file.exists() else None
