"""What is measured of an arm comes by project, the unit that claims speak about: texts in, JSON lines out.

A conversation is a project of its own, and so is a text that was made, not collected: a program of the task grammar.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from opencoder_jax.beam_pipelines.core.documents import read_shard
from opencoder_jax.beam_pipelines.core.manifest import Manifest
from opencoder_jax.beam_pipelines.core.storage import Directory
from opencoder_jax.beam_pipelines.experiments.hold_out import project_of
from opencoder_jax.files import read_lines, write_lines
from opencoder_jax.recipe import UserError

ROWS = "by_project.jsonl"


class Text(NamedTuple):
    """A document as far as it's measured."""

    identifier: str
    project: str
    text: str
    is_chat: bool


def texts(stages: Iterable[str], version: str) -> Iterator[Text]:
    """The documents of some stages, in their order; `version` is HoldOutConfig's."""
    for place in stages:
        directory = Directory(place)
        for shard in Manifest.read(place).shards():
            for batch in read_shard(directory, shard, ["id", "repository", "text", "kind"]):
                for identifier, repository, text, kind in zip(*(column.to_pylist() for column in batch), strict=True):
                    alone = kind in ("chat", "synthetic")
                    yield Text(
                        identifier, identifier if alone else project_of(repository, version), text, kind == "chat"
                    )


def write_rows(output: Path, rows: Iterable[NamedTuple]) -> None:
    """Writes a line a project."""
    write_lines(output / ROWS, (row._asdict() for row in rows))


def read_rows(output: Path) -> dict[str, dict[str, Any]]:
    """What was measured, by project. Raises UserError where nothing was, or the file is damaged."""
    if not (output / ROWS).exists():
        raise UserError(f"{output}: nothing was measured there; run the ablation again")
    return {row["project"]: row for _, row in read_lines(output / ROWS)}
