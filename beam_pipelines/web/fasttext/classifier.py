"""The classifier of pages: fastText's model on tokens (section 2.1.2 of the paper), trained so that a run can be rerun.

The paper gives no settings; these are ours, the usual ones of fastText with a rate that small corpora want.

A directory of a classifier holds `classifier.bin`, which any fastText reads given the words of `spelled`, and the
`tokenizer.model` that cuts texts into those words.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from opencoder_jax.beam_pipelines.core.manifest import read_finished
from opencoder_jax.beam_pipelines.core.storage import Directory
from opencoder_jax.beam_pipelines.web.fasttext.fasttext_file import FastTextModel, parse
from opencoder_jax.beam_pipelines.web.fasttext.features import LONGEST, rows_of, spelling, word_hashes
from opencoder_jax.beam_pipelines.web.fasttext.trainer import probabilities_of, train
from opencoder_jax.checks import above, at_least, check
from opencoder_jax.files import write_whole
from opencoder_jax.recipe import UserError, configurable
from opencoder_jax.tokenization.tokenizer import Tokenizer

MODEL, TOKENIZER = "classifier.bin", "tokenizer.model"
WANTED = "wanted"  # the label of what is recalled
OTHER = "other"


@configurable
@dataclass(frozen=True)
class ClassifierConfig:
    """How a classifier is trained.

    Attributes:
        dim: of a row.
        word_ngrams: the longest n-gram of tokens that counts.
        buckets: rows that the n-grams share.
        epochs: passes over the texts, at least.
        least_shown: texts that are shown in all, at least. Fewer tell so little that all scores stay near a half; so
            few texts are shown oftener.
        learning_rate: at first; it falls to 0.
        seed: of rows and order.
        threads: how many compute; the bytes don't depend on it.
    """

    dim: int = 64
    word_ngrams: int = 2
    buckets: int = 200_000
    epochs: int = 5
    least_shown: int = 8_000
    learning_rate: float = 0.5
    seed: int = 0
    threads: int = 1

    def __post_init__(self) -> None:
        counts = ("dim", "word_ngrams", "buckets", "epochs", "least_shown", "threads")
        check(self, **dict.fromkeys(counts, at_least(1)), learning_rate=above(0), seed=at_least(0))


class Classifier:
    """Says how likely a text is of the wanted kind."""

    def __init__(self, model: FastTextModel, tokenizer: Tokenizer) -> None:
        """Raises UserError where the two don't belong together, or the model knows other labels than ours."""
        words = spelling(tokenizer)
        if model.words != tuple(words) or set(model.labels) != {WANTED, OTHER}:
            raise UserError("the classifier and the tokenizer don't belong together; train the classifier again")
        self.model = model
        self.tokenizer = tokenizer
        self._words = words
        self._hashes = word_hashes(words)
        self._wanted = model.labels.index(WANTED)

    @classmethod
    def fit(
        cls, texts: Sequence[str], wanted: Sequence[bool], tokenizer: Tokenizer, config: ClassifierConfig
    ) -> "Classifier":
        """Trains one on texts of both kinds. Raises UserError where there is only one."""
        return cls.fit_tokens([tokens_of(tokenizer, text) for text in texts], wanted, tokenizer, config)

    @classmethod
    def fit_tokens(
        cls, tokens: Sequence[np.ndarray], wanted: Sequence[bool], tokenizer: Tokenizer, config: ClassifierConfig
    ) -> "Classifier":
        """As `fit`, of texts that `tokens_of` has cut."""
        if not any(wanted) or all(wanted):
            raise UserError("a classifier needs texts that are wanted and texts that aren't")
        words = spelling(tokenizer)
        hashes = word_hashes(words)
        rows = [rows_of(each, hashes, config.word_ngrams, config.buckets) for each in tokens]
        epochs = max(config.epochs, math.ceil(config.least_shown / len(rows)))
        counts = np.zeros(len(words) + config.buckets, np.int64)
        for each in rows:
            np.add.at(counts, each, 1)
        trained = train(
            rows,
            np.array([0 if each else 1 for each in wanted], np.int64),
            rows=len(counts),
            classes=2,
            dim=config.dim,
            epochs=epochs,
            learning_rate=config.learning_rate,
            seed=config.seed,
            threads=config.threads,
        )
        model = FastTextModel(
            words=tuple(words),
            counts=tuple(counts[: len(words)].tolist()),
            labels=(WANTED, OTHER),
            label_counts=(sum(wanted), len(wanted) - sum(wanted)),
            inputs=trained.inputs,
            outputs=trained.outputs,
            word_ngrams=config.word_ngrams,
            epochs=epochs,
            learning_rate=config.learning_rate,
        )
        return cls(model, tokenizer)

    @classmethod
    def load(cls, directory: str | Path) -> "Classifier":
        """Raises UserError where a file is missing or damaged, or they don't belong together."""
        place = Path(directory)
        return cls(FastTextModel.read(place / MODEL), Tokenizer.load(place / TOKENIZER))

    @classmethod
    def of_stage(cls, directory: str) -> "Classifier":
        """That of a finished stage, on any file system. Raises UserError as `load` does."""
        place = Directory(directory)
        return cls(parse(read_finished(place, MODEL)), Tokenizer(read_finished(place, TOKENIZER)))

    def save(self, directory: str | Path) -> None:
        """Writes both files."""
        place = Path(directory)
        place.mkdir(parents=True, exist_ok=True)
        for name, content in self.files().items():
            write_whole(place / name, content)

    def files(self) -> dict[str, bytes]:
        """The contents of both files by their names."""
        return {MODEL: self.model.to_bytes(), TOKENIZER: self.tokenizer.model}

    def scores(self, texts: Sequence[str]) -> np.ndarray:
        """The probability of being wanted, float32 [texts]."""
        return self.scores_of_tokens([tokens_of(self.tokenizer, text) for text in texts])

    def scores_of_tokens(self, tokens: Sequence[np.ndarray]) -> np.ndarray:
        """As `scores`, of texts that `tokens_of` has cut."""
        found = np.empty(len(tokens), np.float32)
        for number, each in enumerate(tokens):
            rows = rows_of(each, self._hashes, self.model.word_ngrams, self.model.buckets)
            found[number] = probabilities_of(rows, self.model.inputs, self.model.outputs)[self._wanted]
        return found

    def spelled(self, text: str) -> str:
        """A text as a line of words for another fastText."""
        return " ".join(self._words[token] for token in tokens_of(self.tokenizer, text))


def tokens_of(tokenizer: Tokenizer, text: str) -> np.ndarray:
    """A text's first tokens; no more of it is cut than could be looked at."""
    return tokenizer.encode_array(text[: 8 * LONGEST])[:LONGEST]
