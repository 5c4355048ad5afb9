"""Redaction: how much is found and how much of it is right on the labelled cases, and how fast it is on real source.

Run: python -m tests.benchmarks.redaction [--source=DIR]

The cases are tests/beam_pipelines/redaction/redaction_cases.jsonl: all invented; "dev" were seen while the patterns
were made, "test" not. A finding is right if kind, start and end are. The speed is UTF-8 text over processor time on one
core with everything on; the text is the standard library of this Python, or the files of DIR. datatrove's formatter for
personal data (e-mail and IP addresses only) runs on the same cases and text where it is installed. Last, what a
megabyte in one comment costs of each text that was made to be slow (tests/beam_pipelines/redaction/hostile.py).
"""

import argparse
import importlib
import sysconfig
import time
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path

from opencoder_jax.beam_pipelines.languages.detect import identify
from opencoder_jax.beam_pipelines.redaction.personal import find
from opencoder_jax.beam_pipelines.redaction.redact import RedactConfig, redact, remove_notice
from tests.beam_pipelines.redaction.hostile import UNITS
from tests.beam_pipelines.redaction.redaction_cases import cases, scores

MEGABYTES = 50


def sources(root: Path) -> list[tuple[str, str]]:
    """The first texts below a folder and their languages, in the order of their paths, up to `MEGABYTES`."""
    texts, size = [], 0.0
    for file in sorted(root.rglob("*")):
        language = identify(file.name)
        if language.kind in ("code", "data") and file.is_file() and "site-packages" not in file.parts:
            try:
                text = file.read_text(encoding="utf-8")
            except UnicodeDecodeError:
                continue
            texts.append((text, language.name))
            size += len(text.encode()) / 1e6
            if size > MEGABYTES:
                break
    return texts


def seconds(work: Callable[[str, str], object], texts: Iterable[tuple[str, str]]) -> float:
    """The processor seconds that `work` takes for all texts and their languages."""
    start = time.process_time()
    for text, language in texts:
        work(text, language)
    return time.process_time() - start


def comment_of(unit: str) -> str:
    """A megabyte of it in one comment."""
    return f"/*{unit * (1_000_000 // len(unit))}*/"


def peer() -> Callable[[str], str] | None:
    """datatrove's formatter, which writes placeholders for e-mail and public IP addresses."""
    try:
        formatters = importlib.import_module("datatrove.pipeline.formatters")
    except ImportError:
        return None
    formatter = formatters.PIIFormatter(email_replacement="\0email\0", ip_replacement="\0ip_address\0")
    return lambda text: str(formatter.format(text))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--source", type=Path, default=Path(sysconfig.get_path("stdlib")), help="files to time it on")
    texts = sources(parser.parse_args().source)
    size = sum(len(text.encode()) for text, _ in texts) / 1e6

    every = cases()
    print(f"{len(every)} cases in {len({case.language for case in every})} languages")
    print("split  kind        right  wrong  missed  precision  recall")
    for split in ("dev", "test"):
        for kind, score in scores(split).items():
            rates = f"{score.precision:9.3f}  {score.recall:6.3f}"
            print(f"{split:5}  {kind:10}  {score.right:5}  {score.wrong:5}  {score.missed:6}  {rates}")

    config = RedactConfig()
    print(f"{len(texts)} files, {size:.1f} MB")
    print(f"notices     {size / seconds(remove_notice, texts):7.1f} MB/s a core")
    print(f"findings    {size / seconds(find, texts):7.1f} MB/s a core")
    print(
        f"everything  {size / seconds(lambda text, language: redact(text, language, config), texts):7.1f} MB/s a core"
    )

    hostile = {unit: seconds(partial(redact, config=config), [(comment_of(unit), "C")]) for unit in UNITS}
    slowest = sorted(hostile, key=hostile.__getitem__)[:-6:-1]
    print("a megabyte of  " + ",  ".join(f"{unit!r} {hostile[unit]:.2f} s" for unit in slowest))

    format_text = peer()
    if format_text is None:
        print("datatrove isn't installed: no peer (pip install datatrove)")
        return
    for kind in ("email", "ip_address"):
        right = wrong = missed = 0
        for case in every:
            found = format_text(case.text).count(f"\0{kind}\0")
            there = sum(finding.kind == kind for finding in case.expected)
            right += min(found, there)
            wrong += max(0, found - there)
            missed += max(0, there - found)
        rates = f"precision {right / (right + wrong or 1):.3f}, recall {right / (right + missed or 1):.3f}"
        print(f"datatrove   {kind}: {rates} (by counts a case)")
    print(f"datatrove   {size / seconds(lambda text, _: format_text(text), texts):7.1f} MB/s a core")


if __name__ == "__main__":
    main()
