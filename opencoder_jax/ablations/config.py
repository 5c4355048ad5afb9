"""An ablation as a recipe says it: arms that differ in nothing but what is asked about, and what is claimed of them."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, NamedTuple, get_args

from opencoder_jax.checks import above, at_least, check
from opencoder_jax.recipe import configurable

Metric = Literal["tokens", "copies", "bits_per_byte", "training_loss", "pass_at_1"]
Expected = Literal["less", "more", "none"]

TRAIN = "train"
NO_TRAINING = ("tokens", "copies")  # metrics of the data alone


class Claim(NamedTuple):
    """What is said of two arms.

    Attributes:
        says: in a sentence, with the paper's figure.
        metric: what is compared: an arm's `tokens`, the share of them that are exact `copies` of other files,
            `bits_per_byte` of the held-out texts, the `training_loss` in nats a token, or `pass_at_1`, the share of the
            problems that its model solves.
        arm, against: names of arms; `copies` compares its arm with none at all.
        expected: what the claim says of `arm`, compared with `against`.
        smallest: the smallest difference that counts. Of tokens a share of those of `against`, of the others in their
            own unit.
    """

    says: str
    metric: str
    arm: str
    against: str
    expected: Expected
    smallest: float


class Word(NamedTuple):
    """A command of an arm: what its output is called among the sources of training, its verb, its flags."""

    source: str
    verb: str
    flags: tuple[str, ...]


class Arm(NamedTuple):
    """One way to make data and model.

    Attributes:
        words: its commands, in their order.
        overrides: `--gin.Name.field=value` flags for all of them that read it.
        first_seed: of its seeds.
    """

    words: tuple[Word, ...]
    overrides: tuple[str, ...]
    first_seed: int


@configurable
@dataclass(frozen=True)
class AblationConfig:
    """A question, its arms and what is claimed of them.

    Attributes:
        question: what is asked, for people.
        limits: what the answer doesn't say, for people.
        arms: by names, what is special about each: overrides (`--gin.Name.field=value`), which go to every step that
            reads them; `first_seed=N`; or commands, which stand in place of `stages`.
        stages: the commands of an arm, each `VERB FLAGS`, in order: stages of the data pipelines, each of which reads
            what the one before wrote, then one or several `train`, each of which starts from the one before.
            `NAME: VERB` makes a second source of training data beside `code`, out of the documents so far.
        claims: sentence -> (metric, arm, arm that it's compared with, "less", "more" or "none", smallest difference
            that counts); metrics are tokens, copies, bits_per_byte, training_loss, pass_at_1.
        recipe: what every command is given: a gin file of the sizes, of the miniature or of a pod.
        base: a model's directory: its tokenizer makes all tokens, and the first `train` of every arm starts from its
            weights. Without one a tokenizer is trained on the corpus, and weights begin anew.
        score: the command that makes the documents that are scored, out of the held-out projects.
        problems: the command that makes the problems of pass_at_1, such as `held_out`, the task grammar's.
        answers: the gin file by which models answer them.
        seeds: of the pilot, which fixes how many are needed.
        most_seeds: are run, however many are needed.
        power: the share of the effects of the smallest size that would be found.
    """

    question: str = ""
    limits: str = ""
    arms: dict[str, tuple[str, ...]] = field(default_factory=dict)
    stages: tuple[str, ...] = ("exact_duplicates", "near_duplicates", "train")
    claims: dict[str, tuple[str, str, str, str, float]] = field(default_factory=dict)
    recipe: str = "gin_configs/ablations/miniature.gin"
    base: str = ""
    score: str = ""
    problems: str = ""
    answers: str = "gin_configs/evaluate/cookbook_tuned.gin"
    seeds: int = 3
    most_seeds: int = 8
    power: float = 0.8

    def __post_init__(self) -> None:
        check(self, seeds=at_least(2), most_seeds=at_least(self.seeds), power=above(0))
        if self.power >= 1:
            raise ValueError(f"power={self.power}: must be below 1")
        for says, (metric, arm, against, expected, smallest) in self.claims.items():
            names = {arm} if metric == "copies" else {arm, against}
            if missing := names - self.arms.keys():
                raise ValueError(
                    f"claims: {says!r}: no arm is called {min(missing)!r}; there are {', '.join(self.arms)}"
                )
            if metric not in get_args(Metric) or expected not in get_args(Expected):
                raise ValueError(
                    f"claims: {says!r}: ({metric!r}, {expected!r}): the first must be one of"
                    f" {', '.join(get_args(Metric))}, the other one of {', '.join(get_args(Expected))}"
                )
            if not smallest > 0:
                raise ValueError(f"claims: {says!r}: the smallest difference that counts must be above 0")
            if metric not in NO_TRAINING and any(
                TRAIN not in [word.verb for word in arm_of(self, name).words] for name in names
            ):
                raise ValueError(f"claims: {says!r}: {metric} needs arms that train; end their stages with 'train'")
            if metric == "pass_at_1" and not self.problems:
                raise ValueError(f"claims: {says!r}: pass_at_1 needs problems, such as problems='held_out'")

    @property
    def claimed(self) -> list[Claim]:
        return [Claim(says, *rest) for says, rest in self.claims.items()]  # type: ignore[arg-type]  # checked above


def arm_of(config: AblationConfig, name: str) -> Arm:
    """What an arm is. Raises ValueError for a `first_seed` that is no number."""
    special = config.arms[name]
    overrides = tuple(each for each in special if each.startswith("--gin."))
    seeds = [each for each in special if each.startswith("first_seed=")]
    words = [each for each in special if each not in (*overrides, *seeds)] or config.stages
    first = seeds[-1].removeprefix("first_seed=") if seeds else "0"
    if not first.isdecimal():
        raise ValueError(f"arms: {name}: first_seed={first}: must be a whole number")
    return Arm(tuple(map(word_of, words)), overrides, int(first))


def word_of(text: str) -> Word:
    """`NAME: VERB FLAGS`, or without the name; a flag begins with two hyphens, so its value may have blanks."""
    head, *flags = re.split(r"\s+(?=--)", text.strip())
    name, colon, verb = head.rpartition(": ")
    return Word(name if colon else "", verb.strip(), tuple(flags))


def mixture_flag(mixture: Mapping[str, float]) -> str:
    """An override of what a training reads."""
    return f"--gin.DataConfig.mixture={dict(mixture)!r}"
