"""Trains fastText's classifier, with the same bytes whatever the number of threads.

fastText's own threads write into one matrix without asking each other: two runs differ, and the wheels for numpy 2
begin with memory that nobody set (NaN in up to 20 of 20 runs below 11 threads). Here an update is that of a batch of
texts: their gradients are computed side by side, and each row of the matrix belongs to one share, a thread's, in which
the texts' gradients are added in order. So the sums have one order, and no two threads share a row.

The model (Joulin et al. 2016, arXiv 1607.01759): the mean of the rows of a text, a linear layer, softmax. The learning
rate falls linearly to 0. Random numbers are counter-based: a function of the seed, the epoch and the place.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numba
import numpy as np

from opencoder_jax.progress import Progress

BATCH = 32  # texts of an update


class Trained(NamedTuple):
    """float32 [rows, dim] and [labels, dim]."""

    inputs: np.ndarray
    outputs: np.ndarray


def train(
    texts: Sequence[np.ndarray],
    labels: np.ndarray,
    *,
    rows: int,
    classes: int,
    dim: int,
    epochs: int,
    learning_rate: float,
    seed: int,
    threads: int,
) -> Trained:
    """Trains a model.

    Args:
        texts: of each, its rows of the input matrix, int32 [n], at least one.
        labels: int64 [texts], in 0 .. classes - 1.
        rows: of the input matrix.
        threads: how many compute; the result doesn't depend on it.
    """
    starts = np.zeros(len(texts) + 1, np.int64)
    np.cumsum([len(text) for text in texts], out=starts[1:])
    flat = np.concatenate(texts).astype(np.int32)
    uniform = np.random.Generator(np.random.Philox(key=seed)).random((rows, dim), np.float32)
    inputs = (2 * uniform - 1) / np.float32(dim)
    outputs = np.zeros((classes, dim), np.float32)
    before = numba.get_num_threads()  # as many as there are cores
    shares = min(threads, before)
    numba.set_num_threads(shares)
    try:
        with Progress("train classifier", epochs * len(texts), "texts") as progress:
            for epoch in range(epochs):
                order = np.random.Generator(np.random.Philox(key=[seed, epoch + 1])).permutation(len(texts))
                first, last = learning_rate * (1 - epoch / epochs), learning_rate * (1 - (epoch + 1) / epochs)
                _epoch(flat, starts, labels, order, inputs, outputs, first, last, shares)
                progress.update_to((epoch + 1) * len(texts))
    finally:
        numba.set_num_threads(before)
    return Trained(inputs, outputs)


@numba.njit(cache=True, parallel=True, nogil=True)
def _epoch(
    flat: np.ndarray,
    starts: np.ndarray,
    labels: np.ndarray,
    order: np.ndarray,
    inputs: np.ndarray,
    outputs: np.ndarray,
    first_rate: float,
    last_rate: float,
    shares: int,
) -> None:
    classes, dim = outputs.shape
    hidden = np.zeros((BATCH, dim), np.float32)
    errors = np.zeros((BATCH, classes), np.float32)
    gradients = np.zeros((BATCH, dim), np.float32)
    for begin in range(0, len(order), BATCH):
        count = min(BATCH, len(order) - begin)
        rate = np.float32(first_rate + (last_rate - first_rate) * begin / len(order))
        for item in numba.prange(count):
            text = order[begin + item]
            _mean(flat, starts[text], starts[text + 1], inputs, hidden[item])
            _softmax(hidden[item], outputs, errors[item])
            for label in range(classes):
                errors[item, label] = rate * ((1 if label == labels[text] else 0) - errors[item, label])
            for column in range(dim):
                total = np.float32(0)
                for label in range(classes):
                    total += errors[item, label] * outputs[label, column]
                gradients[item, column] = total / (starts[text + 1] - starts[text])
        for item in range(count):
            for label in range(classes):
                for column in range(dim):
                    outputs[label, column] += errors[item, label] * hidden[item, column]
        for share in numba.prange(shares):
            for item in range(count):
                text = order[begin + item]
                for place in range(starts[text], starts[text + 1]):
                    row = flat[place]
                    if row % shares == share:
                        for column in range(dim):
                            inputs[row, column] += gradients[item, column]


@numba.njit(cache=True, nogil=True)
def _mean(flat: np.ndarray, begin: int, end: int, inputs: np.ndarray, hidden: np.ndarray) -> None:
    for column in range(len(hidden)):
        hidden[column] = 0
    for place in range(begin, end):
        row = flat[place]
        for column in range(len(hidden)):
            hidden[column] += inputs[row, column]
    share = np.float32(1) / np.float32(end - begin)
    for column in range(len(hidden)):
        hidden[column] *= share


@numba.njit(cache=True, nogil=True)
def _softmax(hidden: np.ndarray, outputs: np.ndarray, probabilities: np.ndarray) -> None:
    for label in range(len(outputs)):
        total = np.float32(0)
        for column in range(len(hidden)):
            total += outputs[label, column] * hidden[column]
        probabilities[label] = total
    highest, total = probabilities[0], np.float32(0)
    for label in range(1, len(outputs)):
        highest = max(highest, probabilities[label])
    for label in range(len(outputs)):
        probabilities[label] = np.exp(probabilities[label] - highest)
        total += probabilities[label]
    for label in range(len(outputs)):
        probabilities[label] /= total


@numba.njit(cache=True, nogil=True)
def probabilities_of(rows: np.ndarray, inputs: np.ndarray, outputs: np.ndarray) -> np.ndarray:
    """The probability of each label for the text with these rows, float32 [labels]."""
    hidden = np.empty(inputs.shape[1], np.float32)
    found = np.empty(len(outputs), np.float32)
    _mean(rows, 0, len(rows), inputs, hidden)
    _softmax(hidden, outputs, found)
    return found
