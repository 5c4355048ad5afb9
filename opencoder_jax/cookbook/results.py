"""What a run of the cookbook left behind, read back for the report.

Everything comes from the files that the steps wrote; nothing is computed again. A file that must be there and isn't is
the user's to mend: the error names it and the command that makes it.
"""

import os
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from opencoder_jax.beam_pipelines.core.documents import read_shard_columns
from opencoder_jax.beam_pipelines.core.manifest import MANIFEST, Manifest
from opencoder_jax.beam_pipelines.core.storage import Directory
from opencoder_jax.beam_pipelines.experiments.library_crawl import LABELS
from opencoder_jax.beam_pipelines.web.held_out import HELD_OUT
from opencoder_jax.chain import Step
from opencoder_jax.cookbook.steps import DERIVED, GRAMMAR, ROUNDS
from opencoder_jax.evaluation.scores.score import Score, Share
from opencoder_jax.files import read_json, read_lines
from opencoder_jax.recipe import UserError
from opencoder_jax.training.metrics import read_metrics

# The stages that every document goes through, in order; the training stages.
FUNNEL = ("collect", "exact_duplicates", "near_duplicates", "redact", "filter", "sample", "decontaminate")
TRAININGS = ("pretrain", "anneal", "sft_stage1", "sft")

# What is made beside them.
MADE = (*DERIVED, *(f"grammar_{form}" for form in GRAMMAR))

DUPLICATE = "duplicate"  # the reason of both stages of deduplication

# The models that are scored; the two that are sampled.
MODELS = {"pretrained": "pretrained", "base": "annealed", "stage1": "after stage 1", "tuned": "after stage 1 + 2"}
SAMPLED = {"base": "annealed model", "tuned": "tuned model"}

# What they are scored on: a prefix of the evaluation's directory, and what the problems are.
BENCHMARKS = {"held_out_": "held-out compositions", "": "hand-written problems"}


class DropReason(NamedTuple):
    """How many documents a stage dropped for a reason, and the first of them as an example."""

    reason: str
    documents: int
    bytes: int
    example: str
    detail: str


class Copies(NamedTuple):
    """A cluster of duplicates, of which one is kept. `bytes` are those of the others."""

    kept: str
    others: tuple[str, ...]
    bytes: int


class RecallRound(NamedTuple):
    """A round of web recall: the threshold with its precision and recall on held-out pages, and what it did."""

    chosen: dict[str, float]
    counts: dict[str, int]


class TrainingStage(NamedTuple):
    """A training stage: its run.json and the rows of its metrics.jsonl."""

    name: str
    about: dict[str, Any]
    rows: list[dict[str, Any]]

    @property
    def mixture(self) -> dict[str, float]:
        """The share of the tokens that come from each record set."""
        weights = self.about["recipe"]["DataConfig"]["mixture"]
        return {name: weight / sum(weights.values()) for name, weight in weights.items()}

    @property
    def held_out(self) -> list[tuple[int, float]]:
        """(tokens, loss) where the held-out loss was measured."""
        scores = [(row["tokens"], row["held_out"]) for row in self.rows if "held_out" in row]
        return [(tokens, (score.get("all") or next(iter(score.values())))["loss"]) for tokens, score in scores]


class Reply(NamedTuple):
    """What a model said to a prompt. `closed`: it ended by itself, it wasn't cut at the limit of tokens."""

    prompt: str
    text: str
    closed: bool


@dataclass(frozen=True)
class Results:
    """A run of the cookbook. What reads a file raises UserError where it's missing or damaged.

    Attributes:
        run: its directory.
        steps: the commands that made it.
    """

    run: Path
    steps: Sequence[Step]

    @cached_property
    def times(self) -> list[tuple[float, float] | None]:
        """When each step ran, from when to when in seconds; None where nobody noted it."""
        noted = read_json(self.run / "timings.json", {})
        found = [noted.get(Path(os.path.relpath(step.output, self.run)).as_posix()) for step in self.steps]
        return [(ran[0], ran[1]) if ran else None for ran in found]

    @property
    def minutes(self) -> float:
        """How long at least one step ran: less than their sum, for some run side by side."""
        total, end = 0.0, float("-inf")
        for began, ended in sorted(filter(None, self.times)):
            total += max(0.0, ended - max(began, end))
            end = max(end, ended)
        return total / 60

    def pages(self) -> list[str]:
        """The other pages of the run, as paths in it; where a directory has an index, that leads to the rest."""
        found = {file.relative_to(self.run) for file in self.run.rglob("*.html")}
        led_to = {file for file in found if file.name != "index.html" and file.with_name("index.html") in found}
        return sorted(file.as_posix() for file in found - led_to if len(file.parts) > 1)

    @cached_property
    def stages(self) -> dict[str, Manifest]:
        """The manifests of FUNNEL and MADE."""
        return {name: self._manifest(self.run / "data" / name) for name in (*FUNNEL, *MADE)}

    @cached_property
    def records(self) -> dict[str, Manifest]:
        """The manifests of all token records, in the order of their steps."""
        outputs = [Path(step.output) for step in self.steps]
        return {output.name: self._manifest(output) for output in outputs if output.parent == self.run / "tokens"}

    @cached_property
    def rounds(self) -> list[RecallRound]:
        """The rounds of web recall, in their order."""
        places = [self.run / "web" / f"round_{number}" for number in range(1, ROUNDS + 1)]
        return [
            RecallRound(
                read_json(self._required(place / "classifier" / HELD_OUT))["chosen"],
                self._manifest(place / "discovered").table("count"),
            )
            for place in places
        ]

    def recalled(self) -> tuple[int, int, int]:
        """Of the crawl's pages that are no duplicates: those about code, those that were recalled, and both."""
        labels = read_lines(self._required(self.run / "data" / "library_crawl" / LABELS))
        wanted = {row["url"] for _, row in labels if row["wanted"]}
        there, kept = (self._addresses(self.run / "web" / name) for name in ("near_duplicates", "recalled"))
        return len(wanted & there), len(kept), len(wanted & kept)

    def _addresses(self, output: Path) -> set[str]:
        """The addresses of a stage's documents."""
        shards = self._manifest(output).shards()
        tables = (read_shard_columns(Directory(str(output)), shard, ["url"]) for shard in shards)
        return {url for table in tables for url in table.column("url").to_pylist()}

    def drop_reasons(self, name: str) -> list[DropReason]:
        """Why a stage dropped documents, the most frequent reason first; none where it dropped none."""
        manifest = self.stages[name]
        sizes = manifest.table("drop", "bytes")
        examples: dict[str, tuple[str, str]] = {}
        for row in self._rows(name, "drops", ["repository", "path", "reason", "detail"]):
            # The detail of a duplicate is the id of the copy that is kept: duplicates() has its path.
            detail = "" if row["reason"] == DUPLICATE else row["detail"]
            examples.setdefault(row["reason"], (_path(row), detail))
        counts = sorted(manifest.table("drop", "documents").items(), key=lambda item: (-item[1], item[0]))
        return [
            DropReason(reason, count, sizes.get(reason, 0), *examples.get(reason, ("", ""))) for reason, count in counts
        ]

    def duplicates(self, name: str) -> list[Copies]:
        """The clusters that a stage of deduplication found, the largest first."""
        members: dict[str, list[dict[str, Any]]] = {}
        for row in self._rows(name, "drops", ["repository", "path", "bytes", "reason", "detail"]):
            if row["reason"] == DUPLICATE:
                members.setdefault(row["detail"], []).append(row)
        kept = self._rows(name, "documents", ["id", "repository", "path"], members) if members else ()
        paths = {row["id"]: _path(row) for row in kept}
        clusters = [
            Copies(
                paths.get(identifier, identifier), tuple(sorted(map(_path, rows))), sum(row["bytes"] for row in rows)
            )
            for identifier, rows in members.items()
        ]
        return sorted(clusters, key=lambda cluster: (-len(cluster.others), -cluster.bytes, cluster.kept))

    @cached_property
    def trainings(self) -> list[TrainingStage]:
        """The training stages in their order."""
        found = []
        for name in TRAININGS:
            output = self.run / "train" / name
            about, metrics = read_json(self._required(output / "run.json")), self._required(output / "metrics.jsonl")
            if not (rows := read_metrics(metrics)):
                raise UserError(f"{metrics}: holds no rows; make it with {self._maker(metrics)}")
            found.append(TrainingStage(name, about, rows))
        return found

    def replies(self, model: str) -> list[Reply]:
        """What a model of SAMPLED made of the fixed prompts."""
        rows = read_lines(self._required(self.run / "samples" / model / "completions.jsonl"))
        return [Reply(row["prompt"], row["text"], row["finish_reason"] == "stop") for _, row in rows]

    @cached_property
    def scores(self) -> dict[str, dict[str, Score]]:
        """The scores of MODELS on each of BENCHMARKS. The levels of the problems are strings, as JSON has them."""
        return {prefix: {model: self._score(f"{prefix}{model}") for model in MODELS} for prefix in BENCHMARKS}

    def _score(self, name: str) -> Score:
        found = read_json(self._required(self.run / "evaluation" / name / "score.json"))
        found["pass_at_k"] = {each: Share(**share) for each, share in found["pass_at_k"].items()}
        return Score(**{field.name: found[field.name] for field in fields(Score) if field.name in found})

    def _rows(
        self, name: str, table: str, columns: list[str], ids: Collection[str] | None = None
    ) -> Iterator[dict[str, Any]]:
        """Some columns of a stage's table, of all rows or of those with some ids."""
        for shard in self.stages[name].shards(table):
            found = read_shard_columns(Directory(str(self.run / "data" / name)), shard, columns)
            if ids is not None:
                found = found.filter(pc.is_in(found.column("id"), pa.array(list(ids), pa.string())))
            yield from found.to_pylist()

    def _manifest(self, output: Path) -> Manifest:
        return Manifest.read(str(self._required(output / MANIFEST).parent))

    def _required(self, file: Path) -> Path:
        if not file.is_file():
            raise UserError(f"{file}: missing, so there is no report; make it with {self._maker(file)}")
        return file

    def _maker(self, file: Path) -> str:
        """The command of the step that writes a file."""
        makers = (step.command() for step in self.steps if file.is_relative_to(step.output))
        return next(makers, "make cookbook")


def _path(row: dict[str, Any]) -> str:
    return f"{row['repository']}/{row['path']}"
