"""python -m opencoder_jax train: runs one training stage, or goes on with it."""

import argparse
import signal
import sys
from pathlib import Path

from opencoder_jax.data.batches import DataConfig
from opencoder_jax.model.config import ModelConfig
from opencoder_jax.parallel.hosts import Hosts, is_supervised, supervise
from opencoder_jax.parallel.mesh import MeshConfig
from opencoder_jax.recipe import UserError, parse_flags, refuse_unknown
from opencoder_jax.training.loop import train
from opencoder_jax.training.optimizer import OptimizerConfig
from opencoder_jax.training.run import Recipe, TrainConfig


def main(argv: list[str]) -> None:
    """Parses the flags and trains.

    Raises:
        UserError: what the user can mend.
        TryAgain: what starting the same command again mends.
    """
    parser = argparse.ArgumentParser(
        prog="python -m opencoder_jax train",
        description="Trains a model: one stage of a recipe. The same command again goes on where a stopped run was."
        " Exit codes: 0 done, 2 a mistake to mend, 75 stopped from outside (start it again).",
        epilog=(
            "example, OpenCoder-1.5B:\n"
            "  python -m opencoder_jax train --gin_file=gin_configs/pretrain/opencoder_1p5b.gin"
            " --data=tokens --output=runs/pretrain\n"
            "  python -m opencoder_jax train --gin_file=gin_configs/anneal/opencoder_1p5b.gin"
            " --data=tokens --output=runs/anneal --init_from=runs/pretrain\n"
            "on each host of a Cloud TPU slice, with --data and --output on a shared file system:\n"
            "  python -m opencoder_jax train --gin_file=… --data=DIR --output=DIR --hosts=auto\n"
        ),
    )
    parser.add_argument(
        "--data", required=True, type=_folder, metavar="DIR", help="holds a directory of token records a source"
    )
    parser.add_argument("--output", required=True, type=_folder, metavar="DIR", help="the run's own directory")
    parser.add_argument(
        "--init_from", type=_folder, metavar="RUN_DIR", help="another run whose weights this one starts from"
    )
    parser.add_argument(
        "--hosts", metavar="N", help="how many hosts run this command; auto: as Cloud TPU, Slurm or Open MPI tell it"
    )
    parser.add_argument("--host", type=int, metavar="I", help="which of them this is, from 0")
    parser.add_argument("--coordinator", metavar="ADDRESS:PORT", help="of host 0, where the hosts meet")
    parser.add_argument(
        "--restarts", type=int, default=3, metavar="N", help="of several hosts: how often to go on after losing one (3)"
    )
    flags, rest = parse_flags(parser, argv, TrainConfig, ModelConfig, DataConfig, MeshConfig, OptimizerConfig)
    refuse_unknown(parser, rest)
    hosts = _hosts(flags)
    recipe = Recipe.from_gin()  # a mistake in it is said once, before anything starts
    if hosts and not is_supervised():
        supervise([sys.executable, "-m", "opencoder_jax", "train", *argv], flags.restarts)
        return
    if hosts:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal sends it here too, and the supervisor hands it on
        hosts.join()
    train(recipe, flags.data, flags.output, flags.init_from)


def _folder(path: str) -> Path:
    """A path of a flag. Raises ArgumentTypeError for a bucket's: what a run needs of files, buckets don't do."""
    if "://" in path:
        raise argparse.ArgumentTypeError(
            f"{path}: only folders are taken; mount the bucket (gcsfuse) and name that folder"
        )
    return Path(path)


def _hosts(flags: argparse.Namespace) -> Hosts | None:
    """Which hosts train; None: this one alone. Raises UserError for flags that don't go together."""
    named = (flags.host, flags.coordinator)
    if flags.hosts is None and named == (None, None):
        return None
    if flags.hosts == "auto" and named == (None, None):
        return Hosts()
    if flags.hosts is None or not flags.hosts.isdecimal() or None in named or not 0 <= flags.host < int(flags.hosts):
        raise UserError("give --hosts=N --host=I (from 0 to N-1) --coordinator=ADDRESS:PORT together, or --hosts=auto")
    return Hosts(int(flags.hosts), flags.host, flags.coordinator)
