"""`python -m opencoder_jax VERB …`: the commands of this half of the house, one a line."""

import hashlib
import os
from importlib.util import find_spec
from pathlib import Path

from opencoder_jax.machine import processor, user_cache
from opencoder_jax.recipe import run_command
from opencoder_jax.verbs import Verb, find, usage

PROGRAM = "python -m opencoder_jax"
VERBS = {
    "cookbook": Verb("opencoder_jax.cookbook.cook", "--source=/path/to/repositories --output=runs/cookbook"),
    "train": Verb(
        "opencoder_jax.training.train",
        "--gin_file=gin_configs/pretrain/opencoder_1p5b.gin --data=DIR --output=runs/pretrain",
    ),
    "launch": Verb(
        "opencoder_jax.launch.launch",
        "--name=NAME --zone=ZONE --accelerator=v6e-256 run -- train --gin_file=… --data=DIR --output=DIR",
    ),
    "verify": Verb("opencoder_jax.parallel.verify", "--checkpoint=runs/pretrain"),
    "compile": Verb(
        "opencoder_jax.compile.compile", "--gin_file=gin_configs/pretrain/opencoder_8b.gin --topology=v5p:4x4x4"
    ),
    "generate": Verb("opencoder_jax.inference.generate", '--checkpoint=runs/pretrain --prompt="def add(a, b):"'),
    "teach": Verb(
        "opencoder_jax.distillation.teach",
        "--checkpoint=runs/teacher --records=runs/tokens/refinecode --output=runs/tokens/refinecode_teacher",
    ),
    "serve": Verb("opencoder_jax.serving.serve", "--checkpoint=runs/pretrain"),
    "eval": Verb("opencoder_jax.evaluation.evaluate", "--checkpoint=runs/pretrain --output=runs/scores"),
    "compare": Verb("opencoder_jax.evaluation.compare", "runs/scores/base runs/scores/tuned"),
    "convert": Verb("opencoder_jax.exchange.convert", "--from=DIR_OR_GGUF --to=runs/converted"),
    "ablate": Verb(
        "opencoder_jax.ablations.ablate", "deduplication_level --archives=runs/releases --output=runs/ablations"
    ),
    "releases": Verb("opencoder_jax.ablations.releases", "--output=runs/releases"),
    "count_tokens": Verb(
        "opencoder_jax.ablations.count_tokens",
        "--documents=runs/refinecode/sample --tokenizer=runs/tokenizer --output=runs/counts",
    ),
    "bits": Verb(
        "opencoder_jax.ablations.bits", "--checkpoint=runs/pretrain --documents=runs/held_out --output=runs/bits"
    ),
    "doctor": Verb("opencoder_jax.doctor", "--output=machine.json"),
    "export_tokenizer": Verb(
        "opencoder_jax.exchange.tokenizer_export",
        "--tokenizer=runs/tokenizer/tokenizer.model --output=runs/hugging_face",
    ),
    "reference": Verb("opencoder_jax.reference", "--output=docs/reference.md"),
}


def main(argv: list[str]) -> None:
    """Hands the flags after the verb to its module, once the recipe is checked.

    Raises:
        UserError: there is no such verb, or its flags or recipe are wrong.
    """
    if found := find(PROGRAM, VERBS, argv):
        leave_libtpu_alone()
        if found[0] != "compile":  # a program for chips that aren't here can't be read back
            keep_compiled_programs()
        VERBS[found[0]].load().main(found[1])
    else:
        print(usage(PROGRAM, VERBS))


def leave_libtpu_alone() -> None:
    """Where libtpu is installed to compile with and there is no TPU, JAX must not try to run on it.

    It would ask the machine who it is and where its neighbours are, and its profiler, of another release than JAX's,
    crashes the first trace.
    """
    if has_tpu() or find_spec("libtpu") is None:
        return
    has_gpu = any(Path("/dev").glob("nvidia[0-9]*")) or Path("/dev/dxg").exists()  # the latter under Windows
    os.environ.setdefault("JAX_PLATFORMS", "cuda,cpu" if has_gpu and find_spec("jax_plugins") else "cpu")


def keep_compiled_programs() -> None:
    """What JAX compiles is kept below the user's cache folder, unless its own variables say otherwise.

    The stages of a recipe, the arms of an ablation, a run that goes on after a kill and a server's second start run
    programs that were compiled before. `JAX_ENABLE_COMPILATION_CACHE=false` keeps nothing.
    """
    try:
        folder = user_cache("jax") / hashlib.sha256(processor().encode()).hexdigest()[:16]
    except RuntimeError:  # no home
        return
    os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(folder))
    # Everything, however small and quick: a hundred small programs take seconds, too.
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES", "-1")


def has_tpu() -> bool:
    """Whether this machine has one, by its devices."""
    return any(Path("/dev").glob("accel*")) or any(Path("/dev/vfio").glob("[0-9]*"))


def console() -> None:
    """The installed command."""
    run_command(main)


if __name__ == "__main__":
    console()
