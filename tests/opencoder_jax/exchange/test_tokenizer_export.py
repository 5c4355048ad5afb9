"""Hugging Face's libraries give our ids, for every text; and a model whose ids no list of pairs can give is refused."""

import json
import re
import sysconfig
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st
from sentencepiece import sentencepiece_model_pb2
from tokenizers.pre_tokenizers import Split

from opencoder_jax.beam_pipelines.tokens.train_tokenizer import TokenizerConfig, train, word_table
from opencoder_jax.exchange.tokenizer_export import CHAT_TEMPLATE, hugging_face_files, joins, main
from opencoder_jax.recipe import UserError
from opencoder_jax.tokenization import chat
from opencoder_jax.tokenization.pre_split import PRE_SPLIT, hugging_face_rule
from opencoder_jax.tokenization.tokenizer import Tokenizer
from tests.opencoder_jax.tokenization.test_tokenizer import texts

# As the released tokenizer's code has it; the library's own classes are those of a newer Unicode.
OPENCODERS_RULE = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+\s+(\S)+"
)


def library(step: int = 1) -> Iterator[str]:
    """Every so manieth file of Python's own library, if it's UTF-8, as it is."""
    files = sorted(Path(sysconfig.get_path("stdlib")).rglob("*.py"))
    for file in [file for file in files if "site-packages" not in file.parts][::step]:
        try:
            yield file.read_bytes().decode()
        except UnicodeDecodeError:
            continue


def exported(tokenizer: Tokenizer) -> tokenizers.Tokenizer:
    """What the library makes of the file, taking names of control tokens in a text for text."""
    theirs = tokenizers.Tokenizer.from_str(hugging_face_files(tokenizer)["tokenizer.json"])
    theirs.encode_special_tokens = True
    return theirs


@pytest.fixture(scope="module")
def theirs(tokenizer: Tokenizer) -> tokenizers.Tokenizer:
    return exported(tokenizer)


@settings(max_examples=500)
@given(text=st.one_of(texts, st.text(alphabet="aeinst ()\n_'=.", max_size=60)))
def test_ids_are_ours(tokenizer: Tokenizer, theirs: tokenizers.Tokenizer, text: str) -> None:
    ids = theirs.encode(text).ids
    assert ids == tokenizer.encode(text)
    assert theirs.decode(ids) == text


def test_ids_of_source_code_are_ours(tokenizer: Tokenizer, theirs: tokenizers.Tokenizer) -> None:
    for text in library(step=100):
        assert theirs.encode(text).ids == tokenizer.encode(text)


@pytest.mark.slow
def test_ids_of_the_whole_library_are_ours_with_a_larger_vocabulary() -> None:
    corpus = list(library())
    counts = Counter(word for text in corpus[::3] for word in PRE_SPLIT.findall(text))
    tokenizer = Tokenizer(train(word_table(counts), TokenizerConfig(vocab_size=16_384)))
    theirs = exported(tokenizer)
    assert len(corpus) > 500
    for text in corpus:
        assert theirs.encode(text).ids == tokenizer.encode(text)


def test_control_tokens_are_the_same_ids_and_parsed_by_default(tokenizer: Tokenizer) -> None:
    theirs = tokenizers.Tokenizer.from_str(hugging_face_files(tokenizer)["tokenizer.json"])
    assert theirs.get_vocab_size() == tokenizer.vocab_size
    for name, index in tokenizer.controls.items():
        assert theirs.token_to_id(name) == index
        assert theirs.encode(name).ids == [index]
        assert tokenizer.encode(name) != [index]
    assert theirs.decode([tokenizer.im_start, *tokenizer.encode("a\n"), tokenizer.im_end]) == "a\n"


@pytest.mark.parametrize("mine", [True, False])
def test_words_are_opencoders(mine: bool) -> None:
    """On source code, and on all that Unicode 14 and the library agree on."""
    split = Split(tokenizers.Regex(hugging_face_rule() if mine else OPENCODERS_RULE), "isolated")
    samples = ["don't he'LL 'static 'ſ 'xs", "x²=½Ⅷ٣٤٥٦ 1234567", "\u00a0a\u3000b  \x1c\x85c", "日本語のテキスト。\n"]
    for text in [*samples, *library(step=200)]:
        assert [word for word, _ in split.pre_tokenize_str(text)] == PRE_SPLIT.findall(text)


@settings(max_examples=300)
@given(text=st.text(max_size=30))
def test_words_are_those_of_the_rule_that_is_written_down(text: str) -> None:
    split = Split(tokenizers.Regex(hugging_face_rule()), "isolated")
    assert [word for word, _ in split.pre_tokenize_str(text)] == PRE_SPLIT.findall(text)


def test_of_several_splits_only_the_one_that_happens_is_a_pair() -> None:
    scores = {piece: -float(rank) for rank, piece in enumerate(["ab", "bc", "abc", "cd", "bcd", "a", "b", "c", "d"])}
    # abc is ab and c, for ab comes first; bcd is bc and d.
    assert joins(scores) == [("a", "b"), ("b", "c"), ("ab", "c"), ("c", "d"), ("bc", "d")]
    # abcd comes out as abc and d, so no text has it in one.
    assert joins({"ab": 0.0, "bcd": -1.0, "abx": -2.0, "abcd": -3.0} | dict.fromkeys("abcdx", -9.0)) == [
        ("a", "b"),
        ("ab", "x"),
    ]


def test_config_names_the_ends(tokenizer: Tokenizer) -> None:
    config = json.loads(hugging_face_files(tokenizer)["tokenizer_config.json"])
    assert (config["bos_token"], config["eos_token"], config["pad_token"]) == ("<|im_start|>", "<|im_end|>", "<pad>")
    base = json.loads(hugging_face_files(tokenizer, base=True)["tokenizer_config.json"])
    assert (base["bos_token"], base["eos_token"]) == ("<s>", "</s>")
    assert {int(index) for index in config["added_tokens_decoder"]} == {0, *tokenizer.controls.values()}


def test_chat_template_renders_what_chat_renders() -> None:
    marks = re.compile(r"{% (end)?generation %}")  # transformers' own, which it leaves out of the text
    assert [mark[1] for mark in marks.finditer(CHAT_TEMPLATE)] == [None, "end"]
    template = pytest.importorskip("jinja2").Template(marks.sub("", CHAT_TEMPLATE))
    turns: list[chat.Message] = [{"role": "user", "content": "a\n"}, {"role": "assistant", "content": "b"}]
    system: chat.Message = {"role": "system", "content": "s"}
    for messages in (turns, [system, *turns]):
        for prompt in (False, True):
            rendered = template.render(messages=messages, add_generation_prompt=prompt)
            assert rendered == chat.render(messages, add_generation_prompt=prompt)


@pytest.mark.slow
def test_transformers_gives_our_ids(tokenizer: Tokenizer, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    (tmp_path / "tokenizer.model").write_bytes(tokenizer.model)
    main([f"--tokenizer={tmp_path}/tokenizer.model", f"--output={tmp_path}/out"])
    plain = transformers.AutoTokenizer.from_pretrained(tmp_path / "out")
    literal = transformers.AutoTokenizer.from_pretrained(tmp_path / "out", split_special_tokens=True)
    names = (*tokenizer.controls, "<unk>")
    for text in library(step=10):
        ids = tokenizer.encode(text)
        assert literal(text, add_special_tokens=False)["input_ids"] == ids
        if not any(name in text for name in names):
            assert plain(text)["input_ids"] == ids
            assert plain.decode(ids) == text
    turns: list[chat.Message] = [{"role": "user", "content": "What is 1 + 1?"}]
    assert plain.apply_chat_template(turns, add_generation_prompt=True, return_dict=False) == chat.encode_prompt(
        tokenizer, turns
    )
    asked: chat.Message = {"role": "user", "content": "Add 1, please:\n"}
    said = ("2", "    return 1\n\n", "漢 é\r\n", "  \tx = '\n'", "")
    answers: list[chat.Message] = [{"role": "assistant", "content": content} for content in said]
    several = [turn for answer in answers for turn in (asked, answer)]
    unweighted: chat.Message = {"role": "assistant", "content": "not this one", "weight": 0}
    silent: chat.Message = {"role": "system", "content": ""}
    for messages in (several, [silent, *several], [asked, unweighted, *several]):
        theirs = plain.apply_chat_template(messages, return_dict=True, return_assistant_tokens_mask=True)
        tokens, mask = chat.encode(tokenizer, messages)
        assert theirs["input_ids"] == tokens.tolist()
        assert theirs["assistant_masks"] == mask.tolist()
    assert plain.eos_token_id == tokenizer.im_end
    assert plain.pad_token_id == tokenizer.pad


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda proto: setattr(proto.trainer_spec, "model_type", proto.trainer_spec.UNIGRAM), "not a BPE model"),
        (lambda proto: setattr(proto.pieces[300], "type", proto.SentencePiece.USER_DEFINED), "1 pieces are user-def"),
        (lambda proto: setattr(proto.pieces[270], "score", proto.pieces[269].score), "pieces have equal scores"),
    ],
)
def test_what_no_list_of_pairs_can_say_is_refused(tokenizer: Tokenizer, change: object, message: str) -> None:
    proto = sentencepiece_model_pb2.ModelProto.FromString(tokenizer.model)
    change(proto)  # type: ignore[operator]
    with pytest.raises(UserError, match=f"a.model: {message}"):
        hugging_face_files(Tokenizer(proto.SerializeToString()), name="a.model")
