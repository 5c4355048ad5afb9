"""python -m opencoder_jax train: runs one training stage, or goes on with it."""

import argparse
from pathlib import Path

from opencoder_jax.recipe import parse_flags, refuse_unknown
from opencoder_jax.training.loop import train
from opencoder_jax.training.run import Recipe


def main(argv: list[str]) -> None:
    """Parses the flags and trains. Raises UserError for what the user can mend."""
    parser = argparse.ArgumentParser(
        prog="python -m opencoder_jax train",
        description="Trains a model: one stage of a recipe. The same command again goes on where a stopped run was.",
        epilog=(
            "example, OpenCoder-1.5B:\n"
            "  python -m opencoder_jax train --gin_file=gin_configs/pretrain/opencoder_1p5b.gin"
            " --data=tokens --output=runs/pretrain\n"
            "  python -m opencoder_jax train --gin_file=gin_configs/anneal/opencoder_1p5b.gin"
            " --data=tokens --output=runs/anneal --init_from=runs/pretrain\n"
        ),
    )
    parser.add_argument(
        "--data", required=True, type=Path, metavar="DIR", help="holds a directory of token records a source"
    )
    parser.add_argument("--output", required=True, type=Path, metavar="DIR", help="the run's own directory")
    parser.add_argument(
        "--init_from", type=Path, metavar="RUN_DIR", help="another run whose weights this one starts from"
    )
    flags, rest = parse_flags(parser, argv)
    refuse_unknown(parser, rest)
    train(Recipe.from_gin(), flags.data, flags.output, flags.init_from)
