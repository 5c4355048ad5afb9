"""Drops documents whose signals are out of bounds.

Reads documents and, aligned with them, their signals; the thresholds are data (rules.py).
A document is dropped when any rule of its table fires (paper section 2.1.3): the drop's reason is the first rule's
signal, its detail names all that fired with their values. The stage counts for each rule its hits, and the hits where
it's the only one: the loop by which OpenCoder's authors tuned their thresholds looks at those (paper, appendix).

A rule that spares a share of its hits draws by a hash of (document, rule, seed), so that every run draws the same.
Documents with a failed signal, and none out of bounds, go with reason "signal_failed": they are neither good nor bad.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from opencoder_jax.beam_pipelines.core.manifest import Manifest
from opencoder_jax.beam_pipelines.core.maps import Drop, Result, keep_rows, map_stage
from opencoder_jax.beam_pipelines.core.runner import BeamOptions
from opencoder_jax.beam_pipelines.filtering.rules import Rule, load_profile, required_definitions, table_of
from opencoder_jax.beam_pipelines.filtering.sample import uniform
from opencoder_jax.beam_pipelines.signals.measure import SIGNALS
from opencoder_jax.recipe import UserError, configurable


@configurable
@dataclass(frozen=True)
class FilterConfig:
    """Which thresholds.

    Attributes:
        profile: a folder in beam_pipelines/filtering/thresholds, or the path of a folder of your own.
        seed: of the rules that spare a share of their hits.
        without: signals whose rules are left out of every table, to see what they alone do.
    """

    profile: str = "fixed"
    seed: int = 0
    without: tuple[str, ...] = ()


@dataclass(frozen=True)
class FilterRules:
    """The configuration with the rules that it stands for, so that a manifest says them and a change runs again."""

    config: FilterConfig
    rules: dict[str, list[Rule]]


@dataclass(frozen=True)
class Filter:
    """The kernel: documents and their signals in, the documents within bounds out."""

    plan: FilterRules

    def __call__(self, documents: pa.RecordBatch, signals: pa.RecordBatch) -> Result:
        if not documents.column("id").equals(signals.column("id")):
            raise UserError("filter: the signals were measured on other documents; run the stage signals again")
        fired: list[list[str]] = [[] for _ in range(documents.num_rows)]
        reasons = [""] * documents.num_rows
        for table, rows, hits, values in judge(self.plan.rules, documents, signals, self.plan.config.seed):
            for index, rule in enumerate(self.plan.rules[table]):
                for hit in np.flatnonzero(hits[:, index]):
                    reasons[rows[hit]] = reasons[rows[hit]] or rule.signal
                    fired[rows[hit]].append(f"{rule} (is {values[hit, index]:.4g})")
        drops: list[Drop] = []
        counts: Counter[str] = Counter()
        for row, errors in enumerate(signals.column("errors").to_pylist()):
            counts.update(f"hit {rule.split(' ', 1)[0]}" for rule in fired[row])
            if len(fired[row]) == 1:
                counts[f"only {reasons[row]}"] += 1
            if fired[row]:
                drops.append(Drop(row, reasons[row], "; ".join(fired[row])))
            elif errors:
                drops.append(Drop(row, "signal_failed", errors.strip()))
        return Result(keep_rows(documents, drops), drops, counts)


class Judged(NamedTuple):
    """What the rules of a table say of its documents.

    Attributes:
        table: its name.
        rows: int64, which of the given documents they are.
        fired: bool [documents, rules], where a rule fires and doesn't spare the document.
        values: float64 [documents, rules], the rules' signals; NaN where null.
    """

    table: str
    rows: np.ndarray
    fired: np.ndarray
    values: np.ndarray


def judge(
    profile: Mapping[str, Sequence[Rule]],
    documents: pa.RecordBatch | pa.Table,
    signals: pa.RecordBatch | pa.Table,
    seed: int,
) -> Iterator[Judged]:
    """Applies a profile to documents by the table that each belongs to, in the order of the tables' names."""
    columns = (documents.column("kind"), documents.column("language"), signals.column("natural_language"))
    kinds = zip(*(column.to_pylist() for column in columns), strict=True)
    tables = np.array([table_of(kind, own, profile, prose or "") for kind, own, prose in kinds], object)
    ids = documents.column("id").to_pylist()
    for table in sorted(set(tables.tolist())):
        rows, rules = np.flatnonzero(tables == table), profile[table]
        values = np.full((len(rows), len(rules)), np.nan)
        fired = np.zeros(values.shape, bool)
        for index, rule in enumerate(rules):
            values[:, index] = signals.column(rule.signal).to_numpy(zero_copy_only=False)[rows]
            fired[:, index] = rule.fires(values[:, index])
            for hit in np.flatnonzero(fired[:, index]).tolist() if rule.spare else ():
                fired[hit, index] = uniform(ids[rows[hit]], rule.signal, seed) >= rule.spare
        yield Judged(table, rows, fired, values)


def run(documents: str, signals: str, output: str, config: FilterConfig, options: BeamOptions) -> Manifest:
    """Writes the documents within bounds.

    Args:
        documents: the directory of the documents.
        signals: that of their signals.

    Raises:
        UserError: a directory is missing or isn't finished, the profile is wrong, or the signals were measured by other
            definitions than those that it was made for.
    """
    require_definitions(config.profile, documents, signals)
    if unknown := set(config.without) - set(SIGNALS):
        raise UserError(f"FilterConfig.without: no signal is called {min(unknown)}")
    rules = load_profile(config.profile, set(SIGNALS))
    kept = {table: [rule for rule in each if rule.signal not in config.without] for table, each in rules.items()}
    plan = FilterRules(config, kept)
    tables = ("documents", "signals")
    return map_stage("filter", Filter(plan), [documents, signals], output, plan, options, input_tables=tables)


def require_definitions(profile: str, documents: str, signals: str) -> None:
    """Raises UserError where signals were measured by other definitions than those that a profile was made for."""
    needed, measured = required_definitions(profile), Manifest.read(signals).config.get("definitions", "older")
    if measured != needed:
        raise UserError(
            f"profile {profile} is made for the {needed} definitions, but the signals in {signals} are the {measured} "
            f"ones; run python -m beam_pipelines signals --gin.SignalsConfig.definitions=\"'{needed}'\" "
            f"--documents={documents} --output=ANOTHER_DIR, or choose another profile (--gin.FilterConfig.profile)"
        )
