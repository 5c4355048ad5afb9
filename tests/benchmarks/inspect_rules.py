"""The inspection of made-up corpora of growing size, in shards of one size: how fast it is, and what memory it takes.

Run: python -m tests.benchmarks.inspect_rules

Texts are short and signals are random numbers: neither matters to the time, which goes by documents and rules. Each
size runs in a process of its own, whose peak resident size is printed. Takes about a minute and 0.5 GB of disk.
"""

import resource
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from opencoder_jax.beam_pipelines.core.documents import SCHEMA, document_id, shard_name, write_shard
from opencoder_jax.beam_pipelines.core.manifest import Tally, digest
from opencoder_jax.beam_pipelines.core.runner import BeamOptions
from opencoder_jax.beam_pipelines.core.stage import Stage
from opencoder_jax.beam_pipelines.core.storage import Directory
from opencoder_jax.beam_pipelines.filtering.filter import FilterConfig
from opencoder_jax.beam_pipelines.filtering.rules import load_profile
from opencoder_jax.beam_pipelines.inspection.inspect_rules import addresses_shown, read_examples
from opencoder_jax.beam_pipelines.inspection.survey import survey
from opencoder_jax.beam_pipelines.signals.measure import SCHEMA as SIGNAL_SCHEMA
from opencoder_jax.beam_pipelines.signals.measure import SIGNALS

SHARD_ROWS = 25_000
SIZES = (50_000, 200_000, 400_000)


@dataclass(frozen=True)
class _NoConfig:
    pass


def make(place: Path, documents: int) -> None:
    """Writes documents and their signals as two finished stages."""
    chance = np.random.default_rng(0)
    shards = documents // SHARD_ROWS

    def batch(table: str, shard: int) -> pa.RecordBatch:
        ids = [document_id("made", f"{shard}/{row}.py") for row in range(SHARD_ROWS)]
        schema = SCHEMA if table == "documents" else SIGNAL_SCHEMA
        known = {"id": ids, "language": ["Python"] * SHARD_ROWS, "kind": ["code"] * SHARD_ROWS}
        columns = []
        for field in schema:
            if field.name in known:
                columns.append(pa.array(known[field.name], field.type))
            elif field.type == pa.float64():
                columns.append(pa.array(chance.random(SHARD_ROWS) ** 8))
            else:
                columns.append(pa.array([400 if field.type == pa.int64() else ""] * SHARD_ROWS, field.type))
        return pa.RecordBatch.from_arrays(columns, schema=schema)

    for table in ("documents", "signals"):

        def work(directory: Directory, table: str = table) -> tuple[Tally, dict[str, str]]:
            names = [shard_name(table, shard, shards) for shard in range(shards)]
            for shard, name in enumerate(names):
                one = batch(table, shard)
                write_shard(directory, name, [one], one.schema)
            return {}, {name: digest(directory, name) for name in names}

        Stage("given", "opencoder_jax.beam_pipelines.core.documents", _NoConfig(), (), str(place / table)).run(
            work, BeamOptions()
        )


def measure(place: Path) -> None:
    """Surveys one corpus and prints a row of figures."""
    start = time.perf_counter()
    profile = load_profile(FilterConfig().profile, set(SIGNALS))
    found = survey(str(place / "documents"), str(place / "signals"), profile, profile, 0, 20)
    read_examples(str(place / "documents"), addresses_shown(found))
    took = time.perf_counter() - start
    documents = sum(table.documents for table in found.tables)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
    print(f"{documents:10,} documents  {took:6.1f} s  {documents / took:10,.0f} documents/s  peak {peak:6.0f} MB")


def main() -> None:
    """Every size in a process of its own."""
    if len(sys.argv) > 1:
        measure(Path(sys.argv[1]))
        return
    for documents in SIZES:
        with tempfile.TemporaryDirectory() as folder:
            make(Path(folder), documents)
            subprocess.run([sys.executable, "-m", "tests.benchmarks.inspect_rules", folder], check=True)


if __name__ == "__main__":
    main()
