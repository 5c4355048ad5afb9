"""Every text comes back exactly, control tokens can't be smuggled in, and a wrong model is refused."""

import re
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from sentencepiece import sentencepiece_model_pb2

from opencoder_jax.recipe import UserError
from opencoder_jax.tokenization import pre_split
from opencoder_jax.tokenization import tokenizer as module
from opencoder_jax.tokenization.pre_split import PRE_SPLIT
from opencoder_jax.tokenization.tokenizer import Tokenizer

FIRST_PIECE = 260  # behind the controls and the bytes

fragments = st.one_of(
    st.sampled_from(
        ["def ", "(self):\n", "    ", "\t", "\r", "\r\n", "\n\n\n", "12345", "_x_", "'s", "a" * 300, " " * 200]
    ),
    st.sampled_from(["é", "e\u0301", "漢字", "🎉", "👩\u200d👩\u200d👧", "²½Ⅷ", "\x85\u2028", "\ufeff", "\0"]),
    st.sampled_from(["\u2581", " \u2581 ", "\ue00a", "</s>", "<|im_end|>", "<pad>", "<0x41>"]),
)
texts = st.lists(st.one_of(fragments, st.text(max_size=8)), max_size=12).map("".join)


@settings(max_examples=300)
@given(text=texts)
@example(text="")
def test_text_comes_back_and_holds_no_control_token(tokenizer: Tokenizer, text: str) -> None:
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids) == text
    assert tokenizer.decode_bytes(ids) == text.encode()
    assert all(4 <= token < tokenizer.im_end for token in ids)
    assert tokenizer.encode(text) == ids  # the second time from the table


@settings(max_examples=300)
@given(text=texts)
def test_words_make_up_the_text(text: str) -> None:
    assert "".join(PRE_SPLIT.findall(text)) == text


@settings(max_examples=50)
@given(batch=st.lists(texts, max_size=4))
def test_batch_is_the_same_as_one_by_one(tokenizer: Tokenizer, batch: list[str]) -> None:
    arrays = tokenizer.encode_batch(batch)
    assert [array.tolist() for array in arrays] == [tokenizer.encode(text) for text in batch]
    assert all(array.dtype == np.int32 for array in arrays)


def test_layout_of_the_vocabulary(tokenizer: Tokenizer) -> None:
    assert tokenizer.vocab_size == 700
    assert (tokenizer.end_of_document, tokenizer.pad) == (2, 3)
    # As in OpenCoder: 96,640 ids, 101 of them reserved, <|im_end|> 96,539 and <|im_start|> 96,540.
    assert (tokenizer.im_end, tokenizer.im_start) == (689, 690)
    assert tokenizer.decode_bytes(range(4, 260)) == bytes(range(256))
    assert tokenizer.decode([0, 1, 2, 3, *range(689, 700)]) == ""
    with pytest.raises(IndexError):
        tokenizer.decode([700])


def test_bytes_that_are_no_text_become_replacement_characters(tokenizer: Tokenizer) -> None:
    assert tokenizer.decode([4 + 0xE6, 4 + ord("a")]) == "\ufffda"


def test_ends_of_lines_and_indentation_are_learnt(tokenizer: Tokenizer) -> None:
    for text in ("):\n", " =", "    ", "def", " None"):
        (token,) = tokenizer.encode(text)
        assert token >= FIRST_PIECE


def test_a_lone_surrogate_is_an_error(tokenizer: Tokenizer) -> None:
    with pytest.raises(ValueError, match=r"lone surrogate '\\udc80'"):
        tokenizer.encode("x = '\udc80'")


def test_a_full_table_changes_nothing(tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_TABLE_BYTES", 3000)
    fresh = Tokenizer(tokenizer.model)
    lines = Path(__file__).read_text().splitlines(keepends=True)
    for line in lines:
        assert fresh.encode(line) == tokenizer.encode(line)
    assert 0 < len(fresh._words) < len(set(PRE_SPLIT.findall("".join(lines)))) / 2


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("def add(self, x2):\n    return 12345", "def| add|(self|,| x|2|):\n|   | return| |123|45"),
        ("don't  stop", "don|'t| | stop"),
        ("'static 'LLx 'xyz", "'s|tatic| '|LLx| '|xyz"),
        ("x²3=½ Ⅷ٣", "x|²3|=|½| |Ⅷ٣"),
        ("a\u00a0b \u00a0c\x1cd", "a|\u00a0b| |\u00a0c|\x1cd"),
        ("(é ((é 12é é1", "(é| ((|é| |12|é| é|1"),
        ("snake_case __init__", "snake|_case| __|init|__"),
        ("a\n\n\n  b", "a|\n\n\n| | b"),
        ("x \n\ty", "x| \n|\ty"),
        ("if (a && b) {\r\n", "if| (|a| &&| b|)| {\r\n"),
        ("Größe 漢字", "Größe| 漢字"),
        ("tail   ", "tail|   "),
    ],
)
def test_words_are_those_of_cl100k(text: str, words: str) -> None:
    """Worked out by hand from cl100k's pattern in tiktoken."""
    assert PRE_SPLIT.findall(text) == words.split("|")


def test_letters_and_numbers_are_those_of_unicode_14() -> None:
    """Whatever Python's version knows. A newer one that fails here has letters to add to the rule's exceptions."""
    characters = "".join(chr(code) for code in range(0x110000))
    letters = re.findall(pre_split._LETTER, characters)
    numbers = re.findall(pre_split._NUMBER, characters)
    assert (len(letters), len(numbers)) == (131_756, 1_791)
    assert {unicodedata.category(letter)[0] for letter in letters} == {"L"}
    assert {unicodedata.category(number)[0] for number in numbers} == {"N"}


@pytest.mark.parametrize("run", ["x", " ", "\n", "\t ", "1", "=", "é", "→", "a\u0301", "\u2581", "x" * 70 + "é"])
def test_long_runs_take_linear_time(tokenizer: Tokenizer, run: str) -> None:
    """Quadratic time would take minutes here."""
    text = run * (300_000 // len(run))
    assert tokenizer.decode(tokenizer.encode(text)) == text


def test_fingerprint_is_that_of_the_file(tokenizer: Tokenizer, tmp_path: Path) -> None:
    file = tmp_path / "tokenizer.model"
    file.write_bytes(tokenizer.model)
    assert Tokenizer.load(file).fingerprint == tokenizer.fingerprint


def test_what_is_no_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=f"{tmp_path}/none: no such tokenizer model"):
        Tokenizer.load(tmp_path / "none")
    with pytest.raises(UserError, match="no such tokenizer model"):
        Tokenizer.load(tmp_path)
    for content in (b"", b"\x00\x01", b"just some text\n" * 9):
        (tmp_path / "bad").write_bytes(content)
        with pytest.raises(UserError, match=f"{tmp_path}/bad: not a SentencePiece model"):
            Tokenizer.load(tmp_path / "bad")


@pytest.mark.parametrize(
    ("piece", "missing"), [("<|im_start|>", r"it lacks <\|im_start\|>"), ("<0x00>", "it lacks the byte pieces")]
)
def test_model_without_our_layout_is_refused(tokenizer: Tokenizer, piece: str, missing: str) -> None:
    proto = sentencepiece_model_pb2.ModelProto.FromString(tokenizer.model)
    proto.trainer_spec.byte_fallback = False
    for entry in proto.pieces:
        if entry.type == proto.SentencePiece.BYTE or entry.piece == piece:
            entry.type = proto.SentencePiece.NORMAL
    with pytest.raises(UserError, match=f"model: a foreign tokenizer: {missing}"):
        Tokenizer(proto.SerializeToString(), "model")


def test_a_model_that_changes_text_is_refused(tokenizer: Tokenizer) -> None:
    proto = sentencepiece_model_pb2.ModelProto.FromString(tokenizer.model)
    proto.normalizer_spec.add_dummy_prefix = True
    with pytest.raises(UserError, match="model: a foreign tokenizer: it takes 'def' for ' def'"):
        Tokenizer(proto.SerializeToString(), "model")
    proto = sentencepiece_model_pb2.ModelProto.FromString(tokenizer.model)
    for entry in proto.pieces:
        entry.piece = entry.piece.replace("\u2581", "\u2582")
    with pytest.raises(UserError, match="model: a foreign tokenizer: it takes ' def' for"):
        Tokenizer(proto.SerializeToString(), "model")
