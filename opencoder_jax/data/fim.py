"""Fill-in-the-middle: documents whose middle comes last, so that a model learns to complete between two ends.

A document `prefix middle suffix` becomes (Bavarian et al. 2022, arXiv 2207.14255)

    PSM   <|fim_prefix|> prefix <|fim_suffix|> suffix <|fim_middle|> middle </s>
    SPM   <|fim_prefix|> <|fim_suffix|> suffix <|fim_middle|> prefix middle </s>

cut at two places that are drawn evenly among all of its tokens. OpenCoder trains without it.

Which documents, how and where they are cut is a function of the seed and the document's number, whoever reads it. Each
adds three tokens, and how many there are before a document must be arithmetic, as all that batches.py builds on: so the
numbers of those that are transformed are evenly spread. The order of the records is random already.

Cuts fall between tokens. Cuts between characters, which make other tokens of the text on both sides and so help where
an editor's cursor stands inside a word, would change lengths in ways that only tokenising again could tell.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate

import numpy as np

from opencoder_jax.data.token_records import TokenRecords
from opencoder_jax.tokenization.tokenizer import FIM_MIDDLE, FIM_PREFIX, FIM_SUFFIX

_ONE = 1 << 32  # a share of 1, in whole numbers


@dataclass(frozen=True)
class FillInTheMiddle:
    """Which documents are transformed, and how.

    Attributes:
        rate: share of the documents, in 0 .. 1.
        spm_rate: share of those that are written as SPM, the others as PSM.
        seed: of all choices.
        prefix: id of `<|fim_prefix|>`.
        suffix: id of `<|fim_suffix|>`.
        middle: id of `<|fim_middle|>`.
    """

    rate: float
    spm_rate: float
    seed: int
    prefix: int
    suffix: int
    middle: int

    def before(self, record: int) -> int:
        """How many of the documents before a record are transformed."""
        return (record * self._step + self._offset) // _ONE

    def pieces(self, record: int, count: int) -> list[int | slice]:
        """What a record of `count` tokens becomes: ids, and slices of the record. The last token stays the last."""
        if self.before(record + 1) == self.before(record):
            return [slice(0, count)]
        first, second, spm = self._draw(str(record))
        start, stop = sorted((first % count, second % count))
        head, middle, tail, end = slice(0, start), slice(start, stop), slice(stop, count - 1), slice(count - 1, count)
        if spm % _ONE < round(self.spm_rate * _ONE):
            return [self.prefix, self.suffix, tail, self.middle, head, middle, end]
        return [self.prefix, head, self.suffix, tail, self.middle, middle, end]

    def apply(self, record: int, tokens: np.ndarray, loss_mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The tokens and the loss mask of a whole record as they are trained on."""
        pieces = self.pieces(record, len(tokens))
        parts = [tokens[piece] if isinstance(piece, slice) else np.array([piece], np.int32) for piece in pieces]
        masks = [loss_mask[piece] if isinstance(piece, slice) else np.ones(1, np.uint8) for piece in pieces]
        return np.concatenate(parts), np.concatenate(masks)

    @cached_property
    def _step(self) -> int:
        return round(self.rate * _ONE)

    @cached_property
    def _offset(self) -> int:
        return self._draw("offset")[0] % _ONE

    def _draw(self, what: str) -> tuple[int, int, int]:
        digest = hashlib.blake2b(f"fim/{self.seed}/{what}".encode(), digest_size=24).digest()
        first, second, third = (int.from_bytes(digest[at : at + 8], "little") for at in (0, 8, 16))
        return first, second, third


def fim_tokens(controls: Mapping[str, int]) -> tuple[int, int, int] | None:
    """The ids that stand before prefix, suffix and middle, among a tokenizer's control tokens; None: it has none."""
    try:
        return controls[FIM_PREFIX], controls[FIM_SUFFIX], controls[FIM_MIDDLE]
    except KeyError:
        return None


class FimRecords:
    """Token records with fill-in-the-middle: to whoever reads them, records like others."""

    def __init__(self, records: TokenRecords, fim: FillInTheMiddle) -> None:
        self.directory = records.directory
        self.tokens = records.tokens + 3 * fim.before(len(records))
        self._records = records
        self._fim = fim

    def __len__(self) -> int:
        return len(self._records)

    def start(self, record: int) -> int:
        """As TokenRecords.start."""
        return self._records.start(record) + 3 * self._fim.before(record)

    def lengths(self, first: int, stop: int) -> np.ndarray:
        """As TokenRecords.lengths."""
        return self._records.lengths(first, stop) + 3 * np.diff([*map(self._fim.before, range(first, stop + 1))])

    def record_at(self, position: int) -> int:
        """As TokenRecords.record_at."""
        low, high = 0, len(self)  # the record is in low .. high - 1
        while high - low > 1:
            between = (low + high) // 2
            low, high = (between, high) if self.start(between) <= position else (low, between)
        return low

    def read(self, record: int, start: int = 0, stop: int | None = None) -> tuple[np.ndarray, np.ndarray]:
        """As TokenRecords.read: of the transformed record."""
        count = self._records.start(record + 1) - self._records.start(record)
        pieces = self._fim.pieces(record, count)
        sizes = [piece.stop - piece.start if isinstance(piece, slice) else 1 for piece in pieces]
        start, stop, _ = slice(start, stop).indices(sum(sizes))
        tokens, masks = [np.zeros(0, np.int32)], [np.zeros(0, np.uint8)]
        for piece, size in zip(pieces, sizes, strict=True):
            first, last = max(start, 0), min(stop, size)
            if first < last and isinstance(piece, slice):
                part, mask = self._records.read(record, piece.start + first, piece.start + last)
                tokens.append(part)
                masks.append(mask)
            elif first < last:
                tokens.append(np.array([piece], np.int32))
                masks.append(np.ones(1, np.uint8))
            start, stop = start - size, stop - size
        return np.concatenate(tokens), np.concatenate(masks)

    def read_from(self, position: int, tokens: np.ndarray, loss_mask: np.ndarray) -> list[int]:
        """As TokenRecords.read_from. Whole documents are read in one stretch, and transformed one by one."""
        first, last = self.record_at(position), self.record_at(position + len(tokens) - 1)
        skip = position - self.start(first)
        parts = [self.read(first, skip, skip + len(tokens))]
        if last > first:
            base, end = self._records.start(first + 1), self._records.start(last)
            between, mask = np.empty(end - base, np.int32), np.empty(end - base, np.uint8)
            self._records.read_from(base, between, mask)
            at = 0
            for record, count in enumerate(self._records.lengths(first + 1, last).tolist(), first + 1):
                parts.append(self._fim.apply(record, between[at : at + count], mask[at : at + count]))
                at += count
            parts.append(self.read(last, 0, position + len(tokens) - self.start(last)))
        ends = [*accumulate(len(part) for part, _ in parts)]
        np.concatenate([part for part, _ in parts], out=tokens)
        np.concatenate([mask for _, mask in parts], out=loss_mask)
        return [0] * (skip == 0) + ends[:-1]
