"""What a run of the cookbook left behind, read back for the report.

Everything comes from the files that the steps wrote; nothing is computed again. A file that must be there and isn't is
the user's to mend: the error names it and the command that makes it.
"""

import json
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from opencoder_jax.beam_pipelines.core.documents import read_shard_columns
from opencoder_jax.beam_pipelines.core.manifest import MANIFEST, Manifest
from opencoder_jax.beam_pipelines.core.storage import Directory
from opencoder_jax.cookbook.steps import Step
from opencoder_jax.evaluation.score import Estimate
from opencoder_jax.recipe import UserError
from opencoder_jax.training.metrics import read_metrics

# The stages that every document goes through, in order; what is made of those that are left; the training stages.
FUNNEL = ("collect", "exact_duplicates", "near_duplicates", "redact", "filter", "sample", "decontaminate")
DERIVED = ("algorithmic", "snippets", "instructions")
TRAININGS = ("pretrain", "anneal", "sft")

DUPLICATE = "duplicate"  # the reason of both stages of deduplication

# The two models that are sampled and scored.
MODELS = {"base": "annealed model", "tuned": "tuned model"}


class DropReason(NamedTuple):
    """How many documents a stage dropped for a reason, and the first of them as an example."""

    reason: str
    documents: int
    bytes: int
    example: str
    detail: str


class Cluster(NamedTuple):
    """Copies of which one is kept. `bytes` are those of the others."""

    kept: str
    others: tuple[str, ...]
    bytes: int


class Training(NamedTuple):
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


class Sample(NamedTuple):
    """What a model said. `closed`: it ended by itself, it wasn't cut at the limit of tokens."""

    prompt: str
    text: str
    closed: bool


class Score(NamedTuple):
    """How a model did on the problems: what the report needs of score.json (evaluation/score.py).

    Attributes:
        problems, samples: how many.
        estimates: "pass@k" -> its estimate.
        by_level: level of the problems -> (pass@1, number of problems).
        outcomes: how many samples ended in which way.
        closed: share of the answers that ended by themselves, not at the limit of tokens.
    """

    problems: int
    samples: int
    estimates: dict[str, Estimate]
    by_level: dict[str, tuple[float, int]]
    outcomes: dict[str, int]
    closed: float | None


@dataclass(frozen=True)
class Results:
    """A run of the cookbook.

    Attributes:
        run: its directory.
        steps: the commands that made it.
        timings: seconds of each step, by its output's path in the run.
    """

    run: Path
    steps: Sequence[Step]
    timings: dict[str, float]

    @classmethod
    def open(cls, run: Path, steps: Sequence[Step]) -> "Results":
        """Raises UserError where a step of the data stages, training or evaluation isn't finished."""
        file = run / "timings.json"
        results = cls(run, steps, _read_json(file) if file.exists() else {})
        for name in (*FUNNEL, *DERIVED):
            results.stage(name)
        return results

    def seconds(self, step: Step) -> float | None:
        """How long a step took; None where nobody noted it."""
        return self.timings.get(Path(os.path.relpath(step.output, self.run)).as_posix())

    def stage(self, name: str) -> Manifest:
        """The manifest of a data stage."""
        return Manifest.read(str(self._required(self.run / "data" / name, MANIFEST).parent))

    def record_sets(self) -> dict[str, Manifest]:
        """The manifests of all token records, in the order of their steps."""
        outputs = [step.output for step in self.steps if step.output.parent == self.run / "tokens"]
        return {output.name: Manifest.read(str(self._required(output, MANIFEST).parent)) for output in outputs}

    def drop_reasons(self, name: str) -> list[DropReason]:
        """Why a stage dropped documents, the most frequent reason first; none where it dropped none."""
        manifest = self.stage(name)
        sizes = manifest.table("drop", "bytes")
        examples: dict[str, tuple[str, str]] = {}
        for table in self._tables(name, "drops", ["repository", "path", "reason", "detail"]):
            for row in table.to_pylist():
                # The detail of a duplicate is the id of the copy that is kept: clusters() has its place.
                detail = "" if row["reason"] == DUPLICATE else row["detail"]
                examples.setdefault(row["reason"], (_place(row), detail))
        counts = sorted(manifest.table("drop", "documents").items(), key=lambda item: (-item[1], item[0]))
        return [
            DropReason(reason, count, sizes.get(reason, 0), *examples.get(reason, ("", ""))) for reason, count in counts
        ]

    def clusters(self, name: str) -> list[Cluster]:
        """The clusters that a stage of deduplication found, the largest first."""
        members: dict[str, list[dict[str, Any]]] = {}
        for table in self._tables(name, "drops", ["repository", "path", "bytes", "reason", "detail"]):
            for row in table.to_pylist():
                if row["reason"] == DUPLICATE:
                    members.setdefault(row["detail"], []).append(row)
        places = self._places(name, members.keys()) if members else {}
        clusters = [
            Cluster(places.get(kept, kept), tuple(sorted(map(_place, rows))), sum(row["bytes"] for row in rows))
            for kept, rows in members.items()
        ]
        return sorted(clusters, key=lambda cluster: (-len(cluster.others), -cluster.bytes, cluster.kept))

    def trainings(self) -> list[Training]:
        """The training stages in their order."""
        found = []
        for name in TRAININGS:
            output = self.run / "train" / name
            about = _read_json(self._required(output, "run.json"))
            rows = read_metrics(self._required(output, "metrics.jsonl"))
            if not rows:
                raise UserError(f"{output / 'metrics.jsonl'}: holds no rows; make it with {self._maker(output)}")
            found.append(Training(name, about, rows))
        return found

    def samples(self, model: str) -> list[Sample]:
        """What a model of MODELS made of the fixed prompts."""
        rows = _read_lines(self._required(self.run / "samples" / model, "completions.jsonl"))
        return [Sample(row["prompt"], row["text"], row["finish_reason"] == "stop") for row in rows]

    def score(self, model: str) -> Score:
        """The scores of a model of MODELS."""
        found = _read_json(self._required(self.run / "evaluation" / model, "score.json"))
        return Score(
            found["tasks"],
            found["samples"],
            {name: Estimate(**estimate) for name, estimate in found["pass_at_k"].items()},
            found["by_level"],
            found["outcomes"],
            found["closed"],
        )

    def _tables(self, name: str, table: str, columns: list[str]) -> Iterator[pa.Table]:
        directory = Directory(str(self.run / "data" / name))
        for shard in self.stage(name).shards(table):
            yield read_shard_columns(directory, shard, columns)

    def _places(self, name: str, identifiers: Any) -> dict[str, str]:
        """Where the documents of a stage with these ids come from."""
        wanted = pa.array(list(identifiers), pa.string())
        places: dict[str, str] = {}
        for table in self._tables(name, "documents", ["id", "repository", "path"]):
            rows = table.filter(pc.is_in(table.column("id"), wanted)).to_pylist()
            places |= {row["id"]: _place(row) for row in rows}
        return places

    def _required(self, output: Path, name: str) -> Path:
        if not (output / name).is_file():
            raise UserError(
                f"{output / name}: missing, so there is no report; make it with {self._maker(output / name)}"
            )
        return output / name

    def _maker(self, place: Path) -> str:
        """The command of the step that writes a file or directory."""
        makers = (step.command() for step in self.steps if place.is_relative_to(step.output))
        return next(makers, "make cookbook")


def _place(row: dict[str, Any]) -> str:
    return f"{row['repository']}/{row['path']}"


def _read_json(file: Path) -> Any:
    return _parsed(file, json.loads)


def _read_lines(file: Path) -> list[dict[str, Any]]:
    return _parsed(file, lambda text: [json.loads(line) for line in text.splitlines() if line])


def _parsed(file: Path, parse: Callable[[str], Any]) -> Any:
    try:
        return parse(file.read_text(encoding="utf-8"))
    except ValueError:
        raise UserError(f"{file}: not valid JSON; delete it and run make cookbook again") from None
