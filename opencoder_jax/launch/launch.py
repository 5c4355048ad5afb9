"""python -m opencoder_jax launch: a training on a Cloud TPU VM or pod, from asking for it to giving it back.

Thin over gcloud: `--dry_run` prints every command instead of running it, so whatever is done here can be done by hand.
Nothing is remembered on this machine; what is known is the slice's name, and the rest is asked of the cloud. So any
action can be interrupted and given again.
"""

import argparse
import hashlib
import json
import shlex
import sys
import tempfile
from pathlib import Path

from opencoder_jax.launch import host_scripts
from opencoder_jax.launch.cloud_tpu import Slice
from opencoder_jax.launch.gcloud import Gcloud
from opencoder_jax.launch.ship import check_recipes, listing, pack
from opencoder_jax.launch.unattended import Bounds, Clock, Ended, Goal, Job, Training
from opencoder_jax.recipe import ROOT, TryAgain, UserError, parse_known, refuse_unknown

ACTIONS = {
    "run": "create, start, watch and delete: all that a training needs",
    "create": "asks for the slice and waits for it",
    "start": "copies this checkout as it lies here to every host, sets it up and starts the training",
    "watch": "follows the log; starts again what was preempted or lost; ends with the training",
    "logs": "prints the end of the first host's log",
    "status": "prints the state of the slice and of the training on each host",
    "stop": "lets the training save a checkpoint and leave",
    "delete": "gives the slice back, if this launcher made it",
}
TRAINS = {"run": Goal.TRAINED, "start": Goal.STARTED, "watch": Goal.TRAINED}


def main(argv: list[str]) -> None:
    """Parses the flags and acts.

    Raises:
        UserError: a flag is wrong, gcloud is missing or refuses, or the training ended by a mistake in its recipe.
        TryAgain: the training stopped from outside more often than `--restarts`, or nothing ran for `--wait`.
    """
    verb = argv[argv.index("--") + 1 :] if "--" in argv else []
    parser = argparse.ArgumentParser(
        prog="python -m opencoder_jax launch",
        description="Trains on a Cloud TPU VM or pod. Actions:\n"
        + "\n".join(f"  {name:8} {what}" for name, what in ACTIONS.items()),
        epilog=(
            "example:\n"
            "  python -m opencoder_jax launch run --name=opencoder --zone=us-east5-a --accelerator=v6e-256 --spot \\\n"
            "      --setup='mkdir -p ~/bucket && gcsfuse --implicit-dirs BUCKET ~/bucket' -- train \\\n"
            "      --gin_file=gin_configs/pretrain/opencoder_8b_v6e.gin --gin.TrainConfig.steps=1000 \\\n"
            "      --data=~/bucket/tokens --output=~/bucket/runs/pretrain\n"
        ),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("action", choices=ACTIONS, metavar="ACTION")
    parser.add_argument("--name", required=True, help="of the slice")
    parser.add_argument("--zone", required=True)
    parser.add_argument("--accelerator", required=True, metavar="TYPE", help="such as v5litepod-16, v5p-128, v6e-256")
    parser.add_argument("--project", help="gcloud's own by default")
    parser.add_argument("--spot", action="store_true", help="cheaper, and taken away at any time")
    parser.add_argument("--network", help="of the hosts (default)")
    parser.add_argument("--subnetwork", help="of the hosts: the network's own by default")
    parser.add_argument("--service_account", metavar="EMAIL", help="of the hosts: Compute Engine's by default")
    parser.add_argument("--internal_ips", action="store_true", help="no address outside the network that all are in")
    parser.add_argument("--setup", metavar="SCRIPT", help="bash to run on each host once the code is there")
    parser.add_argument("--restarts", type=int, default=100, metavar="N", help="of the training, at most (100)")
    parser.add_argument("--wait", type=float, default=168, metavar="HOURS", help="without a training, at most (168)")
    parser.add_argument("--poll", type=float, default=60, metavar="SECONDS", help="between two looks (60)")
    parser.add_argument("--dry_run", action="store_true", help="prints every command and runs none")
    flags, rest = parse_known(parser, argv[: argv.index("--")] if "--" in argv else argv)
    refuse_unknown(parser, rest)
    if flags.action in TRAINS and verb[:1] != ["train"]:
        raise UserError("say what to train after the flags: … -- train --gin_file=… --data=… --output=…")
    place = Slice(
        *(flags.name, flags.zone, flags.accelerator, flags.project, flags.spot),
        *(flags.network, flags.subnetwork, flags.service_account, flags.internal_ips),
    )
    limits = Bounds(flags.restarts, flags.wait * 3600, flags.poll)
    with tempfile.TemporaryDirectory() as directory:
        # Packed once: what is edited here while the training goes on isn't what goes on after a loss.
        job = _job(Path(directory), [*verb, "--hosts=auto"], flags.setup, flags.action in TRAINS)
        if flags.dry_run:
            _print_commands(flags.action, place, job)
        else:
            act(flags.action, Training(place, job, limits, Gcloud(), Clock()))


def act(action: str, training: Training) -> None:
    """Does one of ACTIONS. Raises what `main` does."""
    place = training.place
    if action == "create":
        training.until(Goal.SLICE)
    elif action in ("start", "watch"):
        training.until(TRAINS[action])
    elif action == "run":
        run(training)
    elif action == "logs":
        print(training.gcloud(place.shell(host_scripts.tail(200), worker="0")), end="")
    elif action == "status":
        state = training.request().state
        print(f"{place.name}: {state or 'there is none'}")
        for host in training.hosts() if state == "ACTIVE" else []:
            print(f"{host.name}: {host.state}{'' if host.ready else ' (not set up)'} {host.last}".rstrip())
    elif action == "stop":
        training.gcloud(place.shell(host_scripts.STOP))
    elif action == "delete" and not training.delete():
        by_hand = shlex.join(place.delete())
        raise UserError(f"{place.name}: this launcher didn't make it, so it doesn't delete it. By hand: {by_hand}")


def run(training: Training) -> None:
    """Trains from nothing to the end, and gives the slice back: also after an error, as nobody is by.

    It is kept where the launcher didn't make it, is interrupted, or finds that something else runs there.
    """
    try:
        training.until(Goal.STARTED)
        training.until(Goal.TRAINED)
    except (Ended, TryAgain) as error:
        try:
            training.delete()
        except UserError as kept:
            raise type(error)(f"{error}; {kept}") from None
        raise
    if training.delete():
        print(f"{training.place.name}: trained, and given back", file=sys.stderr)
    else:
        print(f"{training.place.name}: trained; it stays, as this launcher didn't make it", file=sys.stderr)


def _job(directory: Path, verb: list[str], setup: str | None, packs: bool) -> Job:
    archive = directory / "opencoder-jax.tar.gz"
    digest = ""
    if packs:
        names = listing(ROOT)
        check_recipes(verb, ROOT, names)
        code = pack(ROOT, names, archive)
        digest = hashlib.sha256(json.dumps([code, verb, setup]).encode()).hexdigest()[:16]
    return Job(archive, digest, verb, setup)


def _print_commands(action: str, place: Slice, job: Job) -> None:
    """Prints the commands of an action in the order in which all goes well."""
    create = [place.request(), place.create(), place.node()]
    start = [
        place.copy(str(job.archive)),
        place.shell(host_scripts.set_up(job.archive.name, job.digest, job.setup)),
        place.shell(host_scripts.start(job.verb)),
    ]
    state = [place.shell(host_scripts.STATE)]
    commands = {
        "run": [*create, *start, *state, place.delete()],
        "create": create,
        "start": start,
        "watch": [place.request(), place.node(), *state],
        "logs": [place.shell(host_scripts.tail(200), worker="0")],
        "status": [place.request(), *state],
        "stop": [place.shell(host_scripts.STOP)],
        "delete": [place.request(), place.delete()],
    }
    if action in TRAINS:
        print(f"# {job.archive}: the files of git ls-files --cached --others --exclude-standard, as .tar.gz")
    for command in commands[action]:
        print(shlex.join(command))
