"""Arms as chains of commands that share what they have in common.

An output's directory is named by what made it: verb, settings and inputs. So two arms, or two ablations below one
directory, that begin alike make the beginning once, and a chain runs each directory once (opencoder_jax/chain.py).
All token records lie side by side, whence each training takes its own by the names in its mixture.
"""

import ast
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import xxhash

from opencoder_jax.ablations.config import TRAIN, AblationConfig, Word, arm_of, mixture_flag, word_of
from opencoder_jax.beam_pipelines.synthesis.grammar.grammar import PROBLEMS
from opencoder_jax.chain import PIPELINES, Step, read_by, stage, verbs_of
from opencoder_jax.recipe import UserError

OURS = "opencoder_jax"
MAIN = "code"  # what the documents that every stage hands on are called in a mixture
HELD_OUT = "heldout"
NEEDS_SIGNALS = "filter"


@dataclass
class Made:
    """What is made for an arm, by directories.

    Attributes:
        counts: of its tokens.
        runs, bits: of each seed, the training and its score; nothing where nothing is trained.
        answers: of each seed, the model's answers to the problems, judged; nothing where none are asked.
        steps: all that it takes, in order.
    """

    counts: str = ""
    runs: dict[int, str] = field(default_factory=dict)
    bits: dict[int, str] = field(default_factory=dict)
    answers: dict[int, str] = field(default_factory=dict)
    steps: list[Step] = field(default_factory=list)


class Court:
    """Makes the steps of arms, all below one directory."""

    def __init__(self, config: AblationConfig, root: str, corpus: Step, overrides: Sequence[str]) -> None:
        """`corpus` makes all documents, held-out ones too; `overrides` go to every step that reads them."""
        self.config, self.root, self.corpus = config, root.rstrip("/"), corpus
        self.flags = [f"--gin_file={config.recipe}", *overrides]
        self.shared = [corpus]
        self.trained = self._stage("hold_out", [], self.shared, documents=corpus.output)
        held_out = self._stage("hold_out", ["--gin.HoldOutConfig.part=heldout"], self.shared, documents=corpus.output)
        self.scored = held_out
        if config.score:
            self.scored = self._applied(word_of(config.score), held_out, self.shared)
        self.problems = self._applied(word_of(config.problems), held_out, self.shared) if config.problems else ""
        self.base = config.base.rstrip("/")
        if self.base:
            self.tokenizer = self._stage("released_tokenizer", [], self.shared, released=self.base)
        else:
            self.tokenizer = self._stage("train_tokenizer", [], self.shared, documents=self.trained)
        self.held_out = self._records(HELD_OUT, self.scored, self.shared)

    def arm(self, name: str, seeds: Sequence[int]) -> Made:
        """What an arm takes for some seeds, counted from its first one.

        Raises:
            UserError: a command of it is no stage or training, or a mixture names a source that it doesn't make.
        """
        arm, made = arm_of(self.config, name), Made(steps=[*self.shared])
        documents, sources, trainings = self.trained, {}, []
        for word in arm.words:
            if word.verb == TRAIN:
                trainings.append(word.flags)
            elif trainings:
                raise UserError(f"arm {name}: {word.verb} stands behind train; a stage makes data, so it comes before")
            elif word.source:
                sources[word.source] = self._applied(word, documents, made.steps, arm.overrides)
            else:
                documents = self._applied(word, documents, made.steps, arm.overrides)
        sources[MAIN] = documents
        made.counts = self._counts(documents, made.steps)
        wanted = {source for flags in trainings for source in _mixture([*flags, *arm.overrides])}
        if missing := wanted - sources.keys():
            raise UserError(f"arm {name}: no source {min(missing)} to train on; it makes {', '.join(sources)}")
        records = {
            source: self._records(source, place, made.steps, arm.overrides)
            for source, place in sources.items()
            if source in wanted
        }
        for seed in seeds if trainings else ():
            start = self.base
            for number, flags in enumerate(trainings, 1):
                own = [*flags, *(_seeded(arm.first_seed + seed)), *arm.overrides]
                last = number == len(trainings)
                start = self._training(own, records, start, last, made.steps)
            made.runs[seed], made.bits[seed] = start, self._bits(start, made.steps)
            if self.problems:
                made.answers[seed] = self._answers(start, made.steps)
        return made

    def _applied(self, word: Word, documents: str, steps: list[Step], overrides: Sequence[str] = ()) -> str:
        """A stage of an arm; `filter` brings the signals that it reads."""
        if word.verb not in verbs_of(PIPELINES):
            raise UserError(f"{word.verb}: no stage of the data pipelines; python -m beam_pipelines --help lists them")
        wants = verbs_of(PIPELINES)[word.verb].inputs
        inputs = {name: documents for name in wants if name in ("documents", "snippets")}
        if word.verb == NEEDS_SIGNALS:
            inputs["signals"] = self._stage("signals", list(overrides), steps, documents=documents)
        return self._stage(word.verb, [*word.flags, *overrides], steps, **inputs)

    def _stage(self, verb: str, flags: Sequence[str], steps: list[Step], **inputs: str) -> str:
        made = stage(verb, verb, "", [*self.flags, *flags], **inputs)
        return self._placed(made, "data", verb, steps)

    def _records(self, source: str, documents: str, steps: list[Step], overrides: Sequence[str] = ()) -> str:
        flags = [*self.flags, *overrides]
        made = stage(f"tokens: {source}", "records", "", flags, documents=documents, tokenizer=self.tokenizer)
        return self._placed(made, "tokens", source, steps)

    def _counts(self, documents: str, steps: list[Step]) -> str:
        return self._placed(
            self._ours("count_tokens", (), documents=documents, tokenizer=self.tokenizer), "counts", "", steps
        )

    def _bits(self, run: str, steps: list[Step]) -> str:
        """Nothing that any arm may be trained on is scored, whatever the arm's own data."""
        made = self._ours("bits", (), checkpoint=run, documents=self.scored, trained=self.trained)
        return self._placed(made, "bits", "", steps)

    def _answers(self, run: str, steps: list[Step]) -> str:
        settings = read_by(OURS, "eval", [*self.flags, f"--gin_file={self.config.answers}"])
        places = (("checkpoint", run), ("benchmark_file", f"{self.problems}/{PROBLEMS}"))
        return self._placed(
            Step("eval", OURS, "eval", settings, "", places, (run, self.problems)), "answers", "", steps
        )

    def _training(
        self, flags: Sequence[str], records: Mapping[str, str], start: str, last: bool, steps: list[Step]
    ) -> str:
        wanted = _mixture(flags)
        mixture = {records[source].rsplit("/", 1)[-1]: weight for source, weight in wanted.items()}
        flags = [each for each in flags if not each.startswith("--gin.DataConfig.mixture=")]
        watched = [f"--gin.TrainConfig.held_out=({self.held_out.rsplit('/', 1)[-1]!r},)"] if last else []
        made = self._ours("train", [*flags, mixture_flag(mixture), *watched], data=f"{self.root}/tokens")
        read = [records[source] for source in wanted] + ([self.held_out] if last else [])
        places = (*made.places, *([("init_from", start)] if start else []))
        made = Step(made.title, OURS, "train", made.settings, "", places, (*read, *([start] if start else [])))
        return self._placed(made, "train", "", steps)

    def _ours(self, verb: str, flags: Sequence[str], **places: str) -> Step:
        settings = read_by(OURS, verb, [*self.flags, *flags])
        return Step(verb, OURS, verb, settings, "", tuple(places.items()), tuple(places.values()))

    def _placed(self, step: Step, folder: str, name: str, steps: list[Step]) -> str:
        """Gives a step its directory and puts it behind those before it, unless it's there."""
        inside = [place.removeprefix(self.root) for place in step.inputs]
        key = xxhash.xxh3_64_hexdigest(repr((step.verb, step.settings, inside)).encode())[:8]
        output = f"{self.root}/{folder}/{name}{'-' if name else ''}{key}"
        placed = Step(f"{step.title} ({key})", step.program, step.verb, step.settings, output, step.places, step.inputs)
        if placed not in steps:
            steps.append(placed)
        return output


def _mixture(flags: Sequence[str]) -> dict[str, float]:
    """The sources that a training reads, with their weights."""
    given = [each.partition("=")[2] for each in flags if each.startswith("--gin.DataConfig.mixture=")]
    return ast.literal_eval(given[-1]) if given else {MAIN: 1.0}


def _seeded(seed: int) -> tuple[str, str]:
    """Both arms of a pair have one initialisation and one order."""
    return f"--gin.TrainConfig.seed={seed}", f"--gin.DataConfig.seed={seed}"
