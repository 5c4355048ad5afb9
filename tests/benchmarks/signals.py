"""Quality signals: how fast a core measures each language, and whether "reference" decides as the released code does.

Run: python -m tests.benchmarks.signals --source=DIR [--source=DIR …] [--megabytes=8] [--definitions=fixed]
     … --reference=CHECKOUT [--reference_python=PATH] [--files=150] [--show=RULE]

The sample of a language is the files of the sources with the smallest hashes of their paths, so it's always the same.
Speeds are UTF-8 text over processor time, so they are those of one core. With a checkout of OpenCoder's
opc_data_filtering, its code measures and judges `--files` of each language's sample, none over 200 kB, in an
interpreter that has its packages (--reference_python); our profile "reference" judges the same files. Rules by chance
always hit on both sides. Compared are the rules that both sides know; each disagreement is put down to the first cause
that applies:

    failed      the released code stopped at an error or a timeout, and passed the signals that it didn't get to
    null        one side has no value
    rounding    the values differ by less than 1e-7: the release rounds
    split       code and comments were split at other places
    definition  anything else
"""

import argparse
import json
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import xxhash

from opencoder_jax.beam_pipelines.core.documents import SCHEMA
from opencoder_jax.beam_pipelines.filtering.rules import load_profile, table_of
from opencoder_jax.beam_pipelines.languages.detect import identify
from opencoder_jax.beam_pipelines.signals.measure import DEFINITIONS, SIGNALS, MeasureSignals, SignalsConfig
from opencoder_jax.beam_pipelines.signals.views.view import View

# linguist's names, and the release's
LANGUAGES = {
    "C": "c",
    "C++": "cpp",
    "C#": "csharp",
    "Go": "go",
    "HTML": "html",
    "Java": "java",
    "JavaScript": "javascript",
    "Python": "python",
    "Shell": "shell",
    "SQL": "sql",
    "JSON": "json",
    "Markdown": "markdown",
}
LARGEST = 200_000  # bytes of a file in the comparison
BATCH = 4_000_000  # bytes of a batch, as in the pipeline


def sample(sources: list[str], megabytes: float) -> dict[str, list[dict[str, object]]]:
    """Documents of each language, by the hash of their path, up to a size."""
    found: dict[str, list[tuple[int, Path]]] = {language: [] for language in LANGUAGES}
    for source in sources:
        for file in Path(source).rglob("*.*"):
            language = identify(file.name).name
            if language in found and file.is_file() and not file.is_symlink():
                name = str(file.relative_to(source))
                found[language].append((xxhash.xxh3_64_intdigest(name.encode()), file))
    return {language: list(_read(sorted(files), language, megabytes)) for language, files in found.items()}


def _read(files: list[tuple[int, Path]], language: str, megabytes: float) -> Iterator[dict[str, object]]:
    left = megabytes * 1e6
    for number, file in files:
        content = file.read_bytes()
        if left <= 0:
            return
        if 0 < len(content) <= 8_000_000:
            left -= len(content)
            text = content.decode("utf-8", "replace")
            size = len(text.encode())
            row: dict[str, object] = dict.fromkeys(SCHEMA.names, "") | {"stars": 0, "commit_time": 0, "bytes": size}
            kind = identify(file.name).kind
            yield row | {"id": f"{number:032x}", "text": text, "path": file.name, "language": language, "kind": kind}


def measure(documents: list[dict[str, object]], definitions: str) -> tuple[pa.Table, float]:
    """The signals, and the processor seconds that they took."""
    kernel = MeasureSignals(SignalsConfig(definitions=definitions))
    tables, seconds = [], 0.0
    batch: list[dict[str, object]] = []
    for number, document in enumerate(documents):
        batch.append(document)
        if number + 1 == len(documents) or sum(len(str(row["text"])) for row in batch) > BATCH:
            rows = pa.RecordBatch.from_pylist(batch, SCHEMA)
            start = time.process_time()
            tables.append(kernel(rows).table)
            seconds += time.process_time() - start
            batch = []
    return pa.Table.from_batches(tables), seconds


def natural_language(document: dict[str, object]) -> str:
    """Which of the text tables is meant, as we see it: the released code's model isn't published."""
    return View(str(document["text"]), "", str(document["kind"]), 0).natural_language


def released(documents: list[dict[str, object]], checkout: str, python: str) -> list[dict[str, object]]:
    """What the released code makes of the documents."""
    lines = []
    for document in documents:
        path = Path(str(document["path"]))
        fields: dict[str, object] = {
            "filename": path.name,  # its notebook gives the stem alone, by which no file is a test of Go
            "ext": path.suffix[1:],
            "lang": natural_language(document),
            "doc_type": document["kind"],
        }
        fields |= {"text": document["text"], "file_size_in_byte": document["bytes"]}
        lines.append(json.dumps(fields | {"program_lang": LANGUAGES[str(document["language"])]}))
    runner = Path(__file__).with_name("signals_released.py")
    command = [python, str(runner), checkout]
    done = subprocess.run(command, input="\n".join(lines), capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"the released code failed:\n{done.stderr[-2000:]}")
    return [json.loads(line) for line in done.stdout.splitlines()]


class Comparison:
    """Agreement of rules' hits and of decisions, over all languages."""

    def __init__(self, show: str) -> None:
        self.show = show
        self.causes: dict[str, Counter[str]] = {}
        self.ours: Counter[str] = Counter()
        self.theirs: Counter[str] = Counter()
        self.values: dict[str, list[int]] = {}  # of each signal: how many values, and how many of them are equal
        self.tables = load_profile("reference", set(SIGNALS))

    def compare(self, documents: list[dict[str, object]], theirs: list[dict[str, object]]) -> str:
        """Counts one language's files; a line that says how often the decisions agree."""
        language, kind = str(documents[0]["language"]), str(documents[0]["kind"])
        measured, _ = measure(documents, "reference")
        columns = {name: measured.column(name).to_pylist() for name in SIGNALS}
        rules = self.tables[table_of(kind, language, self.tables)]
        signals = {name for row in theirs for name in row["signals"]}  # type: ignore[attr-defined]
        compared = [rule for rule in rules if rule.signal in signals]
        agreed = drops = differing = 0
        for row, (document, other) in enumerate(zip(documents, theirs, strict=True)):
            decisions = [False, False]
            for signal, value in other["signals"].items():  # type: ignore[attr-defined]
                if signal in SIGNALS:
                    equal = self.values.setdefault(signal, [0, 0])
                    equal[0] += 1
                    equal[1] += _equal(columns[signal][row], value)
            for rule in compared:
                value = columns[rule.signal][row]
                ours = bool(rule.fires(np.array([np.nan if value is None else value], float))[0])
                hit = rule.signal in other["hits"]  # type: ignore[operator]
                self.ours[rule.signal] += ours
                self.theirs[rule.signal] += hit
                decisions = [decisions[0] or ours, decisions[1] or hit]
                if ours != hit:
                    differing += 1
                    cause = self._cause(document, other, rule.signal, value)
                    self.causes.setdefault(rule.signal, Counter())[cause] += 1
                    if self.show == rule.signal:
                        print(f"  {document['path']}: {value} here, {other['signals'].get(rule.signal)} there: {cause}")  # type: ignore[attr-defined]
            agreed += decisions[0] == decisions[1]
            drops += decisions[1]
        missing = sorted(signal for signal in signals if signal not in SIGNALS)
        left_out = f"; not compared yet: {len(missing)} signals" if missing else ""
        shares = f"{100 * drops / len(documents):12.1f} %{100 * agreed / len(documents):13.2f} %"
        return f"{language:<12}{len(documents):6}{shares}{len(compared):8}{differing:12}{left_out}"

    def _cause(self, document: dict[str, object], other: dict[str, object], signal: str, value: float | None) -> str:
        theirs = other["signals"].get(signal)  # type: ignore[attr-defined]
        if other["errors"]:
            return "failed"
        if theirs is None or value is None:
            return "null"
        if _equal(theirs, value):
            return "rounding"
        text, language, kind, size = (document[name] for name in ("text", "language", "kind", "bytes"))
        view = DEFINITIONS["reference"].view(str(text), str(language), str(kind), int(str(size)), str(document["path"]))
        return "definition" if [len(view.code_lines), len(view.comments)] == other["split"] else "split"

    def summary(self) -> Iterator[str]:
        """One line a signal."""
        for signal, (count, equal) in sorted(self.values.items()):
            causes = ", ".join(
                f"{cause} {number}" for cause, number in self.causes.get(signal, Counter()).most_common()
            )
            share = f"{100 * equal / count:.2f} %"
            yield f"{signal:<46}{self.ours[signal]:6}{self.theirs[signal]:7}{share:>14}  {causes or '-'}"


def _equal(first: float | None, second: float | None) -> bool:
    return first == second or (first is not None and second is not None and abs(first - second) < 1e-7)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--source", action="append", required=True, metavar="DIR", help="source code; repeatable")
    parser.add_argument("--megabytes", type=float, default=8, help="of each language")
    parser.add_argument("--definitions", default="fixed", choices=sorted(DEFINITIONS))
    parser.add_argument("--reference", metavar="CHECKOUT", help="of opc_data_filtering")
    parser.add_argument("--reference_python", default=sys.executable, metavar="PATH", help="an interpreter for it")
    parser.add_argument("--files", type=int, default=150, help="of each language, for the released code")
    parser.add_argument("--show", default="", metavar="RULE", help="print each file on which a rule differs")
    flags = parser.parse_args()

    documents = sample(flags.source, flags.megabytes)
    print(f"{'language':<12}{'files':>6}{'MB':>7}  MB/s a core, {flags.definitions} definitions")
    for language, rows in documents.items():
        if rows:
            _, seconds = measure(rows, flags.definitions)
            size = sum(int(str(row["bytes"])) for row in rows) / 1e6
            print(f"{language:<12}{len(rows):6}{size:7.1f}{size / seconds:8.2f}", flush=True)
    if not flags.reference:
        return
    comparison = Comparison(flags.show)
    print(f"\n{'language':<12}{'files':>6}{'dropped there':>14}{'same decision':>15}{'rules':>8}{'differing':>12}")
    speeds = []
    for language, rows in documents.items():
        few = [row for row in rows if int(str(row["bytes"])) <= LARGEST][: flags.files]
        if few:
            theirs = released(few, flags.reference, flags.reference_python)
            print(comparison.compare(few, theirs), flush=True)
            size = sum(int(str(row["bytes"])) for row in few) / 1e6
            _, seconds = measure(few, "reference")
            _, fixed = measure(few, "fixed")
            spent = sum(float(str(row["seconds"])) for row in theirs)
            speeds.append(
                f"{language:<12}{size / spent:10.3f}{size / seconds:12.2f}{size / fixed:8.2f}{spent / fixed:9.1f}"
            )
    print(
        f"\n{'hits of its rule':<46}{'here':>6}{'there':>7}{'equal values':>14}  causes of disagreement\n"
        + "\n".join(comparison.summary())
    )
    print(f"\nMB/s a core on those files\n{'language':<12}{'released':>10}{'reference':>12}{'fixed':>8}{'times':>9}")
    print("\n".join(speeds))


if __name__ == "__main__":
    main()
