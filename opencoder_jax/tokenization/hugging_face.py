"""The tokenizer of a model directory, whoever trained it: `tokenizer.model` is ours, `tokenizer.json` Hugging Face's.

A tokenizer.json is run by Hugging Face's own library, `tokenizers`, and answers to the same names as ours. Byte-level
BPE of GPT-2's family (SmolLM2, Llama 3, Qwen) is read, and BPE with byte pieces as we export it; both give every text
back. Of the files beside it, tokenizer_config.json and chat_template.jinja say how chats are written, and
generation_config.json what ends an answer.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from opencoder_jax.files import read_json
from opencoder_jax.recipe import UserError
from opencoder_jax.tokenization.tokenizer import IM_END, IM_START, TextTokenizer, Tokenizer
from opencoder_jax.tokenization.tokenizer_files import (
    CHAT_TEMPLATE,
    GENERATION_CONFIG,
    TOKENIZER,
    TOKENIZER_CONFIG,
    TOKENIZER_JSON,
)

# What stands between documents, in the order of preference; of others, what ends an answer does.
_DOCUMENT_ENDS = ("<|endoftext|>", "<|end_of_text|>", "</s>")


def open_tokenizer(directory: Path) -> TextTokenizer:
    """The tokenizer of a model directory, or of a Hugging Face folder.

    Raises:
        UserError: there is none, or it can't be read.
    """
    if (directory / TOKENIZER).exists():
        return Tokenizer.load(directory / TOKENIZER)
    if (directory / TOKENIZER_JSON).exists():
        return HuggingFaceTokenizer(directory)
    raise UserError(f"{directory}: no tokenizer there, neither {TOKENIZER} nor {TOKENIZER_JSON}")


class HuggingFaceTokenizer(TextTokenizer):
    """A tokenizer, from the folder of a tokenizer.json."""

    def __init__(self, directory: Path) -> None:
        """Raises UserError: it can't be read, or isn't of a kind that gives every text back."""
        if not all(map(find_spec, ("tokenizers", "jinja2"))):
            raise UserError(f"{directory / TOKENIZER_JSON}: reading it takes pip install tokenizers jinja2")
        import tokenizers

        from opencoder_jax.tokenization.chat_template import ChatTemplate

        self.name = str(directory / TOKENIZER_JSON)
        try:
            content = (directory / TOKENIZER_JSON).read_bytes()
            self._tokenizer = tokenizers.Tokenizer.from_buffer(content)
        except Exception as error:  # the library raises no class of its own
            raise UserError(f"{self.name}: not a tokenizer that the library tokenizers knows: {error}") from None
        self.fingerprint = hashlib.sha256(content).hexdigest()
        added = self._tokenizer.get_added_tokens_decoder()
        self.controls = {token.content: index for index, token in added.items() if token.special}
        # Texts that spell a control token are texts.
        self._tokenizer.encode_special_tokens = True
        self._tokenizer.no_padding()
        self._tokenizer.no_truncation()
        pieces = {index: piece for piece, index in self._tokenizer.get_vocab(with_added_tokens=False).items()}
        spelt = _spelling(json.loads(content).get("decoder"), self.name)
        try:
            found = {index: spelt(piece) for index, piece in pieces.items()}
        except KeyError as error:
            raise UserError(f"{self.name}: a piece holds {error}, which stands for no byte") from None
        found |= {index: b"" if token.special else token.content.encode() for index, token in added.items()}
        # A model may have more ids than its tokenizer, to be divided well; they say nothing.
        self.vocab_size = max(_models_vocabulary(directory), max(found) + 1)
        self._bytes = [found.get(index, b"") for index in range(self.vocab_size)]
        self.byte_lengths = np.array([len(piece) for piece in self._bytes], np.int32)
        self.prefix = tuple(self._tokenizer.encode("").ids)

        config, generation = (_object(directory / name) for name in (TOKENIZER_CONFIG, GENERATION_CONFIG))
        names = {name: spelling for name, value in config.items() if (spelling := _spelt(value)) in self.controls}
        end = self.controls.get(names.get("eos_token", ""))
        ends = generation.get("eos_token_id", end)
        self.ends = frozenset(ends if isinstance(ends, list) else [] if ends is None else [ends])
        if not self.ends:
            raise UserError(
                f"{self.name}: nothing says what ends a text: neither eos_token_id of {GENERATION_CONFIG} nor eos_token"
                f" of {TOKENIZER_CONFIG}"
            )
        documents = (self.controls[name] for name in _DOCUMENT_ENDS if name in self.controls)
        self.end_of_document = next(documents, min(self.ends) if end is None else end)
        self.pad = self.controls.get(names.get("pad_token", ""), self.end_of_document)
        self.im_start, self.im_end = self.controls.get(IM_START), self.controls.get(IM_END)
        source = chat_template(directory)
        self._template = source and ChatTemplate(source, self.controls, names, self.name)

    def encode_array(self, text: str) -> np.ndarray:
        return self.encode_batch([text])[0]

    def encode_batch(self, texts: Iterable[str]) -> list[np.ndarray]:
        try:
            found = self._tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)
        except (UnicodeEncodeError, TypeError) as error:
            raise ValueError(f"a text holds a lone surrogate: not UTF-8 ({error})") from None
        return [np.array(one.ids, np.int32) for one in found]

    def encode_chat(self, messages: Sequence[Mapping[str, Any]]) -> list[int]:
        if not self._template:
            raise UserError(f"{self.name}: the model has no template of chats: it completes texts only")
        return self._template.encode(messages, self.encode_array)


def chat_template(directory: Path) -> str | None:
    """The template of a folder's chats, which stands in a file of its own or in tokenizer_config.json."""
    if (file := directory / CHAT_TEMPLATE).exists():
        return file.read_text(encoding="utf-8")
    found = _object(directory / TOKENIZER_CONFIG).get("chat_template")
    if isinstance(found, list):  # several, by their names
        found = {one.get("name"): one.get("template") for one in found if isinstance(one, dict)}.get("default")
    return found if isinstance(found, str) else None


def byte_alphabet() -> dict[str, int]:
    """GPT-2's characters for bytes: those that can be seen stand for themselves, the others follow U+0100."""
    seen = [*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    unseen = [byte for byte in range(256) if byte not in seen]
    return {chr(byte): byte for byte in seen} | {chr(0x100 + number): byte for number, byte in enumerate(unseen)}


def _spelling(decoder: Any, name: str) -> Any:
    """The function that gives a piece's bytes, by the decoder of its tokenizer.json."""
    decoders = (decoder or {}).get("decoders") or [decoder or {}]
    kinds = [one.get("type") for one in decoders]
    if kinds == ["ByteLevel"]:
        alphabet = byte_alphabet()
        return lambda piece: bytes(alphabet[character] for character in piece)
    if kinds == ["ByteFallback", "Fuse"]:
        byte_pieces = {f"<0x{byte:02X}>": bytes([byte]) for byte in range(256)}
        return lambda piece: byte_pieces.get(piece) or piece.encode()
    raise UserError(
        f"{name}: its decoder is {', '.join(map(str, kinds))}; known are ByteLevel (GPT-2, Llama 3, Qwen, SmolLM2), and"
        " ByteFallback with Fuse"
    )


def _models_vocabulary(directory: Path) -> int:
    """How many ids the model beside the tokenizer has; 0: not known."""
    sizes = [_object(directory / name).get("vocab_size") for name in ("model.json", "config.json")]
    return next((size for size in sizes if isinstance(size, int)), 0)


def _object(file: Path) -> dict[str, Any]:
    found = read_json(file, {})
    if not isinstance(found, dict):
        raise UserError(f"{file}: a JSON object is wanted, this is a {type(found).__name__}")
    return found


def _spelt(value: Any) -> str:
    """A control token as tokenizer_config.json has it: its spelling, or an object with it."""
    found = value.get("content") if isinstance(value, dict) else value
    return found if isinstance(found, str) else ""
