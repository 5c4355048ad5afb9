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
from opencoder_jax.beam_pipelines.core.stage import input_shards
from opencoder_jax.beam_pipelines.core.storage import Directory
from opencoder_jax.beam_pipelines.filtering.rules import Rule, table_of
from opencoder_jax.beam_pipelines.filtering.sample import uniform
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


@dataclass
class Nearest:
    """The documents with the smallest keys of all that were shown to it; among equals those with the smallest hash."""

    limit: int
    places: np.ndarray = field(default_factory=lambda: np.zeros(0, np.uint64))
    columns: np.ndarray = field(default_factory=lambda: np.zeros((0, 3)))  # key, hash, value

    def add(self, keys: np.ndarray, hashes: np.ndarray, places: np.ndarray, values: np.ndarray) -> None:
        """Arrays [documents]: float keys, hashes in [0, 1), packed addresses, values of the signal."""
        places = np.concatenate([self.places, places])
        columns = np.concatenate([self.columns, np.column_stack([keys, hashes, values])])
        best = np.lexsort((columns[:, 1], columns[:, 0]))[: self.limit]
        self.places, self.columns = places[best], columns[best]

    def __iter__(self) -> Iterator[tuple[int, float]]:
        """(address, value) of each, nearest first."""
        return iter(zip(self.places.tolist(), self.columns[:, 2].tolist(), strict=True))


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

    def add(self, rows: "Rows", fired: np.ndarray, alone: np.ndarray, values: np.ndarray) -> None:
        """`fired` and `alone` bool, `values` float64, NaN where null; each [rows]."""
        self.hits += int(fired.sum())
        self.only += int(alone.sum())
        self.only_bytes += int(rows.bytes[alone].sum())
        self.measured += int((~np.isnan(values)).sum())
        self._show(self.alone, rows, alone, np.zeros(len(values)), values)
        for bound, caught, passed, extreme in zip(
            bounds(self.rule), self.caught, self.passed, self.extreme, strict=True
        ):
            beyond = bound.sign * (values - bound.at)
            self._show(caught, rows, fired & (beyond > 0), beyond, values)
            self._show(passed, rows, beyond <= 0, -beyond, values)
            self._show(extreme, rows, fired & (beyond > 0), -beyond, values)

    @staticmethod
    def _show(to: Nearest, rows: "Rows", where: np.ndarray, keys: np.ndarray, values: np.ndarray) -> None:
        to.add(keys[where], rows.hashes[where], rows.places[where], values[where])

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

    def add(self, rows: "Rows", fired: np.ndarray, values: np.ndarray) -> None:
        """`fired` bool and `values` float64 [rows, rules]."""
        count = fired.sum(axis=1)
        dropped = (count > 0) | rows.failed
        self.documents += len(dropped)
        self.bytes += int(rows.bytes.sum())
        self.kept += int((~dropped).sum())
        self.kept_bytes += int(rows.bytes[~dropped].sum())
        self.failed += int((rows.failed & (count == 0)).sum())
        self.overlap += fired.astype(np.int64).T @ fired.astype(np.int64)
        for place, rule in enumerate(self.rules):
            rule.add(rows, fired[:, place], fired[:, place] & (count == 1), values[:, place])
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


@dataclass
class Comparison:
    """The documents that change sides between two profiles.

    Attributes:
        documents, bytes: by direction, "dropped" (by the other profile only) or "kept" (by it only).
        changes: by (direction, table, rule): the rules of the profile that drops them.
    """

    documents: dict[str, int] = field(default_factory=lambda: {"dropped": 0, "kept": 0})
    bytes: dict[str, int] = field(default_factory=lambda: {"dropped": 0, "kept": 0})
    changes: dict[tuple[str, str, str], Change] = field(default_factory=dict)


class Rows(NamedTuple):
    """Documents of one table, as arrays [documents]."""

    ids: list[str]
    hashes: np.ndarray  # float64 in [0, 1)
    places: np.ndarray  # packed addresses, uint64
    bytes: np.ndarray
    failed: np.ndarray  # bool: a signal failed


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
    comparison = Comparison() if other is not None else None
    for shard, (name, measured) in enumerate(zip(*names, strict=True)):
        text = read_shard_columns(Directory(documents), name, ["id", "language", "kind", "bytes"])
        values = _signals(signals, measured, sorted(used))
        if not text.column("id").equals(values.column("id")):
            raise UserError(f"inspect: {signals} wasn't measured on {documents}; run the stage signals again")
        for table, rows, columns in _by_table(text, values, profile, shard):
            fired, matrix = judge(profile[table], rows.ids, columns, seed)
            tables[table].add(rows, fired, matrix)
        if comparison is not None and other is not None:
            _compare(comparison, text, values, profile, other, shard, seed, examples)
    for counted in tables.values():
        counted.thin()
    return Survey([counted for counted in tables.values() if counted.documents], comparison)


def judge(rules: Sequence[Rule], ids: Sequence[str], columns: pa.Table, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Where each rule fires, bool [documents, rules], as in the filter stage, and the values, float64 alike."""
    values = np.full((len(ids), len(rules)), np.nan)
    fired = np.zeros(values.shape, bool)
    for place, rule in enumerate(rules):
        values[:, place] = columns.column(rule.signal).to_numpy().astype(np.float64)
        fired[:, place] = rule.fires(values[:, place])
        if rule.spare:
            for hit in np.flatnonzero(fired[:, place]).tolist():
                fired[hit, place] = uniform(ids[hit], rule.signal, seed) >= rule.spare
    return fired, values


def _signals(directory: str, name: str, used: list[str]) -> pa.Table:
    with Directory(directory).read(name) as stream:
        known = set(pq.read_schema(stream).names)
    if missing := [signal for signal in ("natural_language", *used) if signal not in known]:
        raise UserError(f"inspect: {directory} holds no {missing[0]}; run the stage signals again")
    return read_shard_columns(Directory(directory), name, ["id", "errors", "natural_language", *used])


def _by_table(
    documents: pa.Table, signals: pa.Table, profile: Profile, shard: int
) -> Iterator[tuple[str, Rows, pa.Table]]:
    """The documents of a shard by the table that judges them, with their signals."""
    tables = {name: list(rules) for name, rules in profile.items()}
    columns = (documents.column("kind"), documents.column("language"), signals.column("natural_language"))
    rows_of = zip(*(column.to_pylist() for column in columns), strict=True)
    names = np.array([table_of(kind, own, tables, prose or "") for kind, own, prose in rows_of], object)
    places = addresses(shard, documents.num_rows)
    sizes = documents.column("bytes").to_numpy()
    ids = documents.column("id").to_pylist()
    hashes = np.array([xxhash.xxh3_64_intdigest(identifier.encode()) for identifier in ids], np.uint64) / 2.0**64
    failed = np.array([bool(error) for error in signals.column("errors").to_pylist()], bool)
    for name in sorted(set(names.tolist())):
        at = np.flatnonzero(names == name)
        rows = Rows([ids[row] for row in at], hashes[at], places[at], sizes[at], failed[at])
        yield name, rows, signals.take(pa.array(at))


def _compare(
    comparison: Comparison,
    documents: pa.Table,
    signals: pa.Table,
    profile: Profile,
    other: Profile,
    shard: int,
    seed: int,
    examples: int,
) -> None:
    """Adds the documents of a shard that change sides."""
    judged = []
    for which in (profile, other):
        dropped = np.zeros(documents.num_rows, bool)
        found = []
        for table, rows, columns in _by_table(documents, signals, which, shard):
            at = (rows.places - addresses(shard, 1)[0]).astype(np.int64)
            fired, values = judge(which[table], rows.ids, columns, seed)
            dropped[at] = fired.any(axis=1) | rows.failed
            found.append((table, rows, at, fired, values))
        judged.append((dropped, found))
    (before, by_profile), (after, by_other) = judged
    sizes = documents.column("bytes").to_numpy()
    for direction, moved, found, rules_of in (
        ("dropped", after & ~before, by_other, other),
        ("kept", before & ~after, by_profile, profile),
    ):
        comparison.documents[direction] += int(moved.sum())
        comparison.bytes[direction] += int(sizes[moved].sum())
        for table, rows, at, fired, values in found:
            alone = fired.sum(axis=1) == 1
            for place, rule in enumerate(rules_of[table]):
                if not (where := moved[at] & fired[:, place]).any():
                    continue
                change = comparison.changes.setdefault((direction, table, str(rule)), Change(examples))
                change.documents += int(where.sum())
                change.bytes += int(rows.bytes[where].sum())
                change.only += int((where & alone).sum())
                zeros = np.zeros(int(where.sum()))
                change.shown.add(zeros, rows.hashes[where], rows.places[where], values[where, place])
