"""Rows of one source: concatenated and cut, or whole examples. Any row of a run is found by arithmetic.

"cut": the source is an endless string of tokens: its documents in their hashed order, over and over. A span of a run is
what it reads in rows of one length. The rows of a span that begin in one round of the string, an epoch, come in a
random order of their own: a batch is drawn from the whole corpus, with neighbours out of one document only by chance,
and still every token of the string is read exactly once. The next span goes on at the token where the last one ends.

"pack", "fragment" and "pad": examples are laid into rows, 512 neighbours at a time, and each epoch is a random order of
these rows. Only the number of rows of each 512 examples is kept.
"""

from bisect import bisect_left, insort
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from opencoder_jax.data.fim import FimRecords
from opencoder_jax.data.order import permuted
from opencoder_jax.data.token_records import TokenRecords
from opencoder_jax.recipe import UserError

Records = TokenRecords | FimRecords

# Examples that are packed together: enough for rows that are nearly full, few enough to be packed again for each row.
GROUP = 512


class Span(NamedTuple):
    """What a run reads of a source in rows of one length."""

    length: int
    position: int  # where in the source it begins: tokens ("cut") or rows read before
    rows: int | None  # None: it doesn't end


class Part(NamedTuple):
    """A part of a record, mostly all of it."""

    record: int
    start: int
    stop: int


class CutRows:
    """A source, concatenated and cut."""

    dropped = 0
    filled = 1.0

    def __init__(self, records: Records, key: str) -> None:
        """`key` decides the order."""
        self._records = records
        self._key = key

    def units(self, length: int, rows: int) -> int:
        """By how much so many rows advance the position."""
        return length * rows

    def places(self, span: Span, ordinals: np.ndarray) -> np.ndarray:
        """int64 [n]: the first token of the rows that come as the `ordinals`-th, int64 [n], of a span."""
        total = self._records.tokens
        epochs = (span.position + ordinals * span.length) // total
        rows = np.empty_like(ordinals)
        for epoch in np.unique(epochs).tolist():
            first, stop = (max(0, -((span.position - edge * total) // span.length)) for edge in (epoch, epoch + 1))
            stop = stop if span.rows is None else min(stop, span.rows)
            here = epochs == epoch
            key = f"{self._key}/{span.position}/{epoch}"
            rows[here] = first + permuted(ordinals[here] - first, stop - first, key)
        return span.position + rows * span.length

    def fill(self, place: int, tokens: np.ndarray, mask: np.ndarray, starts: np.ndarray) -> None:
        """Writes the tokens from `place` on, and notes where documents begin."""
        filled = 0
        while filled < len(tokens):
            position = (place + filled) % self._records.tokens
            stop = min(len(tokens), filled + self._records.tokens - position)
            begins = self._records.read_from(position, tokens[filled:stop], mask[filled:stop])
            for begin in begins:
                starts[filled + begin] = filled + begin
            filled = stop

    def numbers(self, place: int, count: int) -> np.ndarray:
        """int64 [count]: which tokens of the source `fill` writes there, by their numbers; -1: padding."""
        return (place + np.arange(count)) % self._records.tokens

    def epochs(self, position: int) -> float:
        """How often the source was read before a position."""
        return position / self._records.tokens

    def sample(self, length: int, rows: int) -> list[int]:
        """The places of at most so many rows, evenly spread over the source; all of them where they aren't more."""
        return _spread(-(-self._records.tokens // length), rows, length)


class ExampleRows:
    """A source as rows of whole examples: as many to a row as fit ("pack", "fragment"), or one ("pad").

    Attributes:
        dropped: examples that fit no row: longer than a row and its last target, or without anything to predict. What
            is too long, "fragment" cuts into rows and a rest (best-fit packing, Ding et al. 2024, arXiv 2404.10830).
        filled: share of the rows' positions that hold a token; the others are padding.
    """

    def __init__(self, records: Records, key: str, length: int, packing: str) -> None:
        """Packs everything once, to count the rows.

        Args:
            key: decides the order.
            length: of the rows, in tokens.

        Raises:
            UserError: no example fits into a row.
        """
        self._records = records
        self._key = key
        self._length = length
        self._packing = packing
        self._group = lru_cache(256)(self._pack_group)
        rows, packed, filled = [0], 0, 0
        for group in range(-(-len(records) // GROUP)):
            of_group = self._pack_group(group)
            rows.append(rows[-1] + len(of_group))
            packed += sum(piece.start == 0 for row in of_group for piece in row)
            filled += sum(min(length, sum(piece.stop - piece.start for piece in row)) for row in of_group)
        self.dropped = len(records) - packed
        self._first_row = np.array(rows)
        if rows[-1] == 0:
            raise UserError(f"{records.directory}: no example fits into {length} tokens; raise the length in phases")
        self.filled = filled / (rows[-1] * length)

    def units(self, length: int, rows: int) -> int:
        """As of CutRows."""
        return rows

    def places(self, span: Span, ordinals: np.ndarray) -> np.ndarray:
        """int64 [n]: which row comes as the `ordinals`-th, int64 [n], of a span."""
        total = int(self._first_row[-1])
        epochs, rows = np.divmod(span.position + ordinals, total)
        for epoch in np.unique(epochs).tolist():
            here = epochs == epoch
            rows[here] = permuted(rows[here], total, f"{self._key}/{epoch}")
        return rows

    def fill(self, place: int, tokens: np.ndarray, mask: np.ndarray, starts: np.ndarray) -> None:
        """Writes the examples of a row one after the other, and notes where each begins."""
        filled = 0
        for piece in self._pieces(place):
            record_tokens, record_mask = self._records.read(*piece)
            stop = filled + len(record_tokens)
            tokens[filled:stop], mask[filled:stop] = record_tokens, record_mask
            starts[filled] = filled
            filled = stop

    def numbers(self, place: int, count: int) -> np.ndarray:
        """As of CutRows."""
        pieces = [self._records.start(record) + np.arange(start, stop) for record, start, stop in self._pieces(place)]
        return np.concatenate([*pieces, np.full(count, -1)])[:count]

    def epochs(self, position: int) -> float:
        """As of CutRows."""
        return position / int(self._first_row[-1])

    def sample(self, length: int, rows: int) -> list[int]:
        """As of CutRows."""
        return _spread(int(self._first_row[-1]), rows, 1)

    def _pieces(self, place: int) -> list[Part]:
        """What a row holds."""
        group = int(np.searchsorted(self._first_row, place, side="right")) - 1
        return self._group(group)[place - int(self._first_row[group])]

    def _pack_group(self, group: int) -> list[list[Part]]:
        """What each row of a group holds."""
        first = group * GROUP
        sizes = self._records.lengths(first, min(first + GROUP, len(self._records))).tolist()
        # The last token of a row is only a target, and where a document is cut it's the first of what follows.
        longest = max(sizes) if self._packing == "fragment" else self._length + 1
        pieces = [
            Part(first + index, start, min(size, start + self._length + 1))
            for index, size in enumerate(sizes)
            if size <= longest
            for start in range(0, size - 1, self._length)
        ]
        if self._packing == "pad":
            return [[piece] for piece in pieces]
        rows = best_fit([piece.stop - piece.start for piece in pieces], self._length + 1)
        return [[pieces[index] for index in row] for row in rows]


def _spread(count: int, most: int, step: int) -> list[int]:
    """At most so many of `count` numbers, evenly spread, each times `step`."""
    taken = min(count, most)
    return [number * count // taken * step for number in range(taken)]


def best_fit(sizes: list[int], capacity: int) -> list[list[int]]:
    """Lays things into rows of a capacity: the largest first, each into the fullest row that still has room."""
    rows: list[list[int]] = []
    rooms: list[tuple[int, int]] = []  # sorted: what is free in a row, and the row
    for index in sorted(range(len(sizes)), key=lambda index: -sizes[index]):
        place = bisect_left(rooms, (sizes[index], 0))
        if place == len(rooms):
            room, row = capacity, len(rows)
            rows.append([])
        else:
            room, row = rooms.pop(place)
        rows[row].append(index)
        insort(rooms, (room - sizes[index], row))
    return [sorted(row) for row in rows]
