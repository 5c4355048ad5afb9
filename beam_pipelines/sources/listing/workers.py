"""Looks at each unit of an input before anything is planned: here, or on all workers of a cluster."""

import secrets
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import apache_beam as beam

from opencoder_jax.beam_pipelines.core.engines.failures import explained
from opencoder_jax.beam_pipelines.core.runner import BeamOptions
from opencoder_jax.beam_pipelines.core.storage import Directory
from opencoder_jax.beam_pipelines.sources.formats.members import Unit
from opencoder_jax.recipe import UserError

_ANSWERS = "units.json"


def looked_at(
    look: Callable[[Unit], Unit], units: Sequence[Unit], output: str, options: BeamOptions, at_once: int = 1
) -> list[Unit]:
    """What `look` makes of each unit, in their order.

    Args:
        look: a function that can be imported.
        output: the stage's; workers leave there what they found, for the moment.
        at_once: how many this machine looks at at a time.
    """
    if options.is_local() or not units:
        with ThreadPoolExecutor(at_once) as pool:
            return list(pool.map(look, units))
    # A name of its own: whether the output has an owner already, only the stage will see.
    folder = Directory(output).child("listing").child(secrets.token_hex(8))
    try:
        with explained("list"), options.pipeline(0.0) as pipeline:
            _ = (
                pipeline
                | "units" >> beam.Create(list(enumerate(units)))
                | "on all workers" >> beam.Reshuffle()
                | "look" >> beam.Map(_looked, look)
                | "together" >> beam.GroupByKey()
                | "write" >> beam.Map(_write, folder)
            )
        return [Unit(*unit) for unit in answers(folder, _ANSWERS)]
    finally:
        folder.remove_tree()


def answers(folder: Directory, name: str) -> Any:
    """What workers wrote. Raises UserError where the pipeline ended without running, as a dry run does."""
    if not folder.exists(name):
        raise UserError(f"{folder.uri}: the input wasn't listed, as the job ended without running; run it again")
    return folder.read_json(name)


# Lambdas would travel with the name of this file.
def _looked(numbered: tuple[int, Unit], look: Callable[[Unit], Unit]) -> tuple[int, tuple[int, Unit]]:
    number, unit = numbered
    return 0, (number, look(Unit(*unit)))


def _write(together: tuple[int, Iterable[tuple[int, Unit]]], folder: Directory) -> None:
    folder.write_json(_ANSWERS, [unit for _, unit in sorted(together[1])])
