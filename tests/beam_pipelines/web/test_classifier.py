"""The classifier of pages: it learns, the same bytes whatever the threads, and fastText's file to the bit."""

import os
import pickle
import struct
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from opencoder_jax.beam_pipelines.web.fasttext.classifier import MODEL, OTHER, WANTED, Classifier, ClassifierConfig
from opencoder_jax.beam_pipelines.web.fasttext.fasttext_file import FastTextModel
from opencoder_jax.beam_pipelines.web.fasttext.features import LONGEST, rows_of, spelling, word_hash, word_hashes
from opencoder_jax.recipe import UserError
from opencoder_jax.tokenization.tokenizer import Tokenizer

Pages = tuple[list[str], list[bool]]
CONFIG = ClassifierConfig(dim=16, buckets=1000, epochs=3, least_shown=1)


@pytest.fixture(scope="module")
def classifier(pages: Pages, tokenizer: Tokenizer) -> Classifier:
    texts, wanted = pages
    return Classifier.fit(texts[:200], wanted[:200], tokenizer, CONFIG)


def test_it_tells_pages_apart_that_it_never_saw(classifier: Classifier, pages: Pages) -> None:
    texts, wanted = pages
    found = classifier.scores(texts[200:]) > 0.5
    assert np.mean(found == np.array(wanted[200:])) > 0.97


def test_the_bytes_do_not_depend_on_the_threads(classifier: Classifier, pages: Pages, tokenizer: Tokenizer) -> None:
    texts, wanted = pages
    config = replace(CONFIG, threads=2)
    assert Classifier.fit(texts[:200], wanted[:200], tokenizer, config).model.to_bytes() == classifier.model.to_bytes()


# numba takes no more threads than it was started with, so more than this machine has cores want a process of their own.
_RUNS = """
import pickle, sys
import numpy as np
from opencoder_jax.beam_pipelines.web.fasttext.classifier import Classifier, ClassifierConfig
from opencoder_jax.tokenization.tokenizer import Tokenizer

texts, wanted, model = pickle.load(sys.stdin.buffer)
found = []
for run in range(20):
    threads = (1, 2, 4, 8, 16)[run % 5]
    config = ClassifierConfig(dim=16, buckets=1000, epochs=3, least_shown=1, threads=threads)
    trained = Classifier.fit(texts, wanted, Tokenizer(model), config).model
    assert np.isfinite(trained.inputs).all() and np.isfinite(trained.outputs).all()
    found.append(trained.to_bytes())
pickle.dump(found, sys.stdout.buffer)
"""


@pytest.mark.slow
def test_twenty_runs_of_one_to_sixteen_threads(classifier: Classifier, pages: Pages, tokenizer: Tokenizer) -> None:
    """The same bytes, and nothing but numbers in them: fastText's own wheels for numpy 2 give NaN below 11 threads."""
    given = pickle.dumps((pages[0][:200], pages[1][:200], tokenizer.model))
    environment = os.environ | {"NUMBA_NUM_THREADS": "16"}
    done = subprocess.run([sys.executable, "-c", _RUNS], input=given, capture_output=True, env=environment)
    assert done.returncode == 0, done.stderr[-2000:]
    assert pickle.loads(done.stdout) == [classifier.model.to_bytes()] * 20


def test_a_step_is_that_of_the_definition(tokenizer: Tokenizer) -> None:
    """One text, one epoch, in float64: the gradient of the cross-entropy of softmax over the mean row."""
    config = ClassifierConfig(dim=4, buckets=50, epochs=1, least_shown=1, learning_rate=0.3)
    texts = ["def class", "the garden"]
    found = Classifier.fit(texts, [True, False], tokenizer, config).model
    rng = np.random.Generator(np.random.Philox(key=config.seed))
    inputs = ((2 * rng.random(found.inputs.shape, np.float32) - 1) / np.float32(4)).astype(np.float64)
    outputs = np.zeros((2, 4))
    hashes = word_hashes(spelling(tokenizer))
    rows = [rows_of(np.array(tokenizer.encode(text), np.int32), hashes, 2, 50) for text in texts]
    # Both texts are in one batch: hidden states and errors are of the matrices before it.
    hidden = [inputs[each].mean(axis=0) for each in rows]
    for label, state in enumerate(hidden):
        outputs += 0.3 * np.outer(np.eye(2)[label] - 0.5, state)
    np.testing.assert_allclose(found.outputs, outputs, atol=1e-6)
    np.testing.assert_allclose(found.inputs, inputs, atol=1e-6)  # the outputs were zero: no gradient gets through


def test_few_texts_are_shown_oftener(pages: Pages, tokenizer: Tokenizer) -> None:
    """Ten of each kind, in five passes, leave all scores near a half."""
    texts, wanted = pages
    few, shown = (
        Classifier.fit(texts[:20], wanted[:20], tokenizer, replace(CONFIG, epochs=5, least_shown=least))
        for least in (1, 4_000)
    )
    assert np.abs(few.scores(texts[200:]) - 0.5).max() < 0.1
    assert np.mean((shown.scores(texts[200:]) > 0.9) == np.array(wanted[200:])) > 0.9
    assert (few.model.epochs, shown.model.epochs) == (5, 200)


def test_the_file_comes_back(classifier: Classifier, pages: Pages, tmp_path: Path) -> None:
    classifier.save(tmp_path)
    again = Classifier.load(tmp_path)
    assert again.model.to_bytes() == (tmp_path / MODEL).read_bytes() == classifier.model.to_bytes()
    np.testing.assert_array_equal(again.scores(pages[0][:9]), classifier.scores(pages[0][:9]))
    assert set(again.model.labels) == {WANTED, OTHER}


@pytest.mark.parametrize("cut", [0, 3, 50, 200, 5000, -1])
def test_a_truncated_file_is_refused(classifier: Classifier, tmp_path: Path, cut: int) -> None:
    (tmp_path / MODEL).write_bytes(classifier.model.to_bytes()[:cut])
    with pytest.raises(UserError, match=rf"{MODEL}: no fastText model that we can use"):
        FastTextModel.read(tmp_path / MODEL)


def test_other_models_are_refused(classifier: Classifier, tmp_path: Path) -> None:
    content = bytearray(classifier.model.to_bytes())
    content[4:8] = struct.pack("<i", 11)
    (tmp_path / MODEL).write_bytes(content)
    with pytest.raises(UserError, match="version 12"):
        FastTextModel.read(tmp_path / MODEL)
    with pytest.raises(UserError, match="No such file"):
        FastTextModel.read(tmp_path / "none.bin")


def test_both_kinds_are_needed(tokenizer: Tokenizer) -> None:
    with pytest.raises(UserError, match="texts that are wanted and texts that aren't"):
        Classifier.fit(["a"], [True], tokenizer, CONFIG)


def test_words_are_lines_for_another_fasttext(classifier: Classifier, tokenizer: Tokenizer) -> None:
    words = spelling(tokenizer)
    assert len(set(words)) == len(words) == tokenizer.vocab_size + 1
    assert not any(word.split() != [word] for word in words)
    text = "def\n\t index 中文\0"
    assert len(classifier.spelled(text).split(" ")) == len(tokenizer.encode(text))


@pytest.mark.parametrize(("word", "value"), [("", 0x811C9DC5), ("a", 0xE40C292C), ("foobar", 0xBF9CF968)])
def test_a_word_is_hashed_by_fnv_1a(word: str, value: int) -> None:
    assert word_hash(word) == value


def test_bytes_beyond_ascii_are_taken_for_signed_ones() -> None:
    """As fastText takes them: another hash than FNV-1a's own."""
    value = 0x811C9DC5
    for byte in "é".encode():
        value = ((value ^ ((byte - 256) & 0xFFFFFFFF)) * 16777619) % 2**32
    assert word_hash("é") == value


@given(st.lists(st.integers(0, 99), max_size=40), st.integers(1, 4), st.integers(1, 1000))
def test_rows_are_the_words_and_their_ngrams(tokens: list[int], ngrams: int, buckets: int) -> None:
    hashes = word_hashes([str(number) for number in range(101)])
    line = [*tokens, 100]
    expected = list(line)
    for first in range(len(line)):
        value = int(hashes[line[first]])
        for last in range(first + 1, min(len(line), first + ngrams)):
            value = (value * 116049371 + int(hashes[line[last]])) % 2**64
            expected.append(101 + value % buckets)
    assert rows_of(np.array(tokens, np.int32), hashes, ngrams, buckets).tolist() == expected


def test_only_the_beginning_of_a_long_page_counts(classifier: Classifier) -> None:
    page = "def " * (2 * LONGEST)
    assert classifier.scores([page]) == classifier.scores([page[: 9 * LONGEST]])
    assert np.isfinite(classifier.scores(["", "\n" * 100_000])).all()
