"""python -m opencoder_jax eval: scores samples, or a model, by running its programs.

OUT/run.json        what is scored, how, and in which sandbox. A directory belongs to one evaluation
OUT/samples.jsonl   the answers (benchmarks.py)
OUT/rows.jsonl      the answers judged, one line each (run.py)
OUT/score.json      the scores (score.py)
"""

import argparse
import hashlib
import json
import os
import platform
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from opencoder_jax.benchmarks import problems as benchmarks
from opencoder_jax.benchmarks.problems import Problem, Sample
from opencoder_jax.evaluation.config import EvaluateConfig
from opencoder_jax.evaluation.generate import sample
from opencoder_jax.evaluation.model import open_model
from opencoder_jax.evaluation.run import judge, sandbox
from opencoder_jax.evaluation.score import Score, score
from opencoder_jax.recipe import UserError, build, parse_flags, refuse_unknown


def main(argv: list[str]) -> None:
    """Parses the flags and evaluates. Raises UserError for what the user can mend."""
    parser = argparse.ArgumentParser(
        prog="python -m opencoder_jax eval",
        description="Scores samples, or a model, by running its programs. The same command again goes on where it was.",
        epilog=(
            "examples:\n"
            "  python -m opencoder_jax eval --gin_file=gin_configs/evaluate/cookbook_base.gin"
            " --checkpoint=runs/pretrain --output=runs/scores\n"
            "  python -m opencoder_jax eval --gin_file=gin_configs/evaluate/humaneval.gin"
            " --benchmark_file=HumanEval.jsonl.gz --samples=samples.jsonl --output=runs/humaneval\n"
        ),
    )
    parser.add_argument(
        "--benchmark_file",
        type=Path,
        default=benchmarks.COOKBOOK,
        metavar="FILE",
        help="problems in HumanEval's format, .jsonl or .jsonl.gz; default: the project's own",
    )
    answers = parser.add_mutually_exclusive_group(required=True)
    answers.add_argument("--samples", type=Path, metavar="FILE", help="answers to score, .jsonl or .jsonl.gz")
    answers.add_argument("--checkpoint", type=Path, metavar="RUN_DIR", help="a trained run whose newest model answers")
    parser.add_argument("--output", required=True, type=Path, metavar="DIR", help="the evaluation's own directory")
    flags, rest = parse_flags(parser, argv)
    refuse_unknown(parser, rest)
    config = build(EvaluateConfig)
    problems = benchmarks.read_problems(flags.benchmark_file)
    about: dict[str, Any] = {
        "benchmark": {"file": flags.benchmark_file.name, "sha256": _sha256(flags.benchmark_file)},
        # How many at once changes no answer and no verdict.
        "settings": {
            name: value for name, value in asdict(config).items() if name not in ("workers", "prompts_at_once")
        },
    }
    if flags.samples:
        samples = benchmarks.read_samples(flags.samples, problems)
        about["samples"] = {"file": flags.samples.name, "sha256": _sha256(flags.samples)}
        _enter(flags.output, about)
        lines = [json.dumps(benchmarks.sample_line(answer)) + "\n" for answer in samples]
        _write(flags.output / "samples.jsonl", "".join(lines))
    else:
        model = open_model(flags.checkpoint)
        about["model"] = model.about
        _enter(flags.output, about)
        samples = sample(problems, config, model.seed, model.generate, flags.output / "samples.jsonl")
    _refuse_gaps(problems, samples, config)
    found = evaluate(problems, samples, config, flags.output, about)
    print(table(found))


def evaluate(
    problems: Sequence[Problem], samples: Sequence[Sample], config: EvaluateConfig, output: Path, about: dict[str, Any]
) -> Score:
    """Judges the samples, writes run.json, rows.jsonl and score.json into `output`, and returns the score."""
    with sandbox(config) as jail:
        _write_json(output / "run.json", about | {"sandbox": jail.layers, "python": platform.python_version()})
        rows = judge(problems, samples, config, jail, output / "rows.jsonl")
    found = score(rows, [problem.task_id for problem in problems], config.ks)
    _write_json(output / "score.json", score_record(found) | {"sandbox": jail.layers})
    return found


def score_record(found: Score) -> dict[str, Any]:
    """A score as score.json holds it: the fields of Score, estimates by name."""
    return asdict(found) | {"pass_at_k": {name: estimate._asdict() for name, estimate in found.pass_at_k.items()}}


def table(found: Score) -> str:
    """A score as a person reads it."""
    lines = [f"{found.tasks} problems, {found.samples} samples", ""]
    for name, (estimate, low, high) in found.pass_at_k.items():
        lines.append(f"{name:14} {estimate:7.1%}   95 % interval {low:.1%} to {high:.1%}")
    for level, (share, tasks) in found.by_level.items():
        lines.append(f"{f'level {level}':14} {share:7.1%}   of the samples of {tasks} problems")
    lines.append("")
    for outcome, count in found.outcomes.items():
        lines.append(f"{outcome:14} {count / found.samples:7.1%}   {count}")
    if found.closed is not None:
        lines.append(f"{'closed':14} {found.closed:7.1%}   of the answers ended by themselves")
    return "\n".join(lines)


def _refuse_gaps(problems: Sequence[Problem], samples: Sequence[Sample], config: EvaluateConfig) -> None:
    counts = dict.fromkeys((problem.task_id for problem in problems), 0)
    for answer in samples:
        counts[answer.task_id] += 1
    few = [task for task, count in counts.items() if count < max(config.ks)]
    if few:
        raise UserError(
            f"{len(few)} of {len(counts)} problems have fewer than {max(config.ks)} samples, which"
            f" pass@{max(config.ks)} needs; the first is {few[0]} with {counts[few[0]]}"
        )


def _enter(output: Path, about: dict[str, Any]) -> None:
    """Makes the directory, or checks that what it holds is the same evaluation."""
    file = output / "run.json"
    if file.exists():
        known = json.loads(file.read_text())
        for name, value in json.loads(json.dumps(about)).items():
            if known.get(name) != value:
                raise UserError(f"{output} holds another evaluation: its {name} differ; choose another --output")
    output.mkdir(parents=True, exist_ok=True)
    _write_json(file, about)


def _sha256(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def _write_json(file: Path, content: dict[str, Any]) -> None:
    _write(file, json.dumps(content, indent=1) + "\n")


def _write(file: Path, text: str) -> None:
    """Whole or not at all."""
    temporary = file.with_name(f"{file.name}.writing")
    temporary.write_text(text, encoding="utf-8")
    os.replace(temporary, file)
