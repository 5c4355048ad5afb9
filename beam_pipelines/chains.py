"""What the chains of stages share that are one command: their flags, their summary, how fast each stage went."""

import argparse
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict
from typing import Any

from opencoder_jax.beam_pipelines.command import add_accept, beam_options
from opencoder_jax.beam_pipelines.core.manifest import MANIFEST, Manifest
from opencoder_jax.beam_pipelines.core.storage import Directory
from opencoder_jax.chain import Step, run_chain
from opencoder_jax.recipe import UserError, parse_flags

# The file of each chain, by its verb, that says in one place what all stages did.
SUMMARIES = {"refinecode": "refinecode.json", "web": "web.json"}


def chain_parser(verb: str, description: str | None, example: str) -> argparse.ArgumentParser:
    """The parser of a chain's command, without flags yet; the first paragraph of its docstring describes it."""
    return argparse.ArgumentParser(
        prog=f"python -m beam_pipelines {verb}",
        description=(description or "").split("\n\n", 1)[0],
        epilog=f"Example: python -m beam_pipelines {verb} {example}\nBeam's flags pass through: --runner=…",
    )


def parse_chain(
    parser: argparse.ArgumentParser, argv: Sequence[str], recipe: str
) -> tuple[argparse.Namespace, list[str]]:
    """Adds the flags that every chain has, and parses.

    Args:
        recipe: the gin file where none is given.

    Returns:
        The flags, --output without a slash at its end, and what every stage is called with.

    Raises:
        UserError: a flag is unknown or wrong: an error before the first stage.
    """
    parser.add_argument("--output", required=True, metavar="DIR", help="the directory of all stages")
    add_accept(parser)
    flags, rest = parse_flags(parser, argv)
    beam_options(parser, rest, flags.accept)
    flags.output = flags.output.rstrip("/")
    gin = [f"--gin_file={file}" for file in flags.gin_file or [recipe]]
    return flags, [*gin, *(argument for argument in argv if argument.startswith("--gin.")), *rest]


def run_stages(chain: Sequence[Step], accept: Sequence[str], output: str, summary: str) -> str:
    """Runs the stages that aren't up to date, writes the summary's file, and returns a table of what went how fast."""
    seconds = {step.output: took for step, took in run_chain(chain, accept) if took is not None}
    _write_summary(output, summary, chain)
    lines = [f"{'stage':18}{'documents in':>14}{'out':>12}{'MB in':>10}{'out':>10}{'seconds':>10}{'MB/s':>8}"]
    for step in chain:
        manifest = Manifest.read(step.output)
        documents, size = ([manifest.total(side, what) for side in ("in", "out")] for what in ("documents", "bytes"))
        took = seconds.get(step.output)  # a stage that was up to date has no time
        speed = f"{took:10.1f}{size[0] / 1e6 / took:8.1f}" if took else f"{'-':>10}{'-':>8}"
        lines.append(
            f"{step.name:18}{documents[0]:14,}{documents[1]:12,}{size[0] / 1e6:10.1f}{size[1] / 1e6:10.1f}{speed}"
        )
    return "\n".join(lines)


def _write_summary(output: str, name: str, chain: Sequence[Step]) -> None:
    directory = Directory(output)
    summary = summary_of(output, [step.output.removeprefix(f"{output}/") for step in chain])
    with suppress(FileNotFoundError, UserError):  # the first one, or a damaged one
        if directory.read_sealed(name) == summary:
            return
    directory.write_sealed(name, summary)


def summary_of(output: str, stages: Sequence[str]) -> dict[str, Any]:
    """The manifests of stages, by their places below `output`, without lists of files, but with fingerprints."""
    told = []
    for place in stages:
        manifest = Manifest.read(f"{output}/{place}")
        known = {key: value for key, value in asdict(manifest).items() if key not in ("files", "sizes", "stale")}
        told.append({"directory": place, "fingerprint": manifest.fingerprint, **known})
    return {"stages": told, "output": f"{told[-1]['directory']}/{MANIFEST}"}
