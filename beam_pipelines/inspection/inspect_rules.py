"""Shows what a profile of thresholds does, rule by rule: pages with pictures and examples, for tuning thresholds.

    python -m beam_pipelines inspect --documents=runs/refinecode/redact --signals=runs/refinecode/signals \
        --output=runs/inspect --gin.FilterConfig.profile=PROFILE --gin.InspectConfig.compare=PROFILE

OpenCoder's authors tuned each rule by the documents that only it catches, and by those at both ends of its signal
(paper section 2.1.3 and appendix). The signals are measured once and only read here, so a changed profile shows in
seconds. `index.html` has the counts and pictures of every table, and a page for each rule has the examples;
`InspectConfig.compare` adds the documents that another profile would treat otherwise. The same input gives the same
bytes.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import pyarrow.parquet as pq

from opencoder_jax.beam_pipelines.core.documents import unpack_addresses
from opencoder_jax.beam_pipelines.core.manifest import Manifest, Tally, digest, open_finished
from opencoder_jax.beam_pipelines.core.runner import BeamOptions
from opencoder_jax.beam_pipelines.core.stage import Stage, input_shards
from opencoder_jax.beam_pipelines.core.storage import Directory
from opencoder_jax.beam_pipelines.filtering.filter import FilterConfig, require_definitions
from opencoder_jax.beam_pipelines.filtering.rules import Rule, load_profile
from opencoder_jax.beam_pipelines.inspection.pages import Example, pages
from opencoder_jax.beam_pipelines.inspection.survey import Survey, survey
from opencoder_jax.beam_pipelines.signals.measure import SIGNALS
from opencoder_jax.checks import at_least, check
from opencoder_jax.recipe import configurable

HEAD_CHARACTERS = 3000  # of an example's text


@configurable
@dataclass(frozen=True)
class InspectConfig:
    """What is shown.

    Attributes:
        examples: documents in each list: those that only one rule catches, those near a threshold, the extreme ones.
        compare: another profile to compare with: its name, or a folder's path; "" for none.
    """

    examples: int = 20
    compare: str = ""

    def __post_init__(self) -> None:
        check(self, examples=at_least(1))


@dataclass(frozen=True)
class InspectedRules:
    """All that the pages depend on beside the input, so that a changed rule makes them anew."""

    inspect: InspectConfig
    filter: FilterConfig
    rules: dict[str, list[Rule]]
    other: dict[str, list[Rule]] | None


def run(
    documents: str, signals: str, output: str, config: InspectConfig, filtering: FilterConfig, options: BeamOptions
) -> Manifest:
    """Writes the pages.

    Args:
        documents: the directory of the documents.
        signals: that of their signals.
        filtering: the profile, and the seed of rules that spare documents.

    Raises:
        UserError: a directory is missing, isn't finished or holds something else, a profile is wrong, or the signals
            were measured by other definitions than those that it was made for.
    """
    input_shards(documents)
    input_shards(signals, "signals")
    for profile in filter(None, (filtering.profile, config.compare)):
        require_definitions(profile, documents, signals)
    rules = load_profile(filtering.profile, set(SIGNALS))
    other = load_profile(config.compare, set(SIGNALS)) if config.compare else None

    def work(directory: Directory) -> tuple[Tally, dict[str, str]]:
        found = survey(documents, signals, rules, other, filtering.seed, config.examples)
        texts = read_examples(documents, addresses_shown(found))
        names = []
        for name, page in pages(found, texts, filtering.profile, config.compare or None):
            directory.write_bytes(name, page.encode("utf-8", "replace"))
            names.append(name)
        return _tally(found), {name: digest(directory, name) for name in sorted(names)}

    plan = InspectedRules(config, filtering, rules, other)
    manifest = Stage("inspect", __name__, plan, (documents, signals), output).run(work, options)
    print(f"{output.rstrip('/')}/index.html")
    return manifest


def addresses_shown(found: Survey) -> set[int]:
    """The documents that any page shows."""
    lists = [shown for table in found.tables for rule in table.rules for shown in rule.shown()]
    if found.comparison is not None:
        lists += [change.shown for change in found.comparison.changes.values()]
    return {address for shown in lists for address, _ in shown}


def read_examples(documents: str, wanted: Iterable[int]) -> dict[int, Example]:
    """Documents by their addresses, with the heads of their texts; reads the row groups that hold them and no other."""
    names = input_shards(documents)
    packed = np.array(sorted(wanted), np.uint64)
    shards, rows = unpack_addresses(packed)
    examples: dict[int, Example] = {}
    for shard in np.unique(shards).tolist():
        mine = shards == shard
        with open_finished(Directory(documents), names[shard]) as stream:
            file, first = pq.ParquetFile(stream), 0
            for group in range(file.num_row_groups):
                size = file.metadata.row_group(group).num_rows
                here = np.flatnonzero(mine & (rows >= first) & (rows < first + size))
                if len(here):
                    columns = ["path", "repository", "language", "bytes", "text"]
                    chosen = file.read_row_group(group, columns=columns).take(rows[here] - first)
                    for address, row in zip(packed[here].tolist(), chosen.to_pylist(), strict=True):
                        head = row.pop("text")
                        examples[address] = Example(**row, head=head[:HEAD_CHARACTERS], cut=len(head) > HEAD_CHARACTERS)
                first += size
    return examples


def _tally(found: Survey) -> Tally:
    """Counts by table, and each rule's as the filter stage names them."""
    counts: Counter[str] = Counter()
    for rule in (rule for table in found.tables for rule in table.rules):
        counts.update({f"hit {rule.rule.signal}": rule.hits, f"only {rule.rule.signal}": rule.only})
    names = [table.name for table in found.tables]

    def side(*columns: list[int]) -> Tally:
        return {
            what: dict(zip(names, column, strict=True))
            for what, column in zip(("documents", "bytes"), columns, strict=True)
        }

    return {
        "in": side([table.documents for table in found.tables], [table.bytes for table in found.tables]),
        "out": side([table.kept for table in found.tables], [table.kept_bytes for table in found.tables]),
        # What the rules would drop is only read here.
        "read": {"documents": {table.name: table.documents - table.kept for table in found.tables}},
        "count": dict(+counts),
    }
