"""A foreign tokenizer answers as ours does: every text comes back, control tokens are never read out of text."""

import json
from pathlib import Path

import pytest
import tokenizers
from foreign import CHATML, write_tokenizer
from hypothesis import given
from hypothesis import strategies as st

from opencoder_jax.exchange.tokenizer_export import hugging_face_files
from opencoder_jax.recipe import UserError
from opencoder_jax.tokenization import chat
from opencoder_jax.tokenization.chat_template import ChatTemplate
from opencoder_jax.tokenization.hugging_face import HuggingFaceTokenizer, open_tokenizer
from opencoder_jax.tokenization.tokenizer import Tokenizer

TEXTS = st.one_of(
    st.text(max_size=80), st.sampled_from(["<|im_end|>", "a<|im_start|>b\n", " 12\t345", "e\u0301\u0000"])
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("foreign")
    write_tokenizer(directory)
    (directory / "model.json").write_text(json.dumps({"vocab_size": 420}))
    return directory


@pytest.fixture(scope="module")
def foreign(folder: Path) -> HuggingFaceTokenizer:
    found = open_tokenizer(folder)
    assert isinstance(found, HuggingFaceTokenizer)
    return found


@given(TEXTS)
def test_every_text_comes_back_and_holds_no_control_token(foreign: HuggingFaceTokenizer, text: str) -> None:
    ids = foreign.encode(text)
    assert foreign.decode_bytes(ids) == text.encode()
    assert foreign.decode(ids) == text
    assert foreign.byte_lengths[ids].sum() == len(text.encode())
    assert not set(ids) & set(foreign.controls.values())
    assert [ids, ids] == [found.tolist() for found in foreign.encode_batch([text, text])]


def test_its_ids_by_their_meaning(foreign: HuggingFaceTokenizer) -> None:
    assert foreign.controls == {"<|endoftext|>": 0, "<|im_start|>": 1, "<|im_end|>": 2, "<file_sep>": 3}
    assert (foreign.end_of_document, foreign.pad, foreign.im_start, foreign.im_end) == (0, 2, 1, 2)
    assert foreign.ends == {0, 2}  # as generation_config.json says
    assert foreign.vocab_size == 420 == len(foreign.byte_lengths)  # as the model has, which is more than the tokenizer
    assert foreign.decode([419, 2]) == ""


def test_a_lone_surrogate_is_refused(foreign: HuggingFaceTokenizer) -> None:
    with pytest.raises(ValueError, match="surrogate"):
        foreign.encode("a\ud800")


def test_chats_are_written_by_its_own_template(foreign: HuggingFaceTokenizer, folder: Path) -> None:
    library = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
    said = "<|im_start|>system\nYou help.<|im_end|>\n<|im_start|>user\nadd 12<|im_end|>\n<|im_start|>assistant\n"
    ids = chat.encode_prompt(foreign, [chat.turn("user", "add 12")])
    assert ids == library.encode(said).ids


@given(st.lists(st.sampled_from(["<|im_end|>", "<|im_start|>", "<|endoftext|>", "user\n", "\ufdd0", "x"]), max_size=6))
def test_a_message_cannot_open_or_close_a_turn(foreign: HuggingFaceTokenizer, parts: list[str]) -> None:
    text = "".join(parts)
    ids = chat.encode_prompt(foreign, [chat.turn("system", "s"), chat.turn("user", text)])
    controls = [index for index in ids if index in foreign.controls.values()]
    assert controls == [1, 2, 1, 2, 1]
    assert foreign.decode(ids) == f"system\ns\nuser\n{text}\nassistant\n"


def test_what_a_template_refuses_is_a_value_error() -> None:
    template = ChatTemplate("{{ raise_exception('no system messages') }}", {}, {}, "file")
    with pytest.raises(ValueError, match="no system messages"):
        template.encode([], lambda text: pytest.fail(text))


def test_a_template_is_untrusted() -> None:
    escape = "{{ ''.__class__.__mro__[1].__subclasses__() }}"
    with pytest.raises(ValueError, match=r"unsafe|is undefined"):
        ChatTemplate(escape, {}, {}, "file").encode([], lambda text: pytest.fail(text))
    with pytest.raises(UserError, match="not a template of chats"):
        ChatTemplate("{% for", {}, {}, "file")


def test_what_transformers_puts_first_is_put_first(tmp_path: Path) -> None:
    made = write_tokenizer(tmp_path)
    made.post_processor = tokenizers.processors.TemplateProcessing(
        single="<|endoftext|> $A", special_tokens=[("<|endoftext|>", 0)]
    )
    made.save(str(tmp_path / "tokenizer.json"))
    found = open_tokenizer(tmp_path)
    assert found.encode_prompt("add") == [0, *found.encode("add")] == made.encode("add").ids


def test_our_own_export_is_read_back(tokenizer: Tokenizer, tmp_path: Path) -> None:
    ours = tokenizer
    for name, text in hugging_face_files(ours).items():
        (tmp_path / name).write_text(text)
    found = open_tokenizer(tmp_path)
    text = "def add(a, b):\n\treturn a  + 漢 \U0001f600 <|im_end|>"
    assert found.encode(text) == ours.encode(text)
    assert found.decode(found.encode(text)) == text
    assert (found.byte_lengths == ours.byte_lengths).all()
    messages = [chat.turn("user", "hi <|im_end|>"), chat.turn("assistant", "yes"), chat.turn("user", "x")]
    assert chat.encode_prompt(found, messages) == chat.encode_prompt(ours, messages)


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("tokenizer.json", "{}", "not a tokenizer"),
        ("tokenizer_config.json", "[]", "a JSON object is wanted"),
        ("tokenizer_config.json", "{", "not JSON"),
    ],
)
def test_damaged_files_are_named(tmp_path: Path, name: str, content: str, words: str) -> None:
    write_tokenizer(tmp_path)
    (tmp_path / name).write_text(content)
    with pytest.raises(UserError, match=f"{name}.*{words}"):
        open_tokenizer(tmp_path)


def test_what_cannot_be_read_exactly_is_refused(tmp_path: Path) -> None:
    made = write_tokenizer(tmp_path)
    made.decoder = tokenizers.decoders.Metaspace()
    made.save(str(tmp_path / "tokenizer.json"))
    with pytest.raises(UserError, match="its decoder is Metaspace"):
        open_tokenizer(tmp_path)
    with pytest.raises(UserError, match="no tokenizer there"):
        open_tokenizer(tmp_path / "nothing")


def test_without_a_template_it_completes_only(tmp_path: Path) -> None:
    write_tokenizer(tmp_path)
    (tmp_path / "tokenizer_config.json").write_text("{}")
    (tmp_path / "generation_config.json").write_text(json.dumps({"eos_token_id": 0}))
    found = open_tokenizer(tmp_path)
    assert found.ends == {0}
    with pytest.raises(UserError, match="no template of chats"):
        chat.encode_prompt(found, [chat.turn("user", "x")])
    (tmp_path / "chat_template.jinja").write_text(CHATML)
    assert chat.encode_prompt(open_tokenizer(tmp_path), [chat.turn("user", "x")])[0] == 1
    (tmp_path / "generation_config.json").unlink()
    with pytest.raises(UserError, match="nothing says what ends a text"):
        open_tokenizer(tmp_path)
