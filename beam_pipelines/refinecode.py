"""RefineCode's raw-code pipeline as one command: every stage from source code to the sampled corpus, resumable.

    python -m beam_pipelines refinecode --input=/path/to/repositories --output=runs/refinecode
    python -m beam_pipelines refinecode --source=tables --input=data/stack --output=runs/refinecode \\
        --gin.TablesConfig.preset=the_stack_v1

The order is OpenCoder's (paper section 2.1.3 and its figure of the pipeline): collect, exact duplicates, near
duplicates, redact, signals, filter, sample. Each stage is a command of its own that reads and writes directories below
`--output`; a stage that is up to date isn't run again, and one that was killed goes on where it stopped. Beam's flags
go to every stage, so the same command runs on this machine, Dataflow, Flink or Spark.

`--source` names the stage that it begins with, of opencoder_jax.beam_pipelines.sources: folders by default. Whichever it is, it
writes the directory `collect`.

In the end `refinecode.json` says in one place what every stage did: its configuration, what it read and wrote, and
where each document went. It depends on the input, the recipe and the code alone.
"""

import argparse
import difflib
import logging
import shlex
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace

from opencoder_jax.beam_pipelines.core.manifest import MANIFEST, Manifest
from opencoder_jax.beam_pipelines.core.runner import BeamOptions
from opencoder_jax.beam_pipelines.core.stage import command
from opencoder_jax.beam_pipelines.core.storage import Directory
from opencoder_jax.recipe import UserError, parse_flags

SUMMARY = "refinecode.json"


@dataclass(frozen=True)
class Step:
    """One stage of the chain.

    Attributes:
        title: for people.
        module: below beam_pipelines.
        name: of its directory, below that of the chain.
        inputs: names of the stages that it reads, in order.
    """

    title: str
    module: str
    name: str
    inputs: tuple[str, ...] = ()

    def arguments(self, output: str, flags: Sequence[str], sources: Sequence[str] = ()) -> list[str]:
        """The flags of its command.

        Args:
            output: the directory of the chain.
            flags: that every stage gets.
            sources: what the first stage reads.
        """
        root = output.rstrip("/")
        inputs = [f"{root}/{name}" for name in self.inputs] or list(sources)
        return [*flags, *(f"--input={place}" for place in inputs), f"--output={root}/{self.name}"]


STEPS = (
    Step("collect source files", "sources.collect", "collect"),
    Step("drop exact duplicates", "code.exact_duplicates", "exact_duplicates", ("collect",)),
    Step("drop near duplicates", "code.near_duplicates", "near_duplicates", ("exact_duplicates",)),
    Step("redact notices and secrets", "code.redact", "redact", ("near_duplicates",)),
    Step("compute signals", "code.signals", "signals", ("redact",)),
    Step("filter by rules", "code.filter", "filter", ("redact", "signals")),
    Step("sample languages", "code.sample", "sample", ("filter",)),
)

# What the chain may begin with, by modules of opencoder_jax.beam_pipelines.sources.
SOURCES = {
    "collect": STEPS[0].title,
    "git_repositories": "collect files of git repositories",
    "archives": "collect files of archives",
    "tables": "collect documents of tables",
    "join_metadata": "join metadata with a corpus",
}


def chain(source: str) -> tuple[Step, ...]:
    """The stages from a source on.

    Raises:
        UserError: there is no such source.
    """
    if source not in SOURCES:
        near = difflib.get_close_matches(source, SOURCES, 1)
        raise UserError(
            f"source {source}: not known; "
            + (f"did you mean {near[0]}?" if near else f"choose of {', '.join(SOURCES)}")
        )
    return (replace(STEPS[0], title=SOURCES[source], module=f"sources.{source}"), *STEPS[1:])


def main(argv: list[str]) -> None:
    """Runs the stages that aren't up to date, writes the summary and prints a line a stage.

    Raises:
        UserError: an input, a recipe or a flag is wrong; stages that were finished stay.
    """
    parser = argparse.ArgumentParser(
        prog="python -m beam_pipelines refinecode",
        description=(__doc__ or "").split("\n\n", 1)[0],
        epilog="Example: python -m beam_pipelines refinecode --input=/path/to/repositories --output=runs/refinecode\n"
        "Beam's flags pass through: --runner=…",
        allow_abbrev=False,
    )
    parser.add_argument(
        "--source",
        default="collect",
        metavar="NAME",
        help=f"of opencoder_jax.beam_pipelines.sources: {', '.join(SOURCES)}; the first, folders, by default",
    )
    parser.add_argument(
        "--input",
        action="append",
        default=[],
        metavar="DIR",
        help="what the source reads; of folders, the running Python's own by default",
    )
    parser.add_argument("--output", required=True, metavar="DIR", help="the directory of all stages")
    flags, rest = parse_flags(parser, argv)
    steps = chain(flags.source)
    BeamOptions(tuple(rest))  # an unknown flag is an error before the first stage
    gin = [f"--gin_file={file}" for file in flags.gin_file or [DEFAULT_RECIPE]]
    shared = [*gin, *(argument for argument in argv if argument.startswith("--gin.")), *rest]
    logging.getLogger("apache_beam").setLevel(logging.CRITICAL)
    seconds: dict[str, float] = {}
    for number, step in enumerate(steps, 1):
        arguments = step.arguments(flags.output, shared, flags.input)
        print(f"[{number}/{len(steps)}] {step.title}", file=sys.stderr, flush=True)
        print(f"  python -m beam_pipelines.{step.module} {shlex.join(arguments)}", file=sys.stderr, flush=True)
        began = time.perf_counter()
        command(f"opencoder_jax.beam_pipelines.{step.module}", arguments)
        seconds[step.name] = time.perf_counter() - began
    write_summary(flags.output)
    print(throughput(flags.output, seconds))


DEFAULT_RECIPE = "gin_configs/data/pipelines.gin"


def write_summary(output: str) -> None:
    """Writes refinecode.json: every stage's manifest without its list of files, but with their fingerprint."""
    stages = []
    for step in STEPS:
        manifest = Manifest.read(f"{output.rstrip('/')}/{step.name}")
        known = {key: value for key, value in asdict(manifest).items() if key != "files"}
        stages.append({"directory": step.name, "fingerprint": manifest.fingerprint, **known})
    directory = Directory(output)
    summary = {"stages": stages, "output": f"{STEPS[-1].name}/{MANIFEST}"}
    if not directory.exists(SUMMARY) or directory.read_json(SUMMARY) != summary:
        directory.write_json(SUMMARY, summary)


def throughput(output: str, seconds: dict[str, float]) -> str:
    """A table of what came into each stage and how fast it went; a stage that was up to date takes no time."""
    lines = [f"{'stage':18}{'documents in':>14}{'out':>12}{'MB in':>10}{'out':>10}{'seconds':>10}{'MB/s':>8}"]
    for step in STEPS:
        manifest = Manifest.read(f"{output.rstrip('/')}/{step.name}")
        documents, size = ([manifest.total(side, what) for side in ("in", "out")] for what in ("documents", "bytes"))
        took = seconds[step.name]
        lines.append(
            f"{step.name:18}{documents[0]:14,}{documents[1]:12,}{size[0] / 1e6:10.1f}{size[1] / 1e6:10.1f}"
            f"{took:10.1f}{size[0] / 1e6 / took:8.1f}"
        )
    return "\n".join(lines)
