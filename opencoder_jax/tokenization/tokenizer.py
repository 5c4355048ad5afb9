"""The tokenizer: text to token ids and back, exactly.

A SentencePiece BPE model with byte fallback behind a split into words (pre_split.py): so is OpenCoder's INF-LLM
tokenizer built (its tokenization code on Hugging Face). Words are encoded one by one, so a word's ids don't depend on
what stands around it, and a table of the words already seen does nearly all the work.

The vocabulary: 0 `<unk>`, 1 `<s>`, 2 `</s>` (end of document), 3 `<pad>`, 4 to 259 the bytes, then the BPE pieces, and
at the end the reserved ids, of which the first two are `<|im_end|>` and `<|im_start|>`: 96,539 and 96,540 of 96,640 in
OpenCoder. Control tokens are never made from text, whatever it says: only code inserts them.
"""

import hashlib
from abc import ABC, abstractmethod
from array import array
from collections.abc import Iterable, Sequence
from itertools import chain, filterfalse
from pathlib import Path
from typing import Any

import numpy as np
import sentencepiece

from opencoder_jax.recipe import UserError
from opencoder_jax.tokenization.pre_split import PRE_SPLIT

UNKNOWN, START, END_OF_DOCUMENT, PAD = "<unk>", "<s>", "</s>", "<pad>"
IM_END, IM_START = "<|im_end|>", "<|im_start|>"
# For filling in the middle, which OpenCoder doesn't train: only in tokenizers that were given them.
FIM_PREFIX, FIM_MIDDLE, FIM_SUFFIX = "<|fim_prefix|>", "<|fim_middle|>", "<|fim_suffix|>"

# SentencePiece writes a space so, and can't tell the two apart: this character is always spelt in bytes.
SPACE_SIGN = "\u2581"

# What a model must leave as it is: spaces, ends of lines, and what Unicode's normal forms change.
_PROBES = ("def", " def", "    ", "\t\r\n", "\ufb01\u00b2\uff21", "e\u0301", "\ue000", "\U0001f600")

# When the words in the table take more, it's emptied: about a million words. Each takes this much beside its letters.
_TABLE_BYTES = 250_000_000
_WORD_BYTES = 200


class TextTokenizer(ABC):
    """What turns text to token ids and back: ours, or that of a model made elsewhere (hugging_face.py).

    Attributes:
        fingerprint: SHA-256 in hexadecimal of the file that it is.
        vocab_size: number of ids.
        controls: the ids of all control tokens by their names; no text is encoded to one.
        end_of_document: id of what stands between documents.
        pad: id of what fills rows.
        im_start: id of `<|im_start|>`, which opens a chat message in ChatML; None where chats are written otherwise.
        im_end: id of `<|im_end|>`, which closes it.
        ends: the ids that end an answer.
        prefix: what stands in front of every document; nothing of ours.
        byte_lengths: int32 [vocab_size], how many bytes of text each id stands for: their running sum says where in the
            text a token lies.
    """

    fingerprint: str
    vocab_size: int
    controls: dict[str, int]
    end_of_document: int
    pad: int
    im_start: int | None
    im_end: int | None
    ends: frozenset[int]
    prefix: tuple[int, ...] = ()
    byte_lengths: np.ndarray
    _bytes: list[bytes]  # of each id

    @abstractmethod
    def encode_array(self, text: str) -> np.ndarray:
        """The ids of a text, int32 [n], not to be written to. Raises ValueError as `encode` does."""

    @abstractmethod
    def encode_batch(self, texts: Iterable[str]) -> list[np.ndarray]:
        """The ids of each text, int32 [n]. Raises ValueError as `encode` does."""

    def encode_chat(self, messages: Sequence[Any]) -> list[int]:
        """The ids of a conversation (chat.py) up to the next answer, by the tokenizer's own template.

        Raises:
            ValueError: the template refuses the conversation.
            UserError: there is no template.
        """
        raise NotImplementedError  # of ours, chat.py is the template

    def encode(self, text: str) -> list[int]:
        """The ids of a text. `decode` gives the same text back, whatever it holds.

        Raises:
            ValueError: the text holds a lone surrogate, which isn't a character and can't be UTF-8.
        """
        return self.encode_array(text).tolist()

    def encode_prompt(self, text: str) -> list[int]:
        """The ids of a document's beginning, as the model has seen them. Raises ValueError as `encode` does."""
        return [*self.prefix, *self.encode(text)]

    def decode(self, ids: Iterable[int]) -> str:
        """The text of ids. Control tokens have none; bytes that aren't UTF-8 become U+FFFD."""
        return self.decode_bytes(ids).decode("utf-8", errors="replace")

    def decode_bytes(self, ids: Iterable[int]) -> bytes:
        """The bytes of ids, exactly."""
        return b"".join(map(self._bytes.__getitem__, ids))


class Tokenizer(TextTokenizer):
    """A tokenizer, from the bytes of a SentencePiece model.

    Attributes:
        model: those bytes.
        unknown: id of `<unk>`, which no text has.
        end_of_document: id of `</s>`.
        pad: id of `<pad>`.
    """

    im_start: int
    im_end: int

    def __init__(self, model: bytes, name: str = "tokenizer model") -> None:
        """`name` is what errors call the model.

        Raises:
            UserError: the bytes aren't a SentencePiece model, it lacks the control tokens or the bytes, or it changes
                text.
        """
        pieces = sentencepiece.SentencePieceProcessor()
        try:
            pieces.LoadFromSerializedProto(model)
        except RuntimeError:
            raise UserError(f"{name}: not a SentencePiece model, or a damaged one ({len(model)} bytes)") from None
        self.model = model
        self.fingerprint = hashlib.sha256(model).hexdigest()
        self.vocab_size = int(pieces.vocab_size())
        self.controls = {
            pieces.id_to_piece(index): index for index in range(self.vocab_size) if pieces.is_control(index)
        }
        missing = [piece for piece in (END_OF_DOCUMENT, PAD, IM_END, IM_START) if piece not in self.controls]
        if not all(pieces.is_byte(pieces.piece_to_id(f"<0x{byte:02X}>")) for byte in range(256)):
            missing.append("the byte pieces")
        if missing:
            raise UserError(
                f"{name}: a foreign tokenizer: it lacks {', '.join(missing)}; train one with "
                "python -m beam_pipelines train_tokenizer, or take over a released one with "
                "python -m beam_pipelines released_tokenizer"
            )
        self.unknown = int(pieces.unk_id())
        self.end_of_document = self.controls[END_OF_DOCUMENT]
        self.pad = self.controls[PAD]
        self.im_start = self.controls[IM_START]
        self.im_end = self.controls[IM_END]
        self.ends = frozenset({self.end_of_document, self.im_end})
        self._bytes = [_piece_bytes(pieces, index) for index in range(self.vocab_size)]
        self.byte_lengths = np.array([len(piece) for piece in self._bytes], np.int32)
        self._words = _Words(pieces)
        for probe in _PROBES:
            if self.decode_bytes(pieces.encode(probe)) != probe.encode():
                raise UserError(
                    f"{name}: a foreign tokenizer: it takes {probe!r} for {self.decode(pieces.encode(probe))!r}; only "
                    "models without normalisation and without a space in front of the text give every text back"
                )

    @classmethod
    def load(cls, path: str | Path) -> "Tokenizer":
        """Loads a `tokenizer.model`. Raises UserError when there's none, or it isn't one."""
        try:
            return cls(Path(path).read_bytes(), str(path))
        except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
            raise UserError(f"{path}: no such tokenizer model") from None

    def encode_array(self, text: str) -> np.ndarray:
        words = PRE_SPLIT.findall(text)
        self._words.learn(set(words))
        # The loop over words is C's: a table of bytes, and one join.
        return np.frombuffer(b"".join(map(self._words.__getitem__, words)), np.int32)

    def encode_batch(self, texts: Iterable[str]) -> list[np.ndarray]:
        return [self.encode_array(text) for text in texts]


class _Words(dict[str, bytes]):
    """The ids of words, as the bytes of int32."""

    def __init__(self, pieces: sentencepiece.SentencePieceProcessor) -> None:
        super().__init__()
        self._pieces = pieces
        self._sign = [pieces.piece_to_id(f"<0x{byte:02X}>") for byte in SPACE_SIGN.encode()]
        self._size = 0

    def learn(self, words: set[str]) -> None:
        """Sees to it that all of these words are in the table."""
        if self._size > _TABLE_BYTES:
            self.clear()
            self._size = 0
        # Not words.difference(self): of what isn't exactly a dict it goes through every key.
        new = list(filterfalse(self.__contains__, words))
        try:
            self._size += len("".join(new).encode()) + _WORD_BYTES * len(new)
        except UnicodeEncodeError as error:
            raise ValueError(f"the text holds the lone surrogate {error.object[error.start]!r}: not UTF-8") from None
        # One call for all of them: a call for each would take longer than its work.
        for word, ids in zip(new, self._pieces.encode(new, num_threads=1), strict=True):
            self[word] = array("i", ids if SPACE_SIGN not in word else self._around_signs(word)).tobytes()

    def _around_signs(self, word: str) -> list[int]:
        parts = self._pieces.encode(word.split(SPACE_SIGN))
        return list(chain(parts[0], *([*self._sign, *ids] for ids in parts[1:])))


def _piece_bytes(pieces: sentencepiece.SentencePieceProcessor, index: int) -> bytes:
    piece = pieces.id_to_piece(index)
    if pieces.is_byte(index):
        return bytes([int(piece[1:-1], 16)])
    if pieces.is_control(index) or pieces.is_unknown(index):
        return b""
    return piece.replace(SPACE_SIGN, " ").encode()
