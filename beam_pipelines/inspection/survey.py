"""What a profile of thresholds does to a corpus: counts, samples of the signals, and which documents to look at.

Reads the columns that it needs, a shard at a time, and no text. What it holds doesn't grow with the corpus: of each
table at most 2 SAMPLE rows of float32 signals, for the pictures, and for each rule a few addresses of documents. Both
are chosen by a hash of the id, so that they are the same whatever the order of the shards. All counts are exact.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import xxhash

from opencoder_jax.beam_pipelines.core.documents import addresses, read_shard_columns
from opencoder_jax.beam_pipelines.core.manifest import open_finished
from opencoder_jax.beam_pipelines.core.stage import input_shards
from opencoder_jax.beam_pipelines.core.storage import Directory
from opencoder_jax.beam_pipelines.filtering.filter import Judged, judge
from opencoder_jax.beam_pipelines.filtering.rules import Rule
from opencoder_jax.recipe import UserError

SAMPLE = 100_000  # documents of a table whose signals are drawn: a share in a picture is off by at most 0.2 % or so

Profile = Mapping[str, Sequence[Rule]]


class Bound(NamedTuple):
    """One side of a rule: it fires where `sign * (value - at)` is positive."""

    sign: int
    at: float

    def __str__(self) -> str:
        return f"{'>' if self.sign > 0 else '<'} {self.at:g}"


def bounds(rule: Rule) -> list[Bound]:
    """The sides of a rule; none of a category, which has no near and far."""
    sides = ((-1, rule.below), (1, rule.above))
    return [Bound(sign, float(at)) for sign, at in sides if at is not None]


class Rows(NamedTuple):
    """Documents as arrays [documents]: hashes float64 in [0, 1), packed addresses, bytes, whether a signal failed."""

    hashes: np.ndarray
    addresses: np.ndarray
    bytes: np.ndarray
    failed: np.ndarray

    @classmethod
    def of(cls, documents: pa.Table, signals: pa.Table, shard: int) -> "Rows":
        """All documents of a shard."""
        ids = documents.column("id").to_pylist()
        hashes = np.array([xxhash.xxh3_64_intdigest(identifier.encode()) for identifier in ids], np.uint64) / 2.0**64
        failed = np.array([bool(error) for error in signals.column("errors").to_pylist()], bool)
        return cls(hashes, addresses(shard, len(ids)), documents.column("bytes").to_numpy(), failed)

    def at(self, where: np.ndarray) -> "Rows":
        """Some of them, by index or as a mask."""
        return Rows(*(column[where] for column in self))


@dataclass
class Nearest:
    """The documents with the smallest keys of all that were shown to it; among equals those with the smallest hash."""

    limit: int
    addresses: np.ndarray = field(default_factory=lambda: np.zeros(0, np.uint64))
    columns: np.ndarray = field(default_factory=lambda: np.zeros((0, 3)))  # key, hash, value

    def add(self, keys: np.ndarray, rows: Rows, values: np.ndarray) -> None:
        """`keys` and `values` (of the signal) are float [documents]."""
        packed = np.concatenate([self.addresses, rows.addresses])
        columns = np.concatenate([self.columns, np.column_stack([keys, rows.hashes, values])])
        best = np.lexsort((columns[:, 1], columns[:, 0]))[: self.limit]
        self.addresses, self.columns = packed[best], columns[best]

    def __iter__(self) -> Iterator[tuple[int, float]]:
        """(address, value) of each, nearest first."""
        return iter(zip(self.addresses.tolist(), self.columns[:, 2].tolist(), strict=True))


@dataclass
class RuleSurvey:
    """What one rule does in one table.

    Attributes:
        hits: documents where it fires.
        only: of these, those where no other does; the counters of the filter stage.
        only_bytes: what the corpus would gain without the rule.
        alone: examples that only this rule catches.
        caught, passed, extreme: for each bound, examples just beyond it, just within it, and farthest beyond.
    """

    rule: Rule
    examples: int
    hits: int = 0
    only: int = 0
    only_bytes: int = 0
    measured: int = 0

    def __post_init__(self) -> None:
        self.alone = Nearest(self.examples)
        self.caught, self.passed, self.extreme = ([Nearest(self.examples) for _ in bounds(self.rule)] for _ in range(3))

    def add(self, rows: Rows, fired: np.ndarray, alone: np.ndarray, values: np.ndarray) -> None:
        """`fired` and `alone` bool, `values` float64, NaN where null; each [rows]."""
        self.hits += int(fired.sum())
        self.only += int(alone.sum())
        self.only_bytes += int(rows.bytes[alone].sum())
        self.measured += int((~np.isnan(values)).sum())
        shown = [(self.alone, alone, np.zeros(len(values)))]
        for bound, caught, passed, extreme in self.sides():
            beyond = bound.sign * (values - bound.at)
            out = fired & (beyond > 0)
            shown += [(caught, out, beyond), (passed, beyond <= 0, -beyond), (extreme, out, -beyond)]
        for nearest, where, keys in shown:
            nearest.add(keys[where], rows.at(where), values[where])

    def sides(self) -> Iterator[tuple[Bound, Nearest, Nearest, Nearest]]:
        """Each bound with its examples."""
        return zip(bounds(self.rule), self.caught, self.passed, self.extreme, strict=True)

    def shown(self) -> Iterator[Nearest]:
        """All its examples."""
        yield self.alone
        for group in (self.caught, self.passed, self.extreme):
            yield from group


@dataclass
class TableSurvey:
    """What the rules of one table do to its documents.

    Attributes:
        overlap: int [rules, rules], documents that both rules catch; its diagonal are the hits.
        failed: documents that no rule catches, but a signal of theirs failed.
        sample: float32 [at most 2 SAMPLE, rules], signals of documents chosen by hash.
    """

    name: str
    rules: list[RuleSurvey]
    documents: int = 0
    bytes: int = 0
    kept: int = 0
    kept_bytes: int = 0
    failed: int = 0

    def __post_init__(self) -> None:
        self.overlap = np.zeros((len(self.rules), len(self.rules)), np.int64)
        self.sample = np.zeros((0, len(self.rules)), np.float32)
        self._hashes = np.zeros(0)

    def add(self, rows: Rows, fired: np.ndarray, values: np.ndarray) -> None:
        """`fired` bool and `values` float64 [rows, rules]."""
        count = fired.sum(axis=1)
        dropped = (count > 0) | rows.failed
        self.documents += len(dropped)
        self.bytes += int(rows.bytes.sum())
        self.kept += int((~dropped).sum())
        self.kept_bytes += int(rows.bytes[~dropped].sum())
        self.failed += int((rows.failed & (count == 0)).sum())
        self.overlap += fired.astype(np.int64).T @ fired.astype(np.int64)
        for index, rule in enumerate(self.rules):
            rule.add(rows, fired[:, index], fired[:, index] & (count == 1), values[:, index])
        self.sample = np.concatenate([self.sample, values.astype(np.float32)])
        self._hashes = np.concatenate([self._hashes, rows.hashes])
        if len(self._hashes) > 2 * SAMPLE:
            self.thin()

    def thin(self) -> None:
        """Leaves SAMPLE rows of the sample, in the order of their hashes."""
        best = np.argsort(self._hashes, kind="stable")[:SAMPLE]
        self.sample, self._hashes = self.sample[best], self._hashes[best]


@dataclass
class Change:
    """Documents that another profile keeps and this one drops, or the other way round, by one rule.

    Attributes:
        documents: where the rule fires; a document that several rules catch counts with each of them.
        only: of these, those where it's the only one.
    """

    examples: int
    documents: int = 0
    bytes: int = 0
    only: int = 0

    def __post_init__(self) -> None:
        self.shown = Nearest(self.examples)

    def add(self, rows: Rows, values: np.ndarray) -> None:
        """Documents that change sides, and their signal's values."""
        self.documents += len(values)
        self.bytes += int(rows.bytes.sum())
        self.shown.add(np.zeros(len(values)), rows, values)


@dataclass
class Comparison:
    """The documents that change sides between two profiles.

    Attributes:
        examples: documents to show of each change.
        documents, bytes: by direction, "dropped" (by the other profile only) or "kept" (by it only).
        changes: by (direction, table, rule): the rules of the profile that drops them.
    """

    examples: int
    documents: dict[str, int] = field(default_factory=lambda: {"dropped": 0, "kept": 0})
    bytes: dict[str, int] = field(default_factory=lambda: {"dropped": 0, "kept": 0})
    changes: dict[tuple[str, str, str], Change] = field(default_factory=dict)

    def add(self, rows: Rows, one: tuple[Profile, list[Judged]], other: tuple[Profile, list[Judged]]) -> None:
        """Adds the documents of a shard, which both profiles have judged."""
        before, after = (rows.failed.copy() for _ in range(2))
        for dropped, (_, judged) in ((before, one), (after, other)):
            for found in judged:
                dropped[found.rows] |= found.fired.any(axis=1)
        for direction, moved, (profile, judged) in (
            ("dropped", after & ~before, other),
            ("kept", before & ~after, one),
        ):
            self.documents[direction] += int(moved.sum())
            self.bytes[direction] += int(rows.bytes[moved].sum())
            for table, at, fired, values in judged:
                alone = fired.sum(axis=1) == 1
                for index, rule in enumerate(profile[table]):
                    if (where := moved[at] & fired[:, index]).any():
                        change = self.changes.setdefault((direction, table, str(rule)), Change(self.examples))
                        change.only += int((where & alone).sum())
                        change.add(rows.at(at[where]), values[where, index])


class Survey(NamedTuple):
    """All tables that have documents, in the order of their names, and the comparison, if any."""

    tables: list[TableSurvey]
    comparison: Comparison | None


def survey(documents: str, signals: str, profile: Profile, other: Profile | None, seed: int, examples: int) -> Survey:
    """Applies a profile, and another to compare with, to all documents of a stage directory.

    Raises:
        UserError: the directories aren't documents and their signals.
    """
    names = input_shards(documents), input_shards(signals, "signals")
    if len(names[0]) != len(names[1]):
        raise UserError(f"inspect: {documents} has {len(names[0])} shards, {signals} has {len(names[1])}")
    used = {rule.signal for rules in (*profile.values(), *(other or {}).values()) for rule in rules}
    tables = {
        name: TableSurvey(name, [RuleSurvey(rule, examples) for rule in rules])
        for name, rules in sorted(profile.items())
    }
    comparison = Comparison(examples) if other is not None else None
    for shard, (name, measured) in enumerate(zip(*names, strict=True)):
        text = read_shard_columns(Directory(documents), name, ["id", "language", "kind", "bytes"])
        values = _signals(signals, measured, sorted(used))
        if not text.column("id").equals(values.column("id")):
            raise UserError(f"inspect: {signals} wasn't measured on {documents}; run the stage signals again")
        rows = Rows.of(text, values, shard)
        judged = list(judge(profile, text, values, seed))
        for found in judged:
            tables[found.table].add(rows.at(found.rows), found.fired, found.values)
        if comparison is not None and other is not None:
            comparison.add(rows, (profile, judged), (other, list(judge(other, text, values, seed))))
    for counted in tables.values():
        counted.thin()
    return Survey([counted for counted in tables.values() if counted.documents], comparison)


def _signals(directory: str, name: str, used: list[str]) -> pa.Table:
    with open_finished(Directory(directory), name) as stream:
        known = set(pq.read_schema(stream).names)
    if missing := [signal for signal in ("natural_language", *used) if signal not in known]:
        raise UserError(f"inspect: {directory} holds no {missing[0]}; run the stage signals again")
    return read_shard_columns(Directory(directory), name, ["id", "errors", "natural_language", *used])
