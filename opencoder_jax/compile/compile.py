"""python -m opencoder_jax compile: what a recipe takes on TPUs or GPUs, on a machine that has none."""

import argparse
import json
import os
from pathlib import Path

from opencoder_jax.files import write_whole
from opencoder_jax.recipe import UserError, parse_flags, refuse_unknown

# libtpu compiles for any TPU, and must not look for one here; nor must CUDA's packages for a GPU. They read these when
# JAX is imported.
ENVIRONMENT = {
    "JAX_PLATFORMS": "cpu",
    "JAX_SKIP_CUDA_CONSTRAINTS_CHECK": "1",
    "TPU_SKIP_MDS_QUERY": "1",
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
    "TPU_ACCELERATOR_TYPE": "v5litepod-8",
    "TPU_WORKER_HOSTNAMES": "localhost",
}


def main(argv: list[str]) -> None:
    """Compiles and prints. Raises UserError for what the user can mend, a recipe that doesn't fit among it."""
    parser = argparse.ArgumentParser(prog="python -m opencoder_jax compile", allow_abbrev=False)
    parser.add_argument(
        "--program",
        choices=("train", "decode"),
        default="train",
        help="train: a recipe's step; decode: the engine's, with fields of its own: see --program=decode --help",
    )
    parser.add_argument(
        "--topology",
        help="chip and chips along each dimension of a slice (v4, v5e, v5p, v6e), or, to train, GPU and how many (a100,"
        " h100, h200, h800); default: the recipe's own, MeshConfig.topology",
    )
    parser.add_argument("--output", type=Path, metavar="FILE", help="writes the figures as JSON, too")
    parser.add_argument("--text", type=Path, metavar="FILE", help="keeps the compiled program's text")
    os.environ.update(ENVIRONMENT)
    # JAX is imported from here on, after its environment.
    asked = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    asked.add_argument("--program", default="train")
    if asked.parse_known_args(argv)[0].program == "decode":
        from opencoder_jax.compile import decode

        decode.main(parser, argv)
    else:
        _train(parser, argv)


def _train(parser: argparse.ArgumentParser, argv: list[str]) -> None:
    parser.description = (
        "Compiles a recipe's training step for TPUs or GPUs that needn't be there: its memory, collectives and kernels;"
        " for TPUs also where a step's time would go, estimated from the compiler's own figures, for GPUs the least"
        " that it can take. A miniature takes seconds, a shipped recipe 1 to 9 minutes of two processor cores, as many"
        " again for each other value of MeshConfig.replica that is tried where a step moves what its recipe doesn't ask"
        " for. With --program=decode, the engine's step instead."
    )
    parser.epilog = (
        "example, OpenCoder-8B on 64 chips of TPU v5p, then on two slices of 16 chips of v5e:\n"
        "  python -m opencoder_jax compile --gin_file=gin_configs/pretrain/opencoder_8b.gin --topology=v5p:4x4x4\n"
        "  python -m opencoder_jax compile --gin_file=gin_configs/pretrain/opencoder_1p5b.gin"
        " --topology='2*v5e:4x4' --gin.MeshConfig.replica=2\n"
        "  python -m opencoder_jax compile --gin_file=gin_configs/pretrain/opencoder_1p5b.gin --topology=h100:8\n"
        "  python -m opencoder_jax compile --program=decode --gin_file=gin_configs/models/opencoder_8b.gin"
        " --topology=v5e:2x4 --gin.MeshConfig.tensor=8 --gin.MeshConfig.fsdp=1\n"
    )
    parser.add_argument("--step", type=int, metavar="N", help="compiles the rows of this step (default: the last's)")
    parser.add_argument(
        "--sparse_cores",
        type=float,
        default=0.5,
        metavar="SHARE",
        help="of the links' rate, the least that a TPU's SparseCores are taken to keep up with: the slow end of the"
        " estimate; the fast end is 1 (default: 0.5, a guess)",
    )
    from opencoder_jax.compile.advice import try_neighbours
    from opencoder_jax.compile.chips import parse_chips
    from opencoder_jax.compile.lower import lower_for
    from opencoder_jax.compile.step_report import report_on
    from opencoder_jax.data.batches import DataConfig
    from opencoder_jax.distillation.teach import TeachConfig
    from opencoder_jax.model.config import ModelConfig
    from opencoder_jax.parallel.mesh import MeshConfig
    from opencoder_jax.training.optimizer import OptimizerConfig
    from opencoder_jax.training.run import Recipe, TrainConfig

    flags, rest = parse_flags(
        parser, argv, TrainConfig, ModelConfig, DataConfig, MeshConfig, OptimizerConfig, TeachConfig
    )
    refuse_unknown(parser, rest)
    recipe = Recipe.from_gin()
    if (named := flags.topology or recipe.mesh.topology) is None:
        raise UserError("the recipe names no chips (MeshConfig.topology): give --topology, such as v5p:4x4x4")
    if not 0 < flags.sparse_cores <= 1:
        raise UserError(f"--sparse_cores={flags.sparse_cores:g}: give a share above 0, up to 1")
    compiled = lower_for(recipe, parse_chips(named), flags.step).compile(flags.text)
    report = report_on(compiled, flags.sparse_cores)
    print(report.table(), flush=True)
    if flags.output:
        write_whole(flags.output, json.dumps(report.figures(), indent=2) + "\n")
    if compiled.unexplained:
        print("\nwith other numbers of copies:", flush=True)
        for line in try_neighbours(compiled, flags.sparse_cores):
            print(line, flush=True)
