"""`python -m opencoder_jax VERB …`: the commands of this half of the house, one a line.

A verb's module is imported only when the verb is called: `--help` needs no JAX, and nothing needs another's room.
"""

import difflib
import importlib
import os
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

from opencoder_jax.recipe import UserError, run_command


class Verb(NamedTuple):
    """A command, whose module defines `main(argv: list[str]) -> None`."""

    module: str
    help: str
    example: str


VERBS = {
    "cookbook": Verb(
        "opencoder_jax.cookbook.command",
        "the whole recipe, from source files to a tuned model and its report",
        "--source=/path/to/repositories --output=runs/cookbook",
    ),
    "train": Verb(
        "opencoder_jax.training.command",
        "trains a model on token records",
        "--gin_file=gin_configs/pretrain/opencoder_1p5b.gin --data=DIR --output=runs/pretrain",
    ),
    "launch": Verb(
        "opencoder_jax.launch.command",
        "trains on a Cloud TPU VM or pod: creates, starts, watches, restarts, deletes",
        "--name=NAME --zone=ZONE --accelerator=v6e-256 run -- train --gin_file=… --data=DIR --output=DIR",
    ),
    "compile": Verb(
        "opencoder_jax.compile.command",
        "what a recipe takes on a TPU that needn't be there: memory, traffic, time",
        "--gin_file=gin_configs/pretrain/opencoder_8b.gin --topology=v5p:4x4x4",
    ),
    "generate": Verb(
        "opencoder_jax.inference.command",
        "completes a prompt",
        '--checkpoint=runs/pretrain --prompt="def add(a, b):"',
    ),
    "eval": Verb(
        "opencoder_jax.evaluation.command",
        "scores samples, or a model, by running its programs",
        "--benchmark_file=problems.jsonl --checkpoint=runs/pretrain --output=runs/scores",
    ),
    "export_tokenizer": Verb(
        "opencoder_jax.data.tokenizer_export",
        "writes a tokenizer as Hugging Face's tokenizer.json, with the same ids",
        "--tokenizer=runs/tokenizer/tokenizer.model --output=runs/hugging_face",
    ),
}


def main(argv: list[str]) -> None:
    """Hands the arguments after the verb to its command.

    Raises:
        UserError: there is no such verb.
    """
    name, *rest = argv or ["--help"]
    if name in ("-h", "--help"):
        print(usage())
    elif name in VERBS:
        leave_libtpu_alone()
        importlib.import_module(VERBS[name].module).main(rest)
    else:
        near = difflib.get_close_matches(name, VERBS, 1, 0.5)
        advice = f"did you mean {near[0]}?" if near else f"the verbs are {', '.join(VERBS)}"
        raise UserError(f"unknown verb {name}; {advice}")


def leave_libtpu_alone() -> None:
    """Where libtpu is installed to compile with and there is no TPU, JAX must not try to run on it.

    It would ask the machine who it is and where its neighbours are, and its profiler, of another release than JAX's,
    crashes the first trace.
    """
    if has_tpu() or find_spec("libtpu") is None:
        return
    has_gpu = any(Path("/dev").glob("nvidia[0-9]*")) or Path("/dev/dxg").exists()  # the latter under Windows
    os.environ.setdefault("JAX_PLATFORMS", "cuda,cpu" if has_gpu and find_spec("jax_plugins") else "cpu")


def has_tpu() -> bool:
    """Whether this machine has one, by its devices."""
    return any(Path("/dev").glob("accel*")) or any(Path("/dev/vfio").glob("[0-9]*"))


def usage() -> str:
    """Every verb with what it does and an example."""
    width = max(map(len, VERBS))
    lines = ["usage: python -m opencoder_jax VERB [flags]", ""]
    for name, verb in VERBS.items():
        lines += [f"  {name:{width}}  {verb.help}", f"  {'':{width}}  python -m opencoder_jax {name} {verb.example}"]
    return "\n".join([*lines, "", "Each verb has a --help of its own."])


if __name__ == "__main__":
    run_command(main)
