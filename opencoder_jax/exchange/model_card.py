"""The README.md of an exported model: Hugging Face's card, told from what the run and its stages wrote down.

What nobody wrote down isn't told. The head of the card is what Hugging Face reads; its scores are in the form of its
`model-index`.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from opencoder_jax.files import read_json, read_lines
from opencoder_jax.model.config import ModelConfig
from opencoder_jax.recipe import UserError


class Story(NamedTuple):
    """What a card tells beside the run itself.

    Attributes:
        licence: as Hugging Face names it, such as apache-2.0; None: what the model came with.
        data: a directory of data stages, whose manifests are the funnel.
        scores: output directories of `eval`.
    """

    licence: str | None = None
    data: Path | None = None
    scores: tuple[Path, ...] = ()


class FunnelStage(NamedTuple):
    """A run that the model went through."""

    name: str
    steps: int
    tokens: int | None
    mixture: Mapping[str, float]


def model_card(
    source: Path, name: str, config: ModelConfig, step: int, base: bool, story: Story, origin: Mapping[str, Any]
) -> str:
    """The card of a model directory's checkpoint.

    Raises:
        UserError: a file that is told of is missing or damaged.
    """
    licence = story.licence or origin.get("license")
    scores = [_score(directory) for directory in story.scores]
    head: dict[str, Any] = {
        "license": licence or "other",
        "library_name": "transformers",
        "pipeline_tag": "text-generation",
        "tags": ["code", "opencoder-jax", *([] if base else ["conversational"])],
    }
    if scores:
        head["model-index"] = [{"name": name, "results": [_result(*score) for score in scores]}]
    # Of YAML, JSON is a part.
    lines = ["---", *(f"{key}: {json.dumps(value, ensure_ascii=False)}" for key, value in head.items()), "---", ""]
    lines += [f"# {name}", "", *_sizes(config), ""]
    if origin:
        lines += [f"Converted from {origin.get('name') or 'a model made elsewhere'}, whose card says more.", ""]
    if stages := list(_stages(source, step)):
        lines += ["## Training", "", *_training(stages), ""]
    if story.data:
        lines += ["## Data", "", *_funnel(story.data), ""]
    if scores:
        lines += ["## Scores", "", *_table("| benchmark | score | 95 % interval | problems |", map(_row, scores)), ""]
    lines += ["## Use", "", *_use(name, base), "", "## Licence", ""]
    lines += [licence or "Not said; `convert --license=NAME` says it.", ""]
    if (recipe := source / "config.gin").exists():
        lines += [
            "## How to reproduce",
            "",
            "With [opencoder-jax](https://pypi.org/project/opencoder-jax), the recipe of the last stage:",
            "",
            "```sh",
            "python -m opencoder_jax train --gin_file=config.gin --data=TOKENS --output=RUN",
            "```",
            "",
            "config.gin:",
            "",
            "```",
            recipe.read_text(encoding="utf-8").strip(),
            "```",
            "",
        ]
    return "\n".join(lines)


def _sizes(config: ModelConfig) -> list[str]:
    tied = ", the head tied to the embedding" if config.tied_head else ""
    return [
        f"A decoder in the shape of Llama with {config.parameters():,} parameters: {config.layers} layers of width"
        f" {config.width}, {config.heads} heads of {config.head_size} ({config.kv_heads} of keys and values),"
        f" feed-forward {config.ffn_width}, {config.vocab_size:,} tokens{tied}; context {config.context:,}."
    ]


def _stages(run: Path, step: int) -> Iterator[FunnelStage]:
    """The runs that led to a checkpoint, the first one first; those before are looked for beside the run."""
    if (about := read_json(run / "run.json")) is None:
        return
    origin = about.get("origin")
    if origin:
        for other in sorted(run.absolute().parent.glob("*/run.json")):
            if hashlib.sha256(other.read_bytes()).hexdigest() == origin["run"]:
                yield from _stages(other.parent, origin["step"])
    metrics = run / "metrics.jsonl"
    rows = [row for _, row in read_lines(metrics)] if metrics.exists() else []
    tokens = [row["tokens"] for row in rows if row.get("step", step + 1) <= step and "tokens" in row]
    weights = about["recipe"]["DataConfig"]["mixture"]
    total = sum(weights.values())
    shares = {name: weight / total for name, weight in weights.items()}
    yield FunnelStage(run.absolute().name, step, max(tokens, default=None), shares)


def _training(stages: list[FunnelStage]) -> list[str]:
    known = [stage.tokens for stage in stages if stage.tokens is not None]
    rows = (
        (
            stage.name,
            f"{stage.steps:,}",
            "" if stage.tokens is None else f"{stage.tokens:,}",
            ", ".join(f"{name} {share:.1%}" for name, share in stage.mixture.items()),
        )
        for stage in stages
    )
    table = _table("| stage | steps | tokens | mixture |", rows)
    return [f"Trained on {sum(known):,} tokens.", "", *table]


def _funnel(data: Path) -> list[str]:
    """The documents and bytes of every stage below a directory, the most documents first."""
    rows = []
    for file in sorted(data.glob("**/stage.json")):
        manifest = read_json(file)
        try:
            counts = {
                (side, what): sum(manifest["tally"].get(side, {}).get(what, {}).values())
                for side in ("in", "out")
                for what in ("documents", "bytes")
            }
            drops = manifest["tally"].get("drop", {}).get("documents", {})
            rows.append((manifest["stage"], file.parent.name, counts, drops))
        except (KeyError, TypeError, AttributeError):
            raise UserError(f"{file}: not the manifest of a stage") from None
    if not rows:
        raise UserError(f"{data}: no stage.json below it, so no funnel; name the directory of the data stages")
    rows.sort(key=lambda row: (-row[2]["in", "documents"], -row[2]["out", "documents"]))
    told = (
        (
            stage if stage == name else f"{stage} ({name})",
            f"{counts['in', 'documents']:,}",
            f"{counts['out', 'documents']:,}",
            f"{counts['out', 'bytes'] / 1e6:,.1f}",
            ", ".join(f"{why} {count:,}" for why, count in sorted(drops.items(), key=lambda item: -item[1])[:3]),
        )
        for stage, name, counts, drops in rows
    )
    return _table("| stage | documents in | out | MB out | most frequent reasons to drop |", told)


def _score(directory: Path) -> tuple[str, dict[str, Any], dict[str, Any]]:
    """An evaluation: the benchmark's name, score.json and run.json."""
    score, about = read_json(directory / "score.json"), read_json(directory / "run.json")
    if score is None or about is None:
        raise UserError(f"{directory}: no score.json and run.json there; name an --output of eval")
    return Path(about["benchmark"]["file"]).name.split(".")[0], score, about


def _result(benchmark: str, score: Mapping[str, Any], about: Mapping[str, Any]) -> dict[str, Any]:
    """A result of Hugging Face's model-index."""
    metrics = [
        {
            "type": "pass@k",
            "name": name,
            "value": share["estimate"],
            "args": {"low": share["low"], "high": share["high"]},
        }
        for name, share in score["pass_at_k"].items()
    ]
    digest = about["benchmark"]["sha256"]
    return {
        "task": {"type": "text-generation"},
        "dataset": {"type": benchmark, "name": benchmark, "args": {"sha256": digest}},
        "metrics": metrics,
    }


def _row(score: tuple[str, dict[str, Any], dict[str, Any]]) -> tuple[str, ...]:
    benchmark, found, _ = score
    shares = found["pass_at_k"].items()
    return (
        benchmark,
        ", ".join(f"{name} {share['estimate']:.1%}" for name, share in shares),
        ", ".join(f"{share['low']:.1%} to {share['high']:.1%}" for _, share in shares),
        str(found["tasks"]),
    )


def _use(name: str, base: bool) -> list[str]:
    prompt = (
        'inputs = tokenizer("def add(a, b):", return_tensors="pt")'
        if base
        else 'messages = [{"role": "user", "content": "Write a Python function that adds two numbers."}]\n'
        "inputs = tokenizer.apply_chat_template(\n"
        '    messages, add_generation_prompt=True, return_dict=True, return_tensors="pt"\n)'
    )
    code = (
        "from transformers import AutoModelForCausalLM, AutoTokenizer\n\n"
        f"tokenizer = AutoTokenizer.from_pretrained({json.dumps(name)})\n"
        f"model = AutoModelForCausalLM.from_pretrained({json.dumps(name)})\n"
        f"{prompt}\n"
        "print(tokenizer.decode(model.generate(**inputs, max_new_tokens=200)[0]))"
    )
    return ["```python", code, "```"]


def _table(head: str, rows: Any) -> list[str]:
    columns = head.count("|") - 1
    return [head, "|" + " --- |" * columns, *("| " + " | ".join(map(str, row)) + " |" for row in rows)]
