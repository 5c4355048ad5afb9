"""python -m opencoder_jax eval: scores samples, or a model, by running its programs.

OUT/run.json        what is scored, how, by which tools and in which sandbox. A directory belongs to one evaluation
OUT/problems.jsonl  what was asked
OUT/samples.jsonl   the answers (answers/samples.py)
OUT/rows.jsonl      the answers judged, one line each (scores/rows.py); rows.opencoder.jsonl: by that profile
OUT/score.json      the scores (scores/score.py); score.opencoder.json likewise
OUT/report.html     all of it to look at; report.md: the tables (scores/report.py)

With --benchmark, each benchmark has a directory of its name in OUT, and the report is OUT's.
"""

import argparse
import json
import platform
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, cast

from opencoder_jax.benchmarks.problems import OWN, Benchmark, function_problems
from opencoder_jax.benchmarks.readers import table as published
from opencoder_jax.code_version import tree_digest
from opencoder_jax.evaluation.answers.answer import cut
from opencoder_jax.evaluation.answers.samples import Sample, read_samples
from opencoder_jax.evaluation.answers.shapes import SHAPES, digest
from opencoder_jax.evaluation.config import EvaluateConfig
from opencoder_jax.evaluation.generate import sample
from opencoder_jax.evaluation.model import Model, open_model
from opencoder_jax.evaluation.run import judge, sandbox
from opencoder_jax.evaluation.scores.report import write_report
from opencoder_jax.evaluation.scores.rows import Profile, Row, rows_file, score_file
from opencoder_jax.evaluation.scores.score import Score, content, score, table
from opencoder_jax.evaluation.server import open_server
from opencoder_jax.evaluation.tasks import Exercise, fitting, references, task_of, tasks
from opencoder_jax.files import read_json, write_lines, write_whole
from opencoder_jax.inference.config import EngineConfig
from opencoder_jax.inference.sampling import SamplingConfig
from opencoder_jax.machine import user_cache
from opencoder_jax.recipe import UserError, build, parse_flags, refuse_unknown
from opencoder_jax.sandbox.languages import toolchains


@dataclass(frozen=True)
class Asking:
    """One benchmark, ready to be asked.

    Attributes:
        told: of it, in a line for people.
        about: which file it is.
        path: the file, which no answer may read.
        output: where its results go.
    """

    told: str
    about: dict[str, Any]
    path: str | Path
    tasks: list[Exercise]
    config: EvaluateConfig
    output: Path


@dataclass(frozen=True)
class AnswerSource:
    """Where the answers to a benchmark come from.

    Attributes:
        about: what makes them what they are.
        samples: generated one after the other, or a list.
    """

    about: dict[str, Any]
    samples: Callable[[Asking], Iterable[Sample]]


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
            " --benchmark=humaneval,mbpp --benchmark_files=DIR --checkpoint=RUN_DIR --output=runs/published\n"
            "  python -m opencoder_jax eval --benchmark=all --server=http://localhost:8000 --output=runs/served"
            " --gin.EvaluateConfig.chat=True\n"
            "  python -m opencoder_jax eval --benchmark=humaneval+ --samples=samples.jsonl --output=runs/theirs\n"
            f"\nbenchmarks: {', '.join(published.BENCHMARKS)}\n"
        ),
    )
    asked = parser.add_mutually_exclusive_group()
    asked.add_argument(
        "--benchmark",
        metavar="NAME[,NAME]",
        help="published benchmarks, or all: those whose files are there; each has its own directory in DIR",
    )
    asked.add_argument(
        "--benchmark_file",
        default=OWN,
        metavar="FILE",
        help="problems in HumanEval's form, .jsonl, .gz or .zst; or the name of a file in opencoder_jax/benchmarks; "
        "default: the project's own",
    )
    parser.add_argument(
        "--benchmark_files",
        type=Path,
        metavar="PATH",
        help="the published file, or a folder that has it somewhere; default: the variable BENCHMARKS, or "
        "~/.cache/opencoder_jax/benchmarks",
    )
    answers = parser.add_mutually_exclusive_group(required=True)
    answers.add_argument(
        "--samples",
        type=Path,
        metavar="FILE",
        help="answers to score, .jsonl, .gz or .zst, in the shapes of human-eval, EvalPlus (a folder, too), bigcode or "
        "LiveCodeBench; for several benchmarks a folder with NAME.jsonl",
    )
    answers.add_argument("--checkpoint", type=Path, metavar="RUN_DIR", help="a trained run whose newest model answers")
    answers.add_argument(
        "--server", metavar="URL", help="an OpenAI-compatible server whose model answers; its key: OPENAI_API_KEY"
    )
    answers.add_argument(
        "--references", action="store_true", help="the benchmark's own answers: is it judged right on this machine?"
    )
    parser.add_argument("--model", default="", metavar="NAME", help="of --server; default: the only one that it has")
    parser.add_argument("--server_requests", type=int, default=16, metavar="N", help="to --server at once")
    parser.add_argument(
        "--write_samples", choices=SHAPES, help="write the answers in the shape of another harness, too"
    )
    parser.add_argument("--output", required=True, type=Path, metavar="DIR", help="the evaluation's own directory")
    flags, rest = parse_flags(parser, argv, EvaluateConfig, SamplingConfig, EngineConfig)
    refuse_unknown(parser, rest)
    config = build(EvaluateConfig)
    names = _names(flags)
    model: Model | None = None
    if flags.checkpoint:
        model = open_model(flags.checkpoint)
    elif flags.server:
        model = open_server(flags.server, flags.model, flags.server_requests)
    for name in names or [""]:
        asking = _published(name, flags, config) if name else _own(flags, config)
        if flags.references:
            asking = _with_references(asking)
        print(asking.told)
        found = evaluate(asking, _answers(flags, name, model), flags.write_samples)
        for profile, one in found.items():
            print(f"\n{table(one, profile if len(found) > 1 else '')}\n")
    write_report(flags.output, [flags.output / name for name in names] or [flags.output])
    print(f"{flags.output / 'report.html'}: every problem")


def _names(flags: argparse.Namespace) -> list[str]:
    if flags.benchmark != "all":
        return flags.benchmark.split(",") if flags.benchmark else []
    found = published.present(flags.benchmark_files)
    if not found:
        raise UserError(
            f"no file of any benchmark in {published.place_of(flags.benchmark_files)}; see --benchmark_files and "
            "`eval --benchmark=NAME`, which says what is missing"
        )
    lacking = [name for name in published.BENCHMARKS if name not in found]
    print(f"all: {', '.join(found)}; without a file: {', '.join(lacking) or 'none'}")
    return found


def _published(name: str, flags: argparse.Namespace, config: EvaluateConfig) -> Asking:
    loaded = published.load(name, flags.benchmark_files)
    found = tasks(loaded, config)
    about = {"name": name, "file": loaded.path.name, "sha256": loaded.sha256, "edition": loaded.edition}
    return Asking(loaded.told, about, loaded.path, found, fitting(config, name, found), flags.output / name)


def _own(flags: argparse.Namespace, config: EvaluateConfig) -> Asking:
    benchmark = Benchmark.read(flags.benchmark_file)
    found = [task_of(problem) for problem in function_problems(benchmark)]
    about = {"file": benchmark.name, "sha256": benchmark.sha256}
    return Asking(benchmark.told, about, flags.benchmark_file, found, config, flags.output)


def _with_references(asking: Asking) -> Asking:
    found = [task for task in asking.tasks if task.problem.solution]
    if not found:
        raise UserError(f"{asking.about['file']} has no answers of its own")
    one = replace(asking.config, samples_per_problem=1, ks=(1,))
    return replace(asking, tasks=found, config=one)


def _answers(flags: argparse.Namespace, name: str, model: Model | None) -> AnswerSource:
    if model:
        seed, generate = model.seed, model.generate
        return AnswerSource(
            {"model": model.about},
            lambda asking: sample(asking.tasks, asking.config, seed, generate, asking.output / "samples.jsonl"),
        )
    if flags.references:
        return AnswerSource({"samples": "the benchmark's references"}, lambda asking: references(asking.tasks))
    path: Path = flags.samples
    if path.is_dir() and name and (path / f"{name}.jsonl").exists():
        path = path / f"{name}.jsonl"
    about = {"samples": {"file": path.name, "sha256": digest(path)}}
    return AnswerSource(about, lambda asking: read_samples(path, asking.tasks))


def evaluate(asking: Asking, answers: AnswerSource, shape: str | None = None) -> dict[Profile, Score]:
    """Judges the answers, writes everything into the output directory, and returns the score by profile.

    No answer can read the benchmark's file.
    """
    config, output = asking.config, asking.output
    # How many at once changes no answer and no verdict.
    settings = {name: value for name, value in asdict(config).items() if name not in ("workers", "prompts_at_once")}
    about = {"benchmark": asking.about, "settings": settings, **answers.about}
    samples = answers.samples(asking)
    if isinstance(samples, list):
        _refuse_gaps(asking, samples)
    _enter(output, about)
    if isinstance(samples, list):
        write_lines(output / "samples.jsonl", (answer.line() for answer in samples))
    write_lines(output / "problems.jsonl", (_line(task, config) for task in asking.tasks))
    with sandbox(config, hidden=[asking.path, user_cache("benchmarks")]) as jail:
        for wall, state in jail.layers.items():
            if state != "active":
                print(f"sandbox: {wall}: {state}")
        tools = {language: _version(language) for language in sorted({task.language for task in asking.tasks})}
        made = {"sandbox": jail.layers, "toolchains": tools, "code": tree_digest()}
        _write(output / "run.json", about | made | {"python": platform.python_version()})
        profiles = cast(tuple[Profile, ...], config.profiles)
        paths = {profile: rows_file(output, profile) for profile in profiles}
        rows = judge(asking.tasks, samples, config, jail, paths, len(asking.tasks) * config.samples_per_problem)
    found = {}
    for profile in profiles:
        found[profile] = score(rows[profile], [task.task_id for task in asking.tasks], config.ks)
        _write(score_file(output, profile), content(found[profile]) | {"sandbox": jail.layers})
    if shape:
        _write_shape(asking, rows["strict"], shape)
    return found


def _line(task: Exercise, config: EvaluateConfig) -> dict[str, Any]:
    return {
        "task_id": task.task_id,
        "asked": task.message if config.chat else task.text,
        "language": task.language,
        "level": task.level,
        "published": task.published or None,
        "reference": task.problem.solution or None,
    }


def _version(language: str) -> str:
    """Of the toolchain that runs a language; UserError where this machine has none."""
    if language == "Python":
        return platform.python_version()
    try:
        return toolchains.find(language).version
    except toolchains.ToolchainError as error:
        raise UserError(str(error)) from None


def _write_shape(asking: Asking, rows: Sequence[Row], shape: str) -> None:
    """The answers as another harness reads them, in the benchmark's order."""
    by_key = {(row.task_id, row.sample): row for row in rows}
    samples = read_samples(asking.output / "samples.jsonl", asking.tasks)
    stops = {task.task_id: task.stop_strings(asking.config) for task in asking.tasks}
    written: dict[str, list[tuple[str | None, str]]] = {task.task_id: [] for task in asking.tasks}
    for one in samples:
        text = cut(one, stops[one.task_id]).text if one.kind == "completion" else None
        written[one.task_id].append((text, by_key[one.task_id, one.sample].code))
    name, write = SHAPES[shape]
    write_whole(asking.output / name, write(list(written.items())))
    print(f"{asking.output / name}: the answers in the shape of {shape}")


def _refuse_gaps(asking: Asking, samples: Sequence[Sample]) -> None:
    counts, most = Counter(answer.task_id for answer in samples), max(asking.config.ks)
    few = [task.task_id for task in asking.tasks if counts[task.task_id] < most]
    if few:
        raise UserError(
            f"{len(few)} of {len(asking.tasks)} problems have fewer than {most} samples, which"
            f" pass@{most} needs; the first is {few[0]} with {counts[few[0]]}"
        )


def _enter(output: Path, about: dict[str, Any]) -> None:
    """Makes the directory, or checks that what it holds is the same evaluation."""
    about = json.loads(json.dumps(about))  # as the file has it
    known = read_json(output / "run.json", missing=about)
    for name, value in about.items():
        if _without_place(known.get(name)) != _without_place(value):
            raise UserError(f"{output} holds another evaluation: its {name} differ; choose another --output")
    _write(output / "run.json", about)


def _without_place(value: Any) -> Any:
    """A server's address makes no answer: the same model may be served elsewhere when the evaluation goes on."""
    return {key: each for key, each in value.items() if key != "server"} if isinstance(value, dict) else value


def _write(file: Path, content: dict[str, Any]) -> None:
    write_whole(file, json.dumps(content, indent=1) + "\n")
