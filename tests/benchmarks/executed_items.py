"""Items from the machine's own Python packages, without a teacher: how many a second, and what became of the others.

Run: python -m tests.benchmarks.executed_items [--source=DIR] [--megabytes=20] [--workers=2]

Reads Python files of a folder (the running Python's own library and packages), smallest first, and runs the kernels
of the stages `doctests` and `calls` on them, `workers` processes at once. An item is an assertion that passed twice: a
call of a function and what it returns. Beside the clock stands the processor time of all processes, which hardly
depends on what else the machine does.
"""

import argparse
import os
import resource
import sysconfig
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import pyarrow as pa

from opencoder_jax.beam_pipelines.core.documents import SCHEMA, document_id
from opencoder_jax.beam_pipelines.synthesis.doctests import DoctestConfig, RunDoctests
from opencoder_jax.beam_pipelines.synthesis.execution.calls import CallsConfig, RunCalls

BATCH = 1000  # files; a stage cuts its batches by megabytes


def documents(paths: Sequence[Path]) -> pa.RecordBatch:
    rows = []
    for path in paths:
        text = path.read_text(encoding="utf-8", errors="replace")
        row = {"id": document_id("here", str(path)), "text": text, "path": path.name, "repository": "here", "stars": 0}
        row |= {"commit_time": 0, "language": "Python", "kind": "code", "license": "", "source": "", "url": ""}
        rows.append(row | {"bytes": len(text)})
    return pa.RecordBatch.from_pylist(rows, schema=SCHEMA)


def work(stage: str, paths: Sequence[Path]) -> tuple[Counter[str], float]:
    """What a kernel counts, and the processor seconds that it and its sandbox took."""
    began = spent()
    kernel = RunDoctests(DoctestConfig()) if stage == "doctests" else RunCalls(CallsConfig())
    result = kernel(documents(paths))
    counts = Counter(result.counts)
    texts = result.table.column("text").to_pylist()
    counts["functions"], counts["items"] = len(texts), sum(text.count("\nassert ") for text in texts)
    return counts, spent() - began


def spent() -> float:
    usages = [resource.getrusage(whose) for whose in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--source", type=Path, default=Path(sysconfig.get_paths()["stdlib"]))
    parser.add_argument("--megabytes", type=float, default=20.0)
    parser.add_argument("--workers", type=int, default=os.cpu_count())
    flags = parser.parse_args()
    sizes = sorted((path.stat().st_size, path) for path in flags.source.rglob("*.py") if path.stat().st_size > 500)
    chosen, total = [], 0.0
    for size, path in sizes:
        if total < flags.megabytes * 1e6:
            chosen.append(path)
            total += size
    batches = [chosen[first :: -(-len(chosen) // BATCH)] for first in range(-(-len(chosen) // BATCH))]
    print(f"{len(chosen):,} files, {total / 1e6:.1f} MB, {flags.workers} workers", flush=True)
    for stage in ("doctests", "calls"):
        began = time.perf_counter()
        with ProcessPoolExecutor(flags.workers, get_context("spawn")) as workers:
            found = list(workers.map(work, [stage] * len(batches), batches))
        clock, processors = time.perf_counter() - began, sum(seconds for _, seconds in found)
        counts: Counter[str] = sum((each for each, _ in found), Counter())
        print(
            f"{stage}: {counts['items']:,} items of {counts['functions']:,} functions in {clock:.1f} s "
            f"({counts['items'] / clock:.0f} a second), {processors:.1f} s of the processors "
            f"({counts['items'] / processors:.0f} a second and core)"
        )
        for reason, count in counts.most_common():
            print(f"  {count:8,}  {reason}")


if __name__ == "__main__":
    main()
