"""fastText's model file (`.bin`, version 12): what it holds, written and read, so that any fastText can use our models.

Source: fasttext.cc, `src/fasttext.cc`, `src/args.cc`, `src/dictionary.cc` and `src/matrix.cc` of version 0.9.2.
"""

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from opencoder_jax.recipe import UserError

_MAGIC, _VERSION = 793_712_314, 12
_SOFTMAX, _SUPERVISED = 3, 3
_WORD, _LABEL = 0, 1
LABEL = "__label__"
END_OF_LINE = "</s>"  # the word that fastText reads at the end of every text


@dataclass(frozen=True)
class FastTextModel:
    """A supervised model with softmax.

    Attributes:
        words: of the dictionary, the end of line among them; row i of `inputs` is that of word i.
        counts: of the words in the texts that it was trained on.
        labels: without `__label__`; row i of `outputs` is that of label i.
        label_counts: texts of each label.
        inputs: float32 [words + buckets, dim]: of words, then of hashed n-grams of words.
        outputs: float32 [labels, dim].
        word_ngrams: the longest n-gram of words that is hashed; 1: none is.
        epochs, learning_rate: of the training; only told.
    """

    words: tuple[str, ...]
    counts: tuple[int, ...]
    labels: tuple[str, ...]
    label_counts: tuple[int, ...]
    inputs: np.ndarray
    outputs: np.ndarray
    word_ngrams: int
    epochs: int = 5
    learning_rate: float = 0.1

    @property
    def buckets(self) -> int:
        """How many rows the n-grams share."""
        return len(self.inputs) - len(self.words)

    def to_bytes(self) -> bytes:
        """The file."""
        dim = self.inputs.shape[1]
        # dim, window, epochs, least count, negatives, word n-grams, loss, model, buckets, shortest and longest n-gram
        # of characters (none), updates between two rates.
        numbers = (dim, 5, self.epochs, 1, 5, self.word_ngrams, _SOFTMAX, _SUPERVISED, self.buckets, 0, 0, 100)
        parts = [struct.pack("<2i", _MAGIC, _VERSION), struct.pack("<12id", *numbers, 1e-4)]
        size = len(self.words) + len(self.labels)
        parts.append(struct.pack("<3i2q", size, len(self.words), len(self.labels), sum(self.counts), -1))
        for word, count in zip(self.words, self.counts, strict=True):
            parts.append(word.encode() + b"\0" + struct.pack("<qb", count, _WORD))
        for label, count in zip(self.labels, self.label_counts, strict=True):
            parts.append((LABEL + label).encode() + b"\0" + struct.pack("<qb", count, _LABEL))
        for matrix in (self.inputs, self.outputs):
            parts.append(struct.pack("<?2q", False, *matrix.shape))
            parts.append(np.ascontiguousarray(matrix, "<f4").tobytes())
        return b"".join(parts)

    @classmethod
    def read(cls, path: str | Path) -> "FastTextModel":
        """Reads a file. Raises UserError where it is missing, damaged, or a model that we can't use."""
        try:
            content = Path(path).read_bytes()
        except OSError as error:
            raise UserError(f"{path}: {error.strerror or error}; give a fastText model (.bin)") from None
        try:
            return parse(content)
        except (struct.error, UnicodeDecodeError, ValueError) as error:
            raise UserError(f"{path}: no fastText model that we can use: {error}") from None


class _Reader:
    def __init__(self, content: bytes) -> None:
        self.content = content
        self.place = 0

    def take(self, layout: str) -> tuple[int, ...]:
        values = struct.unpack_from(f"<{layout}", self.content, self.place)
        self.place += struct.calcsize(f"<{layout}")
        return values

    def text(self) -> str:
        end = self.content.index(b"\0", self.place)
        word = self.content[self.place : end].decode()
        self.place = end + 1
        return word

    def matrix(self) -> np.ndarray:
        quantised, rows, columns = self.take("?2q")
        if quantised:
            raise ValueError("it is quantised")
        if rows < 0 or columns < 1 or self.place + 4 * rows * columns > len(self.content):
            raise ValueError("it ends too early")
        found = np.frombuffer(self.content, "<f4", rows * columns, self.place).reshape(rows, columns)
        self.place += found.nbytes
        return found


def parse(content: bytes) -> FastTextModel:
    """As `FastTextModel.read`. Raises ValueError or struct.error."""
    reader = _Reader(content)
    if reader.take("2i") != (_MAGIC, _VERSION):
        raise ValueError(f"it doesn't begin as one of version {_VERSION} does")
    numbers = reader.take("12i")
    reader.take("d")
    _, _, epochs, _, _, ngrams, loss, model, buckets, shortest, longest, _ = numbers
    if (loss, model) != (_SOFTMAX, _SUPERVISED):
        raise ValueError("it isn't a supervised one with softmax")
    if longest > 0 and shortest > 0:
        raise ValueError("it has n-grams of characters")
    size, words, labels, _, pruned = reader.take("3i2q")
    if pruned >= 0:
        raise ValueError("it is pruned")
    entries: list[tuple[str, int]] = []
    for _ in range(size):
        word = reader.text()
        count, _ = reader.take("qb")
        entries.append((word, count))
    inputs, outputs = reader.matrix(), reader.matrix()
    if len(inputs) != words + buckets or len(outputs) != labels or size != words + labels:
        raise ValueError("its matrices don't fit its dictionary")
    names, of_labels = entries[:words], entries[words:]
    return FastTextModel(
        *_columns(names),
        tuple(name.removeprefix(LABEL) for name, _ in of_labels),
        _columns(of_labels)[1],
        inputs,
        outputs,
        ngrams,
        epochs,
    )


def _columns(entries: Sequence[tuple[str, int]]) -> tuple[tuple[str, ...], tuple[int, ...]]:
    return tuple(name for name, _ in entries), tuple(count for _, count in entries)
