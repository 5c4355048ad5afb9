"""An evaluation's directory, read back: what was asked, answered, and judged. Nothing is run again."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from opencoder_jax.evaluation.scores.rows import PROFILES, Profile, Row, read_rows, rows_file, score_file
from opencoder_jax.files import read_json, read_lines
from opencoder_jax.recipe import UserError


@dataclass(frozen=True)
class Evaluated:
    """One benchmark's results. What reads a file raises UserError where it's damaged."""

    directory: Path

    @cached_property
    def about(self) -> dict[str, Any]:
        """run.json."""
        return dict(read_json(self.directory / "run.json", {}))

    @property
    def name(self) -> str:
        """The benchmark's."""
        benchmark = self.about.get("benchmark", {})
        return str(benchmark.get("name") or benchmark.get("file") or self.directory.name)

    @property
    def model(self) -> str:
        """Whose answers they are."""
        model = self.about.get("model") or {}
        if "server" in model:
            return str(model["model"])
        if model:
            return f"{model['run']}, step {model['step']}"
        samples = self.about.get("samples", "")
        return str(samples["file"] if isinstance(samples, dict) else samples)

    @property
    def profiles(self) -> list[Profile]:
        return [profile for profile in PROFILES if score_file(self.directory, profile).exists()]

    def score(self, profile: Profile) -> dict[str, Any]:
        return dict(read_json(score_file(self.directory, profile), {}))

    def rows(self, profile: Profile) -> list[Row]:
        return list(read_rows(rows_file(self.directory, profile)))

    @cached_property
    def problems(self) -> dict[str, dict[str, Any]]:
        """Lines of problems.jsonl by task."""
        file = self.directory / "problems.jsonl"
        return {line["task_id"]: line for _, line in read_lines(file)} if file.exists() else {}

    @cached_property
    def answers(self) -> dict[tuple[str, int], str]:
        """The raw text of each sample."""
        lines = read_lines(self.directory / "samples.jsonl")
        return {
            (line["task_id"], line["sample"]): str(line.get("completion", line.get("solution", "")))
            for _, line in lines
        }


def find(directory: Path) -> list[Evaluated]:
    """The evaluation that a directory is, or those that lie in it, by the names of their benchmarks.

    Raises:
        UserError: there's none.
    """
    places = [directory, *sorted(path for path in directory.glob("*") if path.is_dir())] if directory.is_dir() else []
    found = [Evaluated(place) for place in places if (place / "score.json").exists()]
    if not found:
        raise UserError(f"{directory}: no finished evaluation there; name an --output of eval")
    return found


def by_task(rows: list[Row]) -> Iterator[tuple[str, list[Row]]]:
    """The rows of each problem, in the order in which they first appear."""
    groups: dict[str, list[Row]] = {}
    for row in rows:
        groups.setdefault(row.task_id, []).append(row)
    yield from groups.items()
