"""python -m opencoder_jax eval: scores samples, or a model, by running its programs.

OUT/run.json        what is scored, how, and in which sandbox. A directory belongs to one evaluation
OUT/samples.jsonl   the answers (samples.py)
OUT/rows.jsonl      the answers judged, one line each (run.py)
OUT/score.json      the scores (score.py)
"""

import argparse
import hashlib
import json
import platform
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from opencoder_jax.benchmarks.problems import OWN, Benchmark, FunctionProblem, function_problems
from opencoder_jax.evaluation.config import EvaluateConfig
from opencoder_jax.evaluation.generate import sample
from opencoder_jax.evaluation.model import open_model
from opencoder_jax.evaluation.run import judge, sandbox
from opencoder_jax.evaluation.samples import Sample, read_samples
from opencoder_jax.evaluation.score import Score, score
from opencoder_jax.files import read_json, write_whole
from opencoder_jax.inference.config import EngineConfig
from opencoder_jax.inference.sampling import SamplingConfig
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
        default=OWN,
        metavar="FILE",
        help="problems in HumanEval's form, .jsonl, .gz or .zst; or the name of a file in opencoder_jax/benchmarks; "
        "default: the project's own",
    )
    answers = parser.add_mutually_exclusive_group(required=True)
    answers.add_argument("--samples", type=Path, metavar="FILE", help="answers to score, .jsonl, .gz or .zst")
    answers.add_argument("--checkpoint", type=Path, metavar="RUN_DIR", help="a trained run whose newest model answers")
    parser.add_argument("--output", required=True, type=Path, metavar="DIR", help="the evaluation's own directory")
    flags, rest = parse_flags(parser, argv, EvaluateConfig, SamplingConfig, EngineConfig)
    refuse_unknown(parser, rest)
    config = build(EvaluateConfig)
    benchmark = Benchmark.read(flags.benchmark_file)
    print(benchmark.told)
    problems = function_problems(benchmark)
    # How many at once changes no answer and no verdict.
    settings = {name: value for name, value in asdict(config).items() if name not in ("workers", "prompts_at_once")}
    about: dict[str, Any] = {"benchmark": {"file": benchmark.name, "sha256": benchmark.sha256}, "settings": settings}
    if flags.samples:
        samples = read_samples(flags.samples, problems)
        digest = hashlib.sha256(flags.samples.read_bytes()).hexdigest()
        about["samples"] = {"file": flags.samples.name, "sha256": digest}
        _enter(flags.output, about)
        lines = [json.dumps(answer.line()) + "\n" for answer in samples]
        write_whole(flags.output / "samples.jsonl", "".join(lines))
    else:
        model = open_model(flags.checkpoint)
        about["model"] = model.about
        _enter(flags.output, about)
        samples = sample(problems, config, model.seed, model.generate, flags.output / "samples.jsonl")
    _refuse_gaps(problems, samples, config)
    found = evaluate(problems, samples, config, flags.output, about, hidden=[flags.benchmark_file])
    print(table(found))


def evaluate(
    problems: Sequence[FunctionProblem],
    samples: Sequence[Sample],
    config: EvaluateConfig,
    output: Path,
    about: dict[str, Any],
    hidden: Sequence[str | Path] = (),
) -> Score:
    """Judges the samples, writes run.json, rows.jsonl and score.json into `output`, and returns the score.

    No answer can read the `hidden` files.
    """
    with sandbox(config, hidden) as jail:
        for wall, state in jail.layers.items():
            if state != "active":
                print(f"sandbox: {wall}: {state}")
        _write(output / "run.json", about | {"sandbox": jail.layers, "python": platform.python_version()})
        rows = judge(problems, samples, config, jail, output / "rows.jsonl")
    found = score(rows, [problem.task_id for problem in problems], config.ks)
    shares = {name: share._asdict() for name, share in found.pass_at_k.items()}
    _write(output / "score.json", asdict(found) | {"pass_at_k": shares, "sandbox": jail.layers})
    return found


def table(found: Score) -> str:
    """A score as a person reads it."""
    lines = [f"{found.tasks} problems, {found.samples} samples", ""]
    for name, share in found.pass_at_k.items():
        lines.append(f"{name:14} {share.estimate:7.1%}   95 % interval {share.low:.1%} to {share.high:.1%}")
    for level, (right, tasks) in found.by_level.items():
        lines.append(f"{f'level {level}':14} {right:7.1%}   of the samples of {tasks} problems")
    lines.append("")
    for outcome, count in found.outcomes.items():
        lines.append(f"{outcome:14} {count / found.samples:7.1%}   {count}")
    if found.closed is not None:
        lines.append(f"{'closed':14} {found.closed:7.1%}   of the answers ended by themselves")
    return "\n".join(lines)


def _refuse_gaps(problems: Sequence[FunctionProblem], samples: Sequence[Sample], config: EvaluateConfig) -> None:
    counts, most = Counter(answer.task_id for answer in samples), max(config.ks)
    few = [problem.task_id for problem in problems if counts[problem.task_id] < most]
    if few:
        raise UserError(
            f"{len(few)} of {len(problems)} problems have fewer than {most} samples, which"
            f" pass@{most} needs; the first is {few[0]} with {counts[few[0]]}"
        )


def _enter(output: Path, about: dict[str, Any]) -> None:
    """Makes the directory, or checks that what it holds is the same evaluation."""
    about = json.loads(json.dumps(about))  # as the file has it
    known = read_json(output / "run.json", missing=about)
    for name, value in about.items():
        if known.get(name) != value:
            raise UserError(f"{output} holds another evaluation: its {name} differ; choose another --output")
    _write(output / "run.json", about)


def _write(file: Path, content: dict[str, Any]) -> None:
    write_whole(file, json.dumps(content, indent=1) + "\n")
