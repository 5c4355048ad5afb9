"""python -m opencoder_jax cookbook: the whole recipe on this machine, from source files to a tuned model.

Run again, it redoes nothing; killed anywhere, it goes on where it stopped; with another recipe, source or code, it
redoes the steps that this changes (opencoder_jax/chain.py).
"""

import argparse
import logging
import sys
import time
from pathlib import Path

from opencoder_jax.beam_pipelines.web.report import write_page
from opencoder_jax.chain import Step, run_chain
from opencoder_jax.cookbook.corpus_size import small_corpus_warning
from opencoder_jax.cookbook.report import write_report
from opencoder_jax.cookbook.steps import RECORDS, ROUNDS, CookbookConfig, steps
from opencoder_jax.files import read_json, write_json
from opencoder_jax.recipe import build, parse_flags, refuse_unknown

TIMINGS = "timings.json"


def main(argv: list[str]) -> None:
    """Runs every step that isn't up to date, then writes the report."""
    parser = argparse.ArgumentParser(
        prog="python -m opencoder_jax cookbook",
        description=(__doc__ or "").split("\n\n", 1)[0],
        epilog="Example: python -m opencoder_jax cookbook --source=/path/to/repositories --output=runs/cookbook",
    )
    parser.add_argument(
        "--source", action="append", default=[], metavar="DIR", help="source code; the running Python's own by default"
    )
    parser.add_argument("--output", type=Path, default=Path("runs/cookbook"), metavar="DIR", help="the run's directory")
    parser.add_argument(
        "--accept",
        action="append",
        default=[],
        metavar="STEP",
        help="keeps the older output of this step, by the name of its directory; repeatable",
    )
    flags, rest = parse_flags(parser, argv)
    refuse_unknown(parser, rest)
    logging.getLogger("absl").setLevel(logging.ERROR)
    overrides = [argument for argument in argv if argument.startswith("--gin.")]
    config = build(CookbookConfig)
    recipe = steps(config, str(flags.output), flags.source, overrides)
    for step, seconds in run_chain(recipe, flags.accept, config.processes):
        if seconds is not None:
            note_time(flags.output, step, seconds)
        if step.output == f"{flags.output}/web/recalled":
            write_page(f"{flags.output}/web", ROUNDS)
        if step.name == RECORDS[0] and (warning := small_corpus_warning(flags.output)):
            print(f"warning: {warning}", file=sys.stderr, flush=True)
    print(f"report: {write_report(flags.output, recipe)}")


def note_time(run: Path, step: Step, seconds: float) -> None:
    """Keeps when a step that has just ended ran, for the report; of one that went on after a kill, its last part."""
    ended = time.time()
    ran = {str(Path(step.output).relative_to(run)): [round(ended - seconds, 1), round(ended, 1)]}
    write_json(run / TIMINGS, read_json(run / TIMINGS, {}) | ran)
