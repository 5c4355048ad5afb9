"""What was removed and why, for people: `removed.jsonl`, a line a document, and `removed.html`, by problem."""

import json
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from typing import Any

from opencoder_jax.beam_pipelines.core.documents import read_shard
from opencoder_jax.beam_pipelines.core.manifest import Manifest
from opencoder_jax.beam_pipelines.core.storage import Directory
from opencoder_jax.beam_pipelines.decontamination.programs import programs
from opencoder_jax.benchmarks.problems import Problem
from opencoder_jax.reports.page import (
    Content,
    Html,
    element,
    fold,
    markup,
    megabytes,
    note,
    page,
    paragraph,
    section,
    table,
)

LINES, PAGE = "removed.jsonl", "removed.html"

_EXAMPLES = 20  # documents of a problem that the page shows

RULES = {
    "benchmark_ngram": "words in common",
    "benchmark_solution": "a solution, whatever its names",
    "benchmark_entry_point": "the entry point's name",
}

Removal = dict[str, Any]


def write_review(output: str, manifest: Manifest, problems: Sequence[Problem]) -> None:
    """Writes both files from a finished stage's drops, unless they are there."""
    directory = Directory(output)
    if {LINES, PAGE} <= set(directory.names()):
        return
    counts: Counter[tuple[str, str]] = Counter()
    examples: dict[tuple[str, str], list[Removal]] = defaultdict(list)
    totals: Counter[tuple[str, str]] = Counter()
    with directory.atomic(LINES) as stream:
        for removal in removals(output, manifest):
            stream.write((json.dumps(removal, ensure_ascii=False) + "\n").encode())
            problem = (removal["benchmark"], removal["task"])
            counts[removal["benchmark"], removal["reason"]] += 1
            totals[problem] += 1
            if len(examples[problem]) < _EXAMPLES:
                examples[problem].append(removal)
    directory.write_bytes(PAGE, _page(manifest, problems, counts, totals, examples).encode())


def removals(output: str, manifest: Manifest) -> Iterator[Removal]:
    """The documents that the stage removed, in their order, with the evidence."""
    for name in manifest.shards("drops"):
        for batch in read_shard(Directory(output), name):
            for row in batch.to_pylist():
                yield row | json.loads(row.pop("detail"))


def _page(
    manifest: Manifest,
    problems: Sequence[Problem],
    counts: Counter[tuple[str, str]],
    totals: Counter[tuple[str, str]],
    examples: dict[tuple[str, str], list[Removal]],
) -> Html:
    benchmarks = list(dict.fromkeys(problem.benchmark for problem in problems))
    leaked = Counter(benchmark for benchmark, _ in totals)
    rows: list[tuple[Content, ...]] = [
        (
            element("a", benchmark, href=f"#{benchmark}") if leaked[benchmark] else benchmark,
            sum(problem.benchmark == benchmark for problem in problems),
            leaked[benchmark],
            *(counts[benchmark, rule] for rule in RULES),
        )
        for benchmark in benchmarks
    ]
    before, after = manifest.total("in", "documents"), manifest.total("out", "documents")
    size = megabytes(manifest.total("in", "bytes") - manifest.total("out", "bytes"))
    opening = markup(
        paragraph(
            f"{before - after:,} of {before:,} documents ({size} MB) give away an evaluation problem and were removed. "
            "A document counts once, for the first problem that was found in it and the first rule that found it."
        ),
        table("lrrrrr", ("benchmark", "problems", "that leaked", *RULES.values()), rows),
        note(f"Each removed document is a line of {LINES}; this page shows at most {_EXAMPLES} of a problem."),
    )
    known = {(problem.benchmark, problem.task): problem for problem in problems}

    def leaks(benchmark: str) -> list[Html]:
        keys = sorted((key for key in totals if key[0] == benchmark), key=lambda key: (-totals[key], key))
        return [_problem(known[key], totals[key], examples[key]) for key in keys]

    sections = [section(benchmark, benchmark, *leaks(benchmark)) for benchmark in benchmarks if leaked[benchmark]]
    return page("What decontamination removed", opening, sections)


def _problem(problem: Problem, count: int, examples: Sequence[Removal]) -> Html:
    solutions = list(programs(problem))[:1]
    own = [*(text for text in problem.texts[:1] if not any(text in code for code in solutions)), *solutions]
    shown = [
        fold(
            f"{removal['repository']}/{removal['path']}:{removal['line']} – {RULES[removal['reason']]}",
            element("pre", removal["text"]),
            *([note("Also: ", ", ".join(removal["others"]))] if removal["others"] else []),
        )
        for removal in examples
    ]
    name = problem.task + (f" {problem.entry_point}" if problem.entry_point else "")
    return fold(f"{name}: {count:,}", fold("the problem", element("pre", "\n\n".join(own))), *shown)
