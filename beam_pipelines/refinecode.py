"""RefineCode's raw-code pipeline as one command: from source code to the sampled corpus, resumable.

    python -m beam_pipelines refinecode --folders=/path/to/repositories --output=runs/refinecode
    python -m beam_pipelines refinecode --tables=data/stack --output=runs/refinecode \\
        --gin.TablesConfig.preset=the_stack_v1

The order is OpenCoder's (paper section 2.1.3 and its figure of the pipeline): collect, exact duplicates, near
duplicates, redact, signals, filter, sample. Each stage is a command of its own that reads and writes directories below
`--output`; a stage that is up to date isn't run again, and one that was killed goes on where it stopped. Beam's flags
go to every stage, so the same command runs on this machine, Dataflow or Flink.

The inputs say which source it begins with: whatever that is, it writes the directory `collect`. Without one, it's the
folders of the running Python's own library and packages.

In the end `refinecode.json` says in one place what every stage did: its configuration, what it read and wrote, and
where each document went. It depends on the input, the recipe and the code alone.
"""

import argparse
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from typing import Any

from opencoder_jax.beam_pipelines.core.command import add_accept, beam_options
from opencoder_jax.beam_pipelines.core.manifest import MANIFEST, Manifest
from opencoder_jax.beam_pipelines.core.storage import Directory
from opencoder_jax.chain import PIPELINES, Step, run_chain, stage, verbs_of
from opencoder_jax.recipe import UserError, parse_flags

SUMMARY = "refinecode.json"
DEFAULT_RECIPE = "gin_configs/data/pipelines.gin"

# What the chain may begin with, by verbs, and what that step is called. The first is the default.
SOURCES = {
    "collect": "collect source files",
    "git_repositories": "collect files of git repositories",
    "archives": "collect files of archives",
    "tables": "collect documents of tables",
    "join_metadata": "join metadata with a corpus",
}


def steps(
    output: str, flags: Sequence[str], source: str = "collect", inputs: Mapping[str, Sequence[str]] | None = None
) -> list[Step]:
    """The stages from a source on, in order.

    Args:
        output: the directory of the chain.
        flags: that every stage gets.
        source: of SOURCES.
        inputs: what the source reads, by the names of its flags.
    """

    def then(title: str, verb: str, *, documents: str, **others: str) -> Step:
        return stage(title, verb, f"{output}/{verb}", flags, documents=documents, **others)

    return [
        stage(SOURCES[source], source, f"{output}/collect", flags, **(inputs or {})),
        then("drop exact duplicates", "exact_duplicates", documents=f"{output}/collect"),
        then("drop near duplicates", "near_duplicates", documents=f"{output}/exact_duplicates"),
        then("redact notices and secrets", "redact", documents=f"{output}/near_duplicates"),
        then("compute signals", "signals", documents=f"{output}/redact"),
        then("filter by rules", "filter", documents=f"{output}/redact", signals=f"{output}/signals"),
        then("sample languages", "sample", documents=f"{output}/filter"),
    ]


def main(argv: list[str]) -> None:
    """Runs the stages that aren't up to date, writes the summary and prints a line a stage.

    Raises:
        UserError: an input, a recipe or a flag is wrong; stages that were finished stay.
    """
    parser = argparse.ArgumentParser(
        prog="python -m beam_pipelines refinecode",
        description=(__doc__ or "").split("\n\n", 1)[0],
        epilog="Example: python -m beam_pipelines refinecode --folders=/path/to/repositories --output=runs/refinecode\n"
        "Beam's flags pass through: --runner=…",
    )
    verbs = verbs_of(PIPELINES)
    for source in SOURCES:
        for name, meaning in verbs[source].inputs.items():
            told = f"{meaning}; repeatable" if name != "corpus" else f"with --metadata: {meaning}; repeatable"
            parser.add_argument(f"--{name}", action="append", default=[], metavar="DIR", help=told)
    parser.add_argument("--output", required=True, metavar="DIR", help="the directory of all stages")
    add_accept(parser)
    flags, rest = parse_flags(parser, argv)
    beam_options(parser, rest, flags.accept)  # an unknown flag is an error before the first stage
    gin = [f"--gin_file={file}" for file in flags.gin_file or [DEFAULT_RECIPE]]
    shared = [*gin, *(argument for argument in argv if argument.startswith("--gin.")), *rest]
    source, inputs = chosen_source(vars(flags))
    chain = steps(flags.output.rstrip("/"), shared, source, inputs)
    seconds = {step.output: took for step, took in run_chain(chain, flags.accept) if took is not None}
    write_summary(flags.output, chain)
    print(throughput(chain, seconds))


def chosen_source(flags: Mapping[str, Sequence[str]]) -> tuple[str, dict[str, Sequence[str]]]:
    """The source whose inputs were given, and these.

    Raises:
        UserError: inputs of two sources were given.
    """
    verbs = verbs_of(PIPELINES)
    given = {source: {name: flags[name] for name in verbs[source].inputs if flags[name]} for source in SOURCES}
    found = [source for source, inputs in given.items() if inputs]
    if len(found) > 1:
        names = " and ".join(f"--{name}" for source in found for name in given[source])
        raise UserError(f"{names}: a chain begins with one source; run the others alone, or give one of them")
    source = found[0] if found else next(iter(SOURCES))
    return source, given[source]


def write_summary(output: str, chain: Sequence[Step]) -> None:
    """Writes refinecode.json."""
    directory, summary = Directory(output), summary_of([step.output for step in chain])
    with suppress(FileNotFoundError, UserError):  # the first one, or a damaged one
        if directory.read_sealed(SUMMARY) == summary:
            return
    directory.write_sealed(SUMMARY, summary)


def summary_of(stages: Sequence[str]) -> dict[str, Any]:
    """The manifests of stages without their lists of files, but with their fingerprints."""
    told = []
    for place in stages:
        manifest = Manifest.read(place)
        known = {key: value for key, value in asdict(manifest).items() if key not in ("files", "sizes", "stale")}
        told.append({"directory": place.rsplit("/", 1)[-1], "fingerprint": manifest.fingerprint, **known})
    return {"stages": told, "output": f"{told[-1]['directory']}/{MANIFEST}"}


def throughput(chain: Sequence[Step], seconds: Mapping[str, float]) -> str:
    """A table of what came into each stage and how fast it went; a stage that was up to date has no time."""
    lines = [f"{'stage':18}{'documents in':>14}{'out':>12}{'MB in':>10}{'out':>10}{'seconds':>10}{'MB/s':>8}"]
    for step in chain:
        manifest = Manifest.read(step.output)
        documents, size = ([manifest.total(side, what) for side in ("in", "out")] for what in ("documents", "bytes"))
        took = seconds.get(step.output)
        speed = f"{took:10.1f}{size[0] / 1e6 / took:8.1f}" if took else f"{'-':>10}{'-':>8}"
        lines.append(
            f"{step.name:18}{documents[0]:14,}{documents[1]:12,}{size[0] / 1e6:10.1f}{size[1] / 1e6:10.1f}{speed}"
        )
    return "\n".join(lines)
