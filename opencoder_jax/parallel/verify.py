"""python -m opencoder_jax verify: reads every checkpoint of a model and says which are whole."""

import argparse
from pathlib import Path

from opencoder_jax.parallel.checkpoints import checkpoint_steps, verify
from opencoder_jax.parallel.model_directory import CHECKPOINTS, choose_step, read_config
from opencoder_jax.recipe import UserError, parse_flags, refuse_unknown


def main(argv: list[str]) -> None:
    """Prints a line a checkpoint.

    Raises:
        UserError: it isn't a model directory, or a checkpoint is damaged.
    """
    parser = argparse.ArgumentParser(
        prog="python -m opencoder_jax verify",
        description="Verifies a model's checkpoints as going on and inference do. Exit codes: 0 all whole, 2 not.",
        epilog="example:\n  python -m opencoder_jax verify --checkpoint=runs/pretrain",
    )
    parser.add_argument("--checkpoint", required=True, type=Path, metavar="DIR", help="a model, as train makes it")
    parser.add_argument("--step", type=int, metavar="N", help="only the checkpoint of this step")
    flags, rest = parse_flags(parser, argv)
    refuse_unknown(parser, rest)
    read_config(flags.checkpoint)
    newest = choose_step(flags.checkpoint, flags.step)
    directory = flags.checkpoint / CHECKPOINTS
    damaged = []
    for step in checkpoint_steps(directory) if flags.step is None else [newest]:
        try:
            verify(directory, step)
            print(f"step {step:,}: whole")
        except UserError as error:
            print(f"step {step:,}: {error}")
            damaged.append(step)
    if damaged:
        raise UserError(
            f"{directory}: damaged: {', '.join(map(str, damaged))}; `train` goes on from the newest that is whole"
        )
