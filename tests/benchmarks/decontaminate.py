"""Decontamination: how much of what is planted it finds, what it finds in clean code, and how fast it is.

Run: python -m tests.benchmarks.decontaminate --benchmarks=DIR [--clean=DIR] [--show] [--gin.DecontaminateConfig.x=y]

DIR holds files of evaluation problems (.jsonl, .jsonl.gz), all of which are read. Each problem is planted whole and as
its prompt, its solution and its tests alone: verbatim, with other indentation, with all names changed, and in the
middle of a file of the standard library (planting.py beside decontamination's tests). A "renamed" solution is the bare
program, without comments and docstrings. A table counts what is found under other typography and in other wrappings
(disguises.py). Clean code is the standard library of this Python with its tests, or the
Python files below the folders given with --clean. Speed is UTF-8 text over processor time on one core, without making
the indices.
"""

import argparse
import json
import sys
import sysconfig
import time
import warnings
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from opencoder_jax.beam_pipelines.decontamination.leaks import Decontaminate, DecontaminateConfig
from opencoder_jax.recipe import UserError, build, parse_flags, refuse_unknown, run_command
from tests.beam_pipelines.decontamination.disguises import recalls
from tests.beam_pipelines.decontamination.planting import planted

_AT_ONCE = 4_000_000  # characters, as in a batch of documents
_SOURCES = (".py", ".c", ".h", ".cc", ".cpp", ".hpp", ".java", ".js", ".go", ".rs")


def source_files(root: Path, kinds: Sequence[str] = _SOURCES) -> list[tuple[str, str]]:
    """The names and texts of the source files below a folder; installed packages are the standard library's guests."""
    found = []
    for file in sorted(root.rglob("*")):
        if file.suffix in kinds and "site-packages" not in file.relative_to(root).parts and file.is_file():
            try:
                found.append((str(file.relative_to(root)), file.read_text(encoding="utf-8")))
            except UnicodeDecodeError:
                continue
    return found


def readable(file: Path) -> bool:
    """Whether a file holds problems; such folders also hold examples of other things."""
    try:
        replace(build(DecontaminateConfig), benchmarks=(str(file),)).read()
    except UserError as error:
        print(f"left out: {error}")
        return False
    return True


def batches(texts: Sequence[str]) -> list[list[str]]:
    cut: list[list[str]] = [[]]
    size = 0
    for text in texts:
        if size > _AT_ONCE:
            cut.append([])
            size = 0
        cut[-1].append(text)
        size += len(text)
    return cut


def recall(kernel: Decontaminate, hosts: Sequence[str], show: bool) -> None:
    print(f"{'benchmark':24} {'part':9} {'form':12} {'planted':>7} {'found':>6}  share")
    for benchmark in kernel.benchmarks:
        total: Counter[tuple[str, str]] = Counter()
        found: Counter[tuple[str, str]] = Counter()
        for number, problem in enumerate(benchmark.problems):
            if not problem.texts:
                continue
            try:
                plants = list(planted(problem, hosts[number % len(hosts)], number))
            except SyntaxError:  # a solution in another language
                continue
            caught = {row for row, _ in kernel.leaks([plant.text for plant in plants])}
            for row, plant in enumerate(plants):
                total[plant[:2]] += 1
                found[plant[:2]] += row in caught
                if show and row not in caught and plant.form == "verbatim":
                    print(f"  missed: {problem.name} {plant.part}: {plant.text[:200]!r}")
        for (part, form), count in sorted(total.items()):
            share = found[part, form] / count
            print(f"{benchmark.name:24} {part:9} {form:12} {count:7} {found[part, form]:6}  {share:.3f}")


def disguised(kernel: Decontaminate) -> None:
    """How many texts and renamed solutions of each file are found under each disguise of disguises.py."""
    print(f"\n{'benchmark':28} {'part':18} {'disguise':24} {'planted':>7} {'found':>6}  share")
    for benchmark in kernel.benchmarks:
        for part, disguise, found, planted_ in recalls(kernel, benchmark):
            print(
                f"{benchmark.name:28} {part:18} {disguise:24} {planted_:7} {found:6}  {found / planted_:.3f}",
                flush=True,
            )


def false_alarms(kernel: Decontaminate, root: Path) -> None:
    files = source_files(root)
    texts = [text for _, text in files]
    megabytes = sum(len(text.encode()) for text in texts) / 1e6
    rules: Counter[str] = Counter()
    flagged = []
    start, first = time.process_time(), 0
    for batch in batches(texts):
        for row, leaks in kernel.leaks(batch):
            rules.update({leak.rule for leak in leaks})
            flagged.append((first + row, leaks[0]))
        first += len(batch)
    seconds = time.process_time() - start
    print(f"\n{root}: {len(files)} files, {megabytes:.1f} MB at {megabytes / seconds:.1f} MB/s a core")
    print(f"false alarms: {len(flagged)} files, {len(flagged) / max(1, len(files)):.3%}; by rule {dict(rules)}")
    for row, leak in flagged[:40]:
        text = files[row][1][leak.start : leak.stop]
        print(f"  {files[row][0]}: {leak.rule}, {kernel.problems[leak.problem].name}: {json.dumps(text[:160])}")


def main(argv: list[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--benchmarks", type=Path, required=True, help="a folder of JSONL files of problems")
    parser.add_argument("--clean", type=Path, action="append", help="a folder of clean Python code; repeatable")
    parser.add_argument("--show", action="store_true", help="prints what was planted verbatim and missed")
    flags, rest = parse_flags(parser, argv, DecontaminateConfig)
    refuse_unknown(parser, rest)
    warnings.simplefilter("ignore", SyntaxWarning)  # of old problems' regular expressions
    files = sorted(file for kind in ("*.jsonl", "*.jsonl.gz") for file in flags.benchmarks.rglob(kind))
    config = replace(build(DecontaminateConfig), benchmarks=tuple(str(file) for file in files if readable(file)))
    standard = Path(sysconfig.get_path("stdlib"))
    start = time.process_time()
    kernel = Decontaminate(config, config.read())
    list(kernel.leaks([""]))
    seconds = time.process_time() - start
    print(f"{len(kernel.problems)} problems of {len(files)} files; indices made in {seconds:.1f} s")
    print(f"Python {sys.version.split()[0]}, {config}\n")
    hosts = [text for name, text in source_files(standard, (".py",)) if 5_000 < len(text) < 20_000]
    recall(kernel, hosts[:200], flags.show)
    disguised(kernel)
    for root in flags.clean or [standard]:
        false_alarms(kernel, root)


if __name__ == "__main__":
    run_command(main)
