"""Decontamination: no document that gives away an evaluation problem stays in training data.

OpenCoder has two rules (section 3.1): a 10-gram shared with a problem, and the name of its entry point. The paper
leaves open how words are cut, how many grams it takes, and how names as common as `add` are spared; words.py beside
this module says how it is done here. A third rule finds solutions whose variables were renamed (solutions.py). All of a
problem counts, what is asked, its solutions and its tests, and each alone; but what everybody writes doesn't
(boilerplate.toml).

    python -m beam_pipelines decontaminate --documents=DIR --output=DIR \\
        --gin.DecontaminateConfig.benchmarks="('HumanEval.jsonl.gz', 'mbpp.jsonl')"

It prints which fields of each file it read and which not, and how many problems lack a text, solutions or tests. Beside
the documents it writes what it removed, for review: `removed.jsonl`, a line a document with the problem and the
matching text, and `removed.html`.
"""

import sys
from dataclasses import asdict, dataclass

from opencoder_jax.beam_pipelines.core.manifest import Manifest
from opencoder_jax.beam_pipelines.core.maps import map_stage
from opencoder_jax.beam_pipelines.core.runner import BeamOptions
from opencoder_jax.beam_pipelines.core.storage import Directory
from opencoder_jax.beam_pipelines.decontamination.leaks import INDEX, Decontaminate, DecontaminateConfig
from opencoder_jax.beam_pipelines.decontamination.review import write_review


@dataclass(frozen=True)
class Identity:
    """The configuration as the manifest holds it: files by name and content, wherever they lie."""

    benchmarks: tuple[tuple[str, str], ...]
    rules: dict[str, object]


def run(documents: str, output: str, config: DecontaminateConfig, options: BeamOptions) -> Manifest:
    """Writes the documents without those that leak a problem of `config.benchmarks`.

    Args:
        documents: what is cleaned.
    """
    benchmarks = config.read()
    for benchmark in benchmarks:
        print(f"decontaminate: {benchmark.told}", file=sys.stderr)
    rules = asdict(config) | config.fields()._asdict()
    del rules["benchmarks"]
    identity = Identity(tuple((benchmark.name, benchmark.sha256) for benchmark in benchmarks), rules)
    kernel = Decontaminate(config, benchmarks, output)
    manifest = map_stage("decontaminate", kernel, [documents], output, identity, options, megabytes_per_second=10.0)
    Directory(output).remove(INDEX)
    write_review(output, manifest, kernel.problems)  # also where the stage was up to date, and no part of what it is
    return manifest
