"""The table of benchmarks: which files they are published in, their checksums, and how each is read.

Nothing is downloaded. A file is named, or looked for by its published name in a folder: `--benchmark_files=DIR`, the
variable BENCHMARKS, or ~/.cache/opencoder_jax/benchmarks. Its checksum tells which edition it is; one that isn't known
here is read all the same, and said to be unknown: a score is of the file whose checksum stands beside it.
"""

import hashlib
import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from opencoder_jax import files
from opencoder_jax.benchmarks.differential import DifferentialProblem
from opencoder_jax.benchmarks.problems import FunctionProblem
from opencoder_jax.benchmarks.programs import ProgramProblem
from opencoder_jax.benchmarks.readers import apps, bigcodebench, cruxeval, humaneval, mbpp, polyglot
from opencoder_jax.benchmarks.readers.humaneval import InfillingProblem
from opencoder_jax.machine import user_cache
from opencoder_jax.recipe import UserError

AnyProblem = FunctionProblem | DifferentialProblem | InfillingProblem | ProgramProblem


@dataclass(frozen=True)
class Published:
    """A row.

    Attributes:
        files: patterns of the names under which it is published.
        read: makes problems of its rows.
        source: where its authors publish it.
        editions: SHA-256 of files that were read before, with what they are.
    """

    files: tuple[str, ...]
    read: Callable[[Sequence[dict[str, Any]]], Sequence[AnyProblem]]
    source: str
    editions: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Loaded:
    """The problems of one file.

    Attributes:
        edition: which one it is; "unknown" is one that the table doesn't know.
        rows: the file's own.
    """

    name: str
    path: Path
    sha256: str
    edition: str
    problems: Sequence[AnyProblem]
    rows: Sequence[dict[str, Any]] = ()

    @property
    def told(self) -> str:
        """In a line for people."""
        return f"{self.name}: {len(self.problems):,} problems of {self.path.name}, edition {self.edition}"


_MULTIPL_E = "nuprl/MultiPL-E"
BENCHMARKS = {
    "humaneval": Published(
        ("HumanEval.jsonl*",),
        humaneval.plain,
        "openai/human-eval",
        {"b796127e635a67f93fb35c04f4cb03cf06f38c8072ee7cee8833d7bee06979ef": "of 2021"},
    ),
    "humaneval+": Published(
        ("HumanEvalPlus*.jsonl*",),
        humaneval.plus,
        "evalplus/humanevalplus_release",
        {"272720b90ac375502c8ed23cd791c2a93dfb22a911641a494da74a426c09f101": "v0.1.10"},
    ),
    "humaneval-infilling-single-line": Published(
        ("HumanEval-SingleLineInfilling.jsonl*",),
        humaneval.infilling,
        "openai/human-eval-infilling",
        {"1277073e7ddce163ef68598c2bca777f688a53df99422f097e37362090f88e1f": "of 2022"},
    ),
    "humaneval-infilling-multi-line": Published(
        ("HumanEval-MultiLineInfilling.jsonl*",),
        humaneval.infilling,
        "openai/human-eval-infilling",
        {"2f341612eee1d35da1357a4f365e0c0b3ba6e2b62eb491e88aaefa4855af0349": "of 2022"},
    ),
    "humaneval-infilling-random-span": Published(
        ("HumanEval-RandomSpanInfilling.jsonl*",),
        humaneval.infilling,
        "openai/human-eval-infilling",
        {"b4f330d8a8ff97bf85d9def497dffcae4d741e506449386a877236e422e33e8d": "of 2022"},
    ),
    "mbpp": Published(
        ("mbpp.jsonl*",),
        mbpp.plain,
        "google-research/google-research, mbpp",
        {"ccf64ceae9c5403bf50a044cb6d505bfd2a2963ee58338ba268fd65beab92a9f": "of 2021"},
    ),
    "mbpp-sanitized": Published(
        ("mbpp_sanitized.jsonl*", "sanitized-mbpp.json*"),
        mbpp.plain,
        "google-research/google-research, mbpp",
        {"502db01bcc1e911d691d5212bd3d9c60ee52bbc2bd29457a520ace424bb2709d": "of 2021, as lines"},
    ),
    "mbpp+": Published(("MbppPlus*.jsonl*",), mbpp.plus, "evalplus/mbppplus_release"),
    "apps": Published(
        ("apps*.jsonl*",),
        apps.apps,
        "codeparrot/apps",
        {"09b446247e8bd82c6ee68c834d5a32ca2df6012902f716329c7df3d5eac97d1a": "five problems of training"},
    ),
    "livecodebench": Published(("test*.jsonl",), apps.livecodebench, "livecodebench/code_generation_lite"),
    "bigcodebench-complete": Published(
        ("BigCodeBench-v*.jsonl*",), partial(bigcodebench.problems, split="complete"), "bigcode/bigcodebench"
    ),
    "bigcodebench-instruct": Published(
        ("BigCodeBench-v*.jsonl*",), partial(bigcodebench.problems, split="instruct"), "bigcode/bigcodebench"
    ),
    "bigcodebench-hard-complete": Published(
        ("BigCodeBench-Hard*.jsonl*",), partial(bigcodebench.problems, split="complete"), "bigcode/bigcodebench-hard"
    ),
    "bigcodebench-hard-instruct": Published(
        ("BigCodeBench-Hard*.jsonl*",), partial(bigcodebench.problems, split="instruct"), "bigcode/bigcodebench-hard"
    ),
    "cruxeval-output": Published(
        ("cruxeval.jsonl*",),
        partial(cruxeval.problems, asked="output"),
        "facebookresearch/cruxeval",
        {"8368b81047dc5014e4caf5a2f97604eff7644e0ecd7415e3ceeb184bbc2e0c96": "of 2024"},
    ),
    "cruxeval-input": Published(
        ("cruxeval.jsonl*",),
        partial(cruxeval.problems, asked="input"),
        "facebookresearch/cruxeval",
        {"8368b81047dc5014e4caf5a2f97604eff7644e0ecd7415e3ceeb184bbc2e0c96": "of 2024"},
    ),
    "multipl-e-cpp": Published(
        ("humaneval-cpp*.jsonl*",),
        polyglot.multipl_e,
        _MULTIPL_E,
        {"a1a0796d028d53cd385cb295e906f57b721181a6152ebbec9fa4efaae126c82c": "SandboxFusion's copy"},
    ),
    "multipl-e-js": Published(
        ("humaneval-js*.jsonl*",),
        polyglot.multipl_e,
        _MULTIPL_E,
        {"5faa6c748fef5834526292b176ac6097b8feddc10002006fd49f12e4d193746f": "SandboxFusion's copy"},
    ),
    **{
        f"multipl-e-{name}": Published((f"humaneval-{name}*.jsonl*",), polyglot.multipl_e, _MULTIPL_E)
        for name in polyglot.OF_MULTIPL_E
    },
    **{
        f"humaneval-x-{name}": Published(
            (f"humaneval_{name}.jsonl*",), partial(polyglot.humaneval_x, language=name), "THUDM/CodeGeeX"
        )
        for name in ("cpp", "java", "js", "python", "rust")
    },
    **{
        f"mceval-{name.lower().replace(' ', '-')}": Published(
            (f"mceval/{name}.jsonl",), polyglot.mceval, "MCEVAL/McEval"
        )
        for name in polyglot.OF_MCEVAL
    },
}


def load(name: str, place: str | Path | None = None) -> Loaded:
    """The problems of a benchmark.

    Args:
        name: a row of the table.
        place: its file, or a folder that has it somewhere; without it, the folder that BENCHMARKS names, or the user's
            own.

    Raises:
        UserError: there's no such row or file, more than one file, or a row of it isn't of that benchmark.
    """
    if name not in BENCHMARKS:
        raise UserError(f"{name} is no benchmark of the table; they are {', '.join(BENCHMARKS)}")
    row = BENCHMARKS[name]
    path = _found(name, row, place)
    content = path.read_bytes()
    sha256 = hashlib.sha256(content).hexdigest()
    try:
        rows = _rows(path)
        problems = row.read(rows)
    except (KeyError, TypeError, IndexError) as error:
        raise UserError(f"{path}: not {name} as {row.source} publishes it: {type(error).__name__} {error}") from None
    if not problems:
        raise UserError(f"{path}: holds no problem of {name}")
    return Loaded(name, path, sha256, row.editions.get(sha256, "unknown"), problems, rows)


def present(place: str | Path | None = None) -> list[str]:
    """The benchmarks whose files are there."""
    found = []
    for name, row in BENCHMARKS.items():
        try:
            _found(name, row, place)
        except UserError:
            continue
        found.append(name)
    return found


def place_of(place: str | Path | None) -> Path:
    """Where files are looked for."""
    return Path(place or os.environ.get("BENCHMARKS") or user_cache("benchmarks"))


def _found(name: str, row: Published, place: str | Path | None) -> Path:
    folder = place_of(place)
    if folder.is_file():
        return folder
    paths = sorted({path for pattern in row.files for path in folder.rglob(pattern) if path.is_file()})
    if not paths:
        raise UserError(
            f"{name}: no {' or '.join(row.files)} in {folder}; {row.source} publishes it. Put it there, or name it or a"
            " folder that has it: --benchmark_files=PATH or the variable BENCHMARKS"
        )
    if len(paths) > 1:
        raise UserError(f"{name}: {folder} has several: {', '.join(map(str, paths))}; name the one that is meant")
    return paths[0]


def _rows(path: Path) -> list[dict[str, Any]]:
    """The rows of JSON lines, or of one JSON list."""
    if path.suffix == ".json":
        rows = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(rows, list):
            raise UserError(f"{path}: not a list of problems")
        return rows
    return [row for _, row in files.read_lines(path)]
