"""Batches: which tokens the network sees at which step, as arithmetic.

Batch k is a pure function of (configuration, data, k). Nothing is replayed to resume at a step, and nothing is laid out
beforehand: any step of a corpus of any size is found in microseconds, with the memory of one batch. A row doesn't
depend on how many hosts share the batch. The sequence length may change at a step, as OpenCoder's 8B did (4096 to 8192
at step 130,000), with the data going on at the very next token.

How a row finds its tokens:
- Rows are numbered through the whole run, and dealt to the sources of the mixture by weight (order.py). Weights are of
  tokens: a source whose rows hold fewer of them, the rest being padding, gets more rows.
- Each source says which of its tokens its n-th row holds (rows.py), in an order of its own for every epoch.
- Records are read from the disk, and checked, for each row anew (token_records.py).

A change of length must be planned, for the order of an epoch's rows depends on where their phase ends. A change of the
rows a batch needn't be: it leaves the order of the rows alone.
"""

import math
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np

from opencoder_jax.data.fim import FillInTheMiddle, FimRecords
from opencoder_jax.data.order import Deal
from opencoder_jax.data.rows import CutRows, ExampleRows, Span
from opencoder_jax.data.token_records import TokenRecords
from opencoder_jax.recipe import UserError, configurable


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
            lays whole examples into rows, as many as fit, and drops what is longer than a row; "fragment" first cuts
            that into rows and a rest; "pad" lays one example into a row (OpenCoder's tuning).
        teacher: what the directories of a teacher's distributions are called: NAME and this, beside each source NAME of
            the mixture, as "_teacher" (python -m opencoder_jax teach makes them); "": the text alone teaches.
        attend_across_documents: positions count through the row, as OpenCoder's do; False restarts them at every
            document, which also hides the documents of a row from each other and takes the first token of each out of
            the loss.
        fim_rate: share of the documents that are trained on for filling in the middle (fim.py); OpenCoder has none.
        fim_spm_rate: share of those that are written with the suffix first.
        seed: of the order, and of fill-in-the-middle.
    """

    mixture: dict[str, float] = field(default_factory=lambda: {"refinecode": 1.0})
    phases: tuple[tuple[int, int, int], ...] = ((0, 4096, 1024),)
    packing: str = "cut"
    teacher: str = ""
    attend_across_documents: bool = True
    fim_rate: float = 0.0
    fim_spm_rate: float = 0.5
    seed: int = 0

    def __post_init__(self) -> None:
        if not self.mixture or any(not weight > 0 or math.isinf(weight) for weight in self.mixture.values()):
            raise ValueError(f"mixture must name at least one source, each with a weight above 0; got {self.mixture}")
        if self.packing not in ("cut", "pack", "fragment", "pad"):
            raise ValueError(f'packing must be "cut", "pack", "fragment" or "pad"; got {self.packing!r}')
        if self.teacher and self.fim_rate:
            raise ValueError("teacher has no distributions of documents in another order; set fim_rate to 0")
        if {len(phase) for phase in self.phases} != {3} or any(min(phase[1:]) < 1 for phase in self.phases):
            raise ValueError(f"phases must hold (first step, sequence length, rows), both >= 1; got {self.phases}")
        for name in ("fim_rate", "fim_spm_rate"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} must be a share in 0 .. 1; got {getattr(self, name)}")
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
        rows: of each source.
        pad: the token that fills rows.
        dropped: examples that fit no row, in all sources: longer than a row or without anything to predict. Always 0
            for packing "cut"; for "fragment" those of one token.
    """

    def __init__(
        self,
        config: DataConfig,
        directory: str | Path,
        pad: int,
        end_of_document: int,
        fim_tokens: tuple[int, int, int] | None = None,
    ) -> None:
        """Opens the sources.

        Args:
            directory: where the directories named in the mixture lie.
            pad: the token that fills rows.
            end_of_document: the token that ends every document of a pretraining source.
            fim_tokens: the tokenizer's for fill-in-the-middle (fim.py); None: it has none.

        Raises:
            UserError: a source is missing or damaged, was made by another tokenizer than the first, or doesn't suit the
                packing.
        """
        self.config = config
        self._arguments = (config, directory, pad, end_of_document, fim_tokens)
        self.sources = {name: TokenRecords.open(Path(directory) / name) for name in config.mixture}
        first = next(iter(self.sources.values()))
        for records in self.sources.values():
            if records.tokenizer_fingerprint != first.tokenizer_fingerprint:
                raise UserError(
                    f"{records.directory}: made by another tokenizer than {first.directory}; tokenise both with one"
                )
        fim = fill_in_the_middle(config, fim_tokens)
        self.pad = pad
        self.rows: list[CutRows | ExampleRows] = []
        for name, records in self.sources.items():
            if config.packing == "cut" or config.fim_rate:
                _need_documents(records, end_of_document)
            trained = FimRecords(records, fim) if fim else records
            key = f"{config.seed}/{name}"
            if config.packing == "cut":
                self.rows.append(CutRows(trained, key))
            else:
                self.rows.append(ExampleRows(trained, key, config.phases[0][1], config.packing))
        self.dropped = sum(rows.dropped for rows in self.rows)
        weights = zip(config.mixture.values(), self.rows, strict=True)
        self._deal = Deal([weight / rows.filled for weight, rows in weights])
        self._phase_rows = [0]  # the number of the first row of each phase
        for (first_step, _, rows), (stop, _, _) in pairwise(config.phases):
            self._phase_rows.append(self._phase_rows[-1] + (stop - first_step) * rows)
        self._span_starts, self._spans = self._lay_spans()

    def __reduce__(self) -> tuple[type["Batches"], tuple[object, ...]]:
        """Another process opens the sources itself."""
        return Batches, self._arguments

    def __call__(self, step: int, row_start: int = 0, row_stop: int | None = None) -> Batch:
        """Rows [row_start, row_stop) of batch `step`; all rows by default.

        Raises:
            ValueError: there is no such step or row.
            UserError: a record is damaged; the message names the file and the offset.
        """
        places, length = self._places(step, row_start, row_stop), self.shape(step)[1]
        rows = len(places)
        # One token more than a row: the target of its last.
        tokens = np.full((rows, length + 1), self.pad, np.int32)
        mask = np.zeros((rows, length + 1), np.uint8)
        starts = np.zeros((rows, length + 1), np.int32)
        for row, (source, place) in enumerate(places):
            self.rows[source].fill(place, tokens[row], mask[row], starts[row])
        positions = np.broadcast_to(np.arange(length, dtype=np.int32), (rows, length))
        if not self.config.attend_across_documents:
            positions = positions - np.maximum.accumulate(starts, axis=1)[:, :-1]
            # The first token of a document can't be known from the one before.
            mask[:, 1:][starts[:, 1:] > 0] = 0
        return Batch(
            np.ascontiguousarray(tokens[:, :-1]),
            np.ascontiguousarray(tokens[:, 1:]),
            np.ascontiguousarray(positions),
            mask[:, 1:].astype(np.float32),
        )

    def targets(self, step: int, row_start: int = 0, row_stop: int | None = None) -> list[tuple[str, np.ndarray]]:
        """The source of each of these rows, and which of its tokens are the row's targets: int64 [length], -1: none."""
        names, length = list(self.sources), self.shape(step)[1]
        places = self._places(step, row_start, row_stop)
        return [(names[source], self.rows[source].numbers(place, length + 1)[1:]) for source, place in places]

    def _places(self, step: int, row_start: int, row_stop: int | None) -> list[tuple[int, int]]:
        """The source of each of these rows, and its place there. Raises ValueError as `__call__`."""
        batch_rows = self.shape(step)[0]
        row_stop = batch_rows if row_stop is None else row_stop
        if step < 0 or not 0 <= row_start <= row_stop <= batch_rows:
            raise ValueError(f"step {step} has rows 0 to {batch_rows}; asked for {row_start} to {row_stop}")
        first, span = self._row(step) + row_start, self._span(step)
        sources = self._deal.sources(first, first + row_stop - row_start)
        before = self._deal.rows_before(first) - self._deal.rows_before(self._span_starts[span])
        found = np.empty(len(sources), np.int64)
        for source in np.unique(sources).tolist():
            here = np.flatnonzero(sources == source)
            ordinals = before[source] + np.arange(len(here))
            found[here] = self.rows[source].places(self._spans[span][source], ordinals)
        return list(zip(sources.tolist(), found.tolist(), strict=True))

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
        span = self._span(step)
        counts = self._deal.rows_before(self._row(step)) - self._deal.rows_before(self._span_starts[span])
        return {
            name: rows.epochs(own.position + rows.units(own.length, int(count)))
            for name, rows, own, count in zip(self.sources, self.rows, self._spans[span], counts, strict=True)
        }

    def _phase(self, step: int) -> int:
        return sum(first <= step for first, _, _ in self.config.phases[1:])

    def _row(self, step: int) -> int:
        """The number of a batch's first row in the whole run."""
        phase = self._phase(step)
        first_step, _, rows = self.config.phases[phase]
        return self._phase_rows[phase] + (step - first_step) * rows

    def _span(self, step: int) -> int:
        return sum(row <= self._row(step) for row in self._span_starts[1:])

    def _lay_spans(self) -> tuple[list[int], list[list[Span]]]:
        """The first row of each span, and each span of each source; a span takes in all phases of one length."""
        lengths = [length for _, length, _ in self.config.phases]
        firsts = [number for number in range(len(lengths)) if number == 0 or lengths[number] != lengths[number - 1]]
        starts = [self._phase_rows[first] for first in firsts]
        positions = [0] * len(self.rows)
        spans = []
        for number, first in enumerate(firsts):
            counts: list[int | None] = [None] * len(self.rows)
            if number + 1 < len(firsts):
                counts = (self._deal.rows_before(starts[number + 1]) - self._deal.rows_before(starts[number])).tolist()
            spans.append([Span(lengths[first], at, count) for at, count in zip(positions, counts, strict=True)])
            positions = [
                at + rows.units(lengths[first], count or 0)
                for at, rows, count in zip(positions, self.rows, counts, strict=True)
            ]
        return starts, spans


def fill_in_the_middle(config: DataConfig, tokens: tuple[int, int, int] | None) -> FillInTheMiddle | None:
    """What the recipe wants of it; None: nothing.

    Raises:
        UserError: the tokenizer has no tokens for it.
    """
    if not config.fim_rate:
        return None
    if tokens is None:
        raise UserError(
            f"DataConfig.fim_rate is {config.fim_rate}, but the tokenizer has no tokens for fill-in-the-middle; "
            "set it to 0, or train a tokenizer with TokenizerConfig.fill_in_the_middle"
        )
    return FillInTheMiddle(config.fim_rate, config.fim_spm_rate, config.seed, *tokens)


def _need_documents(records: TokenRecords, end_of_document: int) -> None:
    last = int(records.read(0, records.start(1) - 1)[0][-1])  # not all of what may be a whole book
    if last != end_of_document:
        raise UserError(
            f"{records.directory}: record 0 ends with token {last}, not with end-of-document {end_of_document}; "
            'packing "cut" and fill-in-the-middle need documents, so use "pack" or "pad" for conversations'
        )
