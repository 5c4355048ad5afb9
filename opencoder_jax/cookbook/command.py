"""python -m opencoder_jax cookbook: the whole recipe on this machine, from source files to a tuned model.

Run again, it redoes nothing; killed anywhere, it goes on where it stopped; with another recipe, source or code, it
redoes the steps that this changes. Data stages hold to that themselves (beam_pipelines/core/stage.py); for training and
evaluation it's held here, by a `step.json` in each output.
"""

import argparse
import importlib
import json
import logging
import shutil
import sys
import time
from pathlib import Path

import xxhash

from opencoder_jax.beam_pipelines.core import stage
from opencoder_jax.beam_pipelines.core.manifest import MANIFEST, Manifest, code_version
from opencoder_jax.cookbook.report import write_report
from opencoder_jax.cookbook.steps import CookbookConfig, Step, steps
from opencoder_jax.recipe import UserError, build, gin_text, parse_flags, refuse_unknown

STEP = "step.json"


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
    flags, rest = parse_flags(parser, argv)
    refuse_unknown(parser, rest)
    logging.getLogger("absl").setLevel(logging.ERROR)
    overrides = [argument for argument in argv if argument.startswith("--gin.")]
    recipe = steps(build(CookbookConfig), flags.output, flags.source, overrides)
    for number, step in enumerate(recipe, 1):
        print(f"[{number}/{len(recipe)}] {step.title}", file=sys.stderr, flush=True)
        began = time.perf_counter()
        if run(step):
            note_time(flags.output, step, time.perf_counter() - began)
    print(f"report: {write_report(flags.output, recipe)}")


def run(step: Step) -> bool:
    """Runs a step unless it's up to date; whether it did anything."""
    if step.module.startswith("opencoder_jax.beam_pipelines."):
        return run_stage(step)
    key = step_key(step)
    marker = step.output / STEP
    known = json.loads(marker.read_text()) if marker.exists() else {}
    if known == key | {"finished": True}:
        print(f"{step.title}: up to date", file=sys.stderr)
        return False
    if known != key | {"finished": False}:
        clear(step.output)
    write_json(marker, key | {"finished": False})
    package, verb = step.module.split()
    importlib.import_module(f"{package}.__main__").main([verb, *step.arguments])
    write_json(marker, key | {"finished": True})
    return True


def clear(output: Path) -> None:
    """Deletes what another recipe left in a step's output.

    Raises:
        UserError: the directory holds something that no step of ours wrote.
    """
    stale = output.with_name(f"{output.name}.stale")
    if stale.exists():  # killed while it was being deleted
        shutil.rmtree(stale)
    if not output.exists():
        return
    if not (output / STEP).exists() and {path.name for path in output.iterdir()} - {f"{STEP}.writing"}:
        raise UserError(f"{output}: holds files that the cookbook didn't write; move them, or give another --output")
    output.rename(stale)
    shutil.rmtree(stale)


def run_stage(step: Step) -> bool:
    """Runs a data stage, which knows itself whether it's up to date."""
    manifest = step.output / MANIFEST
    before = manifest.stat().st_mtime_ns if manifest.exists() else None
    stage.command(step.module, list(step.arguments))
    return manifest.stat().st_mtime_ns != before


def step_key(step: Step) -> dict[str, object]:
    """What a step's output depends on: its recipe, its inputs' contents, its code; not where they lie."""
    files = [argument.split("=", 1)[1] for argument in step.arguments if argument.startswith("--gin_file=")]
    overrides = [argument for argument in step.arguments if argument.startswith("--gin.")]
    _, verb = step.module.split()
    return {
        "step": step.title,
        "recipe": digest("\n".join([*map(gin_text, files), *overrides])),
        "inputs": [fingerprint(path) for path in step.inputs],
        "code": code_version(importlib.import_module("opencoder_jax.__main__").VERBS[verb].module),
    }


def fingerprint(output: Path) -> str:
    """The content of an earlier step's output, by what it says of itself."""
    if (output / MANIFEST).exists():
        return Manifest.read(str(output)).fingerprint
    return digest((output / STEP).read_text())


def note_time(run: Path, step: Step, seconds: float) -> None:
    """Keeps how long a step took, for the report; a step that went on after a kill counts its last part."""
    path = run / "timings.json"
    timings = json.loads(path.read_text()) if path.exists() else {}
    write_json(path, timings | {str(step.output.relative_to(run)): round(seconds, 1)})


def write_json(path: Path, value: object) -> None:
    """Whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.name}.writing")
    temporary.write_text(json.dumps(value, indent=1, sort_keys=True) + "\n")
    temporary.replace(path)


def digest(text: str) -> str:
    """128 bits of a text, in hexadecimal."""
    return xxhash.xxh3_128_hexdigest(text.encode())
