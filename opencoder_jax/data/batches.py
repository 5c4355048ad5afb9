"""Batches: which tokens the network sees at which step, as arithmetic.

Batch k is a pure function of (configuration, data, k). Nothing is replayed to resume at a step; a row doesn't depend on
how many hosts share the batch; and the sequence length may change at a step, as OpenCoder's 8B did (4096 to 8192 at
step 130,000), with the data going on at the very next token.

How a row finds its tokens:
- Rows are numbered through the whole run. A fixed pattern of 65,536 rows deals them to the sources of the mixture by
  weight, each source's rows as evenly spread as they can be. So the rows of a source before any row are a division and
  a look-up, and since all rows of a batch are equally long, shares of rows are shares of tokens.
- "cut": a source is an endless string of tokens, epoch after epoch, each a fresh permutation of its records. Row j of a
  source is the next `length` tokens of that string; a row may straddle the end of an epoch. Every token is an input
  exactly once an epoch. Rows come shuffled within windows, or a small batch would be a single document.
- "pack" and "pad": whole examples are laid into rows once, and each epoch is a fresh permutation of these rows.

Permutations sort hashes of (seed, source, epoch, record), so they don't depend on NumPy's version. They cost 16 bytes a
record and epoch in memory, and about a second for ten million records when an epoch begins.
"""

import hashlib
import math
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np

from opencoder_jax.data.token_records import TokenRecords
from opencoder_jax.recipe import UserError, configurable

# Rows after which the pattern of a mixture repeats; a share is exact to 1 / PERIOD.
PERIOD = 65_536


@configurable
@dataclass(frozen=True)
class DataConfig:
    """What is read, in which shape.

    Attributes:
        mixture: directories of token records, by name below the data directory, and their weights in tokens; weights
            need not sum to one. OpenCoder pretrains on "refinecode" alone and anneals on a mixture (paper table 3).
        phases: (first step, sequence length in tokens, rows of a global batch). OpenCoder 8B: (0, 4096, 2048) and
            (130000, 8192, 1024); 1.5B: (0, 4096, 1024).
        packing: "cut" concatenates documents and cuts them at the sequence length (OpenCoder's pretraining); "pack"
            lays whole examples into rows, as many as fit; "pad" lays one example into a row (OpenCoder's tuning).
        attend_across_documents: positions count through the row, as OpenCoder's do; False restarts them at every
            document, which also hides the documents of a row from each other and takes the first token of each out of
            the loss.
        shuffle_rows: "cut" only: so many rows of a source are shuffled among themselves, since neighbours in the string
            come from one document; 1 keeps them in order.
        seed: of the permutations.
    """

    mixture: dict[str, float] = field(default_factory=lambda: {"refinecode": 1.0})
    phases: tuple[tuple[int, int, int], ...] = ((0, 4096, 1024),)
    packing: str = "cut"
    attend_across_documents: bool = True
    shuffle_rows: int = 4096
    seed: int = 0

    def __post_init__(self) -> None:
        if not self.mixture or any(not weight > 0 or math.isinf(weight) for weight in self.mixture.values()):
            raise ValueError(f"mixture must name at least one source, each with a weight above 0; got {self.mixture}")
        if self.packing not in ("cut", "pack", "pad"):
            raise ValueError(f'packing must be "cut", "pack" or "pad"; got {self.packing!r}')
        if {len(phase) for phase in self.phases} != {3} or any(min(phase[1:]) < 1 for phase in self.phases):
            raise ValueError(f"phases must hold (first step, sequence length, rows), both >= 1; got {self.phases}")
        if self.shuffle_rows < 1:
            raise ValueError(f"shuffle_rows must be at least 1, which keeps the order; got {self.shuffle_rows}")
        starts = [phase[0] for phase in self.phases]
        if starts[0] != 0 or any(a >= b for a, b in pairwise(starts)):
            raise ValueError(f"phases must begin at step 0 and go on at later and later steps; got steps {starts}")
        if self.packing != "cut" and len({phase[1] for phase in self.phases}) != 1:
            raise ValueError(f'packing "{self.packing}" needs one sequence length in all phases; got {self.phases}')


class Batch(NamedTuple):
    """Rows of a global batch, each array [rows, length].

    `targets[r, i]` is the token after `tokens[r, i]`; it counts in the loss as `loss_mask[r, i]`, 0 or 1. A query at i
    sees the keys from `i - positions[r, i]` to i.
    """

    tokens: np.ndarray  # int32
    targets: np.ndarray  # int32
    positions: np.ndarray  # int32
    loss_mask: np.ndarray  # float32


class Batches:
    """The batches of a run.

    Attributes:
        sources: the token records of each source of the mixture.
        dropped: examples that fit no row, in all sources: longer than a row or without anything to predict. Always 0
            for packing "cut".
    """

    def __init__(self, config: DataConfig, directory: str | Path, pad: int, end_of_document: int) -> None:
        """Opens the sources.

        Args:
            directory: where the directories named in the mixture lie.
            pad: the token that fills rows.
            end_of_document: the token that ends every document of a pretraining source.

        Raises:
            UserError: a source is missing or damaged, was made by another tokenizer than the first, or doesn't suit the
                packing.
        """
        self.config = config
        self.sources = {name: TokenRecords.open(Path(directory) / name) for name in config.mixture}
        first = next(iter(self.sources.values()))
        for records in self.sources.values():
            if records.tokenizer_fingerprint != first.tokenizer_fingerprint:
                raise UserError(
                    f"{records.directory}: made by another tokenizer than {first.directory}; tokenise both with one"
                )
        self._pad = pad
        self._rows: list[_CutRows | _ExampleRows] = []
        for name, records in self.sources.items():
            if config.packing == "cut":
                last = int(records.read(0)[0][-1])
                if last != end_of_document:
                    raise UserError(
                        f"{records.directory}: record 0 ends with token {last}, not with end-of-document "
                        f'{end_of_document}; packing "cut" needs documents, so use "pack" or "pad" for conversations'
                    )
                self._rows.append(_CutRows(name, records, config))
            else:
                self._rows.append(_ExampleRows(name, records, config))
        self.dropped = sum(rows.dropped for rows in self._rows)
        self._pattern, self._counts = _deal(list(config.mixture.values()))
        self._phase_starts = self._lay_phases()
        self._tokens = [records.tokens for records in self.sources.values()]
        self._window = lru_cache(2 * len(self._rows))(_permutation)

    def __call__(self, step: int, row_start: int = 0, row_stop: int | None = None) -> Batch:
        """Rows [row_start, row_stop) of batch `step`; all rows by default.

        Raises:
            ValueError: there is no such step or row.
            UserError: a record is damaged; the message names the file and the offset.
        """
        phase = self._phase(step)
        first_step, length, batch_rows = self.config.phases[phase]
        row_stop = batch_rows if row_stop is None else row_stop
        if step < 0 or not 0 <= row_start <= row_stop <= batch_rows:
            raise ValueError(f"step {step} has rows 0 to {batch_rows}; asked for {row_start} to {row_stop}")
        start = self._phase_starts[phase]
        rows = row_stop - row_start
        # One token more than a row: the target of its last.
        tokens = np.full((rows, length + 1), self._pad, np.int32)
        mask = np.zeros((rows, length + 1), np.uint8)
        segment_starts = np.zeros((rows, length + 1), np.int32)
        for row in range(rows):
            number = start.row + (step - first_step) * batch_rows + row_start + row
            source = self._pattern[number % PERIOD]
            ordinal = self._shuffled(source, phase, int(self._rows_before(number)[source] - start.rows[source]))
            self._rows[source].fill(
                int(start.positions[source]), ordinal, length, tokens[row], mask[row], segment_starts[row]
            )
        positions = np.broadcast_to(np.arange(length, dtype=np.int32), (rows, length))
        if not self.config.attend_across_documents:
            begins = np.maximum.accumulate(segment_starts, axis=1)
            positions = positions - begins[:, :-1]
            # The first token of a document can't be known from the one before.
            mask[:, 1:][segment_starts[:, 1:] > 0] = 0
        return Batch(
            np.ascontiguousarray(tokens[:, :-1]),
            np.ascontiguousarray(tokens[:, 1:]),
            np.ascontiguousarray(positions),
            mask[:, 1:].astype(np.float32),
        )

    def _shuffled(self, source: int, phase: int, ordinal: int) -> int:
        """Which row of a source comes as its `ordinal`-th of a phase: each window of rows is permuted in itself."""
        # A window is no longer than an epoch, so that a small source isn't shuffled over many of them.
        window = min(self.config.shuffle_rows, self._tokens[source] // self.config.phases[phase][1])
        if self.config.packing != "cut" or window < 2:
            return ordinal
        index, place = divmod(ordinal, window)
        size = window
        if phase + 1 < len(self.config.phases):
            rows = self._phase_starts[phase + 1].rows[source] - self._phase_starts[phase].rows[source]
            size = min(window, int(rows) - index * window)
        return index * window + int(self._window(size, f"{self.config.seed}/{source}/{phase}/{index}")[place])

    def shape(self, step: int) -> tuple[int, int]:
        """Rows and length of the global batch at a step."""
        _, length, rows = self.config.phases[self._phase(step)]
        return rows, length

    def tokens_per_step(self, step: int) -> int:
        """Tokens of the global batch at a step, padding included."""
        rows, length = self.shape(step)
        return rows * length

    def tokens_before(self, step: int) -> int:
        """Tokens of all global batches before a step, padding included."""
        total = 0
        ends = [phase[0] for phase in self.config.phases[1:]] + [step]
        for (first, length, rows), end in zip(self.config.phases, ends, strict=True):
            total += max(0, min(end, step) - first) * length * rows
        return total

    def epochs_before(self, step: int) -> dict[str, float]:
        """How often each source has been read before a step."""
        phase = self._phase(step)
        first_step, length, batch_rows = self.config.phases[phase]
        start = self._phase_starts[phase]
        rows = self._rows_before(start.row + (step - first_step) * batch_rows) - start.rows
        return {
            name: float(source.epochs(int(position), int(count), length))
            for name, source, position, count in zip(self.sources, self._rows, start.positions, rows, strict=True)
        }

    def _phase(self, step: int) -> int:
        return sum(first <= step for first, _, _ in self.config.phases[1:])

    def _rows_before(self, row: int) -> np.ndarray:
        """int64 [sources]: how many of the rows before `row` belong to each source."""
        return row // PERIOD * self._counts[-1] + self._counts[row % PERIOD]

    def _lay_phases(self) -> "list[_PhaseStart]":
        zeros = np.zeros(len(self._rows), np.int64)
        starts = [_PhaseStart(0, zeros, zeros)]
        for (first, length, batch_rows), (end, _, _) in pairwise(self.config.phases):
            row = starts[-1].row + (end - first) * batch_rows
            rows = self._rows_before(row)
            units = length if self.config.packing == "cut" else 1
            starts.append(_PhaseStart(row, rows, starts[-1].positions + (rows - starts[-1].rows) * units))
        return starts


class _PhaseStart(NamedTuple):
    row: int  # number of its first row
    rows: np.ndarray  # int64 [sources]: rows of each source before it
    positions: np.ndarray  # int64 [sources]: tokens ("cut") or rows of each source before it


class _CutRows:
    """A source as an endless string of tokens."""

    dropped = 0

    def __init__(self, name: str, records: TokenRecords, config: DataConfig) -> None:
        self._records = records
        self._name = name
        self._seed = config.seed
        # A row may straddle two epochs.
        self._epoch = lru_cache(2)(self._lay_epoch)

    def _lay_epoch(self, epoch: int) -> tuple[np.ndarray, np.ndarray]:
        """The order of the records in an epoch, and where each ends, in tokens from the epoch's start."""
        order = _permutation(len(self._records), f"{self._seed}/{self._name}/{epoch}")
        return order, np.cumsum(self._records.lengths[order])

    def fill(
        self, position: int, ordinal: int, length: int, tokens: np.ndarray, mask: np.ndarray, starts: np.ndarray
    ) -> None:
        """Writes the `length` + 1 tokens from `position + ordinal * length` on, and notes where documents begin."""
        epoch, offset = divmod(position + ordinal * length, self._records.tokens)
        order, ends = self._epoch(epoch)
        slot = int(np.searchsorted(ends, offset, side="right"))
        filled = 0
        while filled <= length:
            if slot == len(order):
                epoch, slot, offset = epoch + 1, 0, 0
                order, ends = self._epoch(epoch)
            record = int(order[slot])
            skip = offset - int(ends[slot] - self._records.lengths[record])
            record_tokens, record_mask = self._records.read(record)
            stop = min(length + 1, filled + len(record_tokens) - skip)
            piece = slice(skip, skip + stop - filled)
            tokens[filled:stop], mask[filled:stop] = record_tokens[piece], record_mask[piece]
            if skip == 0:
                starts[filled] = filled
            offset += stop - filled
            filled = stop
            slot += 1

    def epochs(self, position: int, rows: int, length: int) -> float:
        return (position + rows * length) / self._records.tokens


class _ExampleRows:
    """A source as rows of whole examples: one to a row ("pad") or as many as fit, in a hashed order ("pack")."""

    def __init__(self, name: str, records: TokenRecords, config: DataConfig) -> None:
        self._records = records
        self._name = name
        self._seed = config.seed
        length = config.phases[0][1]
        order = _permutation(len(records), f"{config.seed}/{name}/rows")
        sizes = records.lengths[order]
        # The last token of a row is only a target.
        usable = (sizes >= 2) & (sizes <= length + 1)
        self.dropped = int(len(records) - usable.sum())
        self._order = order[usable]
        if len(self._order) == 0:
            raise UserError(f"{records.directory}: no example fits into {length} tokens; raise the length in phases")
        if config.packing == "pad":
            self._row_starts = np.arange(len(self._order) + 1)
        else:
            self._row_starts = _next_fit(sizes[usable], length + 1)
        self._epoch = lru_cache(2)(self._lay_epoch)

    def _lay_epoch(self, epoch: int) -> np.ndarray:
        return _permutation(len(self._row_starts) - 1, f"{self._seed}/{self._name}/{epoch}")

    def fill(
        self, position: int, ordinal: int, length: int, tokens: np.ndarray, mask: np.ndarray, starts: np.ndarray
    ) -> None:
        """Writes the examples of row `position + ordinal` one after the other, and notes where each begins."""
        epoch, slot = divmod(position + ordinal, len(self._row_starts) - 1)
        row = int(self._epoch(epoch)[slot])
        filled = 0
        for record in self._order[self._row_starts[row] : self._row_starts[row + 1]].tolist():
            record_tokens, record_mask = self._records.read(record)
            stop = filled + len(record_tokens)
            tokens[filled:stop], mask[filled:stop] = record_tokens, record_mask
            starts[filled] = filled
            filled = stop

    def epochs(self, position: int, rows: int, length: int) -> float:
        return (position + rows) / (len(self._row_starts) - 1)


def _deal(weights: list[float]) -> tuple[np.ndarray, np.ndarray]:
    """Deals PERIOD rows to sources by weight.

    Returns:
        The source of each row, int64 [PERIOD], and each source's rows before row r, int64 [PERIOD + 1, sources].
    """
    shares = np.array(weights) / sum(weights) * PERIOD
    rows = np.maximum(1, np.floor(shares).astype(np.int64))
    # The largest remainders take what rounding down left; what tiny sources got by rounding up, the largest gives.
    for source in np.argsort(rows - shares, kind="stable")[: max(0, PERIOD - rows.sum())]:
        rows[source] += 1
    rows[np.argmax(rows)] += PERIOD - rows.sum()
    sources = np.repeat(np.arange(len(rows)), rows)
    ideal_times = np.concatenate([(np.arange(count) + 0.5) / count for count in rows])
    pattern = sources[np.lexsort((sources, ideal_times))]
    counts = np.zeros((PERIOD + 1, len(rows)), np.int64)
    np.cumsum(pattern[:, None] == np.arange(len(rows)), axis=0, out=counts[1:])
    return pattern, counts


def _next_fit(sizes: np.ndarray, capacity: int) -> np.ndarray:
    """Cuts a sequence of examples into rows of at most `capacity` tokens; returns where rows start, and the end."""
    ends = np.cumsum(sizes)
    following = np.searchsorted(ends, ends - sizes + capacity, side="right").tolist()
    starts = [0]
    while starts[-1] < len(following):
        starts.append(following[starts[-1]])
    return np.array(starts)


def _permutation(count: int, key: str) -> np.ndarray:
    """int64 [count]: 0 .. count - 1 sorted by their hashes (SplitMix64, Steele et al. 2014) under a key."""
    seed = np.frombuffer(hashlib.blake2b(key.encode(), digest_size=8).digest(), "<u8")
    hashes = (np.arange(1, count + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)) + seed
    hashes = (hashes ^ (hashes >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    hashes = (hashes ^ (hashes >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return np.argsort(hashes ^ (hashes >> np.uint64(31)), kind="stable")
