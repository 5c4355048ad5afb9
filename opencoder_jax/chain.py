"""Chains: lists of commands that read what earlier ones wrote, each run only when it must.

A chain is a plain list of `Step`s, so a loop that builds it makes rounds, and `vary` makes the arms of an experiment,
which share every step that they have in common. Run again, a chain redoes nothing; killed anywhere, it goes on where it
stopped; after a change it redoes what the change can have changed, and says why. Its steps run in order, or, in several
processes, each as soon as what it reads is there.

Stages of the data pipelines hold to that themselves, by their `stage.json`. For the other commands it's held here, by a
`step.json` in each output. This module knows neither JAX nor Beam: a step's program is imported when it runs.
"""

import hashlib
import importlib
import json
import multiprocessing
import multiprocessing.connection
import os
import shlex
import shutil
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import xxhash

from opencoder_jax.code_version import code_version
from opencoder_jax.files import WRITING, read_json, write_json
from opencoder_jax.recipe import UserError, gin_text
from opencoder_jax.verbs import Verb

STEP = "step.json"
STAGE = "stage.json"  # what a stage of the data pipelines says of itself
PIPELINES = "beam_pipelines"
PROGRAMS = {PIPELINES: "opencoder_jax.beam_pipelines.__main__", "opencoder_jax": "opencoder_jax.__main__"}


@dataclass(frozen=True)
class Step:
    """One command.

    Attributes:
        title: for people.
        program: of PROGRAMS.
        verb: of the program.
        settings: recipes, overrides and other flags, none of which names a directory.
        output: the directory that it writes.
        places: the flags that name directories, as (flag, directory).
        inputs: the outputs of earlier steps that it reads, which may lie in one of `places`.
    """

    title: str
    program: str
    verb: str
    settings: tuple[str, ...]
    output: str
    places: tuple[tuple[str, str], ...] = ()
    inputs: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """The last part of its directory."""
        return self.output.rstrip("/").rsplit("/", 1)[-1]

    @property
    def arguments(self) -> list[str]:
        places = [f"--{flag}={place}" for flag, place in self.places]
        return [self.verb, *self.settings, *places, f"--output={self.output}"]

    def command(self) -> str:
        """What a user types."""
        return f"python -m {self.program} {shlex.join(self.arguments)}"


def stage(title: str, verb: str, output: str, flags: Sequence[str], **inputs: str | Sequence[str]) -> Step:
    """A step that is a stage of the data pipelines.

    Args:
        title: for people.
        verb: of the stage.
        output: the directory that it writes.
        flags: recipes, overrides and Beam's; an override goes only to a stage that reads it.
        inputs: directories by the names of their flags.
    """
    pairs = [(name, [given] if isinstance(given, str) else given) for name, given in inputs.items()]
    places = tuple((name, place) for name, given in pairs for place in given)
    settings = read_by(PIPELINES, verb, flags)
    return Step(title, PIPELINES, verb, settings, output, places, tuple(place for _, place in places))


def verbs_of(program: str) -> Mapping[str, Verb]:
    """The table of a program's verbs."""
    return importlib.import_module(PROGRAMS[program]).VERBS


def read_by(program: str, verb: str, flags: Sequence[str]) -> tuple[str, ...]:
    """The flags without those overrides whose configuration the verb doesn't read."""
    reads = verbs_of(program)[verb].reads
    return tuple(flag for flag in flags if not flag.startswith("--gin.") or flag.split(".")[1] in reads)


def vary(steps: Sequence[Step], root: str, variant: str, changes: Mapping[str, Sequence[str]]) -> list[Step]:
    """The steps of a variant: what `changes` touches, and what follows from it, writes below `root/variant` instead.

    Args:
        steps: of a chain whose outputs lie below `root`.
        root: the chain's directory.
        variant: a name for a directory.
        changes: more flags by names of steps.

    Returns:
        As many steps, in the same order; those that the variant shares with the chain are the chain's own.

    Raises:
        UserError: a change names no step.
    """
    if missing := changes.keys() - {step.name for step in steps}:
        raise UserError(f"{variant}: no step is called {min(missing)}; there are {', '.join(s.name for s in steps)}")
    moved: dict[str, str] = {}
    varied = []
    for step in steps:
        more = tuple(changes.get(step.name, ()))
        if more or moved.keys() & set(step.inputs):
            moved[step.output] = f"{root}/{variant}{step.output.removeprefix(root)}"
            step = replace(
                step,
                title=f"{step.title} ({variant})",
                settings=(*step.settings, *more),
                output=moved[step.output],
                places=tuple((flag, moved.get(place, place)) for flag, place in step.places),
                inputs=tuple(moved.get(place, place) for place in step.inputs),
            )
        varied.append(step)
    return varied


def run_chain(
    steps: Sequence[Step], accept: Sequence[str] = (), processes: int = 1
) -> Iterator[tuple[Step, float | None]]:
    """Runs the steps that aren't up to date, each after those that it reads, with a line before each.

    Args:
        steps: each once, or several times the same; none before one that it reads.
        accept: names of steps whose older output counts as up to date.
        processes: how many steps may run side by side; with 1 all run in this process, in order.

    Yields:
        Each step once it's done, and the seconds that it took; None where it was up to date.

    Raises:
        UserError: two steps write one directory, or a step failed; those that were begun before it stay done.
    """
    by_output: dict[str, Step] = {}
    for step in steps:
        if by_output.setdefault(step.output, step) != step:
            raise UserError(f"{step.output}: written by two steps, {by_output[step.output].title} and {step.title}")
    numbered = [(f"[{number}/{len(by_output)}]", step) for number, step in enumerate(by_output.values(), 1)]
    if processes > 1:
        yield from _side_by_side(numbered, accept, processes)
        return
    for number, step in numbered:
        yield step, run_step(number, step, accept)


def _side_by_side(
    numbered: Sequence[tuple[str, Step]], accept: Sequence[str], processes: int
) -> Iterator[tuple[Step, float | None]]:
    """As `run_chain`, each step in one of some processes as soon as what it reads is there; earlier ones first."""
    waiting, running = list(numbered), dict[Future[float | None], Step]()
    fresh = multiprocessing.get_context("spawn")  # a fork of a process with threads, as JAX's and Beam's, may hang
    with ProcessPoolExecutor(processes, fresh, _end_with_the_chain) as pool:
        while waiting or running:
            missing = [step.output for step in (*running.values(), *(step for _, step in waiting))]
            ready = [each for each in waiting if not any(_reads(each[1], output) for output in missing)]
            for each in ready[: processes - len(running)]:
                waiting.remove(each)
                running[pool.submit(run_step, *each, accept)] = each[1]
            for done in wait(running, return_when=FIRST_COMPLETED).done:
                if isinstance(done.exception(), BrokenProcessPool):
                    titles = " or ".join(step.title for step in running.values())
                    raise UserError(f"{titles}: its process was killed; is the memory enough? Run again to go on")
                yield running.pop(done), done.result()


def _reads(step: Step, output: str) -> bool:
    """Whether a step reads the output of another, or a file in it."""
    return any(place == output or place.startswith(f"{output}/") for place in step.inputs)


def _end_with_the_chain() -> None:
    """A process of steps ends when that of their chain does, even by a kill, and leaves its step to the next run."""
    chain = multiprocessing.parent_process()

    def watch() -> None:
        multiprocessing.connection.wait([chain.sentinel] if chain else [])
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def run_step(number: str, step: Step, accept: Sequence[str]) -> float | None:
    """Runs a step unless it's up to date; the seconds that it took, or None."""
    print(f"{number} {step.title}", file=sys.stderr, flush=True)
    began = time.perf_counter()
    did = (run_stage if step.program == PIPELINES else run_other)(step, accept)
    return time.perf_counter() - began if did else None


def run_stage(step: Step, accept: Sequence[str]) -> bool:
    """Runs a stage, which knows itself whether it's up to date; whether it did anything."""
    print(f"  {step.command()}", file=sys.stderr, flush=True)
    manifest = Path(step.output) / STAGE
    before = manifest.stat().st_mtime_ns if manifest.exists() else None
    _main(step)([*step.arguments, *(f"--accept={name}" for name in accept)])
    return not manifest.exists() or manifest.stat().st_mtime_ns != before


def run_other(step: Step, accept: Sequence[str]) -> bool:
    """Runs a step of another program unless it's up to date; whether it did anything."""
    output = Path(step.output)
    key, known = _key(step), read_json(output / STEP, {})
    stale = _changes(known, key)
    if stale and known.get("finished"):
        if step.name in accept:
            print(f"{step.title}: accepted as it is, though {'; '.join(stale)}", file=sys.stderr)
            write_json(output / STEP, known | key | {"accepted": [*known.get("accepted", []), *stale]})
            return False
        print(f"{step.title}: runs again: {'; '.join(stale)}", file=sys.stderr)
    elif known.get("finished"):
        print(f"{step.title}: up to date", file=sys.stderr)
        return False
    print(f"  {step.command()}", file=sys.stderr, flush=True)
    if stale:
        clear(output)
    made = {"made": xxhash.xxh3_128_hexdigest(json.dumps(key, sort_keys=True).encode())}
    write_json(output / STEP, key | made | {"finished": False})
    _main(step)(step.arguments)
    write_json(output / STEP, key | made | {"finished": True})
    return True


def _main(step: Step) -> Any:
    return importlib.import_module(PROGRAMS[step.program]).main


def _key(step: Step) -> dict[str, Any]:
    """What a step's output depends on: its settings, its inputs' contents, its code; not where they lie."""
    lines = []
    for setting in step.settings:
        flag, _, value = setting.partition("=")
        lines += gin_text(value).splitlines() if flag == "--gin_file" else [setting]
    return {
        "step": step.title,
        "settings": lines,
        "inputs": [fingerprint(Path(place)) for place in step.inputs],
        "code": code_version((verbs_of(step.program)[step.verb].module, "main")),
    }


def _changes(known: Mapping[str, Any], key: Mapping[str, Any]) -> list[str]:
    """What differs between the key of an older run of a step and that of now, in a few words."""
    was, now = known.get("settings", []), key["settings"]
    found = [f"now {line}" for line in now if line not in was] + [
        f"no longer {line}" for line in was if line not in now
    ]
    if known.get("step") != key["step"] or (was != now and not found):
        found.append("its title or the order of its settings changed")
    if known.get("inputs") != key["inputs"]:
        found.append("its inputs changed")
    code = known.get("code", {})
    if changed := sorted(module for module in {**code, **key["code"]} if code.get(module) != key["code"].get(module)):
        found.append(f"the code of {', '.join(changed[:5])}{' and others' if len(changed) > 5 else ''} changed")
    return found


def fingerprint(output: Path) -> str:
    """What a directory holds: digests of a stage's files, what another step was made of, or the digest of any other."""
    if (output / STAGE).exists():
        return xxhash.xxh3_128_hexdigest(json.dumps(read_json(output / STAGE)["files"], sort_keys=True).encode())
    if (output / STEP).exists():
        return str(read_json(output / STEP).get("made"))
    digests = []
    for file in sorted(each for each in output.rglob("*") if each.is_file()):
        with file.open("rb") as content:
            digests.append((str(file.relative_to(output)), hashlib.file_digest(content, xxhash.xxh3_128).hexdigest()))
    return xxhash.xxh3_128_hexdigest(json.dumps(digests).encode())


def clear(output: Path) -> None:
    """Deletes what an older recipe left in a step's output.

    Raises:
        UserError: the directory holds something that no step of ours wrote.
    """
    stale = output.with_name(f"{output.name}.stale")
    if stale.exists():  # killed while it was being deleted
        shutil.rmtree(stale)
    if not output.exists():
        return
    if not (output / STEP).exists() and {path.name for path in output.iterdir()} - {STEP + WRITING}:
        raise UserError(f"{output}: holds files that the chain didn't write; move them, or give another --output")
    output.rename(stale)
    shutil.rmtree(stale)
