"""The tokenizer: text to token ids and back, exactly.

A SentencePiece BPE model with byte fallback behind a split into words like cl100k's: so is OpenCoder's INF-LLM
tokenizer built (its tokenization code on Hugging Face). Words are encoded one by one, so a word's ids don't depend on
what stands around it, and a table of the words already seen does nearly all the work: about 10 MB of source code a
second on one core.

The vocabulary: 0 `<unk>`, 1 `<s>`, 2 `</s>` (end of document), 3 `<pad>`, 4 to 259 the bytes, then the BPE pieces, and
at the end the reserved ids, of which the first two are `<|im_end|>` and `<|im_start|>`: 96,539 and 96,540 of 96,640 in
OpenCoder. Control tokens are never made from text, whatever it says: only code inserts them.
"""

import hashlib
import re
from collections.abc import Iterable
from itertools import chain
from pathlib import Path

import numpy as np
import sentencepiece

from opencoder_jax.recipe import UserError

UNKNOWN, START, END_OF_DOCUMENT, PAD = "<unk>", "<s>", "</s>", "<pad>"
IM_END, IM_START = "<|im_end|>", "<|im_start|>"

# cl100k's rule with the classes that Python's `re` has. Letters are \w without digits and underscore; (?![^\W_]) stands
# before what is neither letter nor digit. English contractions ('s, 'll) come out as a symbol with letters.
PRE_SPLIT = re.compile(
    r"(?:(?![^\W_])[^\r\n])?[^\W\d_]+"  # letters, with a space or one symbol in front
    r"|\d{1,3}"  # numbers in groups of up to three digits
    r"| ?(?:(?![^\W_])\S)+[\r\n]*"  # symbols, with a space in front and the ends of lines behind
    r"|\s*[\r\n]+"  # ends of lines, with the white space before them
    r"|\s+(?!\S)"  # indentation, without the space that goes with the next word
    r"|\s+"
)

# Words longer than this are rarely seen twice; a table of a million short ones takes about 200 MB.
_LONGEST_KEPT_WORD = 64
_KEPT_WORDS = 1_000_000


class Tokenizer:
    """A tokenizer, from the bytes of a SentencePiece model.

    Attributes:
        model: those bytes.
        fingerprint: their SHA-256 in hexadecimal.
        vocab_size: number of ids.
        end_of_document: id of `</s>`.
        pad: id of `<pad>`.
        im_start: id of `<|im_start|>`, which opens a chat message.
        im_end: id of `<|im_end|>`, which closes it.
    """

    def __init__(self, model: bytes, name: str = "tokenizer model") -> None:
        """`name` is what errors call the model.

        Raises:
            UserError: the bytes aren't a SentencePiece model, or it lacks the control tokens or the bytes.
        """
        pieces = sentencepiece.SentencePieceProcessor()
        try:
            pieces.LoadFromSerializedProto(model)
        except RuntimeError:
            raise UserError(f"{name}: not a SentencePiece model") from None
        self.model = model
        self.fingerprint = hashlib.sha256(model).hexdigest()
        self.vocab_size = int(pieces.vocab_size())
        controls = {pieces.id_to_piece(index): index for index in range(self.vocab_size) if pieces.is_control(index)}
        missing = [piece for piece in (END_OF_DOCUMENT, PAD, IM_END, IM_START) if piece not in controls]
        first_byte = pieces.piece_to_id("<0x00>")
        if missing or not pieces.is_byte(first_byte):
            raise UserError(
                f"{name}: lacks {', '.join(missing) or 'the byte pieces'}; "
                "train a tokenizer with python -m beam_pipelines.tokens.train_tokenizer"
            )
        self.end_of_document = controls[END_OF_DOCUMENT]
        self.pad = controls[PAD]
        self.im_start = controls[IM_START]
        self.im_end = controls[IM_END]
        self._bytes = [_piece_bytes(pieces, index) for index in range(self.vocab_size)]
        self._words = _Words(pieces, self._bytes, first_byte)

    @classmethod
    def load(cls, path: str | Path) -> "Tokenizer":
        """Loads a `tokenizer.model`. Raises UserError when there's none, or it isn't one."""
        try:
            return cls(Path(path).read_bytes(), str(path))
        except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
            raise UserError(f"{path}: no such tokenizer model") from None

    def encode(self, text: str) -> list[int]:
        """The ids of a text. `decode` gives the same text back, whatever it holds.

        Raises:
            ValueError: the text holds a lone surrogate, which isn't a character and can't be UTF-8.
        """
        return list(self._ids(text))

    def encode_batch(self, texts: Iterable[str]) -> list[np.ndarray]:
        """The ids of each text, int32 [n]."""
        return [np.fromiter(self._ids(text), np.int32) for text in texts]

    def decode(self, ids: Iterable[int]) -> str:
        """The text of ids. Control tokens have none; bytes that aren't UTF-8 become U+FFFD."""
        return self.decode_bytes(ids).decode("utf-8", errors="replace")

    def decode_bytes(self, ids: Iterable[int]) -> bytes:
        """The bytes of ids, exactly."""
        return b"".join(map(self._bytes.__getitem__, ids))

    def _ids(self, text: str) -> Iterable[int]:
        # map and chain keep the loop over words in C; only words seen for the first time reach Python.
        return chain.from_iterable(map(self._words.__getitem__, PRE_SPLIT.findall(text)))


class _Words(dict[str, tuple[int, ...]]):
    """The ids of words, worked out when first asked for."""

    def __init__(self, pieces: sentencepiece.SentencePieceProcessor, table: list[bytes], first_byte: int) -> None:
        super().__init__()
        self._pieces = pieces
        self._table = table
        self._first_byte = first_byte

    def __missing__(self, word: str) -> tuple[int, ...]:
        try:
            raw = word.encode()
        except UnicodeEncodeError as error:
            raise ValueError(f"the text holds the lone surrogate {error.object[error.start]!r}: not UTF-8") from None
        ids = tuple(self._pieces.encode(word))
        # SentencePiece writes a space as U+2581 and so can't tell the two apart; bytes always can.
        if b"".join(map(self._table.__getitem__, ids)) != raw:
            ids = tuple(self._first_byte + byte for byte in raw)
        if len(word) <= _LONGEST_KEPT_WORD:
            if len(self) >= _KEPT_WORDS:
                self.clear()
            self[word] = ids
        return ids


def _piece_bytes(pieces: sentencepiece.SentencePieceProcessor, index: int) -> bytes:
    piece = pieces.id_to_piece(index)
    if pieces.is_byte(index):
        return bytes([int(piece[1:-1], 16)])
    if pieces.is_control(index) or pieces.is_unknown(index):
        return b""
    return piece.replace("\u2581", " ").encode()
